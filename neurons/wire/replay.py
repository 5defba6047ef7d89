"""Replay protection: a constant freshness window, and a bounded memory of what was accepted inside it.

The 10.5 Axon wants nonces to increase and so refuses honest requests that overtook each other on the way; an exact
memory refuses only what really came twice. It forgets an entry only after the window would refuse it anyway.
"""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from dataclasses import dataclass, field
from typing import Final

from neurons.wire.base import Refusal

__all__ = ["Freshness", "ReplayGuard"]

_BUCKETS: Final = 8
_SECOND: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Freshness:
    """The time that a signed nonce may differ from ours. Nothing unsigned ever widens it.

    Attributes:
        window_s: seconds back.
        future_s: seconds ahead, for callers whose clock is fast.
        not_before_ns: nanoseconds since the epoch; nothing older is fresh. Set to the start of the process it keeps a
            request that was captured before a restart from being accepted after it, when the memory is empty. It also
            refuses callers whose clock is slow, for as long after the start as their clock is behind.
    """

    window_s: float
    future_s: float
    not_before_ns: int = 0

    def check(self, nonce_ns: int, now_ns: int, *, status: int = 401) -> None:
        """Passes silently when `nonce_ns` is fresh.

        Raises:
            Refusal: `status`, with ``stale_nonce`` or ``future_nonce`` and by how many seconds, so that two clocks
                that differ are noticed.
        """
        age = (now_ns - nonce_ns) / _SECOND
        if age > self.window_s:
            detail = f"the nonce is {_span(age)} old, {_span(age - self.window_s)} too much"
            raise Refusal(status, "stale_nonce", detail)
        if -age > self.future_s:
            detail = f"the nonce is {_span(-age)} ahead of this clock, {_span(-age - self.future_s)} too much"
            raise Refusal(status, "future_nonce", detail)
        if nonce_ns < self.not_before_ns:
            raise Refusal(status, "stale_nonce", "the nonce is older than this service")


def _span(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds < 1e6 else "years"


@dataclass(slots=True)
class _Bucket:
    slot: int
    seen: set[bytes] = field(default_factory=set)
    callers: dict[str, int] = field(default_factory=dict)


class ReplayGuard:
    """Remembers keys for at least `lifetime_s`, thread-safe, in bounded memory.

    When a caller has used up its share, or all shares together the total, *new* keys are refused until old ones
    expire: forgetting a fresh entry would open a replay. The defaults hold 3,200 requests a second of one caller and
    13,000 of all, more than one process can verify, at 100 bytes or so an entry.

    Args:
        lifetime_s: must exceed window + allowed future + the longest time between a request's headers and its
            verification (the server's body timeout).
        capacity: entries in all.
        per_caller: entries of one caller; `capacity` / 4 by default.

    Raises:
        ValueError: an argument is not positive.
    """

    def __init__(self, lifetime_s: float = 40.0, capacity: int = 2**19, per_caller: int | None = None) -> None:
        share = capacity // 4 if per_caller is None else per_caller
        if lifetime_s <= 0 or capacity < 1 or share < 1:
            raise ValueError("lifetime, capacity and the share of a caller must be positive")
        self._width = max(1, int(lifetime_s * _SECOND / _BUCKETS))
        self._lifetime_s = lifetime_s
        self._capacity = capacity
        self._per_caller = share
        self._buckets: deque[_Bucket] = deque()
        self._size = 0
        self._overflows = 0
        self._lock = threading.Lock()

    @property
    def lifetime_s(self) -> float:
        """Seconds that an entry is remembered at least."""
        return self._lifetime_s

    @property
    def overflows(self) -> int:
        """How many new keys were refused for want of room; a metric, 0 in health."""
        return self._overflows

    def __len__(self) -> int:
        return self._size

    def admit(self, key: tuple[str, ...], now_ns: int) -> bool:
        """True the first time `key` is seen, False for a repetition or when there is no room.

        Args:
            key: the caller's hotkey first, then what makes the request unique.
            now_ns: the wall clock.
        """
        caller = key[0]
        digest = hashlib.blake2b(repr(key).encode(), digest_size=16).digest()
        with self._lock:
            current = self._advance(now_ns // self._width)
            if any(digest in bucket.seen for bucket in self._buckets):
                return False
            held = sum(bucket.callers.get(caller, 0) for bucket in self._buckets)
            if held >= self._per_caller or self._size >= self._capacity:
                self._overflows += 1
                return False
            current.seen.add(digest)
            current.callers[caller] = current.callers.get(caller, 0) + 1
            self._size += 1
            return True

    def _advance(self, slot: int) -> _Bucket:
        """Drops what has expired and returns the newest bucket; a clock that steps back keeps using the newest."""
        if not self._buckets or slot > self._buckets[-1].slot:
            self._buckets.append(_Bucket(slot))
        newest = self._buckets[-1]
        while self._buckets[0].slot < newest.slot - _BUCKETS:  # its last entry is now a whole lifetime old
            self._size -= len(self._buckets.popleft().seen)
        return newest
