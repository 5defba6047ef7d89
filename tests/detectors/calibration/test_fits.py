"""Curves recover what made the data, agree with scikit-learn, and are chosen for good reason."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import expit
from sklearn.isotonic import IsotonicRegression

from detectors.calibration import (
    METHODS,
    Method,
    apply,
    brier_score,
    choose,
    expected_calibration_error,
    fit_curve,
    fit_isotonic,
    fit_platt,
    fit_temperature,
)
from detectors.curve import Curve
from detectors.errors import ConfigError, PredictionError
from tests.detectors.calibration.samples import sample


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
    raw = apply(z, Curve())
    better = apply(z, fit_platt(z, y))
    assert expected_calibration_error(better, y) < expected_calibration_error(raw, y) / 5
    assert brier_score(better, y) < brier_score(raw, y)


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
        apply([math.inf], Curve())
    with pytest.raises(ConfigError):
        expected_calibration_error([1.5], [1])


def test_a_weight_of_three_is_three_copies() -> None:
    z, y = sample(0.6, -0.3, 300)
    w = np.where(np.arange(300) % 2, 3.0, 1.0)
    copies = np.repeat(np.arange(300), w.astype(int))
    once, thrice = fit_temperature(z, y, w), fit_temperature(z[copies], y[copies])
    assert once.slope == pytest.approx(thrice.slope, rel=1e-5)
    inner, same = fit_isotonic(z, y, w).knots[3:-3], fit_isotonic(z[copies], y[copies]).knots[3:-3]
    np.testing.assert_allclose(inner, same, atol=1e-5)  # the ends are held by the counts of samples


def test_isotonic_knots_are_the_blocks_of_scikit_learn() -> None:
    z, y = sample(0.8, 0.3, 500)
    curve = fit_isotonic(z, y)
    steps = IsotonicRegression().fit_transform(z, y)
    low, high = 1 / ((y == 0).sum() + 2), (y.sum() + 1) / (y.sum() + 2)
    for x, p in curve.knots:  # a block's centre lies inside the block, where scikit-learn says the same
        nearest = np.argsort(np.abs(z - x))[:2]
        assert min(abs(np.clip(steps[nearest], low, high) - p)) < 1e-5
    assert {round(v, 5) for v in np.clip(steps, low, high)} == {round(p, 5) for _, p in curve.knots}


def test_isotonic_by_hand() -> None:
    # pooled blocks: {0: real}, {1: fake, 2: real}, {3: fake}; ends at Platt's targets 1/4 and 3/4
    assert fit_isotonic([0.0, 1.0, 2.0, 3.0], [0, 1, 0, 1]).knots == ((0.0, 0.25), (1.5, 0.5), (3.0, 0.75))
    assert fit_isotonic([2.0, 1.0, -1.0, -2.0], [0, 0, 1, 1]).knots == ((0.0, 0.5),)


def bent(count: int) -> tuple[np.ndarray[tuple[int], np.dtype[np.float64]], np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """A step that no line in the logit follows."""
    rng = np.random.default_rng(3)
    z = rng.uniform(-4, 4, count)
    return z, (rng.random(count) < np.where(z < 1.5, 0.15, 0.9)).astype(np.int64)


@pytest.mark.parametrize(
    ("data", "method"),
    [(sample(0.4, 0.0, 1500), "temperature"), (sample(0.8, -1.0, 1500), "platt"), (bent(1500), "isotonic")],
)
def test_the_method_that_fits_the_data_is_chosen(
    data: tuple[np.ndarray[tuple[int], np.dtype[np.float64]], np.ndarray[tuple[int], np.dtype[np.int64]]],
    method: Method,
) -> None:
    z, y = data
    found = choose(z, y, [f"g{k // 2}" for k in range(len(z))])
    assert found.method == method
    assert found.curve == fit_curve(method, z, y)
    assert set(found.losses) == set(METHODS)
    assert found.losses[method] <= min(found.losses.values()) + 0.01


def test_a_well_calibrated_detector_is_left_alone() -> None:
    z, y = sample(1.0, 0.0, 1200)
    found = choose(z, y, [str(k) for k in range(1200)], methods=("identity", *METHODS))
    assert (found.method, found.curve) == ("identity", Curve())


def test_copies_of_few_groups_do_not_buy_knots() -> None:
    """Forty groups, each shown fifty times: by samples isotonic looks sure of itself, by groups it is not."""
    rng = np.random.default_rng(5)
    z0 = rng.normal(0, 2, 40)
    y0 = (rng.random(40) < expit(z0)).astype(int)
    z, y, groups = np.repeat(z0, 50), np.repeat(y0, 50), [str(k) for k in np.repeat(np.arange(40), 50)]
    assert choose(z, y, groups).method != "isotonic"


def test_choosing_needs_groups_of_either_class() -> None:
    with pytest.raises(ConfigError, match="two groups of either class"):
        choose([0.0, 1.0, 2.0, 3.0], [0, 0, 1, 1], ["a", "b", "c", "c"])
    with pytest.raises(ConfigError, match="group for each"):
        choose([0.0, 1.0], [0, 1], ["a"])
