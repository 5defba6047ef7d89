"""The merges as arithmetic: bounds, order, monotony, who is absent."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.curve import Curve
from detectors.errors import PredictionError
from detectors.merge import leading_share, learned, logit, maximum, selected, sigmoid

NAMES = st.text("abcdef", min_size=1, max_size=3)
LOGITS = st.dictionaries(NAMES, st.floats(-50, 50), min_size=1, max_size=6)
PROBABILITIES = st.dictionaries(NAMES, st.floats(0, 1), min_size=1, max_size=6)
WEIGHT = st.floats(0.01, 100)


@given(st.floats(-700, 700))
def test_sigmoid_and_logit(z: float) -> None:
    assert 0.0 <= sigmoid(z) <= 1.0
    assert sigmoid(-z) == pytest.approx(1.0 - sigmoid(z), abs=1e-15)
    if abs(z) < 20:
        assert logit(sigmoid(z)) == pytest.approx(z, abs=1e-6)
    assert math.isfinite(logit(sigmoid(z)))


@pytest.mark.parametrize(
    ("fired", "by_max", "by_learned"),
    [
        ((), ("ufd", "npr"), ("ufd", "npr")),
        (("face",), ("face",), ("ufd", "face", "npr")),
        (("text",), ("ufd", "npr"), ("ufd", "npr")),  # a gate without an expert of its own changes nothing
        (("face", "text"), ("face", "both"), ("ufd", "face", "npr", "both")),
    ],
)
def test_who_has_a_say(fired: tuple[str, ...], by_max: tuple[str, ...], by_learned: tuple[str, ...]) -> None:
    face, both = frozenset({"face"}), frozenset({"face", "text"})
    needs: dict[str, frozenset[str]] = {"ufd": frozenset(), "face": face, "npr": frozenset(), "both": both}
    assert selected("max", needs, fired) == by_max
    assert selected("learned", needs, fired) == by_learned


@given(PROBABILITIES)
def test_maximum_is_the_largest(p_fake: dict[str, float]) -> None:
    assert maximum(p_fake) in p_fake.values()
    assert all(maximum(p_fake) >= value for value in p_fake.values())


@given(LOGITS, st.data(), st.floats(0.1, 5), st.floats(-5, 5))
def test_learned_is_bounded_and_blind_to_order(
    logits: dict[str, float], data: st.DataObject, slope: float, intercept: float
) -> None:
    weights = {name: data.draw(WEIGHT) for name in logits}
    p = learned(logits, weights, Curve(slope, intercept))
    low, high = (sigmoid(slope * f(logits.values()) + intercept) for f in (min, max))
    assert low - 1e-9 <= p <= high + 1e-9
    backwards = dict(reversed(logits.items()))
    assert learned(backwards, weights, Curve(slope, intercept)) == p


@given(LOGITS, st.data(), st.floats(0, 20))
def test_learned_rises_with_every_expert(logits: dict[str, float], data: st.DataObject, rise: float) -> None:
    weights = {name: data.draw(WEIGHT) for name in logits}
    name = data.draw(st.sampled_from(sorted(logits)))
    assert learned({**logits, name: logits[name] + rise}, weights) >= learned(logits, weights) - 1e-12


@given(LOGITS, st.data())
def test_absent_experts_have_no_part(logits: dict[str, float], data: st.DataObject) -> None:
    weights = {name: data.draw(WEIGHT) for name in logits}
    assert learned(logits, {**weights, "absent": 1000.0}) == learned(logits, weights)
    # weights are relative: a common factor changes nothing
    assert learned(logits, {k: 2 * v for k, v in weights.items()}) == pytest.approx(learned(logits, weights), abs=1e-12)


@given(st.floats(-30, 30), st.floats(0, 100))
def test_one_expert_alone_is_believed_whatever_it_weighs(value: float, weight: float) -> None:
    assert learned({"a": value}, {"a": weight}) == pytest.approx(sigmoid(value), abs=1e-12)
    assert learned({"a": value}, {"a": weight}, Curve(2.0, 1.0)) == pytest.approx(sigmoid(2 * value + 1))


def test_worked_example() -> None:
    assert learned({"a": 2.0, "b": -1.0}, {"a": 3.0, "b": 1.0}) == pytest.approx(sigmoid(1.25))
    assert learned({"a": 2.0, "b": -1.0}, {"a": 0.0, "b": 0.0}) == pytest.approx(sigmoid(0.5))
    assert maximum({"a": 0.2, "b": 0.9}) == 0.9


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_never_passes(bad: float) -> None:
    with pytest.raises(PredictionError, match="b"):
        learned({"a": 0.0, "b": bad}, {"a": 1.0, "b": 1.0})
    with pytest.raises(PredictionError, match="b"):
        maximum({"a": 0.5, "b": bad})


def test_nobody_is_no_answer() -> None:
    with pytest.raises(PredictionError):
        learned({}, {"a": 1.0})
    with pytest.raises(PredictionError):
        maximum({})


@given(st.floats(0, 1), st.floats(0, 1))
def test_the_argmax_agrees_with_p_fake(p_fake: float, share: float) -> None:
    moved = leading_share(p_fake, share)
    assert 0.0 <= moved <= 1.0
    assert (moved < 0.5) == (share < 0.5) or moved == share
    vector = (1.0 - p_fake, p_fake * (1.0 - moved), p_fake * moved)
    if p_fake > 0.5 + 1e-6:
        assert max(vector[1:]) >= vector[0]
    assert leading_share(p_fake, 0.0) == 0.0
    assert leading_share(p_fake, 1.0) == 1.0
