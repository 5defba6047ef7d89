"""From raw logits to probabilities that mean what they say, and how far they still are from it.

Platt scaling (Platt 1999, "Probabilistic outputs for support vector machines", with his smoothed targets), temperature
scaling (Guo et al., ICML 2017), expected calibration error (Naeini et al., AAAI 2015) and the Brier score (1950).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import Bounds, minimize
from scipy.special import expit

from detectors.card import Calibration
from detectors.errors import ConfigError, PredictionError

__all__ = [
    "MergeFit",
    "apply",
    "brier_score",
    "expected_calibration_error",
    "fit_merge",
    "fit_platt",
    "fit_temperature",
]

F64 = npt.NDArray[np.float64]
Point = np.ndarray[tuple[int], np.dtype[np.float64]]

_MAX_SLOPE = 100.0  # beyond it every answer is 0 or 1 to float32 precision
_MAX_INTERCEPT = 100.0


def apply(logits: npt.ArrayLike, calibration: Calibration) -> F64:
    """Calibrated P(fake), ``float64`` of the logits' shape: ``sigmoid(slope * logit + intercept)``.

    Raises:
        PredictionError: a logit is not finite.
    """
    z = np.asarray(logits, np.float64)
    if not np.isfinite(z).all():
        raise PredictionError("a logit is not finite")
    return np.asarray(expit(calibration.slope * z + calibration.intercept), np.float64)


def fit_platt(logits: npt.ArrayLike, labels: npt.ArrayLike) -> Calibration:
    """Slope and intercept of least cross-entropy against Platt's smoothed targets.

    The targets (n+ + 1)/(n+ + 2) and 1/(n- + 2) keep the fit finite on separable data. The slope stays within
    [0, 100]: a detector that ranks backwards on the calibration set gets a constant answer, not a silent flip.

    Args:
        logits: ``[N]``, of P(fake), finite.
        labels: ``[N]``, 1 fake and 0 real, both present.

    Raises:
        ConfigError: lengths differ, another label than 0 and 1, or one class is missing.
        PredictionError: a logit is not finite.
    """
    z, y = _pairs(logits, labels)
    fakes = y.sum()
    targets = np.where(y == 1, (fakes + 1) / (fakes + 2), 1 / (len(y) - fakes + 2))
    slope, intercept = _least_cross_entropy(z, targets, with_intercept=True)
    return Calibration(slope, intercept)


def fit_temperature(logits: npt.ArrayLike, labels: npt.ArrayLike) -> Calibration:
    """One slope 1/T of least cross-entropy, intercept 0: the decision at 0.5 stays where it was.

    Args and raises: as :func:`fit_platt`.
    """
    z, y = _pairs(logits, labels)
    slope, _ = _least_cross_entropy(z, y, with_intercept=False)
    return Calibration(slope, 0.0)


@dataclass(frozen=True, slots=True)
class MergeFit:
    """What ``merge: learned`` needs in ``configs/camo.yaml``.

    Attributes:
        weights: at least zero, one per expert, sum 1.
        slope: above zero, of the weighted mean of logits.
        intercept: added to it.
    """

    weights: tuple[float, ...]
    slope: float
    intercept: float


def fit_merge(logits: npt.ArrayLike, labels: npt.ArrayLike, *, pull: float = 1e-3) -> MergeFit:
    """The weights, slope and intercept of :func:`detectors.merge.learned` of least cross-entropy.

    Args:
        logits: ``[N, E]``, calibrated, of E experts; NaN where an expert did not run. Fit on samples that the experts
            were not trained on.
        labels: ``[N]``, 1 fake and 0 real, both present.
        pull: strength of the pull towards equal weights (on log weights): settles ties, and keeps an expert that ran
            on a handful of samples from winning by luck.

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
    _, y = _pairs(z.sum(axis=1), labels)
    scale = max(float(np.abs(z).max()), 1e-12)
    z = z / scale

    def mean_of(x: Point) -> tuple[F64, F64]:
        share = np.exp(x[2:]) * there
        share /= share.sum(axis=1, keepdims=True)
        return share, (share * z).sum(axis=1)

    def loss(x: Point) -> np.float64:
        logit = np.exp(x[0]) * mean_of(x)[1] + x[1]
        return np.float64(np.mean(np.logaddexp(0.0, logit) - y * logit) + pull * np.mean(x[2:] ** 2))

    def gradient(x: Point) -> F64:
        share, mean = mean_of(x)
        slope = np.exp(x[0])
        error = expit(slope * mean + x[1]) - y
        weights = (error[:, None] * slope * share * (z - mean[:, None])).mean(axis=0)
        return np.concatenate(
            ([np.mean(error * slope * mean), np.mean(error)], weights + 2 * pull * x[2:] / len(weights))
        )

    start: Point = np.zeros(2 + z.shape[1])
    start[0] = np.log(scale)
    # slopes from 0.01 to 100 for the logits as they came; weights at most e^12 apart
    low = [np.log(scale) - np.log(100), -_MAX_INTERCEPT, *[-6.0] * z.shape[1]]
    high = [np.log(scale) + np.log(100), _MAX_INTERCEPT, *[6.0] * z.shape[1]]
    options: Any = {"maxiter": 1000, "ftol": 1e-13, "gtol": 1e-9}
    found = minimize(loss, start, jac=gradient, method="L-BFGS-B", bounds=Bounds(low, high), options=options).x
    weights = np.exp(found[2:])
    normalised = tuple(float(w) for w in weights / weights.sum())
    return MergeFit(normalised, float(np.exp(found[0])) / scale, float(found[1]))


def brier_score(probabilities: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Mean squared difference of P(fake) and the label; 0 is perfect, a constant 0.5 gives 0.25."""
    p, y = _pairs(probabilities, labels, both=False)
    return float(np.mean((p - y) ** 2))


def expected_calibration_error(probabilities: npt.ArrayLike, labels: npt.ArrayLike, bins: int = 15) -> float:
    """Mean over equal-width bins of P(fake), weighted by their size, of |mean P(fake) - share of fakes|; in [0, 1]."""
    p, y = _pairs(probabilities, labels, both=False)
    if bins < 1 or p.min() < 0 or p.max() > 1:
        raise ConfigError("needs at least one bin, and probabilities in [0, 1]")
    index = np.minimum((p * bins).astype(int), bins - 1)
    gaps = np.bincount(index, weights=p - y, minlength=bins)  # each is size * (mean P - share of fakes)
    return float(np.abs(gaps).sum() / len(p))


def _least_cross_entropy(z: F64, targets: F64, *, with_intercept: bool) -> tuple[float, float]:
    scale = max(float(np.abs(z).max()), 1e-12)  # logits of any size make a well-conditioned problem
    unit = z / scale

    def loss(x: Point) -> np.float64:
        logit = x[0] * unit + x[1]
        return np.float64(np.mean(np.logaddexp(0.0, logit) - targets * logit))

    def gradient(x: Point) -> F64:
        error = expit(x[0] * unit + x[1]) - targets
        return np.array([np.mean(error * unit), np.mean(error) if with_intercept else 0.0])

    bound = _MAX_INTERCEPT if with_intercept else 0.0
    bounds = Bounds([0.0, -bound], [_MAX_SLOPE * scale, bound])
    start: Point = np.zeros(2)
    start[0] = scale
    options: Any = {"maxiter": 500, "ftol": 1e-14, "gtol": 1e-9}
    found = minimize(loss, start, jac=gradient, method="L-BFGS-B", bounds=bounds, options=options)
    return float(found.x[0]) / scale, float(found.x[1])


def _pairs(values: npt.ArrayLike, labels: npt.ArrayLike, *, both: bool = True) -> tuple[F64, F64]:
    v, y = np.asarray(values, np.float64), np.asarray(labels, np.float64)
    if v.ndim != 1 or v.shape != y.shape or not len(v):
        raise ConfigError(f"needs as many labels as values and at least one, not {v.shape} and {y.shape}")
    if not np.isfinite(v).all():
        raise PredictionError("a value is not finite")
    if not np.isin(y, (0.0, 1.0)).all():
        raise ConfigError("labels must be 0 (real) or 1 (fake)")
    if both and len(np.unique(y)) < 2:
        raise ConfigError("calibration needs real and fake samples")
    return v, y
