"""A miner's server on a loopback port and a client that sends it signed requests, for tests."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import io
import threading
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Literal

import aiohttp
import numpy as np
from PIL import Image

from detectors.types import Modality, Prediction
from neurons import keys, wire
from neurons.access import AccessRules, Standing, decide
from neurons.bodies import BodyLimits
from neurons.httpd import Listen, serving
from neurons.limits import RateLimits
from neurons.pipeline import Judge, JudgesChallenges, Outcome, TrivialDetector
from neurons.scheduler import Limits, Scheduler
from neurons.seen import Observer
from neurons.server import App, build_app
from neurons.wire.base import Challenge, Request, Wire
from neurons.wire.client import challenge_request
from tests.detectors.fixtures_media import png_header

__all__ = [
    "ALICE",
    "BOB",
    "GOOD",
    "MINER",
    "Client",
    "Held",
    "P",
    "against",
    "ask",
    "client",
    "closed_within",
    "jpeg",
    "plain",
    "png_header",
    "read_response",
    "served",
]

MINER, ALICE, BOB = keys.from_uri("//Miner"), keys.from_uri("//Alice"), keys.from_uri("//Bob")
P = (0.25, 0.75, 0.0)


def jpeg(side: int = 64, seed: int = 0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=90)
    return stream.getvalue()


GOOD = jpeg()


def ask(
    name: str = "dendrite",
    payload: bytes = GOOD,
    modality: Modality = "image",
    key: keys.Hotkey = ALICE,
    *,
    own_uuid: str | None = None,
    now_ns: int | None = None,
    wants: Literal["prediction", "mask"] = "prediction",
) -> Request:
    """A signed challenge for ``MINER``; by default with a uuid of its own, and now."""
    return challenge_request(
        name,
        key=key,
        receiver=MINER.ss58_address,
        modality=modality,
        payload=payload,
        timeout_s=9.0,
        uuid=own_uuid or str(uuid.uuid4()),
        now_ns=now_ns,
        wants=wants,
    )


class Held:
    """A judge that waits until it is let go and counts what it was given."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.judged = 0

    def judge(self, challenges: Sequence[Challenge], deadline: float | None) -> list[Outcome]:
        assert self.go.wait(10)
        self.judged += len(challenges)
        return [Prediction(P) for _ in challenges]


@dataclasses.dataclass
class Client:
    session: aiohttp.ClientSession
    ip: str
    port: int

    async def send(self, request: Request) -> tuple[int, dict[str, str], bytes]:
        url = f"http://{self.ip}:{self.port}{request.target}"
        async with self.session.request(
            request.method, url, data=io.BytesIO(request.body), headers=dict(request.headers)
        ) as response:
            return response.status, {k.lower(): v for k, v in response.headers.items()}, await response.read()

    async def raw(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(self.ip, self.port)


@contextlib.asynccontextmanager
async def served(
    judge: JudgesChallenges,
    *,
    rules: AccessRules | None = None,
    queue: Limits | None = None,
    limits: BodyLimits | None = None,
    listen: Listen | None = None,
    rates: RateLimits | None = None,
    wires: Mapping[str, Wire] | None = None,
    standing: Callable[[str], Standing | None] = lambda _: None,
    observers: Sequence[Observer] = (),
) -> AsyncIterator[Client]:
    allowed = rules or AccessRules(offline=True)
    app = build_app(
        wires=wires or wire.build(MINER.ss58_address),
        access=lambda hotkey: decide(hotkey, standing(hotkey), allowed),
        scheduler=Scheduler(judge, queue),
        hotkey=MINER.ss58_address,
        uid=3,
        limits=limits,
        rates=rates,
        observers=observers,
    )
    async with client(app, listen) as connected:
        yield connected


@contextlib.asynccontextmanager
async def client(app: App, listen: Listen | None = None) -> AsyncIterator[Client]:
    """Serves `app`, and who asks it."""
    async with serving(app, listen or Listen(grace_s=5)) as (ip, port), aiohttp.ClientSession() as session:
        yield Client(session, ip, port)


def against(body: Callable[[Client], Awaitable[None]], judge: JudgesChallenges | None = None, **options: Any) -> None:
    """Runs `body` against a server; the trivial detector behind real decoding unless told otherwise."""

    async def inner() -> None:
        async with served(judge or real, **options) as client:
            await body(client)

    real = Judge(TrivialDetector(P))
    try:
        asyncio.run(inner())
    finally:
        real.close()


def plain(request: Request) -> bytes:
    """`request` as bytes for a socket."""
    lines = [f"{request.method} {request.target} HTTP/1.1", "host: miner"]
    lines += [f"{name}: {value}" for name, value in request.headers.items()]
    lines += [f"content-length: {len(request.body)}", "", ""]
    return "\r\n".join(lines).encode() + request.body


async def read_response(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)).decode().split("\r\n")
    headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in head[1:] if line)}
    return int(head[0].split()[1]), headers, await reader.readexactly(int(headers["content-length"]))


async def closed_within(reader: asyncio.StreamReader, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            while await reader.read(65536):
                pass
    except TimeoutError:
        return False
    except ConnectionResetError:
        return True
    return True
