"""Calibration curves and which of them to trust.

Platt scaling (Platt 1999, "Probabilistic outputs for support vector machines", with his smoothed targets), temperature
scaling (Guo et al., ICML 2017), isotonic regression (Zadrozny & Elkan, KDD 2002) with the centres of its blocks as
knots (Oron & Flournoy, 2017), and the one-standard-error rule (Breiman et al. 1984) to choose between them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.optimize import Bounds, minimize
from scipy.special import expit

from detectors.calibration.checks import F64, codes, pairs, weighing
from detectors.curve import Curve
from detectors.errors import ConfigError, PredictionError

__all__ = [
    "METHODS",
    "Choice",
    "Method",
    "apply",
    "choose",
    "fit_curve",
    "fit_isotonic",
    "fit_platt",
    "fit_temperature",
    "folds_of",
    "log_losses",
    "simplest",
]

Method = Literal["identity", "temperature", "platt", "isotonic"]
METHODS: tuple[Method, ...] = ("temperature", "platt", "isotonic")
"""What :func:`choose` tries unless told otherwise, the simplest first."""

Point = np.ndarray[tuple[int], np.dtype[np.float64]]

_MAX_SLOPE = 100.0  # beyond it every answer is 0 or 1 to float32 precision
_MAX_INTERCEPT = 100.0


def apply(logits: npt.ArrayLike, calibration: Curve) -> F64:
    """Calibrated P(fake), ``float64`` of the logits' shape.

    Raises:
        PredictionError: a logit is not finite.
    """
    z = np.asarray(logits, np.float64)
    if not np.isfinite(z).all():
        raise PredictionError("a logit is not finite")
    return np.asarray(expit(calibration.logits(z)), np.float64)


def fit_platt(logits: npt.ArrayLike, labels: npt.ArrayLike, weights: npt.ArrayLike | None = None) -> Curve:
    """Slope and intercept of least cross-entropy against Platt's smoothed targets.

    The targets (n+ + 1)/(n+ + 2) and 1/(n- + 2) keep the fit finite on separable data. The slope stays within
    [0, 100]: a detector that ranks backwards on the calibration set gets a constant answer, not a silent flip.

    Args:
        logits: ``[N]``, of P(fake), finite.
        labels: ``[N]``, 1 fake and 0 real, both present.
        weights: ``[N]``, at least 0; None counts all alike.

    Raises:
        ConfigError: lengths differ, another label than 0 and 1, or one class is missing.
        PredictionError: a logit is not finite.
    """
    z, y = pairs(logits, labels)
    low, high = _extremes(y)
    slope, intercept = _least_cross_entropy(z, np.where(y == 1, high, low), weights, with_intercept=True)
    return Curve(slope, intercept)


def fit_temperature(logits: npt.ArrayLike, labels: npt.ArrayLike, weights: npt.ArrayLike | None = None) -> Curve:
    """One slope 1/T of least cross-entropy, intercept 0: the decision at 0.5 stays where it was.

    Args and raises: as :func:`fit_platt`.
    """
    z, y = pairs(logits, labels)
    slope, _ = _least_cross_entropy(z, y, weights, with_intercept=False)
    return Curve(slope, 0.0)


def fit_isotonic(logits: npt.ArrayLike, labels: npt.ArrayLike, weights: npt.ArrayLike | None = None) -> Curve:
    """The never falling curve of least squares, as knots.

    A knot is the mean logit and the share of fakes of one pooled block: unlike the steps of the plain regression, the
    line through them keeps the order of nearly all answers. Shares stay within Platt's targets, away from 0 and 1.

    Args and raises: as :func:`fit_platt`.
    """
    from sklearn.isotonic import IsotonicRegression  # noqa: PLC0415 - a second of import

    z, y = pairs(logits, labels)
    w = weighing(weights, len(z))
    order = np.argsort(z, kind="stable")
    z, y, w = z[order], y[order], w[order]
    steps = IsotonicRegression().fit(z, y, w).predict(z)
    block = np.concatenate(([0], np.cumsum(np.diff(steps) > 1e-12)))
    mass = np.bincount(block, weights=w)
    full = mass > 0
    centre, share = (np.bincount(block, weights=w * v)[full] / mass[full] for v in (z, steps))
    low, high = _extremes(y)
    knots: dict[float, float] = {}  # rounding may bring two centres together
    for x, p in zip(centre, np.clip(share, low, high), strict=True):
        knots[round(float(x), 6)] = round(float(p), 6)
    return Curve(knots=tuple(knots.items()))


def fit_curve(
    method: Method, logits: npt.ArrayLike, labels: npt.ArrayLike, weights: npt.ArrayLike | None = None
) -> Curve:
    """The curve of one method; ``identity`` fits nothing."""
    if method == "identity":
        pairs(logits, labels)
        return Curve()
    if method == "isotonic":
        return fit_isotonic(logits, labels, weights)
    found = (fit_platt if method == "platt" else fit_temperature)(logits, labels, weights)
    return Curve(found.slope, found.intercept)


@dataclass(frozen=True, slots=True)
class Choice:
    """A curve and how its method was found.

    Attributes:
        method: what was chosen.
        curve: fitted on all samples.
        losses: by method, the cross-validated log loss in nats; the chosen one's need not be the least.
    """

    method: Method
    curve: Curve
    losses: Mapping[Method, float]


def choose(
    logits: npt.ArrayLike,
    labels: npt.ArrayLike,
    groups: Sequence[str],
    *,
    methods: Sequence[Method] = METHODS,
    weights: npt.ArrayLike | None = None,
    folds: int = 5,
    seed: int = 0,
) -> Choice:
    """The method by grouped cross-validated log loss: the first one no worse than the best by a standard error.

    Args:
        logits, labels, weights: as :func:`fit_platt`.
        groups: ``[N]``; a group is never on both sides.
        methods: the simplest first.
        folds: at least 2; fewer are made where there are fewer groups.
        seed: of the folds.

    Raises:
        ConfigError: as :func:`fit_platt`, or no two folds can be made with both classes to fit on.
    """
    z, y = pairs(logits, labels)
    w = weighing(weights, len(z))
    index = codes(groups, len(z))
    losses: dict[Method, F64] = {method: np.empty(len(z)) for method in methods}
    for train, test in folds_of(y, index, folds, seed):
        for method in methods:
            curve = fit_curve(method, z[train], y[train], w[train])
            losses[method][test] = log_losses(curve.logits(z[test]), y[test])
    chosen = simplest(losses, index, w)
    means = {name: float(np.average(values, weights=w)) for name, values in losses.items()}
    return Choice(chosen, fit_curve(chosen, z, y, w), means)


def folds_of(
    y: F64, index: npt.NDArray[np.int64], folds: int, seed: int
) -> list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """(train, test) positions of each fold; groups whole, classes spread, both classes in every training part.

    Raises:
        ConfigError: it cannot be done.
    """
    from sklearn.model_selection import StratifiedGroupKFold  # noqa: PLC0415 - a second of import

    fewest = min(len(np.unique(index[y == value])) for value in (0.0, 1.0))
    count = min(folds, fewest)
    if count < 2:
        raise ConfigError("calibration by cross-validation needs at least two groups of either class")
    splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    found = [(a, b) for a, b in splitter.split(y[:, None], y.astype(int), index) if len(b)]
    if any(len(np.unique(y[train])) < 2 for train, _ in found):
        raise ConfigError("calibration by cross-validation: a class sits in one fold; more groups are needed")
    return found


def log_losses(logits: F64, y: F64) -> F64:
    """Cross-entropy of each sample in nats."""
    return np.asarray(np.logaddexp(0.0, logits) - y * logits, np.float64)


def simplest(losses: Mapping[Method, F64], index: npt.NDArray[np.int64], w: F64) -> Method:
    """The first method whose loss is above the best one's by no more than the standard error of that difference.

    Args:
        losses: per sample, by method, the simplest first.
        index: group of each sample: samples of one group are no independent witnesses.
        w: weights of mean 1.
    """
    best = min(losses.values(), key=lambda values: float((w * values).sum()))
    for method, values in losses.items():
        excess = np.bincount(index, weights=w * (values - best))  # summed by group
        if excess.sum() <= np.sqrt(len(excess)) * excess.std(ddof=1 if len(excess) > 1 else 0):
            return method
    raise ConfigError("needs at least one method")


def _extremes(y: F64) -> tuple[float, float]:
    """Platt's targets of a real and of a fake."""
    fakes = float(y.sum())
    return 1 / (len(y) - fakes + 2), (fakes + 1) / (fakes + 2)


def _least_cross_entropy(
    z: F64, targets: F64, weights: npt.ArrayLike | None, *, with_intercept: bool
) -> tuple[float, float]:
    scale = max(float(np.abs(z).max()), 1e-12)  # logits of any size make a well-conditioned problem
    unit = z / scale
    w = weighing(weights, len(z))

    def loss(x: Point) -> np.float64:
        logit = x[0] * unit + x[1]
        return np.float64(np.mean(w * (np.logaddexp(0.0, logit) - targets * logit)))

    def gradient(x: Point) -> F64:
        error = w * (expit(x[0] * unit + x[1]) - targets)
        return np.array([np.mean(error * unit), np.mean(error) if with_intercept else 0.0])

    bound = _MAX_INTERCEPT if with_intercept else 0.0
    bounds = Bounds([0.0, -bound], [_MAX_SLOPE * scale, bound])
    start: Point = np.zeros(2)
    start[0] = scale
    options: Any = {"maxiter": 500, "ftol": 1e-14, "gtol": 1e-9}
    found = minimize(loss, start, jac=gradient, method="L-BFGS-B", bounds=bounds, options=options)
    return float(found.x[0]) / scale, float(found.x[1])
