"""Reward profiles: worked examples by hand, scikit-learn as the reference, and properties that must always hold."""

from __future__ import annotations

import math
import random
import time
import warnings
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, matthews_corrcoef

from detectors.types import Label, Modality
from neurons.rewards import NO_ANSWER, PROFILES, Answer, Metrics, Profile, Tracker, penalty, reward, vector

R, S, M = Label.REAL, Label.SYNTHETIC, Label.SEMISYNTHETIC
MODALITIES: tuple[Modality, ...] = ("image", "video")
FLOAT = [p for p in PROFILES.values() if p.answer == "float"]
VECTOR = [p for p in PROFILES.values() if p.answer == "vector"]

probability = st.floats(0, 1)
label = st.sampled_from(list(Label))
step = st.tuples(st.sampled_from(MODALITIES), st.one_of(probability, st.just(NO_ANSWER)), label)


def play(profile: Profile, steps: Sequence[tuple[Answer, Label]], modality: Modality = "image") -> Tracker:
    tracker = Tracker(profile)
    for answer, truth in steps:
        tracker.update(modality, answer, truth)
    return tracker


def by_name(profile: Profile) -> str:
    return profile.name


# --- worked examples -------------------------------------------------------------------------------------------------


def test_the_profiles_are_the_five_and_their_weights() -> None:
    rows = {
        p.name: (p.image, p.video, p.mcc, p.mcc3, p.accuracy, p.mix, p.unchallenged_zero) for p in PROFILES.values()
    }
    assert rows == {
        "sn34-2.0": (0.95, 0.05, 0.5, 0.0, 0.5, "2.0", True),
        "sn34-2.0.1": (0.9, 0.1, 0.5, 0.0, 0.5, "2.0", True),
        "sn34-2.1": (0.6, 0.4, 0.5, 0.0, 0.5, "2.0", False),
        "sn34-2.2.0": (0.6, 0.4, 0.9, 0.1, 0.0, "2.2", False),
        "sn34-2.2.7": (0.6, 0.4, 0.75, 0.25, 0.0, "2.2", False),
    }
    assert {p.window for p in PROFILES.values()} == {100}


def test_worked_example_2_0() -> None:
    """Four images: fake said fake, fake said real, real said real, real said real; no video yet.

    TP 1, FN 1, TN 2, FP 0: MCC = (1·2 − 0·1) / sqrt(1·2·2·3) = 2/√12 = 0.57735; accuracy 3/4.
    Image quality 0.5·0.57735 + 0.5·0.75 = 0.663675; times 0.95.
    """
    tracker = Tracker(PROFILES["sn34-2.0"])
    for answer, truth in ((0.9, S), (0.2, M), (0.1, R)):
        tracker.step("image", answer, truth)
    paid = tracker.step("image", 0.4, R)
    assert paid.metrics["image"] == Metrics(2 / math.sqrt(12), 0.0, 0.75, 4, 4)
    assert paid.metrics["video"] == Metrics()
    assert paid.total == pytest.approx(0.95 * (0.5 * 2 / math.sqrt(12) + 0.5 * 0.75))
    # a video, answered right: one label only, so its MCC is 0 and its accuracy 1
    paid = tracker.step("video", 0.8, S)
    assert paid.total == pytest.approx(0.95 * (0.5 * 2 / math.sqrt(12) + 0.5 * 0.75) + 0.05 * 0.5)
    # a missed video: stored, skipped in the metrics, and the whole step is lost, the image part with it
    paid = tracker.step("video", NO_ANSWER, R)
    assert (paid.total, paid.penalty) == (0.0, 0.0)
    assert paid.metrics["video"] == Metrics(0.0, 0.0, 1.0, 1, 2)
    # the next answer is paid again
    assert tracker.step("image", 0.0, R).total > 0.6


def test_worked_example_2_2() -> None:
    """Answers synthetic, synthetic, real, semi to labels synthetic, semi, real, semi.

    Binary: all right, MCC 1. Three classes, n 4, hits 3, said (1, 2, 1), true (1, 1, 2):
    covariance 3·4 − (1·1 + 2·1 + 1·2) = 7; spreads 16 − 6 = 10 and 10; MCC3 = 0.7.
    """
    steps: list[tuple[Answer, Label]] = [
        ((0.1, 0.8, 0.1), S),
        (0.9, M),
        ((0.7, 0.3), R),
        ((0.2, 0.2, 0.6), M),
    ]
    for name, share in (("sn34-2.2.0", 0.1), ("sn34-2.2.7", 0.25)):
        metrics = play(PROFILES[name], steps).metrics("image")
        assert (metrics.mcc, metrics.mcc3) == (1.0, 0.7)
        paid = Tracker(PROFILES[name])
        for answer, truth in steps[:-1]:
            paid.update("image", answer, truth)
        total = paid.step("image", *steps[-1]).total
        assert total == pytest.approx(0.6 * ((1 - share) * 1.0 + share * 0.7))


@pytest.mark.parametrize("profile", FLOAT, ids=by_name)
def test_exactly_one_half_is_real(profile: Profile) -> None:
    metrics = play(profile, [(0.5, R), (np.nextafter(0.5, 1), S)]).metrics("image")
    assert (metrics.mcc, metrics.accuracy) == (1.0, 1.0)


def test_ties_of_a_vector_go_to_the_first_class() -> None:
    metrics = play(PROFILES["sn34-2.2.0"], [((0.5, 0.5, 0.0), R), ((0.2, 0.4, 0.4), S)]).metrics("image")
    assert (metrics.mcc, metrics.mcc3) == (1.0, 1.0)


@pytest.mark.parametrize("profile", FLOAT, ids=by_name)
def test_worse_than_chance_is_floored_before_2_2(profile: Profile) -> None:
    assert play(profile, [(0.9, R), (0.1, S)]).metrics("image").mcc == 0.0


@pytest.mark.parametrize("profile", VECTOR, ids=by_name)
def test_worse_than_chance_costs_from_2_2(profile: Profile) -> None:
    tracker = play(profile, [(0.9, R)])
    assert tracker.step("image", 0.1, S).total == pytest.approx(-0.6)


def test_a_single_label_gives_no_mcc() -> None:
    for profile in PROFILES.values():
        assert play(profile, [(0.9, S)] * 20).metrics("image").mcc == 0.0


@pytest.mark.parametrize("profile", PROFILES.values(), ids=by_name)
def test_the_window_forgets_the_oldest(profile: Profile) -> None:
    """A hundred pairs are kept: what was wrong 101 pairs ago is gone, silence takes a place."""
    right: list[tuple[Answer, Label]] = [(0.1, R), (0.9, S)] * 50
    tracker = play(profile, [(0.9, R), *right[:-1]])
    assert tracker.metrics("image").mcc < 1.0
    tracker.update("image", 0.9, S)
    assert tracker.metrics("image").mcc == pytest.approx(1.0)
    tracker.update("image", NO_ANSWER, R)
    assert (tracker.metrics("image").answered, tracker.metrics("image").pairs) == (99, 100)


@pytest.mark.parametrize("profile", FLOAT, ids=by_name)
def test_accuracy_looks_at_the_last_ten_pairs_silence_included(profile: Profile) -> None:
    tracker = play(profile, [(0.1, S)] * 5 + [(0.9, S)] * 5)
    assert tracker.metrics("image").accuracy == 0.5
    for missed in range(1, 6):
        tracker.update("image", NO_ANSWER, S)
        assert tracker.metrics("image").accuracy == pytest.approx(5 / (10 - missed))
    for _ in range(5):
        tracker.update("image", NO_ANSWER, S)
    assert tracker.metrics("image").accuracy == 0.0


@pytest.mark.parametrize("profile", PROFILES.values(), ids=by_name)
def test_penalty(profile: Profile) -> None:
    for valid in (0.0, 0.5, 1.0, 1):
        assert penalty(profile, valid) == 1.0
    for invalid in (-1.0, -1e-9, 1.0 + 1e-9, math.nan, math.inf):
        assert penalty(profile, invalid) == 0.0
    takes_vectors = float(profile.answer == "vector")
    for good in ([0.2, 0.3, 0.5], (1.0, 0.0), [0.3333333, 0.3333333, 0.3333333]):
        assert penalty(profile, good) == takes_vectors
    for bad in ([-1.0, -1.0, -1.0], [0.5, 0.5, 0.1], [1.2, -0.2, 0.0], [0.9], [math.nan, 0.5, 0.5], [0.33, 0.33, 0.33]):
        assert penalty(profile, bad) == 0.0


def test_vector_reads_floats_and_pairs() -> None:
    assert vector(0.25) == (0.75, 0.25, 0.0)
    assert vector([0.4, 0.6]) == (0.4, 0.6, 0.0)
    assert vector((0.2, 0.3, 0.5)) == (0.2, 0.3, 0.5)
    for nothing in (-1.0, [-1.0, -1.0, -1.0], [-1, -1], [], [1.0]):
        assert vector(nothing) is None


@pytest.mark.parametrize("wrong", [7.0, math.nan, math.inf, -2.0])
@pytest.mark.parametrize("profile", FLOAT, ids=by_name)
def test_an_answer_without_a_class_spoils_the_window_until_it_leaves(profile: Profile, wrong: float) -> None:
    tracker = play(profile, [(0.1, R), (0.9, S), (wrong, S)])
    assert tracker.metrics("image") == Metrics(answered=3, pairs=3)
    for _ in range(49):
        tracker.update("image", 0.1, R)
        tracker.update("image", 0.9, S)
    assert tracker.metrics("image").mcc == 0.0
    tracker.update("image", 0.1, R)
    tracker.update("image", 0.9, S)
    assert tracker.metrics("image").mcc == pytest.approx(1.0)


@pytest.mark.parametrize("profile", PROFILES.values(), ids=by_name)
def test_another_hot_key_starts_from_nothing_in_both_modalities(profile: Profile) -> None:
    tracker = Tracker(profile)
    for modality in MODALITIES:
        for answer, truth in ((0.1, R), (0.9, S)):
            tracker.step(modality, answer, truth, "alice")
    assert tracker.step("image", 0.1, R, "alice").total == pytest.approx(1.0)
    paid = tracker.step("image", 0.1, R, "bob")
    fresh = Tracker(profile).step("image", 0.1, R, "bob")
    assert (tracker.hotkey, paid) == ("bob", fresh)
    assert paid.metrics["video"] == Metrics()


@pytest.mark.parametrize("profile", PROFILES.values(), ids=by_name)
def test_a_perfect_miner_of_one_modality_earns_its_weight(profile: Profile) -> None:
    for modality in MODALITIES:
        tracker = play(profile, [(0.0, R), (1.0, S)] * 10, modality)
        assert tracker.step(modality, 0.0, R).total == pytest.approx(profile.weight(modality))


def test_reward_is_the_weighted_sum() -> None:
    profile = PROFILES["sn34-2.1"]
    metrics: dict[Modality, Metrics] = {
        "image": Metrics(mcc=0.5, accuracy=0.7),
        "video": Metrics(mcc=0.2, accuracy=0.4),
    }
    assert reward(profile, metrics, 1.0).total == pytest.approx(0.6 * 0.6 + 0.4 * 0.3)
    assert reward(profile, metrics, 0.0).total == 0.0


# --- against scikit-learn --------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.one_of(probability, st.just(-1.0)), label), min_size=1, max_size=140))
def test_float_profiles_equal_scikit_learn(steps: list[tuple[float, Label]]) -> None:
    metrics = play(PROFILES["sn34-2.0"], list(steps)).metrics("image")
    kept = [(np.round(p), int(t > 0)) for p, t in steps[-100:] if p != -1]
    recent = [(np.round(p), int(t > 0)) for p, t in steps[-10:] if p != -1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mcc = matthews_corrcoef(*zip(*kept, strict=True)) if len({t for _, t in kept}) > 1 else 0.0
        accuracy = accuracy_score(*zip(*recent, strict=True)) if recent else 0.0
    assert metrics.mcc == pytest.approx(max(0.0, mcc), abs=1e-12)
    assert metrics.accuracy == pytest.approx(accuracy, abs=1e-12)


simplex = st.tuples(*[st.floats(0.01, 1)] * 3).map(lambda v: tuple(x / sum(v) for x in v))


@given(st.lists(st.tuples(simplex, label), min_size=1, max_size=140))
def test_vector_profiles_equal_scikit_learn(steps: list[tuple[tuple[float, ...], Label]]) -> None:
    metrics = play(PROFILES["sn34-2.2.0"], list(steps)).metrics("image")
    said = np.array([np.argmax(p) for p, _ in steps[-100:]])
    true = np.array([int(t) for _, t in steps[-100:]])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = matthews_corrcoef(true > 0, said > 0), matthews_corrcoef(true, said)
    assert metrics.mcc == pytest.approx(expected[0], abs=1e-12)
    assert metrics.mcc3 == pytest.approx(expected[1], abs=1e-12)


# --- properties ------------------------------------------------------------------------------------------------------


@given(profile=st.sampled_from(list(PROFILES.values())), steps=st.lists(step, max_size=60))
def test_bounds_and_silence_never_pays(profile: Profile, steps: list[tuple[Modality, float, Label]]) -> None:
    tracker = Tracker(profile)
    floor = 0.0 if profile.answer == "float" else -1.0
    for modality, answer, truth in steps:
        paid = tracker.step(modality, answer, truth)
        assert floor - 1e-12 <= paid.total <= 1 + 1e-12
        assert paid.penalty == float(answer != NO_ANSWER)
        if answer == NO_ANSWER:
            assert paid.total == 0.0


@given(profile=st.sampled_from(FLOAT), steps=st.lists(step, max_size=40), last=step)
def test_any_probability_pays_at_least_what_silence_pays(
    profile: Profile, steps: list[tuple[Modality, float, Label]], last: tuple[Modality, float, Label]
) -> None:
    def paid(answer: float) -> float:
        tracker = Tracker(profile)
        for modality, earlier, truth in steps:
            tracker.update(modality, earlier, truth)
        return tracker.step(last[0], answer, last[2]).total

    assert paid(0.5) >= paid(NO_ANSWER) == 0.0


@given(
    profile=st.sampled_from(list(PROFILES.values())),
    steps=st.lists(step, max_size=10),
    order=st.randoms(use_true_random=False),
)
def test_order_within_a_short_run_does_not_matter(
    profile: Profile, steps: list[tuple[Modality, float, Label]], order: random.Random
) -> None:
    """Up to ten pairs everything is inside both windows, so only which pairs there are counts."""
    shuffled = list(steps)
    order.shuffle(shuffled)
    trackers = []
    for sequence in (steps, shuffled):
        tracker = Tracker(profile)
        for modality, answer, truth in sequence:
            tracker.update(modality, answer, truth)
        trackers.append(tracker)
    for modality in MODALITIES:
        assert trackers[0].metrics(modality) == trackers[1].metrics(modality)


@pytest.mark.parametrize("profile", FLOAT, ids=by_name)
def test_order_across_the_recent_window_matters(profile: Profile) -> None:
    wrong: list[tuple[Answer, Label]] = [(0.1, S)] * 10
    right: list[tuple[Answer, Label]] = [(0.9, S)] * 10
    early, late = play(profile, wrong + right).metrics("image"), play(profile, right + wrong).metrics("image")
    assert (early.accuracy, late.accuracy) == (1.0, 0.0)
    assert early.mcc == late.mcc


@given(
    profile=st.sampled_from(list(PROFILES.values())),
    steps=st.lists(step, max_size=40),
    more=st.lists(step, max_size=20),
)
def test_only_the_last_hundred_pairs_count(
    profile: Profile, steps: list[tuple[Modality, float, Label]], more: list[tuple[Modality, float, Label]]
) -> None:
    """Whatever came before, after a hundred pairs of each modality two miners with the same answers are equal."""
    a, b = Tracker(profile), Tracker(profile)
    for modality, answer, truth in steps:
        a.update(modality, answer, truth)
    tail = [(m, (n * 7 % 10) / 10, Label(n % 3)) for m in MODALITIES for n in range(100)] + more
    for tracker in (a, b):
        for modality, answer, truth in tail:
            tracker.update(modality, answer, truth)
    assert [a.metrics(m) for m in MODALITIES] == [b.metrics(m) for m in MODALITIES]


@pytest.mark.parametrize("name", ["sn34-2.0", "sn34-2.2.7"])
def test_a_thousand_challenges_to_five_miners_are_quick(name: str) -> None:
    rng = np.random.default_rng(0)
    miners = [Tracker(PROFILES[name]) for _ in range(5)]
    started = time.process_time()
    for n in range(1000):
        for tracker in miners:
            tracker.step(MODALITIES[n % 2], float(rng.random()), Label(n % 3))
    assert time.process_time() - started < 2.0
