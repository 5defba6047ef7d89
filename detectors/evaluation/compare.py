"""Is one detector better than another? Paired bootstrap over groups on the same views (Efron & Tibshirani 1993)."""

from __future__ import annotations

from typing import Any

import numpy as np

from detectors.errors import ConfigError
from detectors.evaluation.measures import Measures, interval
from detectors.evaluation.report import ROUNDS, clean
from detectors.evaluation.scores import Scores

__all__ = ["FIGURES", "common", "paired"]

FIGURES = ("auc", "ap", "balanced_accuracy", "mcc", "brier", "ece", "sn34_score", "three_class_mcc")
"""What is compared; of ``brier`` and ``ece`` less is better."""


def common(a: Scores, b: Scores) -> tuple[Scores, Scores]:
    """The views that both answered, in the same order.

    Raises:
        ConfigError: they share no view, one stands twice, or labels, levels or groups differ: two runs with other data,
            seed or level.
    """
    for scores in (a, b):
        if len(np.unique(scores.keys)) != len(scores):
            raise ConfigError("a view stands twice in one set of predictions")
    _, left, right = np.intersect1d(a.keys, b.keys, return_indices=True)
    if not len(left) and len(a) and len(b):
        raise ConfigError("the two sets of predictions share no view")
    order = np.sort(left)
    first, second = a.part(order), b.part(right[np.argsort(left)])
    same = ("labels", "levels", "groups")
    if not all(np.array_equal(getattr(first, name), getattr(second, name)) for name in same):
        raise ConfigError("the two sets of predictions differ in label, level or group of a view: not the same run")
    both = first.answered & second.answered
    return first.part(both), second.part(both)


def paired(a: Scores, b: Scores, *, rounds: int = ROUNDS, seed: int = 0) -> dict[str, Any]:
    """Figures of both, their difference a − b and its 95 % interval, over the views that both answered.

    Args:
        a, b: two detectors' scores of the same views.
        rounds: resamples of groups, the same for both.
        seed: of the resampling.

    Returns:
        ``n``, and for each of :data:`FIGURES` ``{"a", "b", "difference", "interval"}``; None where undefined.

    Raises:
        ConfigError: as :func:`common`.
    """
    first, second = (Measures(scores) for scores in common(a, b))
    points = first.point(), second.point()
    samples = first.resampled(rounds, seed), second.resampled(rounds, seed)
    rows: dict[str, Any] = {"n": first.n}
    for name in FIGURES:
        rows[name] = {
            "a": points[0][name],
            "b": points[1][name],
            "difference": points[0][name] - points[1][name],
            "interval": interval(samples[0][name] - samples[1][name]),
        }
    return dict(clean(rows))
