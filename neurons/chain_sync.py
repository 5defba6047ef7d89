"""Keeps a :class:`Snapshot` fresh, serves on with an old one for a while, then fails closed; publishes our address.

Time, sleep and chance are handed in. Nothing here imports bittensor.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from neurons.chain import Chain, ChainError, Endpoint, Snapshot, Trouble
from neurons.keys import Hotkey

__all__ = ["Backoff", "ChainSync", "NotRegisteredError", "Pace", "Publisher", "StuckError", "first_snapshot"]

_log = logging.getLogger(__name__)

Sleep = Callable[[float], Awaitable[None]]
Follower = Callable[[Snapshot], Awaitable[None]]

_ATTEMPTS = 3  # to reach the chain at the start; then the process manager's turn
_LONGEST_RETRY_AFTER_S = 600.0  # whatever an endpoint asks for: beyond this the miner would fail closed for politeness
_PUBLISH_FIRST_S, _PUBLISH_MOST_S = 60.0, 1800.0  # between two attempts; the chain's own limit is some fifty blocks
_ROUND_CALLS = 10  # calls' worth of time that one round may take, with connecting and publishing, before it is stuck


class NotRegisteredError(Exception):
    """Our hotkey has no slot on the subnet (any more): nobody will ask, so there is nothing to serve for."""


class StuckError(Exception):
    """The sync loop itself does not come round: something ignores its timeout."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How often, how long. All in seconds.

    Attributes:
        refresh_s: between two looks while all is well.
        max_age_s: a snapshot older than this is not acted on.
        retry_s: before the first repetition after a failure; doubles up to `refresh_s` (but at least 60).
        confirm_s: before the second look, when our hotkey seems gone: two blocks.
        watch_s: between two looks of the watchdog.
        timeout_s: of one chain call; the watchdog reckons with it.
    """

    refresh_s: float = 120.0
    max_age_s: float = 3600.0
    retry_s: float = 2.0
    confirm_s: float = 24.0
    watch_s: float = 15.0
    timeout_s: float = 30.0


class Backoff:
    """Waits that double, with jitter: each between half and all of its nominal length.

    Args:
        first_s: nominal length of the first wait.
        most_s: nominal length that is never passed.
        rng: source of the jitter.
    """

    def __init__(self, first_s: float, most_s: float, rng: random.Random) -> None:
        self._first_s = first_s
        self._most_s = most_s
        self._rng = rng
        self.failures = 0

    def next(self) -> float:
        """Seconds to wait now; the next will be longer."""
        nominal = min(self._most_s, self._first_s * 2.0 ** min(self.failures, 32))
        self.failures += 1
        return nominal * (0.5 + 0.5 * self._rng.random())

    def reset(self) -> None:
        """Starts again with the first length."""
        self.failures = 0


async def first_snapshot(
    chain: Chain, *, retry_s: float = 2.0, sleep: Sleep = asyncio.sleep, rng: random.Random | None = None
) -> Snapshot:
    """The snapshot that a miner starts with; a chain that is away gets three chances.

    Raises:
        NotRegisteredError: our hotkey is not on the subnet, or there is no such subnet.
        ChainError: the chain could not be read.
    """
    backoff = Backoff(retry_s, 60.0, rng or random.Random())  # noqa: S311 - jitter, no secret
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            snapshot = await chain.snapshot()
        except ChainError as error:
            if error.trouble is Trouble.NOT_REGISTERED:
                raise NotRegisteredError(str(error)) from error
            if attempt == _ATTEMPTS:
                raise
            wait = _wait(backoff, error)
            _log.warning("the chain cannot be read (%s); again in %.0f s", error, wait)
            await sleep(wait)
        else:
            if snapshot.uid is None:
                raise NotRegisteredError(f"the hotkey {chain.hotkey} is not registered on subnet {chain.netuid}")
            return snapshot
    raise AssertionError("unreachable")


class ChainSync:
    """The freshest snapshot there is, and whether it may still be acted on.

    Args:
        chain: where snapshots come from; its clock is the one used here.
        first: the snapshot to start with, from :func:`first_snapshot`.
        pace: see :class:`Pace`.
        sleep: seconds; cancelled at shutdown.
        rng: source of the jitter.
    """

    def __init__(
        self,
        chain: Chain,
        first: Snapshot,
        pace: Pace | None = None,
        *,
        sleep: Sleep = asyncio.sleep,
        rng: random.Random | None = None,
    ) -> None:
        self._chain = chain
        self._pace = pace or Pace()
        self._sleep = sleep
        self._snapshot = first
        self._backoff = Backoff(
            self._pace.retry_s,
            max(self._pace.refresh_s, 60.0),
            rng or random.Random(),  # noqa: S311 - jitter, no secret
        )
        self._gone_at: int | None = None
        self._stale = False
        self._late = False
        self._round_ended = chain.clock()
        self._next_wait = self._pace.refresh_s
        self.followers: list[Follower] = []
        """Called with the first snapshot when :meth:`run` starts, and with each newer one."""

    @property
    def snapshot(self) -> Snapshot:
        """The newest one; check :attr:`fresh` before acting on it."""
        return self._snapshot

    @property
    def age_s(self) -> float:
        """Seconds since the last successful sync: a gauge for metrics, exact at any moment."""
        return self._snapshot.age(self._chain.clock())

    @property
    def fresh(self) -> bool:
        """Whether the snapshot may be acted on; False means: refuse everyone who needs the metagraph."""
        return self.age_s <= self._pace.max_age_s

    async def run(self) -> None:
        """Follows the chain until it is cancelled.

        Raises:
            NotRegisteredError: our hotkey has lost its slot, confirmed by a second look at a later block.
        """
        self._round_ended = self._chain.clock()
        await self._tell(self._snapshot)
        while True:
            await self._sleep(self._next_wait)
            await self.step()

    async def watch(self) -> None:
        """The watchdog, a task of its own: looks at the clock until it is cancelled.

        Raises:
            StuckError: see :meth:`check`.
        """
        while True:
            await self._sleep(self._pace.watch_s)
            self.check()

    async def step(self) -> float:
        """One look at the chain; never raises for a chain that is away.

        Returns:
            Seconds until the next one.

        Raises:
            NotRegisteredError: as :meth:`run`.
        """
        try:
            seen = await self._chain.snapshot()
        except ChainError as error:
            self._next_wait = self._failed(error)
        else:
            self._next_wait = await self._saw(seen)
        self._round_ended = self._chain.clock()
        self._note_edges()
        return self._next_wait

    def check(self) -> None:
        """Says so, once, when the snapshot becomes too old or fresh again.

        Raises:
            StuckError: the sync loop has not come round for far longer than all its timeouts allow.
        """
        self._note_edges()
        overdue = self._chain.clock() - self._round_ended - self._next_wait
        late_before, self._late = self._late, overdue > _ROUND_CALLS * self._pace.timeout_s
        # Twice in a row: after a machine has been paused, the sync loop is late without being at fault.
        if self._late and late_before:
            raise StuckError(f"no look at the chain has ended for {overdue:.0f} s longer than it may take")

    async def _saw(self, seen: Snapshot) -> float:
        if seen.block < self._snapshot.block:
            # Endpoints differ in how far they are. Going back could give back a permit that was lost, and take away the
            # slot of a hotkey that has just registered.
            detail = f"the endpoint is at block {seen.block}, we have seen {self._snapshot.block}"
            return self._failed(ChainError(Trouble.OTHER, detail))
        if seen.uid is None:
            return self._missing(seen)
        if self._backoff.failures:
            _log.info("the chain answers again after %d failures, at block %d", self._backoff.failures, seen.block)
            self._backoff.reset()
        self._gone_at = None
        if seen.block > self._snapshot.block:  # a node that is stuck at one block does not make our view any younger
            if seen.uid != self._snapshot.uid:
                _log.warning("our hotkey is uid %s now; it was %s", seen.uid, self._snapshot.uid)
            self._snapshot = seen
            await self._tell(seen)
        return self._pace.refresh_s

    def _missing(self, seen: Snapshot) -> float:
        """One bad answer must not end a miner: the second look must be at a later block and say the same."""
        uid = self._snapshot.uid
        holder = seen.holders[uid] if uid is not None and uid < len(seen.holders) else None
        where = f"uid {uid} is {'free' if holder is None else 'held by ' + holder}"
        if self._gone_at is not None and seen.block > self._gone_at:
            raise NotRegisteredError(
                f"the hotkey {self._chain.hotkey} is no longer registered on subnet {seen.netuid} ({where})"
            )
        if self._gone_at is None:
            self._gone_at = seen.block
            _log.warning("our hotkey is not in the metagraph of block %d (%s); looking again", seen.block, where)
        return min(self._pace.confirm_s, self._pace.refresh_s)

    def _failed(self, error: ChainError) -> float:
        wait = _wait(self._backoff, error)
        _log.warning("the chain cannot be read (%s); again in %.0f s; our view is %.0f s old", error, wait, self.age_s)
        return wait

    def _note_edges(self) -> None:
        if self._stale == self.fresh:
            self._stale = not self._stale
            if self._stale:
                _log.error("no news from the chain for %.0f s: refusing everyone the metagraph decides on", self.age_s)
            else:
                _log.info("news from the chain again: admitting by the metagraph of block %d", self._snapshot.block)

    async def _tell(self, snapshot: Snapshot) -> None:
        for follower in self.followers:
            await follower(snapshot)


class Publisher:
    """Publishes our address when the chain has another, and no more often than the chain lets us.

    Args:
        chain: what is published to.
        key: our hotkey; signs.
        wanted: where we are reached.
        rng: source of the jitter.
    """

    def __init__(self, chain: Chain, key: Hotkey, wanted: Endpoint, *, rng: random.Random | None = None) -> None:
        self._chain = chain
        self._key = key
        self._wanted = wanted
        self._backoff = Backoff(_PUBLISH_FIRST_S, _PUBLISH_MOST_S, rng or random.Random())  # noqa: S311 - jitter
        self._not_before = self._calm_at = float("-inf")
        self._uid: int | None = None

    async def settle(self, snapshot: Snapshot) -> None:
        """Compares and, where it must, publishes; a failure is logged and left to the next snapshot."""
        now = self._chain.clock()
        if snapshot.uid != self._uid:  # another slot starts with nothing published, and nothing to be limited by
            self._uid = snapshot.uid
            self._backoff.reset()
            self._not_before = now
        if snapshot.axon == self._wanted:
            if now >= self._calm_at:
                self._backoff.reset()
            return
        if now < self._not_before:
            return
        try:
            await self._chain.publish(self._wanted, self._key)
        except ChainError as error:
            wait = _wait(self._backoff, error)
            _log.warning("%s is not published yet (%s); again in %.0f s at the earliest", self._wanted, error, wait)
        else:
            # Backs off after a success as well, and forgets that only when the address has stayed for long: where two
            # miners share a hotkey, each would undo the other for ever.
            wait = self._backoff.next()
            _log.info("published %s (the chain had %s)", self._wanted, snapshot.axon or "nothing")
        self._not_before = self._chain.clock() + wait
        self._calm_at = self._chain.clock() + 2 * _PUBLISH_MOST_S


def _wait(backoff: Backoff, error: ChainError) -> float:
    return max(backoff.next(), min(error.retry_after_s or 0.0, _LONGEST_RETRY_AFTER_S))
