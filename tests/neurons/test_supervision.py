"""Supervision: a task that dies stops the server gracefully and is the reason the process ends; a shutdown is none."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

import pytest

from neurons.supervision import TaskDiedError, supervise
from tests.neurons.chainkit import on_a_loop


class Work:
    """Ends a moment after it was told to, as a server does that answers what it has admitted."""

    def __init__(self) -> None:
        self.told = asyncio.Event()
        self.finished = False

    async def run(self) -> None:
        await self.told.wait()
        for _ in range(3):
            await asyncio.sleep(0)
        self.finished = True


class VerdictError(Exception):
    pass


async def forever() -> None:
    await asyncio.Event().wait()


async def raises(error: Exception) -> None:
    await asyncio.sleep(0)
    raise error


async def returns() -> None:
    await asyncio.sleep(0)


async def cancels_itself() -> None:
    await asyncio.sleep(0)
    raise asyncio.CancelledError


@pytest.mark.parametrize(
    ("task", "words"),
    [(raises(KeyError("x")), "KeyError: 'x'"), (returns(), "ended"), (cancels_itself(), "cancelled")],
    ids=["raises", "returns", "cancelled"],
)
@on_a_loop
async def test_a_dead_task_stops_the_work_gracefully_and_is_named(
    task: Coroutine[Any, Any, None], words: str, caplog: pytest.LogCaptureFixture
) -> None:
    work = Work()
    with pytest.raises(TaskDiedError, match=f"sync died: .*{words}") as caught:
        await supervise(work.run(), work.told.set, {"other": forever(), "sync": task})
    assert work.finished
    assert caught.value.name == "sync"
    assert len(asyncio.all_tasks()) == 1
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


@on_a_loop
async def test_a_verdict_is_raised_as_it_is() -> None:
    work = Work()
    with pytest.raises(VerdictError):
        await supervise(work.run(), work.told.set, {"sync": raises(VerdictError())}, expected=(VerdictError,))
    assert work.finished


@on_a_loop
async def test_a_shutdown_cancels_the_tasks_and_is_no_death(caplog: pytest.LogCaptureFixture) -> None:
    work = Work()
    asyncio.get_running_loop().call_soon(work.told.set)
    await supervise(work.run(), work.told.set, {"a": forever(), "b": forever()})
    assert work.finished
    assert len(asyncio.all_tasks()) == 1
    assert caplog.records == []


@on_a_loop
async def test_a_task_that_fails_while_it_is_stopped_changes_nothing_but_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def clumsy() -> None:
        try:
            await forever()
        finally:
            raise OSError("could not say goodbye")

    work = Work()
    asyncio.get_running_loop().call_soon(work.told.set)
    await supervise(work.run(), work.told.set, {"clumsy": clumsy()})
    assert "could not say goodbye" in caplog.text


@on_a_loop
async def test_what_the_work_raises_comes_out_and_the_tasks_end() -> None:
    with pytest.raises(OSError, match="in use"):
        await supervise(raises(OSError("in use")), lambda: None, {"a": forever()})
    assert len(asyncio.all_tasks()) == 1


@on_a_loop
async def test_cancelling_the_whole_leaves_nothing_running() -> None:
    work = Work()
    whole = asyncio.ensure_future(supervise(work.run(), work.told.set, {"a": forever()}))
    await asyncio.sleep(0)
    whole.cancel()
    with pytest.raises(asyncio.CancelledError):
        await whole
    assert len(asyncio.all_tasks()) == 1


@pytest.mark.parametrize(("deaf", "ends"), [(2, True), (100, False)])
@on_a_loop
async def test_a_task_that_loses_a_cancellation_does_not_hold_the_shutdown(
    deaf: int, ends: bool, caplog: pytest.LogCaptureFixture
) -> None:
    lost = 0

    async def loses() -> None:
        nonlocal lost
        while True:
            try:
                await forever()
            except asyncio.CancelledError:
                lost += 1
                if lost > deaf:
                    raise

    work = Work()
    asyncio.get_running_loop().call_soon(work.told.set)
    await supervise(work.run(), work.told.set, {"deaf": loses()}, patience_s=0.001)
    assert lost == 3
    assert ("deaf does not end" in caplog.text) is not ends
    deaf = 0  # let it go
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
