from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.datasets import Item
from detectors.training.balance import BATCH, EPOCH, Plan
from detectors.types import Label


def pool(reals: dict[str, int], fakes: dict[str, int]) -> list[Item]:
    """Items of both classes, real and fake alternating as far as they go."""
    found = []
    for label, counts in ((Label.REAL, reals), (Label.SEMISYNTHETIC, fakes)):
        for source, count in counts.items():
            found += [
                Item(Path(f"/{source}/{k}"), "image", label, "", "", source, f"{source}:{k}") for k in range(count)
            ]
    return found[::2] + found[1::2]


def epoch(plan: Plan, number: int = 0) -> list[list[int]]:
    first = number * plan.steps_per_epoch
    return [plan.draw(step) for step in range(first, first + plan.steps_per_epoch)]


def test_an_epoch_is_the_seeds() -> None:
    items = pool({"a": 900, "b": 40}, {"x": 1000, "y": 100, "z": 6})
    plan = Plan(items, seed=3)
    assert (EPOCH, BATCH, plan.steps_per_epoch) == (25_600, 256, 100)
    steps = epoch(plan)
    for drawn in steps:
        assert len(drawn) == 256
        assert [items[i].fake for i in drawn] == [False] * 128 + [True] * 128
    counts = Counter(items[i].source for drawn in steps for i in drawn)
    assert counts["a"] == counts["b"] == 6400
    assert abs(counts["x"] - counts["y"]) <= 1
    assert counts["z"] / counts["x"] == pytest.approx(6 / 16, rel=1e-3)
    assert plan.quotas() == {False: {"a": 6400, "b": 6400}, True: {n: counts[n] for n in "xyz"}}


def test_no_item_comes_again_before_its_source_is_exhausted() -> None:
    items = pool({"a": 30, "b": 500}, {"x": 64})
    plan = Plan(items, batch=32, epoch=640, seed=1)
    order = [i for drawn in epoch(plan) for i in drawn]
    for source, count in (("a", 30), ("b", 500), ("x", 64)):
        mine = [i for i in order if items[i].source == source]
        for start in range(0, len(mine), count):
            turn = mine[start : start + count]
            assert len(set(turn)) == len(turn)


def test_a_draw_depends_on_seed_and_step_alone() -> None:
    items = pool({"a": 50, "b": 20}, {"x": 70})
    plan, again = (Plan(items, batch=16, epoch=160, seed=5) for _ in range(2))
    forwards = [plan.draw(step) for step in range(40)]
    backwards = [again.draw(step) for step in reversed(range(40))][::-1]
    assert forwards == backwards
    assert forwards[:10] != forwards[10:20]  # another epoch, another order
    assert forwards != [Plan(items, batch=16, epoch=160, seed=6).draw(step) for step in range(40)]


def test_weights_change_shares_within_a_class_only() -> None:
    items = pool({"a": 50, "b": 50}, {"x": 50, "y": 50})
    plan = Plan(items, batch=16, epoch=160, weights={"a": 3, "y": 0})
    assert plan.quotas() == {False: {"a": 60, "b": 20}, True: {"x": 80, "y": 0}}
    assert all(items[i].source != "y" for drawn in epoch(plan) for i in drawn)


@settings(max_examples=40)
@given(
    st.dictionaries(st.sampled_from("abcde"), st.integers(1, 40), min_size=1),
    st.dictionaries(st.sampled_from("vwxyz"), st.integers(1, 40), min_size=1),
    st.integers(1, 12),
    st.integers(1, 9),
    st.integers(0, 99),
)
def test_any_pool_fills_its_epoch(
    reals: dict[str, int], fakes: dict[str, int], half: int, steps: int, seed: int
) -> None:
    items = pool(reals, fakes)
    plan = Plan(items, batch=2 * half, epoch=2 * half * steps, seed=seed)
    drawn = epoch(plan, 1)
    assert all([items[i].fake for i in one] == [False] * half + [True] * half for one in drawn)
    counts = Counter((items[i].fake, items[i].source) for one in drawn for i in one)
    wanted = {(fake, name): n for fake, quotas in plan.quotas().items() for name, n in quotas.items() if n}
    assert dict(counts) == wanted


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"batch": 3}, "even"),
        ({"batch": 0}, "even"),
        ({"epoch": 100}, "multiple"),
        ({"epoch": 0}, "multiple"),
        ({"floor": 0}, "floor"),
        ({"weights": {"nowhere": 1}}, "nowhere"),
        ({"weights": {"a": -1}}, "at least 0"),
        ({"weights": {"x": 0}}, "not all of them 0"),
        ({"weights": {"a": float("nan")}}, "at least 0"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, object], said: str) -> None:
    options: dict[str, object] = {"batch": 16, "epoch": 160, **change}
    with pytest.raises(ValueError, match=said):
        Plan(pool({"a": 5}, {"x": 5}), **options)  # type: ignore[arg-type]


def test_both_classes_are_needed() -> None:
    with pytest.raises(ValueError, match="no fake item"):
        Plan(pool({"a": 5}, {}))
    with pytest.raises(ValueError, match="negative"):
        Plan(pool({"a": 5}, {"x": 5})).draw(-1)
