from __future__ import annotations

import numpy as np
import pytest

from detectors.training.evaluate import Scored, auc_interval, balanced, parts, summary


def scored(logits: list[float], fake: list[bool]) -> Scored:
    names = tuple(f"s{k % 2}" for k in range(len(logits)))
    return Scored(np.array(logits), np.array(fake), names, tuple(f"g{k}" for k in range(len(logits))))


def test_perfect_and_reversed_order() -> None:
    fake = [False] * 20 + [True] * 20
    right = [-1.0] * 20 + [1.0] * 20
    assert auc_interval(scored(right, fake)) == (1.0, 1.0, 1.0)
    assert auc_interval(scored([-v for v in right], fake))[0] == 0.0


def test_the_interval_holds_the_value_and_narrows_with_data() -> None:
    rng = np.random.default_rng(0)

    def drawn(n: int) -> tuple[float, float, float]:
        fake = rng.random(n) < 0.5
        return auc_interval(scored((rng.normal(size=n) + fake).tolist(), fake.tolist()))

    wide, narrow = drawn(60), drawn(2000)
    for auc, low, high in (wide, narrow):
        assert low <= auc <= high
    assert narrow[2] - narrow[1] < wide[2] - wide[1]


def test_one_class_has_no_auc() -> None:
    assert all(np.isnan(v) for v in auc_interval(scored([0.1, 0.2], [True, True])))


def test_the_summary_counts_by_source() -> None:
    found = summary(scored([-1.0, 1.0, -1.0, 1.0], [False, True, True, True]))
    assert found["views"] == 4
    assert found["sources"] == {"s0": {"views": 2, "right": 0.5}, "s1": {"views": 2, "right": 1.0}}
    assert found["balanced_accuracy"] == pytest.approx((1.0 + 2 / 3) / 2, abs=1e-4)


def test_a_part_keeps_what_belongs_together() -> None:
    part = scored([1.0, 2.0, 3.0], [True, False, True]).part(np.array([True, False, True]))
    assert part.logits.tolist() == [1.0, 3.0]
    assert part.sources == ("s0", "s0")
    assert part.groups == ("g0", "g2")


def test_balanced_keeps_all_of_the_smaller_class() -> None:
    found = balanced(scored([float(k) for k in range(9)], [True] * 6 + [False] * 3))
    assert found.fake.sum() == 3
    assert found.logits[~found.fake].tolist() == [6.0, 7.0, 8.0]


def test_parts_share_their_reals() -> None:
    sources = ("cat", "cat", "made:grid", "gan")
    views = Scored(np.arange(4.0), np.array([False, False, True, True]), sources, ("a", "b", "a", "c"))
    found = parts(views)
    assert found["pool"].sources == ("cat", "cat", "gan")
    assert found["made"].sources == ("cat", "cat", "made:grid")
