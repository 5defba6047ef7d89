"""The calibrations of the configuration, where they are served."""

from __future__ import annotations

import math

import numpy as np
import pytest

from detectors.camo import Camo
from detectors.curve import Curve
from detectors.merge import sigmoid
from detectors.types import Media
from tests.detectors.fixtures_camo import build, config, flat

KNOTS = [[-2.0, 0.1], [2.0, 0.7]]


def p_fake(network: Camo, media: Media) -> float:
    return network.predict([media])[0].p_fake


def test_isotonic_calibrates_the_merge_and_the_intercept_moves_the_decision() -> None:
    """Grey 138: general says 1, second 2, together (2 * 1 + 2) / 3."""
    said = {"method": "isotonic", "knots": KNOTS, "intercept": -0.4}
    network = build(config(merge_calibration=said))[0]
    at = 0.1 + 0.6 * (4 / 3 + 2) / 4
    assert p_fake(network, flat(138)) == pytest.approx(sigmoid(math.log(at / (1 - at)) - 0.4), abs=1e-3)
    assert p_fake(network, flat(255)) == pytest.approx(sigmoid(math.log(0.7 / 0.3) - 0.4), abs=1e-9)
    assert network.card.version != build(config())[0].card.version


def test_an_experts_calibration_comes_before_the_merge_and_once() -> None:
    said = {"weights": "x", "budget_ms": 1, "calibration": {"slope": 3.0, "intercept": 1.0}}
    network = build(config(gates={}, experts={"general": said}))[0]
    for media in (flat(138), flat(138, frames=3)):  # of a video the mean over frames is calibrated
        answer = network.predict([media])[0]
        assert answer.experts["general"] == answer.p_fake == pytest.approx(sigmoid(3 * 1.0 + 1.0), abs=1e-3)
    late = network.predict([flat(138, frames=3)], deadline=0.0)[0]  # the rescue of a late case passes the same way
    assert late.p_fake == pytest.approx(sigmoid(4.0), abs=1e-3)


def test_a_gate_brings_its_own_curve() -> None:
    network = build(config(gate_calibration={"face": {"slope": 0.0, "intercept": 1.5}}))[0]
    assert p_fake(network, flat(138, corner=1)) == pytest.approx(sigmoid(1.5))
    assert p_fake(network, flat(138)) == pytest.approx(sigmoid(4 / 3), abs=1e-3)
    assert p_fake(network, flat(138, corner=1, frames=2)) != pytest.approx(sigmoid(1.5))


def test_disagreement_takes_off() -> None:
    plain, careful = build(config())[0], build(config(merge_spread=1.0))[0]
    deviation = float(np.std([1.0, 1.0, 2.0]))  # general weighs twice as much as second
    assert p_fake(careful, flat(138)) == pytest.approx(sigmoid(4 / 3 / (1 + deviation)), abs=1e-3)
    assert 0.5 < p_fake(careful, flat(138)) < p_fake(plain, flat(138))


def test_the_configured_curve_is_the_fitted_one() -> None:
    curve = Curve(1.5, -0.2, ((-1.0, 0.3), (1.0, 0.6)))
    said = {"method": "isotonic", "slope": curve.slope, "intercept": curve.intercept, "knots": curve.knots}
    assert config(merge_calibration=said).curve("image") == curve
