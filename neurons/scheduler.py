"""Decides what is computed next, in what batch, and what is refused at once because it would be late.

Runs on the event loop's thread; only the judge runs elsewhere, in one worker thread, so that nothing here needs a
lock. What is admitted is answered before its deadline: with a prediction, or, where a better-paid challenge took its
place or the judge overran, with a refusal.
"""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import functools
import heapq
import logging
import math
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from detectors.errors import DetectorError
from detectors.types import Modality, Prediction
from neurons.pipeline import JudgesChallenges, Outcome
from neurons.service_time import ServiceTime
from neurons.threads import THREAD
from neurons.wire.base import Challenge, Refusal

__all__ = ["CallerGone", "Limits", "Overloaded", "Scheduler", "Ticket"]

_log = logging.getLogger(__name__)

Ticket = asyncio.Future[Outcome]
_JOIN_S = 3.0  # for the inference thread to end, once it has nothing to do
_RESERVE = 1.25  # an estimate of the whole queue's time is trusted to four fifths of the time there is
_REVIEW_S = 0.02  # between two looks for who has become late through others' stake
_REVIEW_SHARE = 0.01  # of the loop's time that such looks may take
_WEIGHT: dict[Modality, int] = {"image": 1, "video": 4}  # a video of 24 frames costs a batch several images' time


@dataclass(frozen=True, slots=True)
class Limits:
    """What the scheduler keeps to.

    Attributes:
        deadline_s: longest time from arrival to answer, whatever the caller says it waits.
        margin_s: taken off the caller's timeout for the way home; at most half of it.
        max_batch: weight of one batch: an image counts 1, a video 4.
        queue_limit: challenges that may wait: a bound on memory. Time is bounded by the deadlines; a queue that is full
            before anybody would be late refuses honest callers for a stall of a tenth of a second.
    """

    deadline_s: float = 8.0
    margin_s: float = 0.5
    max_batch: int = 8
    queue_limit: int = 4096


class Overloaded(Refusal):
    """503, said at once. `retry_after_s` is when the queue is expected to be short enough again."""

    def __init__(self, reason: str, detail: str, retry_after_s: float) -> None:
        super().__init__(503, reason, detail)
        self.retry_after_s = max(1, math.ceil(retry_after_s))


class CallerGone(Exception):  # noqa: N818 - nobody is left to call it an error
    """The caller hung up; set on its ticket by the server."""


@dataclass(slots=True, eq=False)
class _Entry:
    challenge: Challenge
    ticket: Ticket
    came: float
    deadline: float
    order: tuple[float, int]  # smaller first: more stake, then earlier arrival
    trial: bool  # came while nothing ran: computed even if the estimate is against it, or no estimate ever improves
    stages: dict[str, float] | None = None
    alarm: asyncio.TimerHandle | None = None
    waits: bool = True


@dataclass(slots=True)
class _Batch:
    entries: list[_Entry]
    modality: Modality
    started: float
    expected_end: float
    deadline: float


class Scheduler:
    """Bounded priority queue before one inference thread. Construct it anywhere, use it on one event loop.

    Args:
        judge: blocking; called from the scheduler's own thread, one batch at a time.
        limits: see :class:`Limits`.
        clock: monotonic seconds, the clock of the judge's deadline.
    """

    def __init__(
        self, judge: JudgesChallenges, limits: Limits | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._judge = judge
        self._limits = limits or Limits()
        self._clock = clock
        # Sorted by order, one list a modality: who is ahead of whom, and for how long, is told by two bisections. What
        # walks a queue costs most when it is long, and then there is no time: a burst would never be worked off.
        self._queues: dict[Modality, list[_Entry]] = {"image": [], "video": []}
        self._service: dict[Modality, ServiceTime] = {"image": ServiceTime(), "video": ServiceTime()}
        self._running: _Batch | None = None
        self._jobs: queue.SimpleQueue[_Batch | None] = queue.SimpleQueue()
        self._worker: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._dispatch_due = False
        self._review_due = False
        self._review_at = -math.inf  # the earliest next look for the late
        self._closing = False
        self._sequence = 0
        self._idle = asyncio.Event()

    @property
    def depth(self) -> int:
        """Challenges that wait; the batch that is being computed is not counted."""
        return sum(map(len, self._queues.values()))

    @property
    def admits(self) -> bool:
        """Whether challenges are taken at all. Any thread."""
        return not self._closing

    def stop_admitting(self) -> None:
        """Refuses everything from now on; what was admitted goes on."""
        self._closing = True

    def submit(
        self,
        challenge: Challenge,
        *,
        priority: float = 0.0,
        timeout_s: float | None = None,
        stages: dict[str, float] | None = None,
    ) -> Ticket:
        """Queues a challenge.

        Args:
            challenge: what to judge.
            priority: larger is served first: the caller's stake.
            timeout_s: how long the caller still waits, counted from now; only ever shortens the deadline.
            stages: gets ``queue``, the milliseconds until its turn, when that comes.

        Returns:
            A future: the outcome, or a :class:`Refusal` as its exception. Whoever hangs up sets
            :class:`CallerGone` on it or cancels it, and the challenge is dropped.

        Raises:
            Overloaded: the queue is full, the answer would be late, or the scheduler is closing.
        """
        if self._closing:
            raise Overloaded("closing", "the miner is shutting down", 10)
        loop = self._loop = asyncio.get_running_loop()
        now = self._clock()
        patience = self._patience(timeout_s)
        self._sequence += 1
        idle = self._running is None and not self.depth
        order = (-priority, self._sequence)
        entry = _Entry(challenge, loop.create_future(), now, now + patience, order, idle, stages)
        ahead = {modality: bisect.bisect(queue, entry.order, key=_order) for modality, queue in self._queues.items()}
        self._check_room(entry, ahead, now)
        if self.depth >= self._limits.queue_limit:
            self._drop(self._last(), Overloaded("queue_full", "too many challenges wait", self._remaining(now)))
        self._queues[challenge.modality].insert(ahead[challenge.modality], entry)
        entry.alarm = loop.call_later(max(0.0, patience), self._overdue, entry)
        entry.ticket.add_done_callback(functools.partial(self._release, entry))
        if self.depth - 1 > sum(ahead.values()) and not self._review_due:
            # Whom the newcomer overtook may now be late: say so soon. Once for all newcomers of a moment, and never
            # so often that looking takes more than a small share of the time.
            self._review_due = True
            loop.call_later(max(_REVIEW_S, self._review_at - now), self._review)
        if self._running is None and not self._dispatch_due:
            # One turn of the loop later: what arrived in the same turn shares the batch.
            self._dispatch_due = True
            loop.call_soon(self._dispatch)
        return entry.ticket

    async def aclose(self, grace_s: float = 10.0) -> None:
        """Stops admitting, lets what was admitted finish for `grace_s` seconds, refuses the rest, ends the thread.

        A judge that does not come back keeps its thread, a daemon (see ``neurons.miner.leave``).
        """
        self._closing = True
        if self.depth or self._running is not None:
            self._idle.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), grace_s)
        left = [*self._in_order(), *(self._running.entries if self._running is not None else ())]
        for waiting in self._queues.values():
            waiting.clear()
        for entry in left:
            entry.waits = False
            self._refuse(entry, Overloaded("closing", "the miner is shutting down", 10))
        self._jobs.put(None)
        worker = self._worker
        if worker is not None and self._running is None:
            # Ended before the interpreter is: torch's thread-local parts abort the process when they outlive it.
            await asyncio.to_thread(worker.join, _JOIN_S)

    def _patience(self, timeout_s: float | None) -> float:
        """Seconds from now to the deadline."""
        if timeout_s is None or not math.isfinite(timeout_s):
            return self._limits.deadline_s
        return min(self._limits.deadline_s, timeout_s - min(self._limits.margin_s, timeout_s / 2))

    def _check_room(self, entry: _Entry, ahead: Mapping[Modality, int], now: float) -> None:
        if sum(ahead.values()) >= self._limits.queue_limit:
            raise Overloaded("queue_full", "too many challenges wait", self._backlog(ahead, now))
        if entry.trial:
            return
        backlog = self._backlog(ahead, now)
        if now + _RESERVE * (backlog + self._cost(entry)) > entry.deadline:
            raise Overloaded("overloaded", "the answer would be late", backlog)

    def _cost(self, entry: _Entry) -> float:
        return self._service[entry.challenge.modality].cautious

    def _backlog(self, ahead: Mapping[Modality, int], now: float) -> float:
        """Seconds until so many of each modality are expected to be answered."""
        return self._remaining(now) + sum(count * self._service[kind].cautious for kind, count in ahead.items())

    def _in_order(self) -> Iterator[_Entry]:
        """Everybody who waits, first in line first."""
        return heapq.merge(*self._queues.values(), key=_order)

    def _last(self) -> _Entry:
        return max((queue[-1] for queue in self._queues.values() if queue), key=_order)

    def _remaining(self, now: float) -> float:
        """Seconds the running batch is expected to need still; one item's time where it has overrun."""
        if self._running is None:
            return 0.0
        left = self._running.expected_end - now
        return left if left > 0 else self._service[self._running.modality].cautious

    def _refuse_late(self, now: float) -> None:
        """Refuses whoever cannot be answered in time behind the entries before him, unless that was done just now.

        Reckons with the typical time, where admission reckons with the cautious one: what was admitted is given up
        when it is lost, not when it has become less certain. Nobody depends on it: who is late all the same is refused
        when his turn comes or his deadline is over.
        """
        if now < self._review_at:
            return
        began, ahead = time.perf_counter(), self._remaining(now)
        for entry in list(self._in_order()):
            if self._is_lost(entry, now + ahead):
                self._drop(entry, Overloaded("overloaded", "the answer would be late", ahead))
            else:
                ahead += self._service[entry.challenge.modality].typical
        self._review_at = now + (time.perf_counter() - began) / _REVIEW_SHARE

    def _is_lost(self, entry: _Entry, turn: float) -> bool:
        """Whether an entry whose turn comes at `turn` will be late."""
        return not entry.trial and turn + self._service[entry.challenge.modality].typical > entry.deadline

    @staticmethod
    def _refuse(entry: _Entry, refusal: Refusal) -> None:
        if not entry.ticket.done():
            entry.ticket.set_exception(refusal)

    def _drop(self, entry: _Entry, refusal: Refusal) -> None:
        """Refuses who waits and takes it out of the queue now, not when its ticket's callbacks run."""
        self._leave(entry)
        self._refuse(entry, refusal)

    def _leave(self, entry: _Entry) -> None:
        entry.waits = False
        queue = self._queues[entry.challenge.modality]
        del queue[bisect.bisect_left(queue, entry.order, key=_order)]

    def _overdue(self, entry: _Entry) -> None:
        """The deadline itself: whatever the estimates said, the caller hears from us now."""
        if entry.waits:
            self._drop(entry, Overloaded("overloaded", "the answer would be late", self._remaining(self._clock())))
        else:
            self._refuse(entry, Refusal(408, "late", "the answer took longer than the deadline"))

    def _release(self, entry: _Entry, _: Ticket) -> None:
        """The ticket is done, for whatever reason: nothing of it stays in the queue or on the timer."""
        if entry.alarm is not None:
            entry.alarm.cancel()
        if entry.waits:
            self._leave(entry)

    def _review(self) -> None:
        self._review_due = False
        self._refuse_late(self._clock())

    def _dispatch(self) -> None:
        """Hands the next batch to the worker, if it is free and somebody waits."""
        self._dispatch_due = False
        if self._running is not None:
            return
        now = self._clock()
        self._refuse_late(now)
        batch = self._next_batch(now)
        if batch is None:
            self._idle.set()
            return
        self._running = batch
        for entry in batch.entries:
            entry.waits = False
            if entry.stages is not None:
                entry.stages["queue"] = (now - entry.came) * 1e3
        if self._worker is None:
            # A daemon: a judge that hangs must not keep the process from exiting after the grace period.
            self._worker = threading.Thread(target=self._work, name=THREAD, daemon=True)
            self._worker.start()
        self._jobs.put(batch)

    def _next_batch(self, now: float) -> _Batch | None:
        """Takes the first in line out of the queue, and whoever of his kind can come along and makes nobody late."""
        first = self._first(now)
        if first is None:
            return None
        modality = first.challenge.modality
        queue, cost = self._queues[modality], self._service[modality].cautious
        most = max(1, self._limits.max_batch // _WEIGHT[modality])
        entries: list[_Entry] = []
        deadline = math.inf
        while queue and len(entries) < most:
            entry = queue[0]
            earliest = min(deadline, entry.deadline)
            if entries and now + cost * (len(entries) + 1) > earliest:
                break
            del queue[0]
            if not entry.ticket.done():
                entries.append(entry)
                deadline = earliest
            entry.waits = False
        return _Batch(entries, modality, now, now + cost * len(entries), deadline)

    def _first(self, now: float) -> _Entry | None:
        """The first in line who is still waited for and not lost; those before him leave the queue."""
        while heads := [queue[0] for queue in self._queues.values() if queue]:
            entry = min(heads, key=_order)
            if entry.ticket.done():  # it leaves by itself one turn of the loop later
                self._leave(entry)
            elif self._is_lost(entry, now):
                self._drop(entry, Overloaded("overloaded", "the answer would be late", 0.0))
            else:
                return entry
        return None

    def _work(self) -> None:
        """The worker thread: judges batch after batch until it is handed None."""
        while (batch := self._jobs.get()) is not None:
            challenges = [entry.challenge for entry in batch.entries]
            try:
                outcomes = self._judge.judge(challenges, batch.deadline)
                if len(outcomes) != len(challenges):
                    outcomes = _failed(len(challenges))
                    _log.error("the judge gave another number of outcomes than it was given challenges")
            except Exception:  # noqa: BLE001 - the thread's edge: one bug must not end all answers for good
                _log.exception("the judge failed on a batch of %d", len(challenges))
                outcomes = _failed(len(challenges))
            loop = self._loop
            with contextlib.suppress(RuntimeError):  # the loop was closed while we computed: nobody waits
                if loop is not None:
                    loop.call_soon_threadsafe(self._finish, batch, outcomes)

    def _finish(self, batch: _Batch, outcomes: list[Outcome]) -> None:
        """Back on the loop: hands out the outcomes, learns how long they took, starts the next batch."""
        self._running = None
        predictions = sum(1 for outcome in outcomes if isinstance(outcome, Prediction))
        if predictions:
            self._service[batch.modality].learn((self._clock() - batch.started) / predictions)
        for entry, outcome in zip(batch.entries, outcomes, strict=True):
            if not entry.ticket.done():
                entry.ticket.set_result(outcome)
        self._dispatch()


def _order(entry: _Entry) -> tuple[float, int]:
    return entry.order


def _failed(count: int) -> list[Outcome]:
    return [DetectorError("the judge failed") for _ in range(count)]
