"""Merge weights are recovered, and disagreement counts only where it should."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import expit

from detectors.calibration import fit_merge, fit_platt, fit_spread, merged
from detectors.curve import Curve
from detectors.errors import ConfigError
from detectors.merge import learned, logit
from tests.detectors.calibration.samples import sample


@pytest.mark.parametrize("absent", [0.0, 0.4])
def test_merge_weights_are_recovered(absent: float) -> None:
    rng = np.random.default_rng(0)
    weights, slope, intercept = np.array([0.6, 0.3, 0.1]), 1.5, -0.4
    z = rng.normal(0, 2, (12_000, 3))
    there = rng.random(z.shape) >= absent
    there[:, 0] |= ~there.any(axis=1)
    mean = (weights * z * there).sum(axis=1) / (weights * there).sum(axis=1)
    y = rng.random(len(z)) < 1 / (1 + np.exp(-(slope * mean + intercept)))
    found = fit_merge(np.where(there, z, np.nan), y, pull=1e-6)
    np.testing.assert_allclose(found.weights, weights, atol=0.05)
    assert found.slope == pytest.approx(slope, rel=0.06)
    assert found.intercept == pytest.approx(intercept, abs=0.05)
    named = {name: value for name, value, here in zip("abc", z[0], there[0], strict=True) if here}
    p = learned(named, dict(zip("abc", weights, strict=True)), Curve(slope, intercept))
    assert p == pytest.approx(1 / (1 + np.exp(-(slope * mean[0] + intercept))))


def test_a_useless_expert_gets_next_to_no_weight() -> None:
    z, y = sample(1.0, 0.0, 4000)
    noise = np.random.default_rng(1).normal(0, 3, len(z))
    found = fit_merge(np.stack([z, noise], axis=1), y)
    assert found.weights[0] > 0.9
    assert sum(found.weights) == pytest.approx(1.0)


def test_one_expert_alone_is_platt_scaling() -> None:
    z, y = sample(0.5, 0.3, 4000)
    found, platt = fit_merge(z[:, None], y), fit_platt(z, y)
    assert found.weights == (1.0,)
    assert (found.slope, found.intercept) == pytest.approx((platt.slope, platt.intercept), abs=0.01)


@pytest.mark.parametrize(
    ("z", "y"),
    [([[1.0], [math.nan]], [0, 1]), ([[1.0, math.nan], [2.0, math.nan]], [0, 1]), ([[1.0]], [1]), ([1.0, 2.0], [0, 1])],
)
def test_bad_merge_samples_are_refused(z: list[object], y: list[int]) -> None:
    with pytest.raises(ConfigError):
        fit_merge(z, y)  # type: ignore[arg-type]


@pytest.mark.parametrize("spread", [0.0, 0.7])
def test_many_rows_are_merged_as_one_is_served(spread: float) -> None:
    z = np.array([[1.0, -2.0, 0.5], [0.3, np.nan, 4.0], [np.nan, np.nan, -1.0], [np.nan, 2.0, np.nan]])
    weights = (0.6, 0.0, 0.4)
    for row, value in zip(z, merged(z, weights, spread), strict=True):
        there = {name: float(v) for name, v in zip("abc", row, strict=True) if np.isfinite(v)}
        p = learned(there, dict(zip("abc", weights, strict=True)), spread=spread)
        assert logit(p) == pytest.approx(value, abs=1e-9)


def disagreeing(spread: float, count: int = 4000) -> tuple[np.ndarray[tuple[int, int], np.dtype[np.float64]], object]:
    """Three experts of equal weight; the truth follows their shrunk mean."""
    rng = np.random.default_rng(2)
    z = rng.normal(0, 2, (count, 1)) + rng.normal(0, 1, (count, 3)) * rng.choice([0.1, 3.0], (count, 1))
    logits = 1.5 * z.mean(axis=1) / (1 + spread * z.std(axis=1)) - 0.3
    return z, (rng.random(count) < expit(logits)).astype(int)


def test_the_spread_is_recovered_and_absent_where_it_is_not_needed() -> None:
    for true in (0.0, 0.8):
        z, y = disagreeing(true)
        groups = [str(k // 3) for k in range(len(z))]
        start = fit_merge(z, y)  # type: ignore[arg-type]
        found = fit_spread(start, z, y, groups)  # type: ignore[arg-type]
        if true == 0.0:
            assert found == start
        else:
            assert found.spread == pytest.approx(true, rel=0.25)
            assert (found.slope, found.intercept) == pytest.approx((1.5, -0.3), abs=0.2)


def test_disagreement_moves_the_answer_towards_the_middle() -> None:
    weights = {"a": 1.0, "b": 1.0}
    sure, unsure = ({"a": 2.0, "b": 2.0}, {"a": 5.0, "b": -1.0})
    assert learned(sure, weights) == learned(unsure, weights)
    assert 0.5 < learned(unsure, weights, spread=0.5) < learned(sure, weights, spread=0.5)
    # by hand: mean 2, deviation 3, 2 / (1 + 0.5 * 3) = 0.8, and the curve acts on what remains
    assert learned(unsure, weights, Curve(2.0, 0.1), spread=0.5) == pytest.approx(1 / (1 + math.exp(-1.7)))
