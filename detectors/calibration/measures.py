"""How well probabilities are calibrated.

Brier score (1950) and its decomposition (Murphy 1973), expected calibration error (Naeini et al., AAAI 2015), its
debiased square (Kumar, Liang & Ma, NeurIPS 2019), Wilson's interval (1927).
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from detectors.calibration.checks import F64, pairs, weighing
from detectors.errors import ConfigError

__all__ = [
    "Bin",
    "BrierParts",
    "brier_parts",
    "brier_score",
    "debiased_calibration_error",
    "expected_calibration_error",
    "reliability",
]

_Z95 = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Bin:
    """One row of a reliability table.

    Attributes:
        count: samples.
        mass: their share of all weight.
        effective: samples of equal weight that would tell as much, (sum w)^2 / sum w^2 (Kish 1965); `count` unweighted.
        low, high: least and greatest P(fake) among them.
        said: mean P(fake).
        found: share of fakes.
        found_low, found_high: its 95 % Wilson interval, which takes the samples for independent: views of one group
            are not, and theirs is too narrow.
    """

    count: int
    mass: float
    effective: float
    low: float
    high: float
    said: float
    found: float
    found_low: float
    found_high: float


@dataclass(frozen=True, slots=True)
class BrierParts:
    """``brier = reliability - resolution + uncertainty + within``.

    Attributes:
        reliability: squared gap of said and found, 0 when calibrated.
        resolution: how far the bins' shares are from the share of all; more is better.
        uncertainty: of the labels, share * (1 - share).
        within: what spread of P(fake) inside a bin adds; goes to 0 with more bins.
    """

    reliability: float
    resolution: float
    uncertainty: float
    within: float


def brier_score(probabilities: npt.ArrayLike, labels: npt.ArrayLike, weights: npt.ArrayLike | None = None) -> float:
    """Mean squared difference of P(fake) and the label; 0 is perfect, a constant 0.5 gives 0.25."""
    p, y = pairs(probabilities, labels, both=False)
    return float(np.average((p - y) ** 2, weights=weighing(weights, len(p))))


def expected_calibration_error(
    probabilities: npt.ArrayLike, labels: npt.ArrayLike, bins: int = 15, weights: npt.ArrayLike | None = None
) -> float:
    """Mean over equal-width bins of P(fake), weighted by their size, of |mean P(fake) - share of fakes|; in [0, 1]."""
    p, y = _probabilities(probabilities, labels, bins)
    w = weighing(weights, len(p))
    index = np.minimum((p * bins).astype(int), bins - 1)
    gaps = np.bincount(index, weights=w * (p - y), minlength=bins)  # each is size * (mean P - share of fakes)
    return float(np.abs(gaps).sum() / w.sum())


def debiased_calibration_error(
    probabilities: npt.ArrayLike, labels: npt.ArrayLike, bins: int = 15, weights: npt.ArrayLike | None = None
) -> float:
    """Root mean square calibration error over equal-mass bins, less what chance alone adds to it; at least 0.

    A calibrated detector shows gaps in a finite sample too: each bin's squared gap is on average too large by the
    variance of its share of fakes, f (1 - f) / (n - 1), which is taken off (Kumar et al., section 4). Never below the
    true :func:`expected_calibration_error` on large samples, as a root mean square is never below a mean.
    """
    table = reliability(probabilities, labels, bins, weights)
    squares = [(b.said - b.found) ** 2 - b.found * (1 - b.found) / max(b.effective - 1, 1) for b in table]
    return math.sqrt(max(0.0, float(np.average(squares, weights=[b.mass for b in table]))))


def reliability(
    probabilities: npt.ArrayLike, labels: npt.ArrayLike, bins: int = 10, weights: npt.ArrayLike | None = None
) -> list[Bin]:
    """The reliability table over bins of equal weight; equal P(fake) are never torn apart.

    Args:
        probabilities: ``[N]`` in [0, 1].
        labels: ``[N]``, 1 fake and 0 real.
        bins: at most so many; fewer where values repeat.
        weights: ``[N]``, at least 0; None counts all alike. What weighs nothing is left out.

    Returns:
        Bins by rising P(fake), each with at least one sample.

    Raises:
        ConfigError, PredictionError: as the other measures.
    """
    p, y = _probabilities(probabilities, labels, bins)
    w = weighing(weights, len(p))
    order = np.argsort(p, kind="stable")
    p, y, w = (values[order][w[order] > 0] for values in (p, y, w))
    before = np.cumsum(w) - w
    edges = [np.searchsorted(before, k * w.sum() / bins - 1e-9) for k in range(1, bins)]
    cuts = np.unique([np.searchsorted(p, p[min(k, len(p) - 1)], side="left") for k in edges] + [0, len(p)])
    return [_bin(p[a:b], y[a:b], w[a:b], float(w.sum())) for a, b in itertools.pairwise(cuts)]


def brier_parts(probabilities: npt.ArrayLike, labels: npt.ArrayLike, bins: int = 10) -> BrierParts:
    """Murphy's decomposition of the Brier score over the bins of :func:`reliability`, all samples alike."""
    table = reliability(probabilities, labels, bins)
    count = np.array([b.count for b in table])
    said, found = np.array([b.said for b in table]), np.array([b.found for b in table])
    share = float(np.average(found, weights=count))
    gap = float(np.average((said - found) ** 2, weights=count))
    resolution = float(np.average((found - share) ** 2, weights=count))
    uncertainty = share * (1 - share)
    within = brier_score(probabilities, labels) - (gap - resolution + uncertainty)
    return BrierParts(gap, resolution, uncertainty, within)


def _bin(p: F64, y: F64, w: F64, total: float) -> Bin:
    n, z2 = float(w.sum() ** 2 / (w**2).sum()), _Z95**2
    found = float(np.average(y, weights=w))
    centre = (found * n + z2 / 2) / (n + z2)
    half = _Z95 / (n + z2) * math.sqrt(found * (1 - found) * n + z2 / 4)
    return Bin(
        count=len(p),
        mass=float(w.sum()) / total,
        effective=n,
        low=float(p[0]),
        high=float(p[-1]),
        said=float(np.average(p, weights=w)),
        found=found,
        found_low=max(0.0, centre - half),
        found_high=min(1.0, centre + half),
    )


def _probabilities(probabilities: npt.ArrayLike, labels: npt.ArrayLike, bins: int) -> tuple[F64, F64]:
    p, y = pairs(probabilities, labels, both=False)
    if bins < 1 or p.min() < 0 or p.max() > 1:
        raise ConfigError("needs at least one bin, and probabilities in [0, 1]")
    return p, y
