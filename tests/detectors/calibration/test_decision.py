"""The decision point pays, by the validators' own arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import matthews_corrcoef

from detectors.calibration import (
    GOALS,
    challenge_weights,
    confusion,
    decision_shift,
    expected_reward,
    sn34_score,
)
from detectors.errors import ConfigError
from detectors.types import Label
from neurons.rewards import PROFILES, Tracker

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_the_expected_reward_is_what_a_validator_pays(name: str) -> None:
    """A window of ten repeats of ten answers: long run and window are the same, so are hundred and last ten."""
    profile, goal = PROFILES[name], GOALS[name]
    labels = [0, 0, 0, 0, 0, 1, 1, 1, 1, 2 if profile.answer == "vector" else 1]
    for said in (
        [0, 0, 0, 0, 1, 1, 1, 1, 0, 2],
        [0, 2, 0, 0, 1, 1, 2, 1, 1, 1],
        [1, 1, 1, 1, 0, 0, 0, 0, 1, 1],
        [0] * 10,
    ):
        tracker = Tracker(profile)
        for truth, answer in zip(labels * 10, said * 10, strict=True):
            p = [0.0, 0.0, 0.0]
            p[answer] = 1.0
            paid = tracker.step("image", p if profile.answer == "vector" else float(answer > 0), Label(truth))
        quality = paid.metrics["image"].quality(profile)
        folded = said if profile.answer == "vector" else [min(s, 1) for s in said]
        assert float(expected_reward(confusion(folded, labels), goal)) == pytest.approx(quality, abs=1e-9)


def test_goals_share_the_prior_of_the_challenges_that_their_profile_sees() -> None:
    for name, profile in PROFILES.items():
        later = profile.mix == "2.2"
        assert GOALS[name].prior == ((0.5, 0.4, 0.1) if later else (0.5, 0.5, 0.0))
        assert GOALS[name].floor == (profile.answer == "float")


def test_the_score_of_the_fourth_version_by_hand() -> None:
    assert float(sn34_score(1.0, 0.0)) == 1.0
    assert float(sn34_score(0.0, 0.25)) == 0.0
    assert float(sn34_score(0.5, 0.1)) == pytest.approx((0.75**1.2 * 0.6**1.8) ** 0.5)
    np.testing.assert_array_equal(sn34_score([0.9, -1.0], [0.3, 0.1]), [0.0, 0.0])


def test_confusion_weighs() -> None:
    shares = confusion([0, 1, 1], [0, 0, 2], [1.0, 2.0, 1.0])
    np.testing.assert_allclose(shares, [[0.25, 0.5, 0.0], [0.0, 0.0, 0.0], [0.0, 0.25, 0.0]])
    y, s = RNG.integers(0, 3, 200), RNG.integers(0, 3, 200)
    three = expected_reward(confusion(s, y), GOALS["sn34-2.2.0"])
    by_hand = 0.9 * matthews_corrcoef(y > 0, s > 0) + 0.1 * matthews_corrcoef(y, s)
    assert float(three) == pytest.approx(by_hand, abs=1e-9)


def test_challenges_are_even_over_sources() -> None:
    labels = [0] * 40 + [1] * 20 + [1] * 4
    sources = ["camera"] * 40 + ["flux"] * 20 + ["rare"] * 4
    w = challenge_weights(labels, sources, (0.5, 0.5, 0.0))
    totals = {name: w[[s == name for s in sources]].sum() / w.sum() for name in set(sources)}
    assert totals == pytest.approx({"camera": 0.5, "flux": 0.5 * 0.8, "rare": 0.5 * 0.2})
    later = challenge_weights([0, 1, 2], ["a", "b", "c"], (0.5, 0.4, 0.1))
    np.testing.assert_allclose(later / later.sum(), [0.5, 0.4, 0.1])
    without = challenge_weights([0, 1], ["a", "b"], (0.5, 0.4, 0.1))
    np.testing.assert_allclose(without, [1.0, 1.0])


def biased(
    count: int, offset: float, spread: float = 1.0, seed: int = 0
) -> tuple[np.ndarray[tuple[int], np.dtype[np.float64]], np.ndarray[tuple[int], np.dtype[np.int64]], list[str]]:
    """Reals around -2, fakes around 2 with another spread, all moved by `offset`."""
    rng = np.random.default_rng(seed)
    y = np.arange(count) % 2
    z = np.where(y == 1, rng.normal(2, spread, count), rng.normal(-2, 1, count)) + offset
    return z, y, [str(k // 4) for k in range(count)]


def test_a_biased_detector_is_moved_back() -> None:
    z, y, groups = biased(2000, 1.3)
    found = decision_shift(z, y, groups)
    assert found.threshold == pytest.approx(1.3, abs=0.25)
    assert found.shift == -found.threshold
    assert found.reward[1] > found.reward[0]
    assert found.brier[1] < found.brier[0]
    assert found.ece[1] < found.ece[0]


def test_the_threshold_is_where_the_reward_peaks() -> None:
    """Unequal spreads: the best point is not where the classes' means suggest, and a fine grid over the true rates
    knows it."""
    at = np.linspace(-4, 6, 2001)
    tpr, fpr = 1 - norm.cdf(at, 2, 3), 1 - norm.cdf(at, -2, 1)
    shares = np.zeros((len(at), 3, 3))
    shares[:, 0, 0], shares[:, 0, 1], shares[:, 1, 0], shares[:, 1, 1] = (
        0.5 * (1 - fpr),
        0.5 * fpr,
        0.5 * (1 - tpr),
        0.5 * tpr,
    )
    true = expected_reward(shares, GOALS["sn34-2.0"])
    regrets = []
    for seed in range(3):
        found = decision_shift(*biased(600, 0.0, 3.0, seed), seed=seed)
        regrets.append(true.max() - np.interp(found.threshold, at, true))
    assert np.mean(regrets) < 0.01
    assert np.interp(0.0, at, true) == pytest.approx(true.max(), abs=0.05)


def test_noise_moves_nothing() -> None:
    moved = [decision_shift(*biased(60, 0.0, seed=seed)).shift for seed in range(6)]
    assert sum(shift != 0.0 for shift in moved) <= 1


def test_the_prior_of_the_profile_counts_not_that_of_the_sample() -> None:
    z, y, groups = biased(3000, 0.8)
    keep = (y == 0) | (np.arange(3000) % 10 == 1)  # a tenth of the fakes
    thinned = decision_shift(z[keep], y[keep], [g for g, k in zip(groups, keep, strict=True) if k])
    assert thinned.threshold == pytest.approx(0.8, abs=0.3)


def test_the_fourth_version_asks_for_honest_probabilities() -> None:
    """Well separated but far too sure: MCC is the same over a wide gap, Brier is not."""
    rng = np.random.default_rng(1)
    y = np.arange(1000) % 2
    z = np.where(y == 1, rng.normal(5, 1, 1000), rng.normal(1, 1, 1000))
    groups = [str(k) for k in range(1000)]
    found = decision_shift(z, y, groups, goal=GOALS["sn34-4"])
    assert found.threshold == pytest.approx(3.0, abs=0.4)
    assert found.brier[1] < 0.5 * found.brier[0]


def test_two_kinds_of_fake_are_told_apart_by_whom_they_are_called() -> None:
    z, y, groups = biased(900, 0.9)
    y = np.where((y == 1) & (np.arange(900) % 5 == 1), 2, y)
    right = decision_shift(z, y, groups, goal=GOALS["sn34-2.2.7"], semi=y == 2)
    wrong = decision_shift(z, y, groups, goal=GOALS["sn34-2.2.7"])
    assert right.reward[1] > wrong.reward[1] + 0.02
    assert right.threshold == pytest.approx(0.9, abs=0.4)


def test_same_seed_same_point() -> None:
    assert decision_shift(*biased(200, 0.5), seed=4) == decision_shift(*biased(200, 0.5), seed=4)


def test_bad_samples_are_refused() -> None:
    for z, y, groups in (([0.0, 1.0], [1, 1], ["a", "b"]), ([np.nan, 1.0], [0, 1], ["a", "b"]), ([0.0], [0, 1], ["a"])):
        with pytest.raises(ConfigError):
            decision_shift(z, y, groups)
    with pytest.raises(ConfigError, match="two bootstraps"):
        decision_shift([0.0, 1.0], [0, 1], ["a", "b"], rounds=2, seed=1)
    with pytest.raises(ConfigError, match="Brier"):
        expected_reward(np.eye(3) / 3, GOALS["sn34-4"])
    with pytest.raises(ConfigError, match="labels are"):
        confusion([3], [0])
