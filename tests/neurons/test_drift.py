"""The population stability index and the window it is told of."""

from __future__ import annotations

import math

import pytest

from neurons.drift import BINS, LEAST, Window, bin_of, psi

EVEN = (1 / BINS,) * BINS


def test_a_textbook_example() -> None:
    """Two of ten bins exchange a tenth of all: twice 0.1 · ln 2 and 0.1 · ln(3/2) less, with next to no smoothing."""
    reference = (0.2, 0.2) + (0.075,) * 8
    counts = [300_000, 100_000] + [75_000] * 8
    expected = 0.1 * math.log(1.5) - 0.1 * math.log(0.5)
    assert psi(counts, reference) == pytest.approx(expected, rel=1e-4)


def test_equal_shares_give_nothing() -> None:
    assert psi([50] * BINS, EVEN) == 0.0


def test_an_empty_bin_is_finite_on_both_sides() -> None:
    everything_fake = [0] * 9 + [500]
    assert 0.25 < psi(everything_fake, EVEN) < 20
    assert 0.25 < psi([50] * BINS, (1.0,) + (0.0,) * 9) < 20


def test_the_more_the_answers_move_the_larger_it_is() -> None:
    found = [psi([50 + moved] + [50] * 8 + [50 - moved], EVEN) for moved in (0, 10, 20, 40)]
    assert found == sorted(found)
    assert found[1] < 0.1 < 0.25 > found[2]


@pytest.mark.parametrize(("counts", "reference"), [([1] * BINS, EVEN), ([100] * BINS, ()), ([0] * BINS, EVEN)])
def test_too_little_is_not_a_number(counts: list[int], reference: tuple[float, ...]) -> None:
    assert math.isnan(psi(counts, reference))


def test_the_least_is_counted_over_all_bins() -> None:
    assert math.isnan(psi([LEAST - 1] + [0] * 9, EVEN))
    assert psi([LEAST] + [0] * 9, EVEN) > 0


def test_of_no_answer_nothing_is_said_whatever_the_least() -> None:
    assert math.isnan(psi([0] * BINS, EVEN, least=0))


@pytest.mark.parametrize(("p_fake", "index"), [(0.0, 0), (0.0999, 0), (0.1, 1), (0.5, 5), (0.95, 9), (1.0, 9)])
def test_the_bins(p_fake: float, index: int) -> None:
    assert bin_of(p_fake) == index


def test_the_window_forgets_the_oldest() -> None:
    window = Window(3)
    for p_fake in (0.05, 0.15, 0.15, 0.95, 0.95):
        window.add(p_fake)
    assert window.counts == [0, 1] + [0] * 7 + [2]
    window.counts[0] = 99
    assert window.counts[0] == 0
