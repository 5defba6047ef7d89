from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from detectors.errors import ConfigError
from detectors.evaluation.compare import common, paired
from detectors.evaluation.measures import Measures
from tests.detectors.evaluation.made_scores import noisy, scores

N = 200


def test_a_better_detector_is_better_with_its_interval_and_itself_is_not() -> None:
    good, bad = noisy(N, apart=3.0), noisy(N, apart=0.5)
    row = paired(good, bad, rounds=200)
    assert row["n"] == N
    assert row["auc"]["a"] == Measures(good).point()["auc"]
    assert row["auc"]["difference"] == pytest.approx(row["auc"]["a"] - row["auc"]["b"])
    assert row["auc"]["interval"][0] > 0
    assert row["brier"]["interval"][1] < 0
    same = paired(good, good, rounds=50)
    assert same["auc"]["difference"] == 0
    assert same["auc"]["interval"] == [0, 0]


def test_pairing_narrows_the_interval() -> None:
    """A detector and its slightly noisier twin: their difference is known far better than either figure."""
    one = noisy(N)
    rng = np.random.default_rng(9)
    twin = one.with_p_fake(np.clip(one.p_fake + rng.normal(0, 0.02, N), 0, 1))
    low, high = paired(one, twin, rounds=200)["auc"]["interval"]
    alone = np.quantile(Measures(one).resampled(200, 0)["auc"], [0.025, 0.975])
    assert high - low < 0.4 * (alone[1] - alone[0])


def test_order_does_not_matter_and_views_that_one_lacks_are_left_out() -> None:
    one, two = noisy(N, apart=2.0), noisy(N, apart=1.0)
    expected = paired(one, two, rounds=50)
    shuffled = two.part(np.random.default_rng(0).permutation(N))
    assert paired(one, shuffled, rounds=50) == expected
    a, b = common(one.part(np.arange(150)), shuffled)
    assert len(a) == len(b) == 150
    np.testing.assert_array_equal(a.keys, b.keys)
    silent = one.with_p_fake(np.where(np.arange(N) < 50, np.nan, one.p_fake))
    assert paired(silent, two, rounds=20)["n"] == N - 50


def test_other_runs_are_refused() -> None:
    one = noisy(20)
    with pytest.raises(ConfigError, match="share no view"):
        paired(one, dataclasses.replace(one, keys=one.keys + 1))
    with pytest.raises(ConfigError, match="level"):
        paired(one, dataclasses.replace(one, levels=one.levels + 1))
    with pytest.raises(ConfigError, match="twice"):
        paired(one, one.part(np.array([0, 0])))


def test_one_class_compares_to_none() -> None:
    row = paired(scores([0.1, 0.1], [0, 0]), scores([0.3, 0.1], [0, 0]), rounds=20)
    assert row["auc"] == {"a": None, "b": None, "difference": None, "interval": None}
    assert row["brier"]["difference"] < 0


def test_a_detector_that_answered_nothing_compares_to_none() -> None:
    one = noisy(20)
    row = paired(one, one.with_p_fake(np.full(20, np.nan)), rounds=20)
    assert (row["n"], row["auc"]["difference"], row["brier"]["interval"]) == (0, None, None)
