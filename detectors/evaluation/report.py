"""From scores to the figures of ``deepfake-miner evaluate``: plain dicts that go into JSON as they are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from detectors.evaluation.measures import BINS, Measures, Ranking, interval, said_fake
from detectors.evaluation.scores import Bool, Scores
from detectors.types import Label

__all__ = ["ROUNDS", "brief", "clean", "figures", "reliability", "report"]

ROUNDS = 1000
"""Resamples of a 95 % interval."""

_LEAST_GROUPS = 5  # below this an interval says nothing
_CLASSES = tuple(label.name.lower() for label in Label)


def report(scores: Scores, *, rounds: int = ROUNDS, seed: int = 0) -> dict[str, Any]:
    """Everything that scores alone can tell.

    Args:
        scores: of one detector.
        rounds: resamples of groups for the intervals.
        seed: of the resampling.

    Returns:
        The top-level figures of :func:`figures`, ``intervals`` (95 %, percentile bootstrap over groups), ``by_source``
        and ``by_generator`` (against all of the other class), ``by_content``, ``by_level`` and ``by_modality`` (each
        within itself), ``over_sources`` (means of the sources' shares), ``experts`` and ``reliability``. A figure that
        the data do not define is None.
    """
    measures = Measures(scores)
    by_source = _against_the_rest(scores, "sources", rounds, seed)
    levels = {("none" if k < 0 else str(k)): scores.levels == k for k in np.unique(scores.levels).tolist()}
    kinds = {"image": ~scores.video, "video": scores.video}
    found = {
        **_figures(scores, measures),
        "intervals": _intervals(measures, rounds, seed),
        "by_source": by_source,
        "over_sources": _over_sources(by_source),
        "tnr_by_real_source": _only_real(by_source),
        "by_content": _within(scores, scores.contents.rows()),
        "by_generator": _against_the_rest(scores, "generators", rounds, seed),
        "by_level": _within(scores, levels),
        "by_modality": {
            name: {**figures(scores.part(rows)), "intervals": _intervals(Measures(scores.part(rows)), rounds, seed)}
            for name, rows in kinds.items()
            if rows.any()
        },
        "experts": {name: brief(scores.expert(name)) for name in scores.experts},
        "reliability": reliability(scores),
    }
    return _as_object(clean(found))


def figures(scores: Scores) -> dict[str, Any]:
    """``n`` views, how many ``answered``, their classes, and every figure of :class:`Measures` over the answered."""
    return _figures(scores, Measures(scores))


def _figures(scores: Scores, measures: Measures) -> dict[str, Any]:
    point = measures.point()
    three = point.pop("three_class_mcc")
    return {
        "n": len(scores),
        "answered": measures.n,
        "groups": measures.groups,
        **_counts(scores),
        **point,
        "three_class": {"mcc": three, "classes": list(_CLASSES), "confusion": measures.confusion.tolist()},
    }


def brief(scores: Scores) -> dict[str, Any]:
    """The short row of a table: counts, AUC, balanced accuracy, TNR, TPR, MCC, Brier, ECE."""
    found = figures(scores)
    names = ("n", "real", "fake", "auc", "balanced_accuracy", "tnr", "tpr", "mcc", "brier", "ece")
    return _as_object(clean({name: found[name] for name in names}))


def reliability(scores: Scores) -> list[dict[str, Any]]:
    """Mean P(fake) against the share of fakes in equal-width bins of P(fake); empty bins have None."""
    scores = scores.part(scores.answered)
    index = np.minimum((scores.p_fake * BINS).astype(np.int64), BINS - 1)
    rows = []
    for k in range(BINS):
        here = index == k
        count = int(here.sum())
        rows.append(
            {
                "low": k / BINS,
                "high": (k + 1) / BINS,
                "n": count,
                "mean_p_fake": float(scores.p_fake[here].mean()) if count else None,
                "share_fake": float(scores.fake[here].mean()) if count else None,
            }
        )
    return rows


def clean(value: Any) -> Any:
    """The same structure with None for every NaN and infinity, and plain Python numbers: fit for strict JSON."""
    if isinstance(value, Mapping):
        return {str(k): clean(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [clean(v) for v in value]
    if isinstance(value, np.generic):
        return clean(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _as_object(value: Any) -> dict[str, Any]:
    return dict(value)


def _counts(scores: Scores) -> dict[str, int]:
    classes = {name: int((scores.labels == k).sum()) for k, name in enumerate(_CLASSES)}
    return {**classes, "fake": int(scores.fake.sum())}


def _intervals(measures: Measures, rounds: int, seed: int) -> dict[str, list[float] | None]:
    if measures.groups < _LEAST_GROUPS:
        return dict.fromkeys(measures.point())
    return {name: interval(values) for name, values in measures.resampled(rounds, seed).items()}


def _within(scores: Scores, parts: Mapping[str, Bool]) -> dict[str, Any]:
    return {name: figures(scores.part(rows)) for name, rows in parts.items() if rows.any()}


def _against_the_rest(scores: Scores, name: Literal["sources", "generators"], rounds: int, seed: int) -> dict[str, Any]:
    """Each name's own views; AUC against all views of the other class. A name with both classes: within itself."""
    scores = scores.part(scores.answered)
    column = scores.sources if name == "sources" else scores.generators
    return {value: _one_of_many(scores, rows, rounds, seed) for value, rows in column.rows().items()}


def _one_of_many(scores: Scores, rows: Bool, rounds: int, seed: int) -> dict[str, Any]:
    fake, p_fake = scores.fake, scores.p_fake
    right = said_fake(p_fake) == fake
    mixed = fake[rows].any() and not fake[rows].all()
    opponents = rows if mixed else rows | (fake != fake[rows][0])
    shares = {name: float(right[rows & of].mean()) for name, of in (("tnr", ~fake), ("tpr", fake)) if (rows & of).any()}
    own = scores.part(rows)
    return {
        "n": int(rows.sum()),
        "groups": len(np.unique(own.groups)),
        **_counts(own),
        "auc": Ranking(p_fake[opponents], fake[opponents]).auc(),
        "right": float(right[rows].mean()),
        "right_interval": _share_interval(right[rows], own, rounds, seed),
        "mean_p_fake": float(own.p_fake.mean()),
        **shares,
    }


def _share_interval(right: Bool, scores: Scores, rounds: int, seed: int) -> list[float] | None:
    """95 % of the share judged right, resampling groups."""
    _, group = np.unique(scores.groups, return_inverse=True)
    sizes, hits = np.bincount(group), np.bincount(group, weights=right)
    if len(sizes) < _LEAST_GROUPS:
        return None
    rng = np.random.default_rng(seed)
    values = np.empty(rounds)
    for k in range(rounds):
        chosen = rng.integers(len(sizes), size=len(sizes))
        values[k] = hits[chosen].sum() / sizes[chosen].sum()
    return interval(values)


def _over_sources(by_source: Mapping[str, Any]) -> dict[str, Any]:
    """Means over sources, as challenges are drawn evenly over them."""
    tnr = [row["tnr"] for row in by_source.values() if "tnr" in row]
    tpr = [row["tpr"] for row in by_source.values() if "tpr" in row]
    means = [float(np.mean(values)) if values else math.nan for values in (tnr, tpr)]
    return {"tnr": means[0], "tpr": means[1], "balanced_accuracy": sum(means) / 2}


def _only_real(by_source: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: {"n": row["real"], "tnr": row["tnr"], "interval": None if row["fake"] else row["right_interval"]}
        for name, row in by_source.items()
        if "tnr" in row
    }
