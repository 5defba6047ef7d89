"""Follows the weights folder and ``camo.yaml`` while the miner serves, and takes up what passes every check.

The work is done in one thread that comes last in the system's line; the answers do not wait for it. What is refused
leaves the old set serving and says why: in the log, in :attr:`Reloader.reports`, to listeners and on the noticeboard,
where ``deepfake-miner weights activate --wait`` reads it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import logging
import sys
import time
import weakref
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from detectors.candidate import Candidate, Demands, SwapRefused, fingerprint, prepare, sources
from detectors.live import LiveDetector
from neurons.noticeboard import Noticeboard
from neurons.operations import SwapReport
from neurons.preflight_machine import free_memory
from neurons.threads import step_back

__all__ = ["TOPIC", "Reloader", "changes", "fingerprint"]

_log = logging.getLogger(__name__)

TOPIC = "swap"
"""Of the noticeboard."""

Listener = Callable[[SwapReport], None]
Watch = Callable[[Sequence[Path]], AsyncIterator[object]]

_REMEMBERED = 50
_LET_GO_S = 10.0  # for the last batch of the old set; longer than any deadline
_LOOK_S = 0.02
_SETTLES = 10  # times that what is being written is waited for before it is tried as it is


class Reloader:
    """Keeps a :class:`LiveDetector` at what its files say. Implements :class:`neurons.operations.Reloads`.

    Args:
        live: what answers; it was built from `camo` and `store`.
        camo: the configuration.
        store: the folder of weights.
        device: where candidates run.
        budget_ms, reserve_bytes: see :class:`detectors.candidate.Demands`.
        poll_s: time between two looks where nothing tells of changes.
        settle_s: files that changed within this time are still being written.
        serving: :func:`fingerprint` of what `live` was built from, taken before it was; None takes it now, and does
            not see a change that came in between.
        noticeboard: where to say what became of a change; None says nothing.
        watch: iterates whenever something in one of the folders changes: :func:`changes`; None only polls. Where it
            fails, the poll remains.
        step_back: run once by the background thread, to give way to others.
        free_memory: see :func:`detectors.candidate.prepare`.
        clock: seconds since the epoch, for reports.
    """

    def __init__(
        self,
        live: LiveDetector,
        *,
        camo: Path,
        store: Path,
        device: str = "cpu",
        budget_ms: float = 2000.0,
        reserve_bytes: int = 512 * 2**20,
        poll_s: float = 2.0,
        settle_s: float = 0.2,
        serving: str | None = None,
        noticeboard: Noticeboard | None = None,
        watch: Watch | None = None,
        step_back: Callable[[], None] = step_back,
        free_memory: Callable[[], int | None] = free_memory,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._live = live
        self._camo = camo.absolute()
        self._store = store.absolute()
        self._device = device
        self._demands = Demands(budget_ms, reserve_bytes)
        self._poll_s = poll_s
        self._settle_s = settle_s
        self._board = noticeboard
        self._watch = watch
        self._step_back = step_back
        self._free_memory = free_memory
        self._clock = clock
        self._serving = serving if serving is not None else fingerprint(self._camo, self._store)
        self._refused: tuple[str, str] | None = None  # what was asked for, and the state of its files
        self._left: Callable[[], object | None] = lambda: None  # what was replaced, while somebody holds it
        self._reports: tuple[SwapReport, ...] = ()
        self._noticed = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.listeners: list[Listener] = []
        """Called on the event loop with each report."""

    @property
    def reports(self) -> Sequence[SwapReport]:
        """The last fifty, oldest first. Any thread."""
        return self._reports

    @property
    def store(self) -> Path:
        """The folder of weights that is followed."""
        return self._store

    @property
    def camo(self) -> Path:
        """The configuration that is followed."""
        return self._camo

    @property
    def serving(self) -> str:
        """:func:`fingerprint` of what serves."""
        return self._serving

    def look(self) -> None:
        """Looks for changes now. Any thread; returns at once, also while nothing runs yet or any more."""
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # it was closed
                loop.call_soon_threadsafe(self._noticed.set)

    async def run(self) -> None:
        """Follows the files until it is cancelled; whatever goes wrong with one attempt, the next one is made."""
        self._loop = asyncio.get_running_loop()
        thread = ThreadPoolExecutor(1, thread_name_prefix="reload", initializer=self._begin)
        watching = asyncio.create_task(self._follow(), name="weights watch")
        try:
            await self._loop.run_in_executor(thread, self._tell)
            while True:
                await self._turn(thread)
                await self._wait()
        finally:
            watching.cancel()
            thread.shutdown(wait=False, cancel_futures=True)  # what it is at ends by itself

    async def _wait(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._poll_s):
                await self._noticed.wait()
        self._noticed.clear()

    async def _turn(self, thread: ThreadPoolExecutor) -> None:
        """One look, and an attempt where something changed."""
        loop = asyncio.get_running_loop()
        try:
            state = await loop.run_in_executor(thread, self._state)
            for _ in range(_SETTLES):
                if not self._is_new(state):
                    return
                await asyncio.sleep(self._settle_s)
                before, state = state, await loop.run_in_executor(thread, self._state)
                if before == state:
                    break
            report = await loop.run_in_executor(thread, self._attempt, state)
            self._record(report)
            await loop.run_in_executor(thread, self._tell)
            await loop.run_in_executor(thread, self._give_back)
        except Exception:  # noqa: BLE001 - the task's edge: it is for good, whatever one attempt runs into
            _log.exception("looking for new weights failed; %s goes on serving", self._live.card.key)

    # In the background thread

    def _begin(self) -> None:
        try:
            self._step_back()
        except Exception as error:  # noqa: BLE001 - without it swaps cost those who are served a little more
            _log.warning("the thread that loads weights cannot give way: %s", error)

    def _state(self) -> tuple[str, str]:
        """What the files say, and whether any of them (the weights among them) was written since it was asked last."""
        found = sources(self._camo, self._store)
        marks = [_mark(path) for path in (*found, *(card.with_suffix(".safetensors") for card in found[2:]))]
        return fingerprint(self._camo, self._store), repr(marks)

    def _is_new(self, state: tuple[str, str]) -> bool:
        """What was refused is tried again when one of its files was written: it may have been mended."""
        return state[0] != self._serving and state != self._refused

    def _attempt(self, state: tuple[str, str]) -> SwapReport:
        began, before = time.monotonic(), self._live.card.key
        try:
            candidate = self._prepare()
        except SwapRefused as refusal:
            self._refused = state
            return self._report(state[0], before, began, refusal)
        self._serving, self._refused = candidate.fingerprint, None
        self._left = weakref.ref(self._live.switch(candidate.camo))  # from the next batch on
        return self._report(candidate.fingerprint, before, began, None)

    def _prepare(self) -> Candidate:
        on_cpu = self._device == "cpu"
        return prepare(
            self._camo,
            self._store,
            device=self._device,
            demands=self._demands,
            free_memory=self._free_memory,
            clock=time.thread_time if on_cpu else time.perf_counter,  # this thread waits for everybody else's work
        )

    def _give_back(self) -> None:
        """Gives memory back to the system: of a refused candidate, or of the old set when its last batch is over."""
        end = time.monotonic() + _LET_GO_S
        while self._left() is not None and time.monotonic() < end:
            time.sleep(_LOOK_S)
        if self._left() is not None:
            _log.warning("something still holds the weights that were replaced: their memory is not free")
        gc.collect()  # milliseconds: what the process began with is frozen, and is freed without the collector
        _trim()

    def _report(self, wanted: str, before: str, began: float, refusal: SwapRefused | None) -> SwapReport:
        card = self._live.card
        return SwapReport(
            at=self._clock(),
            accepted=refusal is None,
            stage="done" if refusal is None else refusal.stage,
            reason="" if refusal is None else refusal.reason,
            wanted=wanted,
            before=before,
            after=card.key,
            weights=card.weights,
            seconds=time.monotonic() - began,
        )

    def _tell(self) -> None:
        """Puts what serves, and the last report, on the noticeboard."""
        if self._board is None:
            return
        last = self._reports[-1].as_data() if self._reports else None
        said = {
            "at": self._clock(),
            "camo": str(self._camo),
            "serving": self._serving,
            "detector": self._live.card.key,
            "weights": self._live.card.weights,
            "report": last,
        }
        self._board.post(TOPIC, said)

    # On the event loop

    def _record(self, report: SwapReport) -> None:
        self._reports = (*self._reports, report)[-_REMEMBERED:]
        if report.accepted:
            said = " ".join(f"{name}={key}" for name, key in report.weights.items())
            _log.info("%s serves in place of %s after %.1f s: %s", report.after, report.before, report.seconds, said)
        else:
            _log.error("new weights stay out (%s): %s; %s goes on serving", report.stage, report.reason, report.after)
        for listener in self.listeners:
            try:
                listener(report)
            except Exception:  # noqa: BLE001 - the next one hears it all the same
                _log.exception("a listener failed on a swap")

    async def _follow(self) -> None:
        """Takes notice of changes that the system tells of, for as long as it does."""
        if self._watch is None:
            return
        folders = sorted({self._store, self._camo.parent})
        try:
            async for _ in self._watch(folders):
                self._noticed.set()
            reason = "it ended"
        except Exception as error:  # noqa: BLE001 - no such package, no such folder, no more watches: the poll remains
            reason = f"{type(error).__name__}: {error}"
        _log.warning("changes of weights are not told of (%s); looking every %.1f s", reason, self._poll_s)


async def changes(folders: Sequence[Path]) -> AsyncIterator[object]:
    """Iterates when something in one of the folders was written, by what the system tells; not into their folders.

    Raises:
        ImportError: watchfiles is not installed.
        OSError: a folder is missing, or the system has no more watches.
    """
    import watchfiles  # noqa: PLC0415 - optional: without it there is the poll

    def matters(_: watchfiles.Change, path: str) -> bool:
        return not Path(path).name.startswith(".")  # temporary files, and what miners say to each other

    async for found in watchfiles.awatch(*folders, watch_filter=matters, recursive=False, step=50, debounce=400):
        yield found


def _mark(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _trim() -> None:
    """Gives freed memory back to the system, where the C library is glibc; without it a swap leaves its peak behind."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
