"""How sure a figure of one run is: percentile bootstrap over its challenges (Efron & Tibshirani 1993, chapter 13).

Challenges are drawn with replacement, the same draws for every miner, so that two miners can be compared pair by pair.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["Interval", "accuracies", "draws", "interval", "mccs"]

Interval = list[float]
"""[low, high]: a list, since it goes into JSON as it is."""
F64 = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]

_LEAST = 10  # challenges; below this an interval says nothing


def draws(count: int, replicates: int, seed: int) -> Indices:
    """Resampled challenge positions, ``[replicates, count]``, sorted within each row.

    Sorted, because rolling windows and moving averages need the order of a run: a row is the run with some
    challenges left out and some seen twice.
    """
    rng = np.random.default_rng(seed)
    return np.sort(rng.integers(0, max(1, count), size=(replicates, count)), axis=1)


def interval(samples: Sequence[float] | F64, *, count: int) -> Interval | None:
    """The central 95 % of `samples`; None where `count` challenges are too few for that to mean anything."""
    if count < _LEAST:
        return None
    low, high = np.percentile(np.asarray(samples, np.float64), [2.5, 97.5])
    return [float(low), float(high)]


def accuracies(
    truth: npt.NDArray[np.bool_], said: npt.NDArray[np.bool_], use: npt.NDArray[np.bool_], at: Indices
) -> F64:
    """Accuracy of each resample, over the challenges in `use`; 0 where none of them was drawn."""
    weight = use[at].sum(axis=1)
    right: F64 = ((truth == said) & use)[at].sum(axis=1) / np.maximum(weight, 1)
    return right


def mccs(truth: npt.NDArray[np.bool_], said: npt.NDArray[np.bool_], use: npt.NDArray[np.bool_], at: Indices) -> F64:
    """Matthews correlation of each resample over the challenges in `use`; 0 where a margin of its table is empty."""

    def cell(mask: npt.NDArray[np.bool_]) -> F64:
        counts: F64 = (mask & use)[at].sum(axis=1).astype(np.float64)
        return counts

    tp, tn = cell(truth & said), cell(~truth & ~said)
    fp, fn = cell(~truth & said), cell(truth & ~said)
    scale = np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    result: F64 = np.where(scale > 0, (tp * tn - fp * fn) / np.where(scale > 0, scale, 1.0), 0.0)
    return result
