"""What a miner remembers of the last challenges, for its operator to look at: bounded, in memory only.

A :class:`Recent` hears of every request twice: on the inference thread as pixels with what was said of them, and on the
event loop once it has ended. Both calls cost microseconds. A flood of strangers pushes no validator's challenge out:
what was proven and what was not are kept apart.
"""

from __future__ import annotations

import dataclasses
import math
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from detectors.types import Label
from neurons.estimate import Estimate, Known, estimate
from neurons.pipeline import Judged
from neurons.seen import ANSWERED, GONE, Seen, Tier
from neurons.thumbnails import Thumbnails

__all__ = ["SLOT_S", "Access", "Caller", "Entry", "Recent", "Slot", "Traffic"]

SLOT_S: Final = 10.0
"""Seconds that one point of the traffic's history covers."""

_SLOTS = 60  # ten minutes
_BINS = 16  # of the latency histogram, a doubling: percentiles are right within 2.2 %
_CALLERS = 50
_KINDS = 100  # of (tier, outcome); both are our own words, so this is never reached
_LABELLED = 500
_TRUSTED: Final[frozenset[Tier]] = frozenset(("validator", "listed", "offline"))


@dataclass(frozen=True, slots=True)
class Entry:
    """One challenge of a proven caller.

    Attributes:
        seen: all about it.
        pictured: whether :meth:`Recent.thumbnail` has a picture of it.
    """

    seen: Seen
    pictured: bool

    @property
    def right(self) -> bool | None:
        """Whether the answer was on the right side of P(fake) = 0.5; None without an answer or a known truth."""
        if self.seen.prediction is None or self.seen.label is None:
            return None
        return (self.seen.prediction.p_fake > 0.5) == (self.seen.label != Label.REAL)


@dataclass(slots=True)
class Slot:
    """:data:`SLOT_S` seconds of traffic.

    Attributes:
        number: of the slot on the clock.
        answered, refused, gone: requests by how they ended.
        latencies: answers by bin of their milliseconds.
    """

    number: int
    answered: int = 0
    refused: int = 0
    gone: int = 0
    latencies: Counter[int] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Traffic:
    """What came in during the last `seconds`.

    Attributes:
        seconds: that were asked about, at most those since the start.
        answered, refused, gone: requests by how they ended; `gone` are callers that hung up.
        p50_ms, p99_ms: of the answered, from complete headers to the answer, within 2.2 %; None of none.
        answered_by_slot: answers in each slot, oldest first; empty slots are 0.
        p50_by_slot: median milliseconds in each slot; None where nothing was answered.
    """

    seconds: float
    answered: int
    refused: int
    gone: int
    p50_ms: float | None
    p99_ms: float | None
    answered_by_slot: tuple[int, ...]
    p50_by_slot: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class Caller:
    """A proven caller.

    Attributes:
        hotkey: its ss58 address.
        tier: what it is to us.
        wire: that it spoke last.
        at: when it asked last, seconds since the epoch.
        asked, answered: since it was first seen or last forgotten.
    """

    hotkey: str
    tier: Tier
    wire: str
    at: float
    asked: int
    answered: int


@dataclass(frozen=True, slots=True)
class Access:
    """Who was let in.

    Attributes:
        counts: requests by (tier, outcome) since the start, most frequent first.
        callers: proven ones, the latest first; bounded.
        refusals: requests that nothing was proven of, or that may not ask, the latest first; bounded.
    """

    counts: Mapping[tuple[str, str], int]
    callers: tuple[Caller, ...]
    refusals: tuple[Seen, ...]


class Recent:
    """An :data:`~neurons.seen.Observer` (:meth:`seen`) and a :data:`~neurons.pipeline.Watcher` (:meth:`judged`).

    Args:
        thumbnails: pictures kept; 0 keeps no pixels.
        keep: challenges kept, and as many refusals.
        clock: monotonic seconds.
    """

    def __init__(self, thumbnails: int, keep: int = 200, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.thumbnails: Final = Thumbnails(thumbnails)
        self._keeps_pixels = thumbnails > 0
        self._clock = clock
        self._started = clock()
        self._lock = threading.Lock()
        self._challenges: deque[Seen] = deque(maxlen=keep)
        self._refusals: deque[Seen] = deque(maxlen=keep)
        self._known: deque[Known] = deque(maxlen=_LABELLED)
        self._counts: Counter[tuple[str, str]] = Counter()
        self._callers: OrderedDict[str, Caller] = OrderedDict()
        self._slots: deque[Slot] = deque(maxlen=_SLOTS)
        self._estimate: tuple[int, Estimate] = (0, Estimate(0))
        self._labelled = 0

    @property
    def keeps_pixels(self) -> bool:
        """Whether there are thumbnails at all."""
        return self._keeps_pixels

    def close(self) -> None:
        """Lets go of every pixel and ends the thread that shrinks them."""
        self.thumbnails.close()

    def judged(self, batch: Sequence[Judged]) -> None:
        """Takes references to the pixels of a batch; on the inference thread."""
        if self._keeps_pixels:
            for challenge, media, _ in batch:
                self.thumbnails.offer(challenge.id, media)

    def seen(self, seen: Seen) -> None:
        """Notes a request that has ended; on the event loop."""
        if seen.prediction is not None and seen.prediction.heat_map is not None:
            seen = dataclasses.replace(seen, prediction=dataclasses.replace(seen.prediction, heat_map=None))
        with self._lock:
            self._count(seen)
            if seen.tier == "unproven":
                self._refusals.append(seen)
                return
            self._challenges.append(seen)
            self._note_caller(seen)
            known = _known(seen)
            if known is not None:
                self._known.append(known)
                self._labelled += 1

    def entries(self, most: int | None = None) -> list[Entry]:
        """The challenges of proven callers, newest first."""
        with self._lock:
            newest = list(self._challenges)[::-1][:most]
        return [Entry(seen, self.thumbnails.has(seen.id)) for seen in newest]

    def thumbnail(self, name: str) -> bytes | None:
        """JPEG of the challenge with that id, at most 160 pixels a side; None where there is none any more."""
        return self.thumbnails.jpeg(name)

    def traffic(self, minutes: float = 10.0) -> Traffic:
        """What came in during the last `minutes`, at most 10, in whole slots."""
        count = max(1, min(_SLOTS, math.ceil(minutes * 60.0 / SLOT_S)))
        with self._lock:
            last = int(self._clock() // SLOT_S)
            copies = [dataclasses.replace(s, latencies=s.latencies.copy()) for s in self._slots]
        slots = {slot.number: slot for slot in copies if slot.number > last - count}
        line = [slots.get(number, Slot(number)) for number in range(last - count + 1, last + 1)]
        total: Counter[int] = Counter()
        for slot in slots.values():
            total += slot.latencies
        return Traffic(
            seconds=min(count * SLOT_S, self._clock() - self._started),
            answered=sum(slot.answered for slot in line),
            refused=sum(slot.refused for slot in line),
            gone=sum(slot.gone for slot in line),
            p50_ms=_percentile(total, 0.5),
            p99_ms=_percentile(total, 0.99),
            answered_by_slot=tuple(slot.answered for slot in line),
            p50_by_slot=tuple(_percentile(slot.latencies, 0.5) for slot in line),
        )

    def routes(self) -> list[tuple[tuple[str, ...], int]]:
        """The routes of the kept challenges with how many took each, most frequent first."""
        with self._lock:
            taken = [seen.prediction.route for seen in self._challenges if seen.prediction is not None]
        return Counter(taken).most_common()

    def access(self) -> Access:
        """Who asked and what became of it."""
        with self._lock:
            counts = dict(self._counts.most_common())
            callers = tuple(reversed(self._callers.values()))
            return Access(counts, callers, tuple(reversed(self._refusals)))

    def estimate(self) -> Estimate:
        """The running reward over the last labelled challenges of callers whose labels can be trusted.

        Not of those that are let in although nobody registered them: anybody could say that we are wrong.
        """
        with self._lock:
            number, known = self._labelled, tuple(self._known)
        if self._estimate[0] != number:
            self._estimate = (number, estimate(known))
        return self._estimate[1]

    def _count(self, seen: Seen) -> None:
        kind = (seen.tier, seen.outcome)
        if kind in self._counts or len(self._counts) < _KINDS:
            self._counts[kind] += 1
        number = int(self._clock() // SLOT_S)
        if not self._slots or self._slots[-1].number < number:
            self._slots.append(Slot(number))
        slot = self._slots[-1]
        if seen.outcome == ANSWERED:
            slot.answered += 1
            slot.latencies[round(_BINS * math.log2(max(seen.seconds * 1e3, 1e-3)))] += 1
        elif seen.outcome == GONE:
            slot.gone += 1
        else:
            slot.refused += 1

    def _note_caller(self, seen: Seen) -> None:
        before = self._callers.pop(seen.hotkey, None)
        asked, answered = (0, 0) if before is None else (before.asked, before.answered)
        now_answered = answered + (seen.outcome == ANSWERED)
        self._callers[seen.hotkey] = Caller(seen.hotkey, seen.tier, seen.wire, seen.at, asked + 1, now_answered)
        if len(self._callers) > _CALLERS:
            self._callers.popitem(last=False)


def _known(seen: Seen) -> Known | None:
    if seen.tier not in _TRUSTED or seen.modality == "" or seen.label is None or not 0 <= seen.label < len(Label):
        return None
    said = None if seen.prediction is None else seen.prediction.probabilities
    return Known(seen.modality, Label(seen.label), said)


def _percentile(bins: Mapping[int, int], share: float) -> float | None:
    """Milliseconds below which `share` of the answers stayed, by the nearest rank; None of none."""
    rank = max(1, math.ceil(share * sum(bins.values())))
    for number, count in sorted(bins.items()):
        rank -= count
        if rank <= 0:
            return float(2.0 ** (number / _BINS))
    return None
