"""Long-lived tasks beside a server: one that dies takes the process down, gracefully and with a reason."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any

__all__ = ["TaskDiedError", "supervise"]

_log = logging.getLogger(__name__)
_CANCELS = 3  # Python 3.11's wait_for loses a cancellation that comes together with its result; libraries use it


class TaskDiedError(Exception):
    """A task that should have lived as long as the process ended; its exception, if any, is the cause."""

    def __init__(self, name: str, cause: BaseException | None) -> None:
        reason = "ended" if cause is None else f"{type(cause).__name__}: {cause}"
        super().__init__(f"the task {name} died: {reason}")
        self.name = name


async def supervise(
    work: Awaitable[None],
    stop: Callable[[], None],
    tasks: Mapping[str, Coroutine[Any, Any, None]],
    *,
    expected: tuple[type[Exception], ...] = (),
    patience_s: float = 1.0,
) -> None:
    """Runs `work` with `tasks` beside it, until `work` ends or a task does.

    When `work` ends first, the tasks are cancelled: that is a shutdown, no death. When a task ends first, `stop` is
    called, `work` is waited for, and then the task's end is raised.

    Args:
        work: what the process is for; ends by itself some time after `stop`.
        stop: tells `work` to end gracefully.
        tasks: by name, for logs; each is meant never to end.
        expected: exceptions that are a task's verdict, not its death: raised as they are.
        patience_s: how long a cancelled task may take before it is cancelled again, and after three times given up.

    Raises:
        TaskDiedError: a task raised, returned, or was cancelled by somebody else.
        Exception: what `work` raised, or one of `expected`.
    """
    main = asyncio.ensure_future(work)
    beside = {asyncio.create_task(task, name=name): name for name, task in tasks.items()}
    try:
        await asyncio.wait({main, *beside}, return_when=asyncio.FIRST_COMPLETED)
        ended = next((task for task in beside if task.done()), None)
        if ended is not None and not main.done():
            _log.error("stopping: %s", _end_of(ended, beside[ended]))
            stop()
        else:
            ended = None
        await main
    finally:
        await _cancel(main, beside, patience_s)
    if ended is None:
        return
    cause = _exception(ended)
    if isinstance(cause, expected):
        raise cause
    raise TaskDiedError(beside[ended], cause) from cause


async def _cancel(main: asyncio.Future[None], beside: Mapping[asyncio.Task[None], str], patience_s: float) -> None:
    """Cancels what still runs and waits for it; what fails on the way down is worth a line, not another exit code."""
    cancelled = {task for task in (main, *beside) if not task.done()}
    left = cancelled
    for _ in range(_CANCELS):
        if not left:
            break
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=patience_s)
    for task, name in beside.items():
        if task in left:
            _log.error("the task %s does not end; leaving it behind", name)
        elif task in cancelled and not task.cancelled() and (error := task.exception()) is not None:
            _log.warning("the task %s failed while it was being stopped: %r", name, error)


def _exception(task: asyncio.Task[None]) -> BaseException | None:
    return asyncio.CancelledError("cancelled from outside") if task.cancelled() else task.exception()


def _end_of(task: asyncio.Task[None], name: str) -> str:
    error = _exception(task)
    return f"the task {name} ended" if error is None else f"{name}: {type(error).__name__}: {error}"
