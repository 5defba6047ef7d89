"""Targets that do what no parser may, for the tests of the watch itself."""

from __future__ import annotations

import ctypes
import mmap
import random
import time
from collections.abc import Sequence

from tests.fuzz.engine import Outcome, Target

__all__ = ["targets"]


def _fixed(_rng: random.Random, data: bytes, _seeds: Sequence[bytes]) -> bytes:
    return data


def _tame(data: bytes) -> Outcome:
    return Outcome(data == b"good", "bad")


def _raising(data: bytes) -> Outcome:
    raise KeyError(data)


def _endless(_data: bytes) -> Outcome:
    while True:
        time.sleep(0.01)


def _slow(_data: bytes) -> Outcome:
    end = time.process_time() + 0.1
    while time.process_time() < end:
        pass
    return Outcome(True, "")


def _greedy(_data: bytes) -> Outcome:
    # Mapped, not allocated: after other tests the heap may hold that much, resident and free.
    with mmap.mmap(-1, 96 << 20) as block:
        for page in range(0, len(block), mmap.PAGESIZE):
            block[page] = 1
    return Outcome(True, "")


def _crashing(data: bytes) -> Outcome:
    if data == b"bad":
        ctypes.string_at(0)
    return Outcome(True, "")


def _stuck(_data: bytes) -> Outcome:
    ctypes.PyDLL(None).sleep(60)  # holds the interpreter lock: no signal handler of Python's is heard
    return Outcome(True, "")


def targets() -> tuple[Target, ...]:
    """One for each kind of finding, and one that behaves."""
    seeds = (b"good", b"bad")

    def both() -> Sequence[bytes]:
        return seeds

    return (
        Target("tame", both, _tame, _fixed),
        Target("raising", both, _raising, _fixed),
        Target("slow", both, _slow, _fixed, seconds=0.05),
        Target("greedy", both, _greedy, _fixed, megabytes=32),
        Target("crashing", both, _crashing, _fixed),
        Target("stuck", both, _stuck, _fixed),
        Target("endless", both, _endless, _fixed),
    )
