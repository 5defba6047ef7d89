"""Shadow mode: candidate weights judge what is asked of the active ones, in the time those leave, and answer nobody.

The inference thread only drops references into a small queue. All else happens in one thread of the lowest priority
that does nothing while a challenge waits or is computed, not even the next layer of a network. What it cannot keep up
with is skipped and counted, so on a busy miner a plan takes longer and costs the answers nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from detectors.camo import Camo
from detectors.errors import DetectorError, WeightsError
from detectors.store import Store
from detectors.types import Detector, Media, Prediction
from neurons.noticeboard import Noticeboard
from neurons.operations import ShadowPlan, ShadowReport
from neurons.pipeline import Judged
from neurons.rewards import PROFILES
from neurons.shadow_candidate import Courtesy, Ended, load
from neurons.shadow_figures import Figures, reward_gain
from neurons.shadow_orders import MOST, TOPIC, plan_of
from neurons.threads import step_back

__all__ = ["THREAD", "Shadow"]

_log = logging.getLogger(__name__)

THREAD = "shadow"
"""Name of the thread that judges for the candidate."""

_QUEUE = 8  # challenges that wait for the shadow
_QUEUE_BYTES = 64 * 2**20  # of their pixels; one that is larger waits alone
_STALE_S = 5.0  # what has waited longer is given up: its pixels are held for nothing
_POST_S = 1.0  # between two notices of progress
_REWARD_GROWTH = 1.25  # by so much more labelled challenges the interval is computed anew
_JOIN_S = 5.0  # for the thread to end; it looks up between two networks and between two layers


@dataclass(frozen=True, slots=True, eq=False)
class _Item:
    media: Media
    active: Prediction
    label: int | None
    alone: bool
    came: float


class _Run:
    """One plan: what waits for it, what became of it. No lock: each attribute is written by one thread."""

    def __init__(self, plan: ShadowPlan, order: str | None) -> None:
        self.plan = plan
        self.order = order
        self.ended = threading.Event()
        self.accepts = False
        self._report = ShadowReport(plan, "loading")
        # Its put and get take no lock that a thread could hold while the kernel lets others run.
        self._queue: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._dropped = 0
        self._bytes_in = 0
        self._bytes_out = 0
        self.stale = 0

    def end(self) -> None:
        """Any thread; what waits is let go by the thread that works on the run."""
        self.accepts = False
        self.ended.set()
        self._queue.put(None)

    def offer(self, item: _Item) -> None:
        """Inference thread."""
        size = item.media.pixels.nbytes
        waiting = self._queue.qsize()
        if waiting and (waiting >= _QUEUE or self._bytes_in - self._bytes_out + size > _QUEUE_BYTES):
            self._dropped += 1
            return
        self._bytes_in += size
        self._queue.put(item)

    def take(self, timeout_s: float) -> _Item | None:
        """Shadow thread: the next one, None where none came in time or the run is over."""
        with contextlib.suppress(queue.Empty):
            item = self._queue.get(timeout=timeout_s)
            if item is not None:
                self._bytes_out += item.media.pixels.nbytes
            return item
        return None

    def close(self) -> None:
        """Shadow thread: nothing more comes, nothing is held."""
        self.accepts = False
        with contextlib.suppress(queue.Empty):
            while True:
                self._queue.get_nowait()

    def note(self, report: ShadowReport) -> None:
        """Shadow thread."""
        self._report = report

    def report(self) -> ShadowReport:
        """Any thread."""
        found = self._report
        stopped = self.ended.is_set() and found.state in ("loading", "running")
        return replace(found, skipped=self._dropped + self.stale, state="stopped" if stopped else found.state)


class Shadow:
    """Implements :class:`neurons.operations.Shadows`; :meth:`judged` is a :data:`neurons.pipeline.Watcher`.

    A challenge that the candidate raises on counts as a disagreement, and as silence where its truth is known: that is
    what it would be if the candidate served. The active latency is the median over challenges that were alone in their
    batch (over all where none was); the candidate's is that of one thread of the lowest priority without the time it
    stood aside, so it is no smaller than what it would be in service.

    Args:
        live: what answers; when its card's key changes, a running plan fails, for it would compare with two.
        store: the folder of weights.
        camo: the configuration of what answers.
        device: where the candidate runs.
        busy: whether live work waits or runs; asked from the shadow's thread, every layer.
        noticeboard: of the store.
        activate: points a name at a version: :meth:`detectors.store.Store.activate`.
        reserve_bytes: memory that must stay free beside a second set of weights.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        live: Detector,
        *,
        store: Path,
        camo: Path,
        device: str,
        busy: Callable[[], bool],
        noticeboard: Noticeboard,
        activate: Callable[[str, str], object],
        reserve_bytes: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._live = live
        self._store = store
        self._camo = camo
        self._device = device
        self._busy = busy
        self._noticeboard = noticeboard
        self._activate = activate
        self._reserve_bytes = reserve_bytes
        self._clock = clock
        self._lock = threading.Lock()  # of start, stop and close among themselves; live work never takes it
        self._runs: queue.SimpleQueue[_Run | None] = queue.SimpleQueue()
        self._run: _Run | None = None
        self._thread: threading.Thread | None = None
        self._closed = False
        self._posted = float("-inf")
        # An order that stands from before was meant for the miners of then.
        self._obeyed = (noticeboard.ordered(TOPIC) or {}).get("id")

    # What the inference thread sees

    def judged(self, batch: Sequence[Judged]) -> None:
        """Hands references on, or drops them; never waits, never raises."""
        run = self._run
        if run is None or not run.accepts:
            return
        now = self._clock()
        for challenge, media, prediction in batch:
            run.offer(_Item(media, prediction, challenge.testnet_label, len(batch) == 1, now))

    # What the operator sees

    def start(self, plan: ShadowPlan) -> None:
        """Replaces what runs. A plan that cannot run ends as ``failed`` with the reason in its report."""
        self._begin(plan, None)

    def stop(self) -> None:
        """Ends what runs; its report stays."""
        with self._lock:
            if self._run is not None:
                self._run.end()

    def report(self) -> ShadowReport | None:
        """How it stands; None while nothing was ever started."""
        run = self._run
        return None if run is None else run.report()

    def close(self) -> None:
        """Ends what runs and the thread; nothing starts afterwards. Blocks, five seconds at most."""
        with self._lock:
            self._closed = True
            thread = self._thread
            if self._run is not None:
                self._run.end()
            self._runs.put(None)
        if thread is not None:
            thread.join(_JOIN_S)

    def obey(self) -> None:
        """Takes up an order that came since the last look; one that cannot be read is logged and left. Any thread."""
        order = self._noticeboard.ordered(TOPIC)
        if order is None or order.get("id") == self._obeyed:
            return
        self._obeyed = order.get("id")
        try:
            plan = plan_of(order)
        except ValueError as error:
            _log.warning("an order for shadow mode cannot be read: %s", error)
            return
        if plan is None:
            self.stop()
        else:
            self._begin(plan, str(self._obeyed))

    async def run(self, poll_s: float = 2.0, *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """Says that this miner is here, then looks for orders until it is cancelled."""
        await asyncio.to_thread(self._post, self._run)
        while True:
            try:
                await asyncio.to_thread(self.obey)
            except Exception:  # noqa: BLE001 - one bad order must not take the miner down
                _log.exception("looking for an order for shadow mode failed")
            await sleep(poll_s)

    def _begin(self, plan: ShadowPlan, order: str | None) -> None:
        with self._lock:
            if self._closed:
                return
            if self._run is not None:
                self._run.end()
            self._run = _Run(plan, order)
            self._runs.put(self._run)
            if self._thread is None:
                # A daemon: a network that hangs must not keep the process from exiting.
                self._thread = threading.Thread(target=self._work, name=THREAD, daemon=True)
                self._thread.start()

    # The shadow's thread

    def _work(self) -> None:
        step_back()
        while (run := self._runs.get()) is not None:
            try:
                self._shadow(run)
            except Ended:
                run.note(replace(run.report(), state="stopped", reason="stopped by the operator or at the end"))
            except DetectorError as error:
                self._fail(run, str(error))
            except Exception as error:  # noqa: BLE001 - the thread's edge: a candidate may raise anything
                _log.exception("shadow mode failed")
                self._fail(run, f"{type(error).__name__}: {error}")
            finally:
                run.close()
                self._post(run)

    @staticmethod
    def _fail(run: _Run, reason: str) -> None:
        _log.warning("%s leaves the shadow: %s", run.plan.key, reason)
        run.note(replace(run.report(), state="failed", reason=reason))

    def _shadow(self, run: _Run) -> None:
        """Loads, judges until the plan is full, compares, promotes."""
        plan, pause = run.plan, Courtesy(self._busy, run.ended)
        if plan.profile not in PROFILES:
            raise WeightsError(f"no reward profile called {plan.profile!r}; there are {', '.join(PROFILES)}")
        if not 1 <= plan.count <= MOST:
            raise WeightsError(f"a plan has 1 to {MOST} challenges, not {plan.count}")
        self._post(run)
        pause()
        serves, pointer = self._live.card.key, Store(self._store).pointer()
        candidate = load(
            plan.key,
            store=self._store,
            camo=self._camo,
            device=self._device,
            pause=pause,
            reserve_bytes=self._reserve_bytes,
        )
        candidate.warm_up()
        _log.info("%s is in the shadow of %s for %d challenges", plan.key, serves, plan.count)
        run.note(replace(run.report(), state="running"))
        run.accepts = True
        self._compare(run, candidate, serves, pause)
        run.accepts = False
        self._conclude(run, pointer.get(plan.key.partition("@")[0]))

    def _compare(self, run: _Run, candidate: Camo, serves: str, pause: Courtesy) -> None:
        figures, counted = Figures(), 0
        self._post(run)
        while figures.judged < run.plan.count:
            item = run.take(_POST_S)
            if item is not None:
                pause()
                if self._clock() - item.came > _STALE_S:
                    run.stale += 1
                else:
                    self._judge(item, candidate, figures, serves, pause)
                    run.note(figures.into(run.report()))
            labelled = len(figures.labelled)
            if labelled > _REWARD_GROWTH * counted or (labelled > counted and figures.judged >= run.plan.count):
                counted = labelled
                gain, around = reward_gain(figures.labelled, run.plan.profile, pause=pause)
                run.note(replace(run.report(), reward_gain=gain, reward_difference=around))
            if run.ended.is_set():
                raise Ended
            if self._clock() - self._posted >= _POST_S:
                self._post(run)

    @staticmethod
    def _judge(item: _Item, candidate: Camo, figures: Figures, serves: str, pause: Courtesy) -> None:
        if item.active.detector != serves:
            raise WeightsError(f"what serves changed from {serves} to {item.active.detector}; order it again")
        began, waited = time.perf_counter(), pause.waited_s
        said: Prediction | None = None
        try:
            said = candidate.predict([item.media])[0]
        except Ended:
            raise
        except Exception as error:  # noqa: BLE001 - the candidate's own failure is a figure of it
            if not figures.failed:
                _log.warning("the candidate in the shadow fails on a challenge: %s: %s", type(error).__name__, error)
        spent = time.perf_counter() - began - (pause.waited_s - waited)
        figures.add(
            item.active,
            said,
            milliseconds=spent * 1e3,
            modality=item.media.modality,
            label=item.label,
            alone=item.alone,
        )

    def _conclude(self, run: _Run, pointed: str | None) -> None:
        """Promotes where that was asked for and the figures bear it; says why or why not."""
        report, key = run.report(), run.plan.key
        reason, promoted = _verdict(report), False
        if run.plan.promote and not reason:
            name, _, version = key.partition("@")
            low, high = report.reward_difference or (0.0, 0.0)
            if run.ended.is_set():
                raise Ended
            try:
                now = Store(self._store).pointer().get(name)
                if now != pointed:
                    raise WeightsError(f"{name} was pointed at {now} meanwhile")
                self._activate(name, version)
                reason, promoted = f"activated: it earns {low:+.4f} to {high:+.4f} more a step", True
            except DetectorError as error:
                reason = f"better, but not activated: {error}"
            except OSError as error:
                reason = f"better, but {self._store.name} cannot be written: {error.strerror}"
        _log.info("%s leaves the shadow: %s", key, reason or "better; --promote-if-better was not asked for")
        run.note(replace(report, state="done", reason=reason if run.plan.promote else "", promoted=promoted))

    def _post(self, run: _Run | None) -> None:
        said = None if run is None else run.report().as_data()
        self._noticeboard.post(TOPIC, {"order": None if run is None else run.order, "report": said})
        self._posted = self._clock()


def _verdict(report: ShadowReport) -> str:
    """Why a candidate should not be promoted; empty where it should."""
    if report.reward_difference is None:
        return f"not activated: {report.labelled} of {report.judged} challenges came with their truth, ten are needed"
    low, high = report.reward_difference
    if low > 0.0:
        return ""
    return f"not activated: the difference in reward, {low:+.4f} to {high:+.4f}, does not exclude 0 from below"
