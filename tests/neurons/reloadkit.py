"""A reloader at work in the running loop, over a store of small networks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from detectors.live import LiveDetector
from neurons.noticeboard import Noticeboard
from neurons.operations import SwapReport
from neurons.reload import TOPIC, Reloader, changes
from tests.detectors.fixtures_store import House

__all__ = ["NEVER", "Running", "Watched", "run"]

NEVER = 3600.0


class Running:
    """What a miner has: a detector that can be switched, and who follows the files for it.

    Args:
        house: the files.
        options: of the reloader, in place of a quick poll and nothing else.
    """

    def __init__(self, house: House, **options: Any) -> None:
        self.house = house
        self.live = LiveDetector(house.load())
        self.board = Noticeboard(house.root)
        defaults: dict[str, Any] = {"poll_s": 0.01, "settle_s": 0.01, "noticeboard": self.board}
        self.reloader = Reloader(self.live, camo=house.camo, store=house.root, **{**defaults, **options})
        self.told: asyncio.Queue[SwapReport] = asyncio.Queue()
        self.reloader.listeners.append(self.told.put_nowait)
        self.task = asyncio.create_task(self.reloader.run())

    async def next(self) -> SwapReport:
        """The next report."""
        async with asyncio.timeout(60):
            return await self.told.get()

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not holds():  # noqa: ASYNC110 - what holds is set by other threads and files
                await asyncio.sleep(0.005)

    @property
    def notice(self) -> Any:
        """What it last said on the noticeboard; None before it said anything."""
        found = self.board.notices(TOPIC)
        return found[0].said if found else None


class Watched:
    """The system's own watch, and whether it tells of anything yet."""

    def __init__(self) -> None:
        self._told = asyncio.Event()

    async def __call__(self, folders: Sequence[Path]) -> AsyncIterator[object]:
        async for change in changes(folders):
            self._told.set()
            yield change

    async def begun(self, folder: Path) -> None:
        """Writes what is no weights until somebody hears of it."""
        async with asyncio.timeout(60):
            while not self._told.is_set():
                (folder / "note.txt").write_text("is anybody there?")
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._told.wait(), 0.2)


def run(house: House, body: Callable[[Running], Awaitable[None]], **options: Any) -> None:
    """Runs `body` beside a reloader that has begun."""

    async def inner() -> None:
        running = Running(house, **options)
        try:
            await running.until(lambda: running.notice is not None)
            await body(running)
            assert not running.task.done()
        finally:
            running.task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running.task

    asyncio.run(inner())
