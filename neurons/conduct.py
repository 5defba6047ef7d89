"""One run of the mock validator from the first challenge to the written report; ``simulate`` and ``demo`` share it."""

from __future__ import annotations

import asyncio
import contextlib
import platform
import shlex
import signal
import sys
import threading
import time
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console

from detectors.jpeg_frames import split_jpegs
from neurons.challenges import Issued, MediaSet, Stream
from neurons.keys import Keypair
from neurons.ledger import Ledger
from neurons.live import Board, table
from neurons.report import worst, write
from neurons.rewards import Profile
from neurons.simulation import Plan, simulate
from neurons.summary import About, Traces, summarise

__all__ = ["Job", "Result", "conduct", "finish", "particulars", "run_to_end", "terminable"]

_VERSIONS = ("deepfake-miner", "numpy", "pillow", "opencv-python-headless", "torch", "aiohttp", "uvicorn", "bittensor")


@dataclass(frozen=True, slots=True)
class Job:
    """What to run.

    Attributes:
        plan: whom to ask, and how.
        media: what challenges are drawn from.
        profiles: who pays; the first decides the mix of challenges and is shown.
        count: challenges.
        balanced: every two challenges in a row are one real and one fake, see ``neurons.challenges.Stream``.
        video_share: of the challenges, in [0, 1].
        keep_payloads: also hold what was sent, for whoever wants to judge it again.
    """

    plan: Plan
    media: MediaSet
    profiles: tuple[Profile, ...]
    count: int
    balanced: bool = False
    video_share: float = 0.5
    keep_payloads: bool = False


@dataclass(slots=True)
class Result:
    """What came of it.

    Attributes:
        ledger: all exchanges, paid.
        previews: the first JPEG of every challenge as sent, by its index.
        issued: the challenges with their payloads, by index; empty unless asked for.
        skipped: media files that could not be used, by name, with the reason.
        seconds: wall time.
    """

    ledger: Ledger
    previews: dict[int, bytes] = field(default_factory=dict)
    issued: dict[int, Issued] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0


async def conduct(job: Job, key: Keypair, console: Console, title: str) -> Result:
    """Sends all challenges and pays for the answers, with a live table on `console`.

    Args:
        job: see :class:`Job`.
        key: the validator's hotkey.
        console: for progress.
        title: of the table.
    """
    names = [endpoint.name for endpoint in job.plan.endpoints]
    result = Result(Ledger(names, job.profiles))
    challenges = Stream(
        job.media,
        mix=job.profiles[0].mix,
        seed=job.plan.seed,
        count=job.count,
        video_share=job.video_share,
        balanced=job.balanced,
    )
    start = time.perf_counter()
    with Board(console, job.count, title) as board:
        async with contextlib.aclosing(simulate(job.plan, challenges, key=key)) as exchanges:
            async for exchange in exchanges:
                index = exchange.issued.index
                result.previews[index] = bytes(split_jpegs(exchange.issued.payload)[0])
                if job.keep_payloads:
                    result.issued[index] = exchange.issued
                result.ledger.pay(exchange.slim())
                done = len(result.ledger.exchanges)
                board.show(done, lambda: {name: result.ledger.standing(name) for name in names})
    result.skipped = {Path(path).name: reason for path, reason in challenges.skipped.items()}
    result.seconds = time.perf_counter() - start
    return result


def finish(
    result: Result, about: About, out: Path, console: Console, *, title: str, traces: Traces | None = None
) -> Path:
    """Sums up, writes ``report.json`` and ``report.html`` into `out`, prints the final table.

    Args:
        result: of :func:`conduct`.
        about: what the report says of the run.
        out: folder of the reports.
        console: for the table, the routes and the paths.
        title: of the table.
        traces: routes, where they are known.

    Returns:
        Path of ``report.json``.
    """
    report = summarise(result.ledger, about, traces)
    chosen = {row["index"] for row in worst(report)}
    path, page = write(out, report, {k: v for k, v in result.previews.items() if k in chosen})
    console.print(table({name: result.ledger.standing(name) for name in result.ledger.names}, title))
    for name, miner in report["miners"].items():
        for route, count in miner["routes"].items():
            console.print(f"{name}: {count} × {route}", soft_wrap=True, highlight=False, markup=False)
    if report["data"]["note"]:
        console.print(report["data"]["note"], style="yellow", highlight=False)
    console.print(f"report: {page} and {path}", soft_wrap=True, highlight=False, markup=False)
    return path


def particulars(started: float, seconds: float, command: Sequence[str] | None) -> dict[str, Any]:
    """The ``run`` block of a report: what is true of this run only.

    Args:
        started: seconds since the epoch.
        seconds: wall time.
        command: the words that repeat the run; None takes this process' own.
    """
    versions: dict[str, str] = {"python": platform.python_version()}
    for name in _VERSIONS:
        with contextlib.suppress(PackageNotFoundError):
            versions[name] = version(name)
    if command is None:
        command = [Path(sys.argv[0]).name, *sys.argv[1:]]
    return {
        "command": shlex.join(command),
        "started": datetime.fromtimestamp(started, UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 3),
        "versions": versions,
        "machine": f"{platform.system()} {platform.machine()}",
    }


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """Makes SIGTERM end the block as Ctrl-C does, so that everything that was started is ended too.

    Inside of asyncio use :func:`run_to_end`.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    # Not by raising SIGINT: shells start background jobs with that one ignored.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def run_to_end(main: Coroutine[Any, Any, Result]) -> Result:
    """``asyncio.run`` that also takes SIGTERM for Ctrl-C: what is under way is cancelled and cleaned up first.

    Raises:
        KeyboardInterrupt: a signal ended it.
    """
    told: list[int] = []

    async def guarded() -> Result:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()

        def cancel(number: int, frame: FrameType | None) -> None:
            told.append(number)
            if task is not None:
                task.cancel()
            loop.call_soon_threadsafe(lambda: None)  # wakes the loop, which may be asleep until a timeout

        if threading.current_thread() is not threading.main_thread():
            return await main
        before = signal.signal(signal.SIGTERM, cancel)
        try:
            return await main
        finally:
            signal.signal(signal.SIGTERM, before)

    try:
        return asyncio.run(guarded())
    except asyncio.CancelledError:
        if told:
            raise KeyboardInterrupt from None
        raise
