"""Token buckets: exact rates, bounded memory, newcomers that crowd nobody out, addresses as they are handed out."""

from __future__ import annotations

import itertools
import random
import threading
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurons.limits import Buckets, Rate, RateLimited, address_key


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def buckets(per_s: float = 2.0, burst: int = 4, **sizes: int) -> tuple[Buckets, Clock]:
    clock = Clock()
    return Buckets(Rate(per_s, burst), clock=clock, **sizes), clock


def test_a_burst_and_then_the_rate() -> None:
    table, clock = buckets()
    assert [table.take(b"a") for _ in range(4)] == [0.0] * 4
    assert table.take(b"a") == pytest.approx(0.5)
    clock.now += 0.49
    assert table.take(b"a") == pytest.approx(0.01)  # being refused costs nothing
    clock.now += 0.02
    assert table.take(b"a") == 0.0
    assert table.take(b"a") > 0
    clock.now += 100  # a pause fills it, and no further than full
    assert [table.take(b"a") == 0.0 for _ in range(6)] == [True] * 4 + [False] * 2


def test_everybody_has_their_own() -> None:
    table, _ = buckets(burst=1)
    assert table.take(b"a") == 0.0
    assert table.take(b"b") == 0.0
    assert table.take(b"a") > 0


def test_rate_zero_sets_no_limit_and_remembers_nobody() -> None:
    table, _ = buckets(per_s=0.0, burst=1)
    assert {table.take(b"a") for _ in range(1000)} == {0.0}
    table.vouch(b"a")
    assert len(table) == 0


@given(
    st.floats(0.1, 1000),
    st.integers(1, 50),
    st.lists(st.tuples(st.floats(0, 3), st.integers(0, 3)), max_size=200),
    st.integers(1, 5),
)
def test_as_a_plain_bucket_that_never_forgets(
    per_s: float, burst: int, arrivals: list[tuple[float, int]], capacity: int
) -> None:
    """Forgetting makes no difference: against one count of tokens a key, whatever the pauses are."""
    table, clock = buckets(per_s, burst, capacity=capacity + 3)
    tokens: dict[int, tuple[float, float]] = {}
    for pause, who in arrivals:
        clock.now += pause * burst / per_s
        held, since = tokens.get(who, (float(burst), clock.now))
        held = min(float(burst), held + (clock.now - since) * per_s)
        wait = table.take(bytes((who,)))
        if abs(held - 1.0) > 1e-4:  # at the very edge the two may round differently
            assert (wait == 0.0) is (held > 1.0)
        if wait == 0.0:
            held -= 1.0
        else:
            assert wait == pytest.approx((1.0 - held) / per_s, rel=1e-3, abs=1e-3)
        tokens[who] = held, clock.now
        assert len(table) <= capacity + 3


def test_when_there_is_no_room_newcomers_share_one_bucket_and_nobody_gets_a_fresh_start() -> None:
    table, _ = buckets(burst=2, capacity=10)
    seen = [b"s%d" % i for i in range(10)]
    assert [table.take(key) for key in seen] == [0.0] * 10
    assert sum(table.take(b"new %d" % i) == 0.0 for i in range(100_000)) == 2  # the shared one's burst
    assert len(table) == 10
    assert [table.take(key) == 0.0 for key in seen] == [True] * 10  # their second
    assert [table.take(key) == 0.0 for key in seen] == [False] * 10  # and no third


def test_who_is_vouched_for_is_not_crowded_out() -> None:
    table, clock = buckets(per_s=2, burst=2, capacity=10, known=4)
    table.vouch(b"validator")
    forged = (b"forged %d" % i for i in itertools.count())
    for _ in range(200):  # a flood of names, minutes long, and the validator asks now and then
        for _ in range(50):
            table.take(next(forged))
        clock.now += 2
        assert table.take(b"validator") == 0.0
    assert len(table) <= 10 + 4


def test_vouching_gives_no_fresh_start() -> None:
    table, _ = buckets(burst=2)
    assert [table.take(b"a") == 0.0 for _ in range(3)] == [True, True, False]
    table.vouch(b"a")
    table.vouch(b"a")
    assert table.take(b"a") > 0


def test_of_the_known_the_one_used_longest_ago_is_forgotten() -> None:
    table, _ = buckets(burst=1, known=2, capacity=1)
    for key in (b"a", b"b"):
        table.vouch(key)
    assert table.take(b"a") == 0.0
    table.vouch(b"c")  # b goes
    assert len(table) == 2
    assert table.take(b"a") > 0
    assert table.take(b"b") == 0.0
    assert len(table) == 3


def test_memory_is_flat_over_many_forged_names() -> None:
    table, clock = buckets(per_s=100, burst=200, capacity=2048)
    source = random.Random(0)

    def flood(count: int) -> None:
        for _ in range(count):
            clock.now += 1e-5
            table.take(source.randbytes(8))

    flood(5000)
    tracemalloc.start()
    try:
        flood(2000)
        before = tracemalloc.get_traced_memory()[0]
        flood(50_000)
        assert tracemalloc.get_traced_memory()[0] - before < 100_000
    finally:
        tracemalloc.stop()
    assert len(table) <= 2048


def test_many_threads_take_no_more_than_there_is() -> None:
    table, _ = buckets(per_s=1.0, burst=500)
    taken: list[int] = []

    def take() -> None:
        taken.append(sum(table.take(b"a") == 0.0 for _ in range(200)))

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(taken) == 500


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("192.0.2.1", "::ffff:c000:0201", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("2001:DB8:1:2::1", "2001:db8:1:2::1", True),
        ("fe80::1%eth0", "fe80::1%eth1", True),
        ("2001:db8::1", "32.1.13.184", False),
    ],
)
def test_whom_an_address_counts_as(one: str, other: str, same: bool) -> None:
    assert (address_key(one) == address_key(other)) is same


@pytest.mark.parametrize("text", ["", "unix:", "1.2.3", "300.1.1.1", "1.2.3.4\x00", "::1\x00", "é", "g::1", "x" * 9999])
def test_what_is_no_address_is_one_caller(text: str) -> None:
    assert address_key(text) == b""


@pytest.mark.parametrize("rate", [(-1.0, 1), (1.0, 0), (float("inf"), 1), (float("nan"), 1)])
def test_senseless_rates_are_refused(rate: tuple[float, int]) -> None:
    with pytest.raises(ValueError, match="rate"):
        Rate(*rate)


@pytest.mark.parametrize("sizes", [{"capacity": 0}, {"known": 0}])
def test_senseless_sizes_are_refused(sizes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="room"):
        buckets(**sizes)


@pytest.mark.parametrize(("wait", "seconds"), [(0.001, 1), (1.0, 1), (1.2, 2), (59.5, 60)])
def test_retry_after_is_in_whole_seconds_and_never_too_early(wait: float, seconds: int) -> None:
    refusal = RateLimited("address_rate", wait)
    assert (refusal.status, refusal.retry_after_s) == (429, seconds)
