"""The mock validator's driver: challenges go out as real signed HTTP requests, answers come back and are paid for.

Each miner is timed by itself, from the moment before the connection is opened to the last byte of the answer, on the
monotonic clock. Everything the validator does for a challenge apart from waiting (drawing, encoding, signing, reading
the answers) happens outside those measurements, so a slow miner neither delays nor distorts another one's figure.
Everything but the measured times follows from the seed: the media, the augmentation draws and the requests' ids.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import ipaddress
import re
import time
import uuid
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import aiohttp
import numpy as np
from yarl import URL

from detectors.errors import ConfigError
from detectors.types import Label, Modality
from neurons.keys import Keypair
from neurons.mp4 import mp4_of_jpegs
from neurons.wire.base import Answer as AnswerKind
from neurons.wire.base import Request
from neurons.wire.client import WIRES, challenge_request, read_answer

if TYPE_CHECKING:
    from neurons.challenges import Issued

__all__ = ["Endpoint", "Exchange", "Plan", "Reply", "parse_endpoint", "simulate"]

NO_ANSWER = -1.0  # what the reward functions read as silence

_ANSWER_CAP = 64 << 20  # bytes; a 10.5 Axon echoes the whole synapse, media included
_HOTKEY = re.compile(r"5[1-9A-HJ-NP-Za-km-z]{47}")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A miner to ask.

    Attributes:
        name: what reports call it; unique within a run.
        url: ``http://HOST:PORT`` of a loopback address.
        hotkey: ss58 address that requests are signed for.
        wire: one of ``neurons.wire.client.WIRES``.
    """

    name: str
    url: str
    hotkey: str
    wire: str = "dendrite"

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        try:
            port = parts.port
        except ValueError:
            port = None
        if parts.scheme != "http" or not parts.hostname or not port or parts.path.strip("/") or parts.query:
            raise ConfigError(
                f"miner {self.name!r}: the address must look like http://127.0.0.1:8091, not {self.url!r}"
            )
        if not _is_loopback(parts.hostname):
            raise ConfigError(
                f"miner {self.name!r}: {parts.hostname} is not a loopback address; the mock validator only asks miners "
                "on this machine (forward a remote port to 127.0.0.1 if you own that miner)"
            )
        if not _HOTKEY.fullmatch(self.hotkey):
            raise ConfigError(f"miner {self.name!r}: {self.hotkey!r} is not an ss58 hotkey address")
        if self.wire not in WIRES:
            raise ConfigError(f"miner {self.name!r}: unknown wire {self.wire!r}; known are {', '.join(WIRES)}")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def parse_endpoint(text: str) -> Endpoint:
    """Reads ``[NAME=]URL@HOTKEY[#WIRE]``, e.g. ``mine=http://127.0.0.1:8091@5F…#epistula``.

    Without a name the miner is called after its host and port.

    Raises:
        ConfigError: not of that form, not on loopback, or an unknown wire.
    """
    name, equals, rest = text.partition("=")
    if not equals or "://" in name:
        name, rest = "", text
    address, at, tail = rest.rpartition("@")
    if not at:
        raise ConfigError(f"--miner wants [NAME=]URL@HOTKEY[#WIRE], e.g. http://127.0.0.1:8091@5F…, not {text!r}")
    hotkey, _, wire = tail.partition("#")
    return Endpoint(name or urlsplit(address).netloc, address.rstrip("/"), hotkey, wire or "dendrite")


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run does.

    Attributes:
        endpoints: the miners, names unique.
        seed: of the requests' ids (the challenge stream has its own).
        answer: ``float`` or ``vector``, what the profile in force reads.
        timeout_s: per request, connection to last byte.
        in_flight: challenges under way at once.
        together: ask all miners of a challenge at the same time, as a validator does; False asks them one after the
            other, which keeps processes that share one machine's cores from slowing each other's measured answer.
    """

    endpoints: tuple[Endpoint, ...]
    seed: int
    answer: AnswerKind = "float"
    timeout_s: float = 9.0
    in_flight: int = 1
    together: bool = True

    def __post_init__(self) -> None:
        names = [e.name for e in self.endpoints]
        if not names:
            raise ConfigError("no miner to ask; give at least one --miner URL@HOTKEY, or --camo FILE")
        if len(set(names)) != len(names):
            raise ConfigError(f"two miners have the same name; write NAME=URL@HOTKEY to tell them apart: {names}")
        if self.timeout_s <= 0 or self.in_flight < 1:
            raise ConfigError("timeout must be above 0 s and in-flight at least 1")


@dataclass(frozen=True, slots=True)
class Reply:
    """What one miner made of one challenge.

    Attributes:
        answer: P(fake), or (real, synthetic, semi-synthetic), or None for no usable answer.
        seconds: from before the connection to the last byte, or to the failure.
        failure: empty, or why there is no answer: ``timeout``, ``connection``, ``status-NNN``, ``too-large``,
            ``unreadable``, ``no-prediction``.
    """

    answer: float | tuple[float, float, float] | None
    seconds: float
    failure: str = ""

    @property
    def p_fake(self) -> float:
        """The float a two-class validator reads; −1 where there is no answer."""
        if self.answer is None:
            return NO_ANSWER
        return 1.0 - self.answer[0] if isinstance(self.answer, tuple) else self.answer


@dataclass(frozen=True, slots=True)
class Exchange:
    """One challenge as sent, and every miner's reply.

    Attributes:
        issued: the challenge.
        sha256: of its payload as drawn, hex.
        size: bytes of that payload.
        replies: by the endpoint's name.
    """

    issued: Issued
    sha256: str
    size: int
    replies: Mapping[str, Reply] = field(default_factory=dict)

    @property
    def label(self) -> Label:
        return Label(self.issued.label)

    @property
    def modality(self) -> Modality:
        return self.issued.modality

    def slim(self) -> Exchange:
        """The same without the payload and the picture, for keeping: a long run must not hold all its media."""
        return replace(self, issued=replace(self.issued, payload=b"", preview=np.empty((0, 0, 3), np.uint8)))


@dataclass(frozen=True, slots=True)
class _Sent:
    """An answer as it came off the socket, not read yet."""

    seconds: float
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    failure: str = ""


async def simulate(plan: Plan, challenges: Iterable[Issued], *, key: Keypair) -> AsyncGenerator[Exchange, None]:
    """Sends the challenges to every miner and yields the exchanges in the order of the challenges.

    Args:
        plan: whom to ask, and how.
        challenges: drawn lazily, off the event loop, `plan.in_flight` ahead at most.
        key: the validator's hotkey pair, as ``neurons.keys`` makes it.

    Yields:
        One exchange a challenge. A miner that fails costs its own reply, never the run.
    """
    source = iter(challenges)
    under_way: deque[asyncio.Task[Exchange]] = deque()
    # A fresh connection per request: miners are asked once in a while, and an idle connection that the miner has
    # just closed would count as a miss that is none.
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as session:
        asker = _Asker(plan, key, session)
        try:
            while True:
                while len(under_way) < plan.in_flight:
                    issued = await asyncio.to_thread(_next, source)
                    if issued is None:
                        break
                    under_way.append(asyncio.create_task(asker.exchange(issued)))
                if not under_way:
                    return
                yield await under_way.popleft()
        finally:
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)


def _next(source: Iterator[Issued]) -> Issued | None:
    return next(source, None)


class _Asker:
    """Turns one challenge into one exchange."""

    def __init__(self, plan: Plan, key: Keypair, session: aiohttp.ClientSession) -> None:
        self._plan = plan
        self._key = key
        self._session = session

    async def exchange(self, issued: Issued) -> Exchange:
        endpoints = self._plan.endpoints
        payloads = await asyncio.to_thread(self._payloads, issued)
        if self._plan.together:
            requests = await asyncio.to_thread(lambda: [self._request(e, issued, payloads) for e in endpoints])
            sent = list(await asyncio.gather(*map(self._send, endpoints, requests)))
        else:
            sent = []
            for endpoint in endpoints:  # signed just before it is sent, or the last one's nonce would be stale
                request = await asyncio.to_thread(self._request, endpoint, issued, payloads)
                sent.append(await self._send(endpoint, request))
        digest = hashlib.sha256(issued.payload).hexdigest()
        return Exchange(
            issued, digest, len(issued.payload), {e.name: _read(e, s) for e, s in zip(endpoints, sent, strict=True)}
        )

    def _payloads(self, issued: Issued) -> dict[str, bytes]:
        """What goes out, by wire: only the Dendrite wire takes bare JPEG frames, the others a container."""
        wires = {e.wire for e in self._plan.endpoints}
        if issued.modality == "image" or wires == {"dendrite"}:
            return dict.fromkeys(wires, issued.payload)
        return {w: issued.payload if w == "dendrite" else mp4_of_jpegs(issued.payload) for w in wires}

    def _request(self, endpoint: Endpoint, issued: Issued, payloads: Mapping[str, bytes]) -> Request:
        return challenge_request(
            endpoint.wire,
            key=self._key,
            receiver=endpoint.hotkey,
            modality=issued.modality,
            payload=payloads[endpoint.wire],
            timeout_s=self._plan.timeout_s,
            uuid=request_id(self._plan.seed, issued.index, endpoint),
            answer=self._plan.answer,
        )

    async def _send(self, endpoint: Endpoint, request: Request) -> _Sent:
        url = URL(endpoint.url + request.target, encoded=True)
        start = time.perf_counter()

        def failed(reason: str) -> _Sent:
            return _Sent(time.perf_counter() - start, failure=reason)

        try:
            async with (
                asyncio.timeout(self._plan.timeout_s),
                self._session.request(
                    request.method,
                    url,
                    data=io.BytesIO(request.body),  # aiohttp warns of large bodies that are plain bytes
                    headers=dict(request.headers),
                    allow_redirects=False,
                    timeout=aiohttp.ClientTimeout(total=None),
                ) as response,
            ):
                chunks, size = [], 0
                async for chunk in response.content.iter_any():
                    chunks.append(chunk)
                    size += len(chunk)
                    if size > _ANSWER_CAP:
                        return failed("too-large")
                seconds = time.perf_counter() - start
                headers = {k.lower(): v for k, v in response.headers.items()}
                return _Sent(seconds, response.status, headers, b"".join(chunks))
        except TimeoutError:
            return failed("timeout")
        except (aiohttp.ClientError, OSError):
            return failed("connection")


def _read(endpoint: Endpoint, sent: _Sent) -> Reply:
    """Reads an answer after all measurements of its challenge are over."""
    if sent.failure:
        return Reply(None, sent.seconds, sent.failure)
    if sent.status != 200:
        return Reply(None, sent.seconds, f"status-{sent.status}")
    answer = read_answer(endpoint.wire, sent.status, sent.headers, sent.body)
    return Reply(answer, sent.seconds, "" if answer is not None else "no-prediction")


def request_id(seed: int, index: int, endpoint: Endpoint) -> str:
    """The uuid of a request: on the Dendrite wire one a run, as one validator process has; elsewhere one a request.

    The same in every run with this seed; it is the signed time that tells two runs apart.
    """
    text = f"{seed}" if endpoint.wire == "dendrite" else f"{seed}/{index}/{endpoint.name}"
    return str(uuid.UUID(bytes=hashlib.sha256(text.encode()).digest()[:16], version=4))
