"""The bootstrap: against closed forms and scikit-learn, and where it must stay silent."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn.metrics import matthews_corrcoef

from neurons.intervals import accuracies, draws, interval, mccs


def sample(count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.random(count) < 0.5
    said = np.where(rng.random(count) < 0.8, truth, ~truth)
    return truth, said, rng.random(count) < 0.9


def test_draws_are_seeded_and_in_order() -> None:
    first, again, other = draws(20, 50, 1), draws(20, 50, 1), draws(20, 50, 2)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert first.shape == (50, 20)
    assert (np.diff(first, axis=1) >= 0).all()
    assert first.min() >= 0
    assert first.max() < 20


@pytest.mark.parametrize("seed", range(5))
def test_mccs_are_those_of_scikit_learn(seed: int) -> None:
    truth, said, use = sample(40, seed)
    at = draws(40, 20, seed)
    got = mccs(truth, said, use, at)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn warns of single classes
        expected = [matthews_corrcoef(truth[row][use[row]], said[row][use[row]]) for row in at]
    assert got == pytest.approx(expected)


def test_mcc_is_zero_for_constant_answers() -> None:
    truth, _, use = sample(40, 0)
    assert mccs(truth, np.ones(40, bool), use, draws(40, 20, 0)).tolist() == [0.0] * 20


def test_accuracy_interval_is_near_the_normal_one() -> None:
    truth, said, _ = sample(400, 3)
    everything = np.ones(400, bool)
    found = interval(accuracies(truth, said, everything, draws(400, 2000, 0)), count=400)
    assert found is not None
    p = (truth == said).mean()
    half = 1.96 * np.sqrt(p * (1 - p) / 400)
    assert found == pytest.approx([p - half, p + half], abs=0.01)


def test_nothing_used_gives_zero_and_few_challenges_no_interval() -> None:
    truth, said, _ = sample(40, 3)
    nothing = np.zeros(40, bool)
    assert accuracies(truth, said, nothing, draws(40, 3, 0)).tolist() == [0.0] * 3
    assert interval([0.1, 0.2], count=9) is None
    assert interval([0.1, 0.2], count=10) is not None
