"""The numbers of ``merge: learned``: weights by least cross-entropy, and how much disagreement takes off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import Bounds, minimize
from scipy.special import expit

from detectors.calibration.checks import F64, codes, pairs, weighing
from detectors.calibration.fits import folds_of, log_losses, simplest
from detectors.errors import ConfigError

__all__ = ["MergeFit", "fit_merge", "fit_spread", "merged"]

Point = np.ndarray[tuple[int], np.dtype[np.float64]]

_MAX_INTERCEPT = 100.0
_MAX_SPREAD = 10.0


@dataclass(frozen=True, slots=True)
class MergeFit:
    """What ``merge: learned`` needs in ``configs/camo.yaml``.

    Attributes:
        weights: at least zero, one per expert, sum 1.
        slope: above zero, of the weighted mean of logits.
        intercept: added to it.
        spread: at least zero, see :func:`detectors.merge.learned`; 0 ignores disagreement.
    """

    weights: tuple[float, ...]
    slope: float
    intercept: float
    spread: float = 0.0


def merged(logits: npt.ArrayLike, weights: Sequence[float], spread: float = 0.0) -> F64:
    """The weighted mean of the logits that are there, shrunk by their disagreement; ``float64 [N]``.

    The same arithmetic as :func:`detectors.merge.learned` before its calibration, for many rows at once.

    Args:
        logits: ``[N, E]``; NaN where an expert did not run, never a whole row.
        weights: one per expert.
        spread: see :func:`detectors.merge.learned`.
    """
    mean, deviation = _moments(np.asarray(logits, np.float64), np.asarray(weights, np.float64))
    return np.asarray(mean / (1.0 + spread * deviation), np.float64)


def fit_merge(
    logits: npt.ArrayLike, labels: npt.ArrayLike, *, pull: float = 1e-3, weights: npt.ArrayLike | None = None
) -> MergeFit:
    """The weights, slope and intercept of :func:`detectors.merge.learned` of least cross-entropy.

    Args:
        logits: ``[N, E]``, calibrated, of E experts; NaN where an expert did not run. Fit on samples that the experts
            were not trained on.
        labels: ``[N]``, 1 fake and 0 real, both present.
        pull: strength of the pull towards equal weights (on log weights): settles ties, and keeps an expert that ran
            on a handful of samples from winning by luck.
        weights: of the samples, ``[N]``, at least 0; None counts all alike.

    Raises:
        ConfigError: shapes differ, a row or a column without any logit, or one class missing.
        PredictionError: an infinite logit.
    """
    z = np.asarray(logits, np.float64)
    if z.ndim != 2 or z.shape[1] < 1:
        raise ConfigError(f"needs logits [N, E], not {z.shape}")
    there = ~np.isnan(z)
    if not there.any(axis=1).all() or not there.any(axis=0).all():
        raise ConfigError("every sample needs an expert that ran, and every expert a sample")
    z = np.where(there, z, 0.0)
    _, y = pairs(z.sum(axis=1), labels)
    w = weighing(weights, len(z))
    scale = max(float(np.abs(z).max()), 1e-12)
    z = z / scale

    def mean_of(x: Point) -> tuple[F64, F64]:
        share = np.exp(x[2:]) * there
        share /= share.sum(axis=1, keepdims=True)
        return share, (share * z).sum(axis=1)

    def loss(x: Point) -> np.float64:
        logit = np.exp(x[0]) * mean_of(x)[1] + x[1]
        return np.float64(np.mean(w * log_losses(logit, y)) + pull * np.mean(x[2:] ** 2))

    def gradient(x: Point) -> F64:
        share, mean = mean_of(x)
        slope = np.exp(x[0])
        error = w * (expit(slope * mean + x[1]) - y)
        moved = (error[:, None] * slope * share * (z - mean[:, None])).mean(axis=0)
        return np.concatenate(([np.mean(error * slope * mean), np.mean(error)], moved + 2 * pull * x[2:] / len(moved)))

    start: Point = np.zeros(2 + z.shape[1])
    start[0] = np.log(scale)
    # slopes from 0.01 to 100 for the logits as they came; weights at most e^12 apart
    low = [np.log(scale) - np.log(100), -_MAX_INTERCEPT, *[-6.0] * z.shape[1]]
    high = [np.log(scale) + np.log(100), _MAX_INTERCEPT, *[6.0] * z.shape[1]]
    options: Any = {"maxiter": 1000, "ftol": 1e-13, "gtol": 1e-9}
    found = minimize(loss, start, jac=gradient, method="L-BFGS-B", bounds=Bounds(low, high), options=options).x
    shares = np.exp(found[2:])
    normalised = tuple(float(v) for v in shares / shares.sum())
    return MergeFit(normalised, float(np.exp(found[0])) / scale, float(found[1]))


def fit_spread(
    fit: MergeFit,
    logits: npt.ArrayLike,
    labels: npt.ArrayLike,
    groups: Sequence[str],
    *,
    weights: npt.ArrayLike | None = None,
    folds: int = 5,
    seed: int = 0,
) -> MergeFit:
    """`fit` with the spread that lowers the log loss, or as it came where cross-validation sees no clear gain.

    The experts' weights stay; slope and intercept are fitted anew beside the spread.

    Args and raises: as :func:`fit_merge`, and `groups`, `folds`, `seed` as :func:`detectors.calibration.choose`.
    """
    mean, deviation = _moments(np.asarray(logits, np.float64), np.asarray(fit.weights))
    mean, y = pairs(mean, labels)
    w, index = weighing(weights, len(y)), codes(groups, len(y))
    without, with_it = np.empty(len(y)), np.empty(len(y))
    for train, test in folds_of(y, index, folds, seed):
        for values, most in ((without, 0.0), (with_it, _MAX_SPREAD)):
            slope, intercept, spread = _shrunk(mean[train], deviation[train], y[train], w[train], most)
            z = slope * mean[test] / (1 + spread * deviation[test]) + intercept
            values[test] = log_losses(z, y[test])
    if simplest({"identity": without, "temperature": with_it}, index, w) == "identity":
        return fit
    slope, intercept, spread = _shrunk(mean, deviation, y, w, _MAX_SPREAD)
    return replace(fit, slope=slope, intercept=intercept, spread=spread)


def _moments(z: F64, weights: F64) -> tuple[F64, F64]:
    """Weighted mean and standard deviation of each row's logits that are there."""
    there = np.isfinite(z)
    share = np.where(there, weights, 0.0)
    empty = share.sum(axis=1) <= 0
    share[empty] = there[empty]  # those that ran weigh nothing together: they count alike
    share = share / share.sum(axis=1, keepdims=True)
    known = np.where(there, z, 0.0)
    mean = (share * known).sum(axis=1)
    return mean, np.sqrt((share * (known - mean[:, None]) ** 2).sum(axis=1))


def _shrunk(mean: F64, deviation: F64, y: F64, w: F64, most: float) -> tuple[float, float, float]:
    """Slope, intercept and spread (in [0, most]) of least cross-entropy."""
    scale = max(float(np.abs(mean).max()), 1e-12)
    unit = mean / scale

    def loss(x: Point) -> np.float64:
        return np.float64(np.mean(w * log_losses(x[0] * unit / (1 + x[2] * deviation) + x[1], y)))

    def gradient(x: Point) -> F64:
        shrink = 1 / (1 + x[2] * deviation)
        error = w * (expit(x[0] * unit * shrink + x[1]) - y)
        by_spread = -error * x[0] * unit * deviation * shrink**2
        return np.array([np.mean(error * unit * shrink), np.mean(error), np.mean(by_spread)])

    bounds = Bounds([1e-2 * scale, -_MAX_INTERCEPT, 0.0], [1e2 * scale, _MAX_INTERCEPT, most])
    start: Point = np.array([scale, 0.0, min(0.1, most)])
    options: Any = {"maxiter": 500, "ftol": 1e-14, "gtol": 1e-9}
    found = minimize(loss, start, jac=gradient, method="L-BFGS-B", bounds=bounds, options=options).x
    return float(found[0]) / scale, float(found[1]), float(found[2])
