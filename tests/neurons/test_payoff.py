"""Simulated streams: paid to the last digit as the tracker pays, drawn as the validators draw."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from detectors.augment import LEVELS
from detectors.evaluation.scores import Answer
from detectors.types import Label, Modality
from neurons.payoff import difference, payoff, play, rewards, simulate
from neurons.rewards import NO_ANSWER, PROFILES, Profile, Tracker
from tests.detectors.evaluation.made_scores import noisy, scores

ALL = list(PROFILES.values())
TWO, TWO_TWO = PROFILES["sn34-2.0"], PROFILES["sn34-2.2.7"]


def by_name(profile: Profile) -> str:
    return profile.name


def random_streams(seed: int, streams: int = 6, steps: int = 260) -> tuple[Any, Any, Any]:
    """Modalities, answers with ties, silence and classes that come late, and labels."""
    rng = np.random.default_rng(seed)
    shape = (streams, steps)
    video = rng.random(shape) < np.linspace(0, 1, streams)[:, None]
    labels = rng.choice(3, shape, p=(0.5, 0.4, 0.1))
    labels[0, :30] = 0  # one class only at first
    answers = rng.dirichlet((1, 1, 1), shape)
    answers[rng.random(shape) < 0.2] = (0.5, 0.5, 0.0)
    answers[rng.random(shape) < 0.1] = (0.2, 0.4, 0.4)
    answers[rng.random(shape) < 0.15] = np.nan
    answers[1, 40:60] = np.nan  # twenty in a row unanswered
    return video, answers, labels


@pytest.mark.parametrize("profile", ALL, ids=by_name)
def test_every_step_is_paid_as_the_tracker_pays_it(profile: Profile) -> None:
    video, answers, labels = random_streams(1)
    paid = play(profile, video, answers, labels)
    for r in range(len(video)):
        tracker = Tracker(profile)
        for t in range(video.shape[1]):
            modality: Modality = "video" if video[r, t] else "image"
            three = answers[r, t]
            said: Any = NO_ANSWER
            if np.isfinite(three).all():
                said = 1.0 - float(three[0]) if profile.answer == "float" else three.tolist()
            due = tracker.step(modality, said, Label(int(labels[r, t]))).total
            assert paid[r, t] == pytest.approx(due, abs=1e-12), (r, t)


def test_a_perfect_miner_earns_one_and_one_that_is_always_wrong_nothing_or_less() -> None:
    labels = [0, 1] * 100
    modality = ["image"] * 100 + ["video"] * 100
    perfect = scores([float(v) for v in labels], labels, modality=modality)
    wrong = perfect.with_p_fake(1 - perfect.p_fake)
    for profile in ALL:
        best, worst = (simulate(s, profile, mix=None, streams=50) for s in (perfect, wrong))
        assert best is not None
        assert worst is not None
        assert best.settled.mean() == pytest.approx(1.0)
        assert worst.settled.mean() == pytest.approx(0.0 if profile.answer == "float" else -1.0)


def test_the_reward_is_that_of_a_known_accuracy() -> None:
    """Right on 80 % of either class: MCC 0.6 and accuracy 0.8, hence 0.7 under 2.0, and 0.6 under 2.2."""
    labels = np.tile([0, 1], 500)
    p = np.where(np.arange(1000) % 10 < 8, labels, 1 - labels).astype(float)
    found = scores(p.tolist(), labels.tolist())
    row = payoff(simulate(found, TWO, mix=None))
    assert row["mean"] == pytest.approx(0.7, abs=0.02)
    assert row["interval"][0] < row["median"] < row["interval"][1]
    assert row["modalities"] == ["image"]
    assert "no videos" in row["note"]
    assert payoff(simulate(found, TWO_TWO, mix=None))["mean"] == pytest.approx(0.6, abs=0.03)


def test_sources_are_drawn_evenly_whatever_their_size() -> None:
    """A large source of reals is always right, a small one always wrong: half of the reals drawn are wrong."""
    labels = [0] * 400 + [0] * 20 + [1] * 100
    p = [0.0] * 400 + [1.0] * 20 + [1.0] * 100
    source = ["large"] * 400 + ["small"] * 20 + ["gan"] * 100
    row = payoff(simulate(scores(p, labels, source=source), TWO, mix=None))
    # TNR 1/2 and TPR 1: accuracy 3/4, MCC 1/sqrt(3)
    assert row["mean"] == pytest.approx((0.75 + 3**-0.5) / 2, abs=0.03)


def test_levels_are_weighted_to_the_mix_of_the_profile() -> None:
    """Right at level 0 only; drawn under mix 2.0 and paid under 2.2 the share of level 1 falls from 0.45 to 0.25."""
    rng = np.random.default_rng(0)
    level = rng.choice(4, 4000, p=LEVELS["2.0"])
    labels = rng.integers(0, 2, 4000)
    p = np.where(level == 1, 1 - labels, labels).astype(float)
    found = scores(p.tolist(), labels.tolist(), level=level.tolist())
    right = {mix: 1 - LEVELS[mix][1] for mix in LEVELS}
    paid = {
        mix: simulate(found, PROFILES[name], mix="2.0") for mix, name in (("2.0", "sn34-2.1"), ("2.2", "sn34-2.2.0"))
    }
    assert paid["2.0"] is not None
    assert paid["2.2"] is not None
    mcc = 2 * right["2.0"] - 1
    assert paid["2.0"].settled.mean() == pytest.approx((mcc + right["2.0"]) / 2, abs=0.04)
    mcc = 2 * right["2.2"] - 1
    assert paid["2.2"].settled.mean() == pytest.approx(mcc, abs=0.04)
    assert "weighted to mix 2.2" in paid["2.2"].note


def test_silence_costs_its_steps() -> None:
    labels = [0, 1] * 200
    p: list[float | None] = [float(v) for v in labels]
    full = simulate(scores(p, labels), TWO, mix=None)
    silent = simulate(scores([None if k % 10 < 2 else v for k, v in enumerate(p)], labels), TWO, mix=None)
    assert full is not None
    assert silent is not None
    assert silent.settled.mean() == pytest.approx(0.8 * full.settled.mean(), abs=0.03)


def test_semi_synthetic_views_are_a_tenth_under_2_2_and_no_class_of_their_own_under_2_0() -> None:
    three = [Answer((1.0, 0.0, 0.0)), Answer((0.0, 1.0, 0.0)), Answer((0.0, 1.0, 0.0))]  # semi called synthetic
    labels = [0] * 60 + [1] * 60 + [2] * 60
    found = scores([0.0] * 180, labels, answer=[three[k] for k in labels])
    under = {name: simulate(found, PROFILES[name], mix=None) for name in ("sn34-2.0", "sn34-2.2.7")}
    assert all(pay is not None for pay in under.values())
    values = {name: pay.settled.mean() for name, pay in under.items() if pay is not None}
    assert values["sn34-2.0"] == pytest.approx(1.0)
    assert 0.9 < values["sn34-2.2.7"] < 0.98  # 0.75 + 0.25 times a three-class MCC of some 0.84


def test_draws_follow_the_seed_and_not_the_answers() -> None:
    one = noisy(300, apart=2.0)
    two = one.with_p_fake(np.clip(one.p_fake + 0.01, 0, 1))
    assert rewards(one, mix=None, seed=5) == rewards(one, mix=None, seed=5)
    assert rewards(one, mix=None, seed=5) != rewards(one, mix=None, seed=6)
    near = difference(one, two, TWO, mix=None)
    far = difference(one, one.with_p_fake(1 - one.p_fake), TWO, mix=None)
    assert near["interval"][1] - near["interval"][0] < 0.5 * (far["interval"][1] - far["interval"][0])
    assert far["interval"][0] > 0
    assert difference(one, one, TWO, mix=None)["interval"] == [0.0, 0.0]


def test_one_class_has_no_reward_and_a_modality_of_one_class_is_left_out() -> None:
    assert simulate(scores([0.1, 0.2], [0, 0]), TWO, mix=None) is None
    assert simulate(scores([], []), TWO, mix=None) is None
    row = rewards(scores([0.1], [0]), mix=None)["sn34-2.0"]
    assert row["median"] is None
    assert row["note"]
    lopsided = scores([0.0, 1.0, 0.9], [0, 1, 0], modality=["image", "image", "video"])
    pay = simulate(lopsided, TWO, mix=None)
    assert pay is not None
    assert pay.modalities == ("image",)
    assert pay.settled.max() <= 1.0


def test_all_profiles_take_less_than_two_seconds_each() -> None:
    rng = np.random.default_rng(0)
    found = noisy(10_000, modality=rng.choice(["image", "video"], 10_000).tolist())
    for profile in ALL:
        started = time.process_time()
        simulate(found, profile, mix=None)
        assert time.process_time() - started < 2.0
