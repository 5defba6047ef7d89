"""Honest validators: all three wires, images and videos, at full load or at a rate; every answer is kept and judged.

The rate is kept whatever the miner does (an open loop), and the time of an answer counts from when its request was
due: neither a slow miner nor a slow generator hides a delay by asking less.
"""

from __future__ import annotations

import asyncio
import io
import math
import random
import time
import uuid
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import orjson
from PIL import Image, ImageFilter

from detectors.types import Modality
from neurons import keys
from neurons.mp4 import mp4_of_jpegs
from neurons.wire.base import Request
from neurons.wire.client import WIRES, challenge_request, read_answer
from scripts.bench_load import Connection, status_of
from tests.neurons.loopback import plain

__all__ = ["TIMEOUT_S", "Ask", "Caller", "Load", "Outcome", "asks", "paced", "signed", "still"]

TIMEOUT_S = 9.0  # what a validator of SN34 waits
_IDLE_S = 30.0  # well below the miner's keep-alive: nobody writes to a connection that is just being closed
VIDEO_FRAMES = 8


class Ask(NamedTuple):
    """One challenge as one wire carries it."""

    wire: str
    modality: Modality
    payload: bytes
    body: bytes  # where the wire does not sign it, built once


class Outcome(NamedTuple):
    """What became of one honest request.

    Attributes:
        due: when it should have left, ``time.monotonic()`` seconds.
        sent: when it did.
        done: when the answer was complete, or the wait over.
        wire, modality: of the challenge.
        listed: whether the caller is on the operator's allow list, so that it needs no metagraph.
        status: of HTTP; 0 where the connection broke, -1 where no answer came in time.
        reason: the refusal's, empty for an answer.
        answer: as a validator reads it, None where there is none.
    """

    due: float
    sent: float
    done: float
    wire: str
    modality: Modality
    listed: bool
    status: int
    reason: str
    answer: float | tuple[float, float, float] | None

    @property
    def seconds(self) -> float:
        return self.done - self.due


def still(seed: int, side: int = 256) -> bytes:
    """A JPEG of the wire's size and of a photograph's weight (some 20 KB), different for each seed."""
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    smooth = Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(1.0))
    stream = io.BytesIO()
    smooth.save(stream, "JPEG", quality=75)
    return stream.getvalue()


def asks(count: int = 6, seed: int = 0) -> dict[Modality, list[Ask]]:
    """`count` pictures and a third as many clips, each for every wire."""
    made: dict[Modality, list[Ask]] = {"image": [], "video": []}
    for k in range(count):
        picture = still(seed + k)
        made["image"] += [_ask(wire, "image", picture) for wire in WIRES]
    for k in range(max(1, count // 3)):
        frames = b"".join(still(seed + 1000 + VIDEO_FRAMES * k + i) for i in range(VIDEO_FRAMES))
        container = mp4_of_jpegs(frames)
        made["video"] += [_ask(wire, "video", frames if wire == "dendrite" else container) for wire in WIRES]
    return made


def _ask(wire: str, modality: Modality, payload: bytes) -> Ask:
    if wire != "dendrite":
        return Ask(wire, modality, payload, payload)
    nobody = keys.from_uri("//Nobody")
    whole = challenge_request(
        wire, key=nobody, receiver="", modality=modality, payload=payload, timeout_s=TIMEOUT_S, uuid="0"
    )
    return Ask(wire, modality, b"", whole.body)


def signed(ask: Ask, key: keys.Hotkey, receiver: str, own_uuid: str, now_ns: int | None = None) -> Request:
    """`ask` signed now, as its wire does it; `own_uuid` is the Dendrite's, one a caller."""
    request = challenge_request(
        ask.wire,
        key=key,
        receiver=receiver,
        modality=ask.modality,
        payload=ask.payload,
        timeout_s=TIMEOUT_S,
        uuid=own_uuid if ask.wire == "dendrite" else str(uuid.uuid4()),
        now_ns=now_ns,
    )
    # A Dendrite signs no body: the one that was encoded before saves base85 and JSON each time.
    return Request(request.method, request.target, request.headers, ask.body, request.received_ns)


@dataclass
class Caller:
    """One validator: its hotkey, its address, its open connections.

    Attributes:
        key: signs.
        source: loopback address that it calls from; the miner's limits are per address.
        listed: see :class:`Outcome`.
    """

    key: keys.Hotkey
    source: str
    listed: bool = False

    def __post_init__(self) -> None:
        self.uuid = str(uuid.uuid4())
        self.idle: deque[tuple[float, Connection]] = deque()

    async def connection(self, address: tuple[str, int]) -> Connection:
        while self.idle:
            since, found = self.idle.pop()  # the last one used: the others grow old and are dropped
            if time.monotonic() - since < _IDLE_S and not found.transport.is_closing():
                return found
            found.transport.close()
        loop = asyncio.get_running_loop()
        _, found = await loop.create_connection(Connection, *address, local_addr=(self.source, 0))
        return found


class Load:
    """Asks one miner in the name of several validators and keeps what came back.

    Args:
        address: of the miner.
        receiver: its hotkey.
        callers: the validators.
        mix: from :func:`asks`.
        video_share: share of the requests that carry a video, 0 to 1.
        seed: of who asks what.
    """

    def __init__(
        self,
        address: tuple[str, int],
        receiver: str,
        callers: list[Caller],
        mix: dict[Modality, list[Ask]],
        *,
        video_share: float = 0.1,
        seed: int = 0,
    ) -> None:
        self._address = address
        self._receiver = receiver
        self._callers = callers
        self._mix = mix
        self._video_share = video_share
        self._chance = random.Random(seed)
        self.outcomes: list[Outcome] = []
        self.recent: deque[bytes] = deque(maxlen=16)
        """What was sent last, as it was sent."""
        self.under_way = 0
        self.most_under_way = 0

    async def one(self, due: float) -> Outcome:
        """One request, from anybody, of any kind; never raises for what the miner does."""
        caller = self._chance.choice(self._callers)
        ask = self._chance.choice(self._mix["video" if self._chance.random() < self._video_share else "image"])
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            outcome = await self.exchange(caller, ask, due)
        finally:
            self.under_way -= 1
        self.outcomes.append(outcome)
        return outcome

    async def exchange(self, caller: Caller, ask: Ask, due: float) -> Outcome:
        """`ask` by `caller`, not counted; never raises for what the miner does."""
        sent, response, status = time.monotonic(), b"", 0
        connection: Connection | None = None
        try:
            async with asyncio.timeout(TIMEOUT_S):
                connection = await caller.connection(self._address)
                connection.answered = asyncio.get_running_loop().create_future()
                sent = time.monotonic()
                request = plain(signed(ask, caller.key, self._receiver, caller.uuid))
                self.recent.append(request)
                connection.transport.write(request)
                response = await connection.answered
                status = status_of(response)
        except TimeoutError:
            status = -1
        except OSError:
            status = 0
        done = time.monotonic()
        if connection is not None:
            if status > 0 and not connection.transport.is_closing():
                caller.idle.append((done, connection))
            else:
                connection.transport.close()
        reason, answer = _read(ask.wire, status, response)
        return Outcome(due, sent, done, ask.wire, ask.modality, caller.listed, status, reason, answer)

    async def close(self) -> None:
        """Closes what is open; ask nothing afterwards that shall reuse it."""
        for caller in self._callers:
            while caller.idle:
                caller.idle.pop()[1].transport.close()
        await asyncio.sleep(0)

    async def full(self, in_flight: int, seconds: float) -> list[Outcome]:
        """As many as the miner answers, `in_flight` at a time; the outcomes are given, not kept."""
        before, end = len(self.outcomes), time.monotonic() + seconds

        async def ask() -> None:
            while time.monotonic() < end:
                await self.one(time.monotonic())

        await asyncio.gather(*(ask() for _ in range(in_flight)))
        found = self.outcomes[before:]
        del self.outcomes[before:]
        return found


def _read(wire: str, status: int, response: bytes) -> tuple[str, float | tuple[float, float, float] | None]:
    """(reason of a refusal, answer)."""
    if status <= 0:
        return "timeout" if status else "broken", None
    head, _, body = response.partition(b"\r\n\r\n")
    if status != 200:
        try:
            return str(orjson.loads(body).get("reason", "")), None
        except (orjson.JSONDecodeError, AttributeError):
            return "", None
    lines = (line.partition(": ") for line in head.decode("latin-1").split("\r\n")[1:])
    return "", read_answer(wire, status, {name: value for name, _, value in lines}, body)


async def paced(
    fire: Callable[[float], Awaitable[object]], rate: float, seconds: float, *, seed: int = 0
) -> list[asyncio.Future[object]]:
    """Calls `fire` with the time it was due, `rate` times a second on average, at random moments (Poisson).

    Returns:
        What was started, in order; some of it may still run.
    """
    chance = random.Random(seed)
    started: list[asyncio.Future[object]] = []
    due, end = time.monotonic(), time.monotonic() + seconds
    while True:
        due -= math.log(1.0 - chance.random()) / rate
        if due >= end:
            return started
        wait = due - time.monotonic()
        if wait > 0:
            await asyncio.sleep(wait)
        started.append(asyncio.ensure_future(fire(due)))
        if len(started) % 32 == 0:
            await asyncio.sleep(0)  # behind time: what was started must still get its turn
