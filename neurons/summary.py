"""A run in figures: what ``report.json`` holds, one pure function of the exchanges, the ledger and the traces.

Everything in it follows from seed, data and miners, apart from the measured times, which live under ``run`` and under
the keys in :data:`TIMES`. :func:`stable` takes those out, so that two runs can be compared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from neurons.intervals import accuracies, draws, interval, mccs
from neurons.ledger import Ledger
from neurons.rewards import Profile
from neurons.scores import Outcome, breakdown
from neurons.scores import summarise as figures_of
from neurons.simulation import Exchange

__all__ = ["SCHEMA", "SMOKE_TEST", "TIMES", "About", "Trace", "Traces", "stable", "summarise"]

SCHEMA = 1
TIMES = frozenset({"latency_ms", "ms", "run"})
"""Keys whose values are measured or depend on the machine."""

_REPLICATES = 1000
_REPLAYS = (50, 200)  # a replay walks the reward functions through a whole run, so there are fewer of them
_STEPS = 60_000  # paid answers in all replays together that are worth waiting for, a few seconds


@dataclass(frozen=True, slots=True)
class Trace:
    """How a miner came to one answer: ``Prediction.route`` and ``Prediction.experts``."""

    route: tuple[str, ...]
    experts: Mapping[str, float] = field(default_factory=dict)


Traces = Mapping[str, Mapping[int, Trace]]
"""By miner, then by the challenge's index; miners that do not tell are absent."""


@dataclass(frozen=True, slots=True)
class About:
    """What a report says of its run besides figures.

    Attributes:
        seed: of everything.
        data: which media were used, one sentence.
        smoke_test: the project's own demo media were used.
        reference: the miner whose mistakes are shown and who is compared with the others; empty takes the first.
        routes_note: where the routes come from.
        skipped: media files that could not be used, by name, with the reason.
        run: command, versions, time of start, seconds.
    """

    seed: int
    data: str
    smoke_test: bool = False
    reference: str = ""
    routes_note: str = ""
    skipped: Mapping[str, str] = field(default_factory=dict)
    run: Mapping[str, Any] = field(default_factory=dict)


SMOKE_TEST = (
    "Smoke test: these media are the project's own demo set, a few photographs that come with its dependencies and "
    "fakes made from them. The figures show that the whole way works; the weights were chosen for generators, not for "
    "such fakes, and nothing here predicts earnings. Give a folder of your own with --data for that."
)


def summarise(ledger: Ledger, about: About, traces: Traces | None = None) -> dict[str, Any]:
    """The whole report as plain JSON values; miners in the ledger's order.

    Args:
        ledger: after the last challenge.
        about: the run's particulars.
        traces: routes and expert scores, where they are known.
    """
    names, profile = ledger.names, ledger.profile
    reference = about.reference or names[0]
    traces = traces or {}
    at = draws(len(ledger.exchanges), _REPLICATES, about.seed)
    rewards = _reward_samples(ledger, profile, about.seed)
    paid = {p.name: _paid(ledger, p) for p in ledger.profiles}
    miners = {}
    for name in names:
        routes = Counter(" → ".join(t.route) for t in traces.get(name, {}).values())
        miners[name] = {
            **paid[profile.name][name],
            **_miner(ledger, name, at, rewards[name]),
            "profiles": {p: figures[name] for p, figures in paid.items()},
            "routes": dict(sorted(routes.items(), key=lambda pair: (-pair[1], pair[0]))),
        }
    return {
        "schema": SCHEMA,
        "profile": profile.name,
        "profiles": [p.name for p in ledger.profiles],
        "seed": about.seed,
        "reference": reference,
        "data": {
            "description": about.data,
            "smoke_test": about.smoke_test,
            "note": SMOKE_TEST if about.smoke_test else "",
            "skipped": dict(sorted(about.skipped.items())),
        },
        "challenges": _challenges(ledger.exchanges),
        "miners": miners,
        "comparison": _comparison(ledger, profile, reference, rewards),
        "routes_note": about.routes_note,
        "rows": [_row(ledger, k, traces) for k in range(len(ledger.exchanges))],
        "run": dict(about.run),
    }


def stable(report: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a report that must be the same for the same seed, data and miners."""

    def strip(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {k: strip(v) for k, v in value.items() if k not in TIMES}
        return [strip(v) for v in value] if isinstance(value, list) else value

    result: dict[str, Any] = strip(report)
    return result


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else 0.0


def _paid(ledger: Ledger, profile: Profile) -> dict[str, dict[str, float]]:
    """What the miners get under one profile."""
    scores = ledger.scores[profile.name]
    weights = scores.weights()
    rewards = ledger.rewards[profile.name]
    return {
        name: {
            "reward": _mean(rewards[name]),
            "reward_last": rewards[name][-1] if rewards[name] else 0.0,
            "score": scores.values.get(name, 0.0),
            "weight": weights.get(name, 0.0),
        }
        for name in ledger.names
    }


def _reward_samples(ledger: Ledger, profile: Profile, seed: int) -> dict[str, list[float]]:
    """Mean reward of every miner in each resampled run, the same resamples for all."""
    samples: dict[str, list[float]] = {name: [] for name in ledger.names}
    count = len(ledger.exchanges)
    least, most = _REPLAYS
    replays = max(least, min(most, _STEPS // max(1, count * len(ledger.names))))
    for row in draws(count, replays, seed).tolist():
        again = Ledger(ledger.names, (profile,))
        for k in row:
            again.pay(ledger.exchanges[k])
        for name in ledger.names:
            samples[name].append(_mean(again.rewards[profile.name][name]))
    return samples


def _miner(ledger: Ledger, name: str, at: npt.NDArray[np.intp], rewards: Sequence[float]) -> dict[str, Any]:
    exchanges = ledger.exchanges
    replies = [e.replies[name] for e in exchanges]
    outcomes = ledger.outcomes(name)
    figures = figures_of(outcomes)
    truth = np.array([e.label > 0 for e in exchanges], bool)
    said = np.array([r.p_fake > 0.5 for r in replies], bool)  # numpy.round's rule: exactly 0.5 is real
    use = np.array([r.answer is not None for r in replies], bool)
    return {
        "mcc": figures.mcc,
        "accuracy": figures.accuracy if figures.accuracy is not None else 0.0,
        "auc": figures.auc,
        "brier": figures.brier,
        "interval": {
            "reward": interval(rewards, count=len(exchanges)),
            "mcc": interval(mccs(truth, said, use, at), count=figures.answered),
            "accuracy": interval(accuracies(truth, said, use, at), count=figures.answered),
        },
        "asked": figures.challenges,
        "answered": figures.answered,
        "failures": dict(sorted(Counter(r.failure for r in replies if r.failure).items())),
        "latency_ms": _latency([r.seconds for r in replies if r.answer is not None]),
        "by": _slices(outcomes),
    }


def _latency(seconds: Sequence[float]) -> dict[str, float | None]:
    if not seconds:
        return {"p50": None, "p99": None, "max": None}
    p50, p99, top = np.percentile(np.asarray(seconds) * 1e3, [50, 99, 100])
    return {"p50": round(float(p50), 3), "p99": round(float(p99), 3), "max": round(float(top), 3)}


def _slices(outcomes: Sequence[Outcome]) -> dict[str, dict[str, dict[str, Any]]]:
    """The figures of each modality, label, source and level."""
    return {
        by: {
            value: {"count": f.challenges, "answered": f.answered, "accuracy": f.accuracy, "auc": f.auc}
            for value, f in groups.items()
        }
        for by, groups in breakdown(outcomes).items()
    }


def _challenges(exchanges: Sequence[Exchange]) -> dict[str, Any]:
    modality = Counter(e.modality for e in exchanges)
    return {
        "count": len(exchanges),
        "image": modality["image"],
        "video": modality["video"],
        "labels": dict(sorted(Counter(e.label.name.lower() for e in exchanges).items())),
        "levels": dict(sorted(Counter(str(e.issued.level) for e in exchanges).items())),
    }


def _comparison(
    ledger: Ledger, profile: Profile, reference: str, samples: Mapping[str, Sequence[float]]
) -> dict[str, dict[str, Any]]:
    """Reward of the reference minus that of each other miner, over the same resampled challenges."""
    mine = _mean(ledger.rewards[profile.name][reference])
    gained = {}
    for name in ledger.names:
        if name != reference:
            differences = np.asarray(samples[reference]) - np.asarray(samples[name])
            gained[name] = {
                "reward": mine - _mean(ledger.rewards[profile.name][name]),
                "interval": interval(differences, count=len(ledger.exchanges)),
            }
    return gained


def _row(ledger: Ledger, k: int, traces: Traces) -> dict[str, Any]:
    exchange = ledger.exchanges[k]
    issued = exchange.issued
    answers = {}
    for name, reply in exchange.replies.items():
        trace = traces.get(name, {}).get(issued.index)
        answers[name] = {
            "answer": list(reply.answer) if isinstance(reply.answer, tuple) else reply.answer,
            "failure": reply.failure,
            "ms": round(reply.seconds * 1e3, 3),
            "reward": ledger.rewards[ledger.profile.name][name][k],
            **({"route": list(trace.route), "experts": dict(trace.experts)} if trace else {}),
        }
    return {
        "index": issued.index,
        "sha256": exchange.sha256,
        "bytes": exchange.size,
        "modality": issued.modality,
        "label": exchange.label.name.lower(),
        "level": issued.level,
        "source": issued.item.source,
        "generator": issued.item.generator,
        "file": issued.item.path.name,
        "miners": answers,
    }
