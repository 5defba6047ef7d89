"""How often one address and one hotkey may ask: token buckets in bounded memory, O(1) a request.

A bucket is one number, the time at which it is full again. A full bucket equals one that was never seen, so whatever
has had time to refill is forgotten without a difference to anybody. When more strangers ask than there is room for,
the *new* ones share one bucket: making room would give everybody who is over the limit a fresh start.
"""

from __future__ import annotations

import math
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from neurons.wire.base import Refusal

__all__ = ["Buckets", "Rate", "RateLimited", "RateLimits", "address_key"]

_MAPPED = bytes(10) + b"\xff\xff"


@dataclass(frozen=True, slots=True)
class Rate:
    """A rate and how much of it may come at once.

    Attributes:
        per_s: requests a second that can go on for ever; 0 sets no limit.
        burst: requests at once after a pause, >= 1.

    Raises:
        ValueError: out of range.
    """

    per_s: float
    burst: int

    def __post_init__(self) -> None:
        if not 0 <= self.per_s < math.inf or self.burst < 1:
            raise ValueError("a rate must be finite and not negative, its burst at least 1")


@dataclass(frozen=True, slots=True)
class RateLimits:
    """The rates of a miner.

    A validator of the largest subnets sends a miner a few challenges a minute, and a simulation with 64 in flight sends
    as many as the detector answers, some tens a second on two cores. The defaults are far above both and far below
    what the process can refuse: turning a forged request away costs about 0.1 ms, so one address at its limit costs a
    tenth of a core.

    Attributes:
        address: of one IPv4 address or one IPv6 /64, whoever it says it is.
        hotkey: of one proven hotkey.
        proofs: signatures checked, over all callers, for hotkeys that will be refused even if they prove themselves;
            see :mod:`neurons.gate`.
        capacity: addresses, and hotkeys, that are told apart at once.
        known: of each, how many are kept because they belong to a served validator.
    """

    address: Rate = Rate(1000.0, 2000)
    hotkey: Rate = Rate(500.0, 1000)
    proofs: Rate = Rate(20.0, 40)
    capacity: int = 2**15
    known: int = 2**12


class RateLimited(Refusal):
    """429; `retry_after_s` is when the next request will be let in, whole seconds, >= 1."""

    def __init__(self, reason: str, wait_s: float) -> None:
        super().__init__(429, reason, "too many requests")
        self.retry_after_s = max(1, math.ceil(wait_s))


class Buckets:
    """One token bucket a key; thread-safe.

    Args:
        rate: of every key.
        capacity: keys that are told apart at once, those of :meth:`vouch` not counted.
        known: keys that :meth:`vouch` keeps; beyond it the one that was used longest ago is forgotten.
        clock: monotonic seconds.

    Raises:
        ValueError: a size is not positive.
    """

    def __init__(
        self, rate: Rate, *, capacity: int = 2**15, known: int = 2**12, clock: Callable[[], float] = time.monotonic
    ) -> None:
        if capacity < 1 or known < 1:
            raise ValueError("a table of buckets needs room for at least one")
        self._rate = rate
        self._interval = 1.0 / rate.per_s if rate.per_s else 0.0
        self._refill_s = rate.burst * self._interval
        self._capacity = capacity
        self._most_known = known
        self._clock = clock
        # The time at which each is full again. What was not used for a whole refill falls out of `old`, full.
        self._young: dict[bytes, float] = {}
        self._old: dict[bytes, float] = {}
        self._known: OrderedDict[bytes, float] = OrderedDict()
        self._shared = -math.inf
        self._turned = clock()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Keys in memory."""
        return len(self._young) + len(self._old) + len(self._known)

    def take(self, key: bytes = b"") -> float:
        """Takes a token of `key`.

        Returns:
            0.0 where there was one; else the seconds until there is, and nothing was taken.
        """
        if not self._interval:
            return 0.0
        with self._lock:
            now = self._clock()
            if key in self._known:
                self._known.move_to_end(key)
                wait, self._known[key] = self._spend(self._known[key], now)
                return wait
            self._turn(now)
            full_at = self._young.get(key)
            if full_at is None:
                full_at = self._old.pop(key, None)
            if full_at is None:
                if len(self._young) + len(self._old) >= self._capacity:
                    wait, self._shared = self._spend(self._shared, now)
                    return wait
                full_at = now
            wait, self._young[key] = self._spend(full_at, now)
            return wait

    def vouch(self, key: bytes) -> None:
        """Keeps the bucket of `key` apart from those of strangers, however many there are."""
        if not self._interval:
            return
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
                return
            full_at = self._young.pop(key, None)
            if full_at is None:
                full_at = self._old.pop(key, None)
            self._known[key] = self._clock() if full_at is None else full_at
            if len(self._known) > self._most_known:
                self._known.popitem(last=False)

    def _spend(self, full_at: float, now: float) -> tuple[float, float]:
        """(seconds to wait, the new time of being full)."""
        wait = full_at - now - (self._refill_s - self._interval)
        if wait > 1e-9:  # what is left over from adding up intervals is no reason to refuse the last of a burst
            return wait, full_at
        return 0.0, max(full_at, now) + self._interval

    def _turn(self, now: float) -> None:
        """Once a refill time the young become the old, and the old, full by now, are dropped."""
        passed = now - self._turned
        if passed < self._refill_s:
            return
        self._old = self._young if passed < 2 * self._refill_s else {}
        self._young = {}
        self._turned = now


def address_key(address: str) -> bytes:
    """Whom an address is counted as: an IPv4 address as itself, also mapped into IPv6; an IPv6 address as its /64.

    A subscriber gets a whole /64 at least, so counting single addresses would count nothing. What is no address (a
    Unix socket has none) is one caller.

    Args:
        address: of the socket's other end; never from a header.
    """
    try:
        if ":" not in address:
            return socket.inet_pton(socket.AF_INET, address)
        packed = socket.inet_pton(socket.AF_INET6, address.partition("%")[0])
    except (OSError, ValueError):  # ValueError: a NUL byte in the text
        return b""
    return packed[12:] if packed.startswith(_MAPPED) else packed[:8]
