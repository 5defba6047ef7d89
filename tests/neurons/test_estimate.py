"""The running reward: the profiles' own rules, and no figure of a handful."""

from __future__ import annotations

import pytest

from detectors.types import Label
from neurons.estimate import LEAST_LABELS, Known, estimate
from neurons.rewards import NO_ANSWER, PROFILES, Tracker

REAL, FAKE = (0.9, 0.1, 0.0), (0.2, 0.8, 0.0)


def known(count: int, *, right: int | None = None) -> list[Known]:
    """Half real, half synthetic images, of which the first `right` are answered rightly."""
    made = []
    for k in range(count):
        label = Label.SYNTHETIC if k % 2 else Label.REAL
        is_right = right is None or k < right
        made.append(Known("image", label, FAKE if (label == Label.SYNTHETIC) == is_right else REAL))
    return made


def test_too_few_labels_give_no_figure() -> None:
    found = estimate(known(LEAST_LABELS - 1))
    assert (found.labelled, found.summary, found.accuracy, found.profiles) == (LEAST_LABELS - 1, None, None, ())


def test_a_perfect_miner_is_paid_the_share_of_the_modality_it_was_asked_in() -> None:
    found = estimate(known(20))
    assert found.summary is not None
    assert found.summary.accuracy == 1.0
    rewards = {one.name: one.reward for one in found.profiles}
    assert rewards == pytest.approx({name: profile.image for name, profile in PROFILES.items()})
    assert all(one.video.pairs == 0 for one in found.profiles)


def test_the_figure_is_that_of_the_validators_own_windows() -> None:
    challenges = known(30, right=22)
    tracker = Tracker(PROFILES["sn34-2.1"])
    for one in challenges[:-1]:
        assert one.probabilities is not None
        tracker.update(one.modality, 1 - one.probabilities[0], one.label)
    last = challenges[-1]
    assert last.probabilities is not None
    paid = tracker.step(last.modality, 1 - last.probabilities[0], last.label)
    found = {one.name: one.reward for one in estimate(challenges).profiles}
    assert found["sn34-2.1"] == pytest.approx(paid.total)
    assert 0.0 < found["sn34-2.1"] < 0.6


def test_silence_takes_places_in_the_windows() -> None:
    silent = [Known("image", Label.REAL, None)] * 10
    found = estimate([*known(20), *silent])
    assert found.summary is not None
    assert (found.summary.challenges, found.summary.answered) == (30, 20)
    by_name = {one.name: one for one in found.profiles}
    tracker = Tracker(PROFILES["sn34-2.0"])
    for one in known(20):
        assert one.probabilities is not None
        tracker.update("image", 1 - one.probabilities[0], one.label)
    for _ in silent:
        tracker.update("image", NO_ANSWER, Label.REAL)
    assert by_name["sn34-2.0"].image == tracker.metrics("image")
    assert by_name["sn34-2.0"].image.accuracy == 0.0


def test_nothing_but_silence_is_no_accuracy() -> None:
    found = estimate([Known("video", Label.REAL, None)] * 12)
    assert found.accuracy is None
    assert all(one.reward == 0.0 for one in found.profiles)


def test_the_accuracys_interval_holds_the_accuracy() -> None:
    found = estimate(known(40, right=30))
    assert found.accuracy is not None
    assert found.summary is not None
    assert found.summary.accuracy == 0.75
    low, high = found.accuracy
    assert 0.5 < low < 0.75 < high < 0.95
