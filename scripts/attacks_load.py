"""Attacks by numbers: overtaking requests, a busy detector, floods of false signatures and of made-up callers."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence

from bittensor.sp_core import Keypair

from neurons.keys import Hotkey
from neurons.wire.base import Request
from scripts.attacks_peers import RICH, WORTHY, Duel, Miner
from scripts.attacks_table import Attack, Seen, row
from scripts.attacks_wire import Talk, changed, claiming, large_jpeg, plain, signed, small_jpeg, talk
from scripts.bench_load import Requests, Tally, drive
from scripts.bench_peers import measured, resident_mib

__all__ = ["JITTER", "MadeUp", "busy", "flood", "jitter", "memory", "priority", "timeouts"]

JITTER = (2, 4, 8, 32)
_JITTER_S = 0.060
_FLOOD_IN_FLIGHT = 16
_GROWTH_MIB = 1.0  # from the first tenth of the callers, when all is warm, to the last; less is what an allocator does
_ENOUGH = 10_000  # callers, for growth to be told from warming up
_RUSH = 12  # pictures of each caller
_PATIENT_S = 30.0
_LATER_S = 0.15
_IN_ORDER = 0.9  # of the pairs; an order by chance has a half, give or take an eighth


def jitter(in_flight: int, count: int) -> Attack:
    """One honest Dendrite, whose requests overtake each other on the way."""

    async def run(side: Duel) -> Seen:
        requests = Requests(RICH, side.miner.hotkey, small_jpeg(), one_uuid=True)
        tally = await drive(side.miner.address, requests.make, in_flight=in_flight, count=count, jitter_s=_JITTER_S)
        refused = count - tally.statuses[200]
        return row(f"{refused} of {count} refused ({refused / count:.0%})", refused > 0, refused=refused, sent=count)

    return Attack(f"none: honest, one Dendrite, 0–60 ms jitter, {in_flight} in flight", run)


def _large(miner: Miner, key: Hotkey = RICH, timeout_s: float = 30.0) -> Request:
    return signed(key, miner.hotkey, payload=large_jpeg(), timeout_s=timeout_s)


async def _rush(miner: Miner, requests: Sequence[Request]) -> list[Talk]:
    """All at once, each on a connection of its own; in the order of the requests."""
    return list(await asyncio.gather(*(talk(miner.address, r, patience_s=_PATIENT_S) for r in requests)))


async def _priority(side: Duel) -> Seen:
    """A rush of pictures of a validator with a thousand times the stake of the other, in turns."""
    order: list[bool] = []

    async def one(rich: bool) -> None:
        request = _large(side.miner, RICH if rich else WORTHY)
        answer = await talk(side.miner.address, request, patience_s=_PATIENT_S)
        if answer.served:
            order.append(rich)

    ahead = [asyncio.ensure_future(talk(side.miner.address, _large(side.miner, WORTHY))) for _ in range(2)]
    await asyncio.sleep(0.02)  # the two keep the detector busy while the rest arrives
    await asyncio.gather(*(one(index % 2 == 1) for index in range(2 * _RUSH)), *ahead)
    pairs = [later for place, first in enumerate(order) if first for later in order[place + 1 :]].count(False)
    possible = sum(order) * (len(order) - sum(order))
    share = pairs / possible if possible else 0.0
    text = f"larger stake first in {share:.0%} of {possible} pairs"
    return row(text, share < _IN_ORDER, share=share, served=len(order), order="".join("sl"[rich] for rich in order))


priority = Attack("none: two validators at once, stakes 1000 and 1", _priority)


async def _busy(side: Duel) -> Seen:
    """Somebody asks for something trivial while pictures are judged."""

    async def later() -> Talk:
        await asyncio.sleep(_LATER_S)
        return await talk(side.miner.address, b"GET /Nothing HTTP/1.1\r\nhost: m\r\n\r\n", patience_s=_PATIENT_S)

    pictures, probe = await asyncio.gather(_rush(side.miner, [_large(side.miner) for _ in range(8)]), later())
    left = max(answer.seconds for answer in pictures) - _LATER_S
    judged = sum(answer.served for answer in pictures)
    text = f"{probe.status} after {1e3 * probe.seconds:.0f} ms, the pictures after {1e3 * left:.0f} ms"
    return row(text, probe.seconds > 0.5 * left, probe_s=probe.seconds, pictures_s=left, pictures=judged)


busy = Attack("none: a trivial request while 8 pictures are judged", _busy)


async def _timeouts(side: Duel) -> Seen:
    """More pictures than can be judged before their callers stop waiting."""
    answers = await _rush(side.miner, [_large(side.miner, timeout_s=1.0) for _ in range(40)])
    statuses = Counter(answer.text for answer in answers)
    late = sum(answer.served and answer.seconds > 1.0 for answer in answers)
    last = max(answer.seconds for answer in answers)
    told = ", ".join(f"{count} {text}" for text, count in sorted(statuses.items()))
    return row(f"{late} of 40 served too late; {told}; last after {last:.1f} s", late > 4, late=late, last_s=last)


timeouts = Attack("none: 40 pictures at once, timeout 1 s", _timeouts)


def flood(seconds: float) -> Attack:
    """False signatures in a validator's name, as fast as they are refused."""

    async def run(side: Duel) -> Seen:
        make = Requests(RICH, side.second.hotkey, small_jpeg(), forged=True).make
        tally, cpu_ms = await measured(side.second.address, side.second.pid, make, seconds, _FLOOD_IN_FLIGHT)
        rate = tally.answers / tally.seconds
        figures = {"per_s": rate, "cpu_ms": cpu_ms, "statuses": dict(tally.statuses)}
        text = f"{_told(tally)}; {rate:.0f} refusals/s, {cpu_ms:.2f} ms CPU each"
        return Seen(text, "yes" if tally.statuses[200] else "no", figures)

    return Attack(f"flood of false signatures, rate limits off, {seconds:g} s, {_FLOOD_IN_FLIGHT} in flight", run)


def _told(tally: Tally) -> str:
    return "all " * (len(tally.statuses) == 1) + ", ".join(
        f"{f'{count} × ' * (len(tally.statuses) > 1)}{status}" for status, count in sorted(tally.statuses.items())
    )


class MadeUp:
    """Callers with keys of their own and valid signatures, one a request, on the media's and the ping route in turn.

    Args:
        receiver: ss58 address of the miner.
    """

    def __init__(self, receiver: str) -> None:
        self._receiver = receiver
        self._tag = uuid.uuid4().bytes
        self._count = 0

    def make(self) -> bytes:
        """One request, signed now."""
        self._count += 1
        pair = Keypair.create_from_seed(self._tag + self._count.to_bytes(16, "big"))
        request = signed(pair, self._receiver, payload=b"nobody decodes this")
        if self._count % 2:
            request = changed(claiming(request, name="Synapse"), name="Synapse")
            request = Request("POST", "/Synapse", request.headers, request.body, request.received_ns)
        return plain(request)


def memory(callers: int, limit_s: float) -> Attack:
    """Resident memory before and after `callers` made-up callers, fewer where `limit_s` does not suffice.

    A defect is memory that goes on growing, or an answer to any of them.
    """

    async def run(side: Duel) -> Seen:
        make: Callable[[], bytes] = MadeUp(side.second.hotkey).make
        course, statuses, sent = [resident_mib(side.second.pid)], Counter[int](), 0
        began = time.monotonic()
        while sent < callers and time.monotonic() - began < limit_s:
            count = min(max(1, callers // 10), callers - sent)
            tally = await drive(side.second.address, make, in_flight=_FLOOD_IN_FLIGHT, count=count)
            statuses += tally.statuses
            sent += count
            course.append(resident_mib(side.second.pid))
        growth = course[-1] - course[1]
        told = ", ".join(f"{count} × {status}" for status, count in sorted(statuses.items()))
        text = f"{course[0]:.1f} → {course[-1]:.1f} MiB, {growth:+.1f} after the first tenth; {sent:,} sent: {told}"
        figures = {"sent": sent, "rss_mib": course, "growth_mib": growth, "statuses": dict(statuses)}
        grown = sent >= _ENOUGH and growth > _GROWTH_MIB
        return row(text, grown or statuses[200] > 0, **figures)

    return Attack(f"{callers:,} made-up callers, valid signatures, rate limits off: memory", run)
