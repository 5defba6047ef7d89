"""The service as a whole: the ASGI application behind its gate, and raw bytes on a socket before it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import random
import re
import socket
import struct
import threading
from collections.abc import MutableMapping, Sequence
from typing import Any

import orjson

from detectors.types import Prediction
from neurons.access import Decision
from neurons.httpd import Listen, serving
from neurons.limits import Rate, RateLimits
from neurons.pipeline import Judge, TrivialDetector
from neurons.scheduler import Scheduler
from neurons.server import App, build_app
from neurons.wire.base import Caller, Challenge, Refusal, Request, Response, Wire
from neurons.wire.client import WIRES
from tests.fuzz import signed
from tests.fuzz.engine import Outcome, Target
from tests.fuzz.mutate import havoc
from tests.fuzz.targets_wire import KINDS, well_formed
from tests.neurons.wire.wirekit import NOW, bob, make

__all__ = ["OnSocket", "targets"]

_END_S = 1.0  # after which a connection whose peer has said its last word must be closed


class _AtNow:
    """A wire for which every request arrives at NOW, when the seeds were signed, and for the first time."""

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def _wire(self) -> Wire:
        return make(KINDS[self.name])

    def claim(self, request: Request) -> str:
        return self._wire.claim(_moved(request))

    def unproven(self) -> Refusal:
        return self._wire.unproven()

    def verify(self, request: Request) -> Caller:
        return self._wire.verify(_moved(request))

    def decode(self, request: Request) -> Challenge:
        return self._wire.decode(request)

    def encode(self, prediction: Prediction, challenge: Challenge, request: Request, seconds: float) -> Response:
        return self._wire.encode(prediction, challenge, request, seconds)

    def refuse(self, refusal: Refusal, request: Request) -> Response:
        return self._wire.refuse(refusal, request)


def _moved(request: Request) -> Request:
    return dataclasses.replace(request, received_ns=NOW)


def _offline_app(judge: Judge) -> App:
    """The application as it serves, open to every valid signature and without rates. Inside a running loop."""
    free = Rate(0.0, 1)
    return build_app(
        wires={name: _AtNow(name) for name in WIRES},
        access=lambda _: Decision(True, "offline"),
        scheduler=Scheduler(judge),
        hotkey=bob().ss58_address,
        uid=3,
        rates=RateLimits(free, free, free),
    )


class _Errors(logging.Handler):
    """What is logged as an error while requests are served: a fault of ours that the answer may not show."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(self.format(record))

    def check(self) -> None:
        texts, self.texts = self.texts, []
        assert not texts, texts[0]


class _InProcess:
    """One request through the application without a socket."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._errors = _Errors()

    def run(self, data: bytes) -> Outcome:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._judge = Judge(TrivialDetector())
            logging.getLogger().addHandler(self._errors)
            self._app = self._loop.run_until_complete(self._start())
        status, body = self._loop.run_until_complete(asyncio.wait_for(self._exchange(data), 30))
        self._errors.check()
        if status == 200:  # JSON or a mask, and checked
            return Outcome(True, "200")
        said = orjson.loads(body)
        return Outcome(False, str(said.get("reason", status)) if isinstance(said, dict) else str(status))

    async def _start(self) -> App:
        return _offline_app(self._judge)

    async def _exchange(self, data: bytes) -> tuple[int, bytes]:
        request = signed.read(data)
        head = data.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]
        lines = [line.partition(b":") for line in head if not line.lower().startswith(signed.MARK.encode())]
        path, _, query = request.target.encode("latin-1").partition(b"?")
        middle = len(request.body) // 2
        pieces = [request.body[:middle], b"", request.body[middle:]]
        answers: list[MutableMapping[str, Any]] = []
        done = asyncio.Event()

        async def receive() -> MutableMapping[str, Any]:
            if pieces:
                return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}
            await done.wait()
            return {"type": "http.disconnect"}

        async def send(message: MutableMapping[str, Any]) -> None:
            answers.append(message)
            if message["type"] == "http.response.body" and not message.get("more_body"):
                done.set()

        scope: dict[str, Any] = {
            "type": "http",
            "method": request.method,
            "raw_path": path,
            "query_string": query,
            "headers": [(name.strip().lower(), value.strip()) for name, _, value in lines],
            "client": ("192.0.2.1", 50000),
        }
        await self._app(scope, receive, send)
        start, *rest = answers
        assert start["type"] == "http.response.start"
        assert all(message["type"] == "http.response.body" for message in rest)
        body = b"".join(message["body"] for message in rest)
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in start["headers"]}
        assert headers["content-length"] == str(len(body))
        well_formed(Response(start["status"], body, headers))
        return int(start["status"]), body

    def close(self) -> None:
        if self._loop is None:
            return
        messages = iter(("lifespan.startup", "lifespan.shutdown"))

        async def receive() -> MutableMapping[str, Any]:
            return {"type": next(messages)}

        async def send(_: MutableMapping[str, Any]) -> None:
            return

        self._loop.run_until_complete(self._app({"type": "lifespan"}, receive, send))
        self._judge.close()
        self._loop.close()
        self._loop = None
        logging.getLogger().removeHandler(self._errors)


class OnSocket:
    """Bytes to a listening server, and what comes back until the connection is closed."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._errors = _Errors()
        self._address = ("", 0)

    @property
    def url(self) -> str:
        """Where it listens; starts it."""
        if self._thread is None:
            self._start()
        return f"http://{self._address[0]}:{self._address[1]}"

    def check(self) -> None:
        """Fails where the server has logged an error since the last look."""
        self._errors.check()

    def run(self, data: bytes) -> Outcome:
        if self._thread is None:
            self._start()
        answer = self._exchange(data)
        self._errors.check()
        statuses = re.findall(rb"^HTTP/1\.1 (\d{3}) ", answer, re.MULTILINE)
        assert not answer or answer.startswith(b"HTTP/1.1 "), answer[:80]
        assert b"500" not in statuses, answer[:300]
        return Outcome(b"200" in statuses, b" ".join(statuses[:2]).decode() or "closed")

    def _exchange(self, data: bytes) -> bytes:
        found = b""
        with socket.create_connection(self._address, timeout=_END_S) as peer:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            try:
                peer.sendall(data)
                peer.settimeout(0.02)
                with contextlib.suppress(TimeoutError):
                    while piece := peer.recv(65536):
                        found += piece
                        if b"\r\n\r\n" in found:
                            peer.settimeout(0.002)
                peer.settimeout(_END_S)
                peer.shutdown(socket.SHUT_WR)
                while piece := peer.recv(65536):
                    found += piece
            except (ConnectionError, OSError) as error:
                # A timeout is an OSError too: the connection was not closed in time.
                assert not isinstance(error, TimeoutError), "the connection stays open after its peer has finished"
        return found

    def _start(self) -> None:
        ready = threading.Event()
        logging.getLogger().addHandler(self._errors)

        async def serve() -> None:
            judge = Judge(TrivialDetector())
            self._stop = asyncio.Event()
            self._loop = asyncio.get_running_loop()
            async with serving(_offline_app(judge), Listen(grace_s=1)) as self._address:
                ready.set()
                await self._stop.wait()
            judge.close()

        self._thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
        self._thread.start()
        assert ready.wait(30)

    def close(self) -> None:
        if self._thread is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(30)
            self._thread = None
            logging.getLogger().removeHandler(self._errors)


def _on_the_line(data: bytes) -> bytes:
    """A request as it travels: with its host and length, without the mark of the tests."""
    head, _, body = data.partition(b"\r\n\r\n")
    lines = [line for line in head.split(b"\r\n") if not line.startswith(signed.MARK.encode())]
    lines[1:1] = [b"host: miner", b"content-length: %d" % len(body)]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def _socket_seeds() -> Sequence[bytes]:
    full = [_on_the_line(raw) for name in WIRES for raw in signed.seeds(name)]
    head, _, body = full[0].partition(b"\r\n\r\n")
    chunked = head.replace(b"content-length: %d" % len(body), b"transfer-encoding: chunked")
    pages = [b"GET %s HTTP/1.1\r\nhost: miner\r\n\r\n" % path for path in (b"/", b"/miner_info", b"/detect_image")]
    return (
        *full,
        *pages,
        b"".join(pages) + full[0],
        chunked + b"\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(body), body),
        full[1].replace(b"HTTP/1.1", b"HTTP/1.0", 1),
        full[2].replace(b"host: miner", b"host: miner\r\nexpect: 100-continue", 1),
    )


_LINES = (
    b"content-length: 5", b"content-length: -1", b"content-length: 0x10", b"content-length: 5, 5",
    b"Content-Length : 7", b"content-length: 99999999999999999999",
    b"transfer-encoding: chunked", b"transfer-encoding: chunked, identity",
    b"transfer-encoding: \x0bchunked", b"Transfer-Encoding:\tchunked", b"connection: upgrade\r\nupgrade: h2c",
    b"connection: close", b"connection: keep-alive, content-length", b"upgrade: websocket", b"expect: 100-continue",
    b"host: a\r\nhost: b", b" folded: line", b": no name", b"no colon", b"x: \x00", b"x: " + b"a" * 70_000,
    b"\xff: \xff", b"content-encoding: gzip", b"trailer: x", b"x:" * 300, b"te: trailers", b"range: bytes=0-1",
)  # fmt: skip


def _http(rng: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    """Header lines planted, doubled and dropped, line ends and versions changed, requests run together."""
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    at = rng.randrange(len(lines))
    draw = rng.randrange(9)
    if draw < 3:
        lines.insert(at + rng.randrange(2), rng.choice(_LINES))
    elif draw == 3:
        lines.insert(at, lines[at])
    elif draw == 4:
        del lines[at]
    elif draw == 5:
        lines[0] = lines[0].replace(
            b"HTTP/1.1", rng.choice((b"HTTP/1.0", b"HTTP/2", b"HTTP/0.9", b"", b"http/1.1", b"ICE/1.0"))
        )
    elif draw == 6:
        return rng.choice((b"\n", b"\r", b"\r\n\r\n")).join(lines) + b"\r\n\r\n" + body
    elif draw == 7:
        return data[: rng.randrange(len(data) + 1)] + rng.choice(seeds)
    else:
        return havoc(rng, data, seeds)
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def targets() -> tuple[Target, ...]:
    """Both decode for real behind a constant detector; media are left as they are, their targets are elsewhere."""
    application, line = _InProcess(), OnSocket()
    known = [(name, signed.mutate(name)) for name in WIRES]

    def mutate(rng: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
        if rng.random() < 0.2:
            return _http(rng, data, seeds)
        marks = {"dendrite": b"bt_header_dendrite", "btauth": b"x-bittensor", "epistula": b"epistula-"}
        return next((m for name, m in known if marks[name] in data), known[0][1])(rng, data, seeds)

    def seeds() -> Sequence[bytes]:
        return [raw for name in WIRES for raw in signed.seeds(name)]

    return (
        Target("http-app", seeds, application.run, mutate, megabytes=256, close=application.close),
        Target("http-socket", _socket_seeds, line.run, _http, seconds=3.0, close=line.close),
    )
