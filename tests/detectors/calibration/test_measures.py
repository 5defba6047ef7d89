"""Measures agree with worked examples, scipy and scikit-learn."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import brier_score_loss

from detectors.calibration import (
    brier_parts,
    brier_score,
    debiased_calibration_error,
    expected_calibration_error,
    reliability,
)

PAIRS = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 1)), min_size=1, max_size=50)


def test_measures_by_hand() -> None:
    assert brier_score([0.5, 0.5], [0, 1]) == 0.25
    assert brier_score([0.0, 1.0], [0, 1]) == 0.0
    # two bins: {0.1, 0.3} with no fake: gap 0.2; {0.8, 1.0} with one of two fake: gap 0.4
    assert expected_calibration_error([0.1, 0.3, 0.8, 1.0], [0, 0, 0, 1], bins=2) == pytest.approx(0.3)


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 1)), min_size=1, max_size=50), st.integers(1, 20))
def test_measures_are_bounded(pairs: list[tuple[float, int]], bins: int) -> None:
    p, y = zip(*pairs, strict=True)
    assert 0.0 <= expected_calibration_error(p, y, bins) <= 1.0 + 1e-9
    assert brier_score(p, y) == pytest.approx(brier_score_loss(y, p, pos_label=1))


def test_weighted_measures_by_hand() -> None:
    assert brier_score([0.5, 1.0], [0, 0], [3.0, 1.0]) == pytest.approx((3 * 0.25 + 1.0) / 4)
    assert expected_calibration_error([0.2, 0.9], [0, 1], bins=2, weights=[3.0, 1.0]) == pytest.approx(0.175)


def test_the_table_has_even_bins_with_wilsons_interval() -> None:
    rng = np.random.default_rng(0)
    p = rng.random(1000)
    y = (rng.random(1000) < p).astype(int)
    table = reliability(p, y, 10)
    assert [row.count for row in table] == [100] * 10
    assert all(a.high < b.low for a, b in itertools.pairwise(table))
    for row in table:
        interval = binomtest(round(row.found * row.count), row.count).proportion_ci(method="wilson")
        assert (row.found_low, row.found_high) == pytest.approx((interval.low, interval.high), abs=1e-9)
        assert row.low <= row.said <= row.high


def test_a_weighted_table_by_hand() -> None:
    first, second = reliability([0.2, 0.3, 0.9], [0, 1, 1], 2, [1.0, 1.0, 2.0])
    assert (first.count, first.mass, first.effective) == (2, 0.5, 2.0)
    assert (first.said, first.found) == pytest.approx((0.25, 0.5))
    assert (second.count, second.mass, second.effective, second.found) == (1, 0.5, 1.0, 1.0)
    uneven = reliability([0.2, 0.4], [0, 1], 1, [3.0, 1.0])[0]
    assert (uneven.said, uneven.found, uneven.effective) == pytest.approx((0.25, 0.25, 1.6))
    assert len(reliability([0.1, 0.2], [0, 1], 1, [1.0, 0.0])) == 1


def test_equal_answers_stay_in_one_bin() -> None:
    table = reliability([0.2] * 7 + [0.8] * 3, [0] * 7 + [1] * 3, 5)
    assert [(row.count, row.found) for row in table] == [(7, 0.0), (3, 1.0)]
    assert [row.said for row in table] == pytest.approx([0.2, 0.8])


@given(PAIRS, st.integers(1, 12))
def test_the_parts_of_brier_add_up(pairs: list[tuple[float, int]], bins: int) -> None:
    p, y = zip(*pairs, strict=True)
    parts = brier_parts(p, y, bins)
    total = parts.reliability - parts.resolution + parts.uncertainty + parts.within
    assert total == pytest.approx(brier_score(p, y), abs=1e-12)
    assert min(parts.reliability, parts.resolution, parts.uncertainty) >= 0.0


def test_the_parts_of_brier_by_hand() -> None:
    # bins {0.25, 0.25}: none fake; {0.75, 0.75}: one of two fake. Gaps 0.25 and 0.25, shares 0 and 0.5 around 0.25.
    parts = brier_parts([0.25, 0.25, 0.75, 0.75], [0, 0, 0, 1], 2)
    assert (parts.reliability, parts.resolution, parts.uncertainty) == pytest.approx((0.0625, 0.0625, 0.1875))
    assert parts.within == pytest.approx(0.0)


def test_chance_is_taken_off_the_calibration_error() -> None:
    """A calibrated detector: the plain error is all noise, the other near 0; an overconfident one keeps its error."""
    rng = np.random.default_rng(0)
    plain, less, biased = [], [], []
    for _ in range(40):
        p = rng.random(300)
        y = (rng.random(300) < p).astype(int)
        plain.append(np.sqrt(sum(row.count * (row.said - row.found) ** 2 for row in reliability(p, y, 15)) / 300))
        less.append(debiased_calibration_error(p, y, 15))
        biased.append(debiased_calibration_error(np.where(p > 0.5, 1.0, 0.0), y, 15))
    assert np.mean(plain) > 0.07
    assert np.mean(less) < 0.4 * np.mean(plain)
    assert np.mean(biased) == pytest.approx(0.25, abs=0.02)
