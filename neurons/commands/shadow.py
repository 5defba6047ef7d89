"""``deepfake-miner weights shadow``: orders for the miners that follow a store, and what they report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from detectors import paths
from detectors.errors import ConfigError, WeightsError
from neurons.noticeboard import Noticeboard
from neurons.operations import ShadowPlan
from neurons.shadow_orders import TOPIC, order_of

__all__ = ["lines", "order", "reports", "stop"]


def order(key: str, root: Path | None, *, count: int, promote: bool, profile: str) -> str:
    """Has every miner that follows the store run the candidate in its shadow.

    Raises:
        WeightsError: the key is none, or what is active, or its weights do not load; or the store cannot be written.
        ConfigError: there is no such reward profile.
    """
    from detectors.camo_config import did_you_mean  # noqa: PLC0415
    from detectors.store import Store  # noqa: PLC0415 - torch, which the reports need not wait for
    from neurons.rewards import PROFILES  # noqa: PLC0415
    from neurons.shadow_candidate import check  # noqa: PLC0415

    if profile not in PROFILES:
        raise ConfigError(did_you_mean(profile, tuple(PROFILES), "reward profile"))
    root = root or paths.weights()
    check(Store(root), key)
    Store(root).load(key)
    return _say(root, ShadowPlan(key, count, promote, profile), f"{key} for {count} challenges")


def stop(root: Path | None) -> str:
    """Has them end what is in their shadow; raises WeightsError where the store cannot be written."""
    return _say(root or paths.weights(), None, "the end of what is in the shadow")


def _say(root: Path, plan: ShadowPlan | None, what: str) -> str:
    board = Noticeboard(root)
    if not board.order(TOPIC, order_of(plan)):
        raise WeightsError(f"{root}: cannot be written, so no miner can be told")
    miners = [str(notice.pid) for notice in board.notices(TOPIC)]
    if not miners:
        return f"ordered {what}, but no running miner follows {root}; one that starts later does not take it up"
    return f"ordered {what}; told: process {', '.join(miners)}. `weights shadow --report` shows how it goes"


def reports(root: Path | None) -> list[dict[str, Any]]:
    """``{"pid", "order", "report"}`` of each living miner; `report` is null where nothing was in its shadow yet."""
    return [{"pid": notice.pid, **notice.said} for notice in Noticeboard(root or paths.weights()).notices(TOPIC)]


def lines(found: list[dict[str, Any]]) -> Iterator[str]:
    """The same for people."""
    if not found:
        yield "no running miner follows this store"
    for miner in found:
        report = miner.get("report")
        if report is None:
            yield f"process {miner['pid']}: nothing was in the shadow yet"
        else:
            yield from _of_miner(miner["pid"], report)


def _of_miner(pid: int, report: Mapping[str, Any]) -> Iterator[str]:
    plan = report["plan"]
    judged = f"{report['judged']} of {plan['count']} judged, {report['failed']} failed, {report['skipped']} skipped"
    yield f"process {pid}: {plan['key']} {report['state']}, {judged}"
    if report["agreement"] is not None:
        mean = report["mean_difference"]
        moved = "" if mean is None else f", P(fake) {mean:+.4f} on average"
        yield f"  agreement {report['agreement']:.1%}{moved}"
        yield f"  median {_ms(report['active_ms'])} active, {_ms(report['candidate_ms'])} candidate (on one thread)"
    if report["reward_gain"] is not None:
        around = report["reward_difference"]
        sure = "too few for an interval" if around is None else f"95 % interval {around[0]:+.4f} to {around[1]:+.4f}"
        yield f"  reward {report['reward_gain']:+.4f} a step ({sure}), {report['labelled']} labelled, {plan['profile']}"
    if report["reason"]:
        yield f"  {report['reason']}"


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f} ms"
