"""Fits recover what made the data; measures agree with worked examples."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss

from detectors.calibration import apply, brier_score, expected_calibration_error, fit_merge, fit_platt, fit_temperature
from detectors.card import Calibration
from detectors.errors import ConfigError, PredictionError
from detectors.merge import learned


def sample(
    slope: float, intercept: float, count: int = 20_000
) -> tuple[np.ndarray[tuple[int], np.dtype[np.float64]], np.ndarray[tuple[int], np.dtype[np.int64]]]:
    rng = np.random.default_rng(0)
    z = rng.normal(0, 3, count)
    return z, (rng.random(count) < 1 / (1 + np.exp(-(slope * z + intercept)))).astype(np.int64)


@pytest.mark.parametrize(("slope", "intercept"), [(1.0, 0.0), (0.4, -0.7), (2.5, 1.5)])
def test_platt_recovers_what_made_the_labels(slope: float, intercept: float) -> None:
    z, y = sample(slope, intercept)
    found = fit_platt(z, y)
    assert found.slope == pytest.approx(slope, rel=0.06)
    assert found.intercept == pytest.approx(intercept, abs=0.1)
    assert expected_calibration_error(apply(z, found), y) < 0.02


@pytest.mark.parametrize("scale", [1e-2, 1.0, 1e4])
def test_the_fit_does_not_depend_on_the_logits_scale(scale: float) -> None:
    z, y = sample(0.4, -0.7, 4000)
    found, scaled = fit_platt(z, y), fit_platt(z * scale, y)
    assert scaled.slope * scale == pytest.approx(found.slope, rel=1e-3)
    assert scaled.intercept == pytest.approx(found.intercept, abs=1e-3)


def test_temperature_recovers_and_keeps_the_decision() -> None:
    z, y = sample(0.5, 0.0)
    found = fit_temperature(z, y)
    assert found.slope == pytest.approx(0.5, rel=0.05)
    assert found.intercept == 0.0
    assert ((apply(z, found) > 0.5) == (z > 0)).all()


def test_separable_data_stays_finite() -> None:
    z, y = [-2.0, -1.0, 1.0, 2.0], [0, 0, 1, 1]
    found = fit_platt(z, y)
    assert 0 < found.slope < 5
    assert apply(z, found).max() < 0.95  # four samples prove little
    assert math.isfinite(fit_temperature(z, y).slope)


def test_a_backward_detector_becomes_a_constant_not_a_flip() -> None:
    found = fit_platt([2.0, 1.0, -1.0, -2.0], [0, 0, 1, 1])
    assert found.slope == 0.0
    np.testing.assert_allclose(apply([5.0, -5.0], found), 0.5, atol=1e-6)


def test_calibration_helps_an_overconfident_detector() -> None:
    z, y = sample(0.3, 0.2)
    raw = apply(z, Calibration())
    better = apply(z, fit_platt(z, y))
    assert expected_calibration_error(better, y) < expected_calibration_error(raw, y) / 5
    assert brier_score(better, y) < brier_score(raw, y)


def test_measures_by_hand() -> None:
    assert brier_score([0.5, 0.5], [0, 1]) == 0.25
    assert brier_score([0.0, 1.0], [0, 1]) == 0.0
    # two bins: {0.1, 0.3} with no fake: gap 0.2; {0.8, 1.0} with one of two fake: gap 0.4
    assert expected_calibration_error([0.1, 0.3, 0.8, 1.0], [0, 0, 0, 1], bins=2) == pytest.approx(0.3)


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 1)), min_size=1, max_size=50), st.integers(1, 20))
def test_measures_are_bounded(pairs: list[tuple[float, int]], bins: int) -> None:
    p, y = zip(*pairs, strict=True)
    assert 0.0 <= expected_calibration_error(p, y, bins) <= 1.0 + 1e-9
    assert brier_score(p, y) == pytest.approx(brier_score_loss(y, p, pos_label=1))


@pytest.mark.parametrize(
    ("z", "y", "kind"),
    [
        ([1.0, 2.0], [1, 1], ConfigError),
        ([1.0, 2.0], [0, 2], ConfigError),
        ([1.0, 2.0], [0], ConfigError),
        ([], [], ConfigError),
        ([1.0, math.nan], [0, 1], PredictionError),
    ],
)
def test_bad_samples_are_refused(z: list[float], y: list[int], kind: type[Exception]) -> None:
    for fit in (fit_platt, fit_temperature):
        with pytest.raises(kind):
            fit(z, y)


def test_apply_refuses_what_is_not_finite() -> None:
    with pytest.raises(PredictionError):
        apply([math.inf], Calibration())
    with pytest.raises(ConfigError):
        expected_calibration_error([1.5], [1])


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
    p = learned(named, dict(zip("abc", weights, strict=True)), slope=slope, intercept=intercept)
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
