"""Rewards, scores and standings of a run."""

from __future__ import annotations

import math

import pytest

from detectors.errors import ConfigError
from detectors.types import Label
from neurons.ledger import Ledger, profiles
from neurons.rewards import PROFILES, Tracker
from tests.neurons.simkit import exchange

LABELS = [Label.REAL, Label.SYNTHETIC, Label.REAL, Label.SEMISYNTHETIC, Label.SYNTHETIC, Label.REAL]


def ledger(*names: str) -> Ledger:
    return Ledger(("right", "wrong", "silent"), profiles(names or ("sn34-2.0",)))


def pay(book: Ledger) -> None:
    for k, label in enumerate(LABELS):
        truth = float(label > 0)
        book.pay(exchange(k, label, {"right": truth, "wrong": 1 - truth, "silent": None}))


def test_rewards_are_those_of_the_tracker() -> None:
    book = ledger()
    pay(book)
    tracker = Tracker(PROFILES["sn34-2.0"])
    expected = [tracker.step("image", float(label > 0), label).total for label in LABELS]
    assert book.rewards["sn34-2.0"]["right"] == expected
    assert expected[-1] == pytest.approx(0.95)  # all right, image weight
    assert book.rewards["sn34-2.0"]["silent"] == [0.0] * len(LABELS)


def test_scores_follow_the_rewards() -> None:
    book = ledger()
    pay(book)
    score = 0.0
    for reward in book.rewards["sn34-2.0"]["right"]:
        score = 0.98 * score + 0.02 * reward
    assert book.scores["sn34-2.0"].values["right"] == pytest.approx(score)
    assert math.fsum(book.scores["sn34-2.0"].weights().values()) == pytest.approx(1.0)


def test_several_profiles_are_paid_side_by_side() -> None:
    book = ledger("sn34-2.0", "sn34-2.1")
    pay(book)
    assert book.profile.name == "sn34-2.0"
    assert book.rewards["sn34-2.1"]["right"][-1] == pytest.approx(0.6)


def test_vector_profiles_take_a_float_for_a_vector() -> None:
    book = ledger("sn34-2.2.7")
    pay(book)
    right = book.rewards["sn34-2.2.7"]["right"][-1]
    assert 0.5 * 0.6 < right < 0.6  # binary MCC is 1; the semi-synthetic one counts as the wrong fake class


def test_standings_skip_silence() -> None:
    book = ledger()
    assert math.isnan(book.standing("right").p50_ms)
    pay(book)
    right, silent = book.standing("right"), book.standing("silent")
    assert (right.mcc, right.accuracy, right.answered, right.asked) == (1.0, 1.0, 6, 6)
    assert right.p50_ms == pytest.approx(10.0)
    assert (silent.reward, silent.answered, silent.asked) == (0.0, 0, 6)
    assert book.standing("wrong").mcc == -1.0


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ([], "different names"),
        (["sn34-9"], "out of"),
        (["sn34-2.0"] * 2, "different"),
        (["sn34-2.0", "sn34-2.2.0"], "mixes"),
    ],
)
def test_unusable_profiles_are_refused(names: list[str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        profiles(names)
