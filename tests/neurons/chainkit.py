"""A miner's place on the chain in memory, with a clock that only moves when somebody sleeps."""

from __future__ import annotations

import asyncio
import functools
import itertools
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, ParamSpec

from neurons.chain import Chain, Endpoint, Snapshot
from neurons.chain_sync import ChainSync, Pace, Publisher
from tests.neurons.fake_substrate import NETUID, FakeSubstrate, Row, client
from tests.neurons.loopback import ALICE, BOB, MINER

__all__ = ["HERE", "Setup", "Time", "alternating", "chain_of", "hotkeys", "on_a_loop", "setup"]

P = ParamSpec("P")

HERE = Endpoint("203.0.113.7", 8091)


def on_a_loop(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Makes a test of a coroutine."""

    @functools.wraps(test)
    def run(*args: P.args, **options: P.kwargs) -> None:
        asyncio.run(test(*args, **options))

    return run


class Done(Exception):
    """The time that a test wanted to pass has passed."""


class Time:
    """A clock that sleeping moves; `until` ends the run by raising :class:`Done`."""

    def __init__(self, start: float = 10_000.0) -> None:
        self.now = start
        self.until = float("inf")
        self.slept: list[float] = []
        self.each: Callable[[], None] = lambda: None

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)
        self.slept.append(seconds)
        if self.now + seconds > self.until:
            self.now = self.until
            raise Done
        self.now += seconds
        self.each()


def hotkeys() -> list[Row]:
    return [Row(ALICE.ss58_address, True, 5000.0), Row(BOB.ss58_address, False, 10.0), Row(MINER.ss58_address)]


def chain_of(substrate: FakeSubstrate, time: Time | None = None, timeout_s: float = 5.0) -> Chain:
    clock = Time().clock if time is None else time.clock
    return Chain(client(substrate), netuid=NETUID, hotkey=MINER.ss58_address, timeout_s=timeout_s, clock=clock)


@dataclass
class Setup:
    """What a test plays with."""

    substrate: FakeSubstrate
    time: Time
    chain: Chain
    sync: ChainSync
    told: list[Snapshot]

    async def run_for(self, seconds: float, *, blocks: bool = True, each: Callable[[], None] = lambda: None) -> None:
        """Lets the sync loop run for so long by the test's clock; the chain makes a block every 12 s meanwhile.

        `each` is called whenever a wait has ended. A wait that is not over at the end starts anew in the next run.
        """
        before, start = self.time.now, self.substrate.block
        self.time.until = before + seconds

        def advance() -> None:
            if blocks:
                self.substrate.block = start + int((self.time.now - before) // 12)
            each()

        self.time.each = advance
        try:
            await self.sync.run()
        except Done:
            pass
        finally:
            advance()
            self.time.until = float("inf")


async def setup(pace: Pace | None = None, *, publish: Endpoint | None = None, timeout_s: float = 5.0) -> Setup:
    substrate = FakeSubstrate(hotkeys())
    time = Time()
    chain = chain_of(substrate, time, timeout_s)
    sync = ChainSync(chain, await chain.snapshot(), pace, sleep=time.sleep, rng=random.Random(1))
    told: list[Snapshot] = []

    async def tell(snapshot: Snapshot) -> None:
        told.append(snapshot)

    sync.followers.append(tell)
    if publish is not None:
        sync.followers.append(Publisher(chain, MINER, publish, rng=random.Random(2)).settle)
    return Setup(substrate, time, chain, sync, told)


def alternating(error: Exception) -> Callable[[str], bool | None]:
    """A fault for an endpoint that flaps: every second metagraph fails."""
    counter = itertools.count()

    def fault(name: str) -> bool | None:
        if name == "get_metagraph" and next(counter) % 2 == 0:
            raise error
        return None

    return fault
