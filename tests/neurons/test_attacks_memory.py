"""Forged callers leave nothing behind: a slice of ``scripts/prove_bounded.py``, which does a million."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc

from neurons.gate import Gate
from neurons.limits import RateLimits
from scripts.prove_bounded import Room, flood_app, flood_gate, flood_made_up


def traced() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


def test_memory_is_flat_under_forged_callers() -> None:
    room = Room()
    room.gate = Gate(room.access, RateLimits(capacity=1024, known=64))
    flood_gate(room, 5_000)  # fills every table
    asyncio.run(flood_app(room, 50))
    tracemalloc.start()
    try:
        flood_gate(room, 1_000)
        before = traced()
        flood_gate(room, 20_000)
        assert traced() - before < 200_000
        before = traced()
        statuses = asyncio.run(flood_app(room, 1_000, first=50_000))
        # The application has tables of its own, a bucket an address; nothing else may be left of a request.
        assert traced() - before < 1_000 * 400
    finally:
        tracemalloc.stop()
    assert set(statuses) <= {400, 401, 429}
    assert room.told["let in"] == 0
    assert len(room.memory) == 0
    assert room.gate.held() <= 2 * (1024 + 64)


def test_the_remaining_slice_lets_nobody_in_and_remembers_nobody() -> None:
    room = Room(seed=1)
    flood_gate(room, 29_000)
    assert room.told["let in"] == 0
    assert room.told["bad_signature"] == 29_000
    assert len(room.memory) == 0


def test_keys_that_are_made_up_enter_the_replay_memory_at_the_budgets_pace() -> None:
    room = Room(seed=2)
    flood_made_up(room, 1_000)
    assert room.told["let in"] == 0
    assert room.told["not_registered"] == len(room.memory)
    assert 40 <= len(room.memory) < 200  # a burst of 40, then 20 a second
    assert room.told["bad_signature"] > 800
