"""Moving scores, weights and the figures of a report."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.types import Label
from neurons.rewards import PROFILES
from neurons.scores import ALPHA, Outcome, Scores, breakdown, summarise

R, S, M = Label.REAL, Label.SYNTHETIC, Label.SEMISYNTHETIC


def test_moving_score_by_hand() -> None:
    scores = Scores(PROFILES["sn34-2.1"])
    scores.step({"a": 1.0, "b": 0.5})
    assert scores.values == pytest.approx({"a": 0.02, "b": 0.01})
    scores.step({"a": 0.0})
    assert scores.values == pytest.approx({"a": 0.98 * 0.02, "b": 0.01})  # b was not asked and keeps its score
    assert scores.weights() == pytest.approx({"a": 0.0196 / 0.0296, "b": 0.01 / 0.0296})


@pytest.mark.parametrize(("name", "kept"), [("sn34-2.0", 0.98), ("sn34-2.0.1", 0.98), ("sn34-2.2.7", 1.0)])
def test_unchallenged_miners(name: str, kept: float) -> None:
    scores = Scores(PROFILES[name])
    scores.step({"a": 1.0, "b": 1.0})
    scores.step({"a": 1.0})
    assert scores.values["b"] == pytest.approx(ALPHA * kept)
    assert scores.values["a"] == pytest.approx(ALPHA * 0.98 + ALPHA)


def test_scores_approach_a_constant_reward() -> None:
    scores = Scores(PROFILES["sn34-2.0"])
    for _ in range(600):
        scores.step({"a": 0.7})
    assert scores.values["a"] == pytest.approx(0.7 * (1 - 0.98**600))


def test_a_reward_that_is_no_number_counts_as_nothing() -> None:
    scores = Scores(PROFILES["sn34-2.0"])
    scores.step({"a": math.nan, "b": 1.0})
    assert scores.values == pytest.approx({"a": 0.0, "b": 0.02})


def test_no_score_no_weight() -> None:
    scores = Scores(PROFILES["sn34-2.0"])
    assert scores.weights() == {}
    scores.step({"a": 0.0, "b": 0.0})
    assert scores.weights() == {"a": 0.0, "b": 0.0}


@given(st.lists(st.dictionaries(st.sampled_from("abcd"), st.floats(-1, 1)), min_size=1, max_size=30))
def test_scores_are_bounded_and_weights_have_norm_one(steps: list[dict[str, float]]) -> None:
    scores = Scores(PROFILES["sn34-2.2.0"])
    for rewards in steps:
        scores.step(rewards)
    assert all(-1 <= v <= 1 for v in scores.values.values())
    norm = sum(abs(w) for w in scores.weights().values())
    assert norm == pytest.approx(1.0) or not any(scores.values.values())


OUTCOMES = [
    Outcome("image", R, 0.1, "street", 0),
    Outcome("image", S, 0.8, "flux", 1),
    Outcome("image", M, (0.3, 0.1, 0.6), "swap", 1),
    Outcome("video", S, 0.4, "mochi", 2),
    Outcome("video", R, -1.0, "street", 3),
]


def test_summary_by_hand() -> None:
    """Four answered: TP 2, FN 1, TN 1, FP 0, so MCC = 2 / sqrt(2·3·1·2); AUC 1 as every fake is above 0.1."""
    found = summarise(OUTCOMES)
    assert (found.challenges, found.answered) == (5, 4)
    assert found.mcc == pytest.approx(2 / math.sqrt(12))
    assert found.accuracy == 0.75
    assert found.auc == 1.0
    assert found.brier == pytest.approx((0.1**2 + 0.2**2 + 0.3**2 + 0.6**2) / 4)
    # three classes: said (2, 1, 1), true (1, 2, 1), hits 3: (12 - 5) / sqrt(10 * 10)
    assert found.mcc3 == pytest.approx(0.7)


def test_summaries_of_little() -> None:
    nothing = summarise([])
    assert (nothing.challenges, nothing.answered, nothing.mcc, nothing.accuracy) == (0, 0, 0.0, None)
    silent = summarise([Outcome("image", R, -1.0), Outcome("image", S, [-1.0, -1.0, -1.0]), Outcome("image", S, 1.5)])
    assert (silent.challenges, silent.answered, silent.auc, silent.brier) == (3, 0, None, None)
    one = summarise([Outcome("image", S, 0.5), Outcome("image", S, 0.9)])
    assert (one.accuracy, one.auc, one.mcc) == (0.5, None, 0.0)  # exactly 0.5 is real


def test_breakdown() -> None:
    parts = breakdown(OUTCOMES)
    assert list(parts) == ["modality", "label", "source", "level"]
    assert {k: v.challenges for k, v in parts["source"].items()} == {"flux": 1, "mochi": 1, "street": 2, "swap": 1}
    assert {k: v.answered for k, v in parts["level"].items()} == {"0": 1, "1": 2, "2": 1, "3": 0}
    assert list(parts["label"]) == ["real", "semisynthetic", "synthetic"]
    assert parts["modality"]["image"].accuracy == 1.0
    assert parts["modality"]["video"].accuracy == 0.0
    for groups in parts.values():
        assert sum(s.challenges for s in groups.values()) == len(OUTCOMES)
