from __future__ import annotations

import threading

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from neurons.wire.replay import ReplayGuard

SECOND = 1_000_000_000
T0 = 1_760_000_000 * SECOND


def test_key_is_admitted_once() -> None:
    guard = ReplayGuard()
    assert guard.admit(("a", "u", "1"), T0)
    assert not guard.admit(("a", "u", "1"), T0)
    assert guard.admit(("a", "u", "2"), T0)
    assert guard.admit(("b", "u", "1"), T0)


def test_parts_of_a_key_are_kept_apart() -> None:
    guard = ReplayGuard()
    assert guard.admit(("a", "b", "c"), T0)
    assert guard.admit(("a", "b', 'c"), T0)
    assert guard.admit(("ab", "c"), T0)


@given(st.integers(0, 400), st.integers(0, 100))
@example(400, 0)
@example(400, 49)
def test_key_is_remembered_for_its_lifetime(later: int, start: int) -> None:
    """Both in tenths of a second, up to the whole lifetime."""
    later, start = later * SECOND // 10, start * SECOND // 10
    guard = ReplayGuard(lifetime_s=40)
    assert guard.admit(("a", "1"), T0 + start)
    for step in range(1, 5):
        guard.admit(("b", str(step)), T0 + start + later * step // 4)  # what moves the memory on
    assert not guard.admit(("a", "1"), T0 + start + later)


def test_memory_is_given_back() -> None:
    guard = ReplayGuard(lifetime_s=8, capacity=10_000, per_caller=10_000)
    for i in range(100_000):
        assert guard.admit(("a", str(i)), T0 + i * 2_000_000)  # 500 a second
    assert len(guard) <= 500 * 10
    assert guard.overflows == 0


def test_full_share_refuses_its_caller_only_and_forgets_nothing() -> None:
    guard = ReplayGuard(lifetime_s=40, capacity=100, per_caller=10)
    assert [guard.admit(("a", str(i)), T0) for i in range(12)] == [True] * 10 + [False] * 2
    assert guard.admit(("b", "0"), T0)
    assert not guard.admit(("a", "0"), T0)
    assert guard.overflows == 2
    assert guard.admit(("a", "99"), T0 + 60 * SECOND)


def test_full_memory_refuses_rather_than_forgets() -> None:
    guard = ReplayGuard(lifetime_s=40, capacity=8, per_caller=2)
    admitted = [c for c in "abcdefgh" if guard.admit((c, "1"), T0)]
    assert len(admitted) == 8
    assert not guard.admit(("i", "1"), T0)
    assert not any(guard.admit((c, "1"), T0 + SECOND) for c in admitted)
    assert len(guard) == 8


def test_clock_that_steps_back_opens_nothing() -> None:
    guard = ReplayGuard(lifetime_s=40)
    assert guard.admit(("a", "1"), T0)
    assert not guard.admit(("a", "1"), T0 - 3600 * SECOND)
    assert guard.admit(("a", "2"), T0 - 3600 * SECOND)
    assert not guard.admit(("a", "2"), T0)


def test_of_many_threads_one_wins() -> None:
    guard = ReplayGuard()
    wins: list[int] = []
    barrier = threading.Barrier(8)

    def race() -> None:
        barrier.wait()
        wins.extend(i for i in range(500) if guard.admit(("a", str(i)), T0))

    threads = [threading.Thread(target=race) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(wins) == list(range(500))


@pytest.mark.parametrize("arguments", [{"lifetime_s": 0}, {"capacity": 0}, {"per_caller": 0}])
def test_senseless_size_is_refused(arguments: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="positive"):
        ReplayGuard(**arguments)
