"""What the pages of the console show, as plain values for the templates; and the words and units they show it in."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from detectors.card import Card
from detectors.errors import DetectorError
from detectors.store import Store
from neurons.console.bridge import Ops
from neurons.estimate import LEAST_LABELS
from neurons.operations import SwapReport
from neurons.recent import SLOT_S, Traffic

__all__ = ["LABELS", "Version", "access", "challenges", "environment", "overview", "versions", "weights"]

LABELS: Final = ("real", "synthetic", "semi-synthetic")
"""Words for :class:`~detectors.types.Label`."""

_WIDTH, _HEIGHT = 300.0, 56.0  # of a sparkline, in its own units
_SHOWN_CHALLENGES = 60
_SHOWN_REFUSALS = 20
_SHOWN_REPORTS = 10


def environment() -> Environment:
    """The templates: everything escaped, a missing value an error."""
    env = Environment(
        loader=PackageLoader("neurons.console"),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters |= {
        "ago": _ago,
        "clock": _clock,
        "duration": _duration,
        "mib": lambda count: f"{count / 2**20:,.0f} MiB",
        "ms": _milliseconds,
        "pct": lambda share: f"{100 * share:.0f} %",
        "short": _short,
        "signed": lambda value: f"{value:+.3f}",
        "zip": zip,
    }
    env.globals |= {"LABELS": LABELS, "here": ""}
    return env


@dataclass(frozen=True, slots=True)
class Version:
    """One set of weights in the store.

    Attributes:
        card: its card.
        active: the pointer names it.
        serving: the running miner answers with it.
    """

    card: Card
    active: bool
    serving: bool


def overview(ops: Ops) -> dict[str, Any]:
    """Health, traffic, routes, the running reward."""
    traffic = ops.recent.traffic(10.0)
    routes = ops.recent.routes()
    total = sum(count for _, count in routes)
    answered = [float(count) for count in traffic.answered_by_slot]
    return {
        "health": ops.health(),
        "facts": dict(ops.facts),
        "traffic": traffic,
        "last_minute": ops.recent.traffic(1.0),
        "rate": _rate(traffic),
        "answered_bars": _bars(answered),
        "answered_most": max(answered) / SLOT_S,
        "latency_bars": _bars(traffic.p50_by_slot),
        "latency_most": max((ms for ms in traffic.p50_by_slot if ms is not None), default=None),
        "drawing": (_WIDTH, _HEIGHT, 0.8 * _WIDTH / len(answered)),
        "routes": [(route, count, count / total) for route, count in routes],
        "estimate": ops.recent.estimate(),
        "least_labels": LEAST_LABELS,
    }


def challenges(ops: Ops) -> dict[str, Any]:
    """The last ones, newest first."""
    entries = ops.recent.entries(_SHOWN_CHALLENGES)
    judged = [entry.right for entry in entries if entry.right is not None]
    return {
        "entries": entries,
        "labelled": len(judged),
        "right": sum(judged),
        "keeps_pixels": ops.recent.keeps_pixels,
        "now": time.time(),
    }


def weights(ops: Ops) -> dict[str, Any]:
    """The store, the shadow, what became of swaps."""
    found, problem = versions(ops)
    reports = () if ops.reloads is None else tuple(ops.reloads.reports)[-_SHOWN_REPORTS:][::-1]
    return {
        "versions": found,
        "problem": problem,
        "store": str(ops.store),
        "follows": ops.reloads is not None,
        "reports": reports,
        "verdict": _verdict(reports),
        "has_shadows": ops.shadows is not None,
        "shadow": None if ops.shadows is None else ops.shadows.report(),
        "detector": ops.health().detector,
        "now": time.time(),
    }


def versions(ops: Ops) -> tuple[list[Version], str]:
    """Every version in the store, and one sentence where the store cannot be read."""
    store = Store(ops.store)
    serving = set(ops.health().weights.values())
    try:
        pointer = store.pointer()
        cards = store.cards()
    except DetectorError as error:
        return [], str(error)
    return [Version(card, pointer.get(card.name) == card.version, card.key in serving) for card in cards], ""


def access(ops: Ops) -> dict[str, Any]:
    """Who was let in and who was not."""
    found = ops.recent.access()
    return {
        "counts": [(tier, outcome, count) for (tier, outcome), count in found.counts.items()],
        "callers": found.callers,
        "refusals": found.refusals[:_SHOWN_REFUSALS],
        "now": time.time(),
    }


def _verdict(reports: Sequence[SwapReport]) -> str:
    if not reports:
        return ""
    last = reports[0]
    if last.accepted:
        return f"The last swap was taken: {last.after} answers now."
    return f"The last swap was refused ({last.stage}): {last.reason} {last.after} answers on."


def _rate(traffic: Traffic) -> float:
    """Answers a second."""
    return traffic.answered / max(traffic.seconds, SLOT_S)


def _bars(values: Sequence[float | None]) -> list[tuple[float, float, float]]:
    """(x, y, height) of one bar a slot with something in it; the highest fills the drawing."""
    most = max((value for value in values if value is not None), default=0.0) or 1.0
    step = _WIDTH / len(values)
    heights = ((i * step, _HEIGHT * value / most) for i, value in enumerate(values) if value)
    return [(round(x, 2), round(_HEIGHT - height, 2), round(height, 2)) for x, height in heights]


def _milliseconds(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.1f} ms" if value < 100 else f"{value:,.0f} ms"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _ago(at: float, now: float) -> str:
    return f"{_duration(max(0.0, now - at))} ago"


def _clock(at: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at))


def _short(text: str, head: int = 6, tail: int = 4) -> str:
    return text if len(text) <= head + tail + 1 else f"{text[:head]}…{text[-tail:]}"
