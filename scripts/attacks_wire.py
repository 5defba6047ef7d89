"""What ``make attacks`` writes to sockets and how it reads what comes back: raw, as no HTTP client would send it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import io
import re
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import orjson
from PIL import Image

from neurons.keys import Hotkey
from neurons.wire.base import Request
from neurons.wire.client import challenge_request
from tests.neurons.loopback import plain

__all__ = ["Answer", "Talk", "changed", "claiming", "large_jpeg", "plain", "resigned", "signed", "small_jpeg", "talk"]

_LINGER_S = 0.3  # after the answers that are due, for one that is not


@dataclass(frozen=True)
class Answer:
    """One HTTP response; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        """Head and body, to look for what should not be there."""
        return f"{dict(self.headers)} {self.body.decode('latin-1')}"

    def field(self, name: str) -> Any:
        """A field of the body, None where the body is no JSON object or has none of that name."""
        try:
            parsed = orjson.loads(self.body)
        except orjson.JSONDecodeError:
            return None
        return parsed.get(name) if isinstance(parsed, dict) else None


@dataclass(frozen=True)
class Talk:
    """What came of some bytes on a connection of their own.

    Attributes:
        answers: complete responses, in order.
        closed: the server ended the connection.
        seconds: from the first byte out to the last answer, the end, or the end of our patience.
    """

    answers: Sequence[Answer]
    closed: bool
    seconds: float

    @property
    def status(self) -> int:
        """Of the first answer; 0 where there was none."""
        return self.answers[0].status if self.answers else 0

    @property
    def served(self) -> bool:
        """Whether the first answer holds a prediction that somebody could use."""
        return self.status == 200 and isinstance(self.answers[0].field("prediction"), float | list)

    @property
    def text(self) -> str:
        """For a cell of the table."""
        if not self.answers:
            return "closed without an answer" if self.closed else f"no answer in {self.seconds:.0f} s"
        verb = "served" if self.status < 300 else "refused" if self.status < 500 or self.status == 503 else "failed"
        return f"{verb} {self.status}"


async def talk(
    address: tuple[str, int],
    data: bytes | Request,
    *,
    due: int = 1,
    patience_s: float = 10.0,
    linger_s: float = 0.0,
) -> Talk:
    """Sends `data` and reads until `due` answers are complete, the connection ends, or patience does.

    Args:
        address: of the server.
        data: a request, or any bytes.
        due: how many answers are expected.
        patience_s: how long to wait for them, sending included.
        linger_s: how long to listen on after them.
    """
    began = time.monotonic()
    reader, writer = await asyncio.open_connection(*address, limit=2**26)
    sending = asyncio.ensure_future(_send(writer, plain(data) if isinstance(data, Request) else data))
    received, missing, closed, answers, done_s = bytearray(), 0, False, list[Answer](), 0.0
    try:
        async with asyncio.timeout(patience_s) as limit:
            while True:
                chunk = await reader.read(2**16)
                closed = not chunk
                received += chunk
                missing -= len(chunk)
                if missing <= 0 or closed:
                    answers, missing = _parse(bytes(received), closed)
                if closed:
                    break
                if not done_s and len(answers) >= due:
                    done_s = time.monotonic() - began
                    if not linger_s:
                        break
                    limit.reschedule(asyncio.get_running_loop().time() + linger_s)
    except TimeoutError:
        pass
    except ConnectionError:
        closed = True
    seconds = done_s or time.monotonic() - began
    sending.cancel()
    writer.close()
    with contextlib.suppress(ConnectionError, asyncio.CancelledError):
        await sending
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    return Talk(answers, closed, seconds)


async def _send(writer: asyncio.StreamWriter, data: bytes) -> None:
    with contextlib.suppress(ConnectionError):
        for start in range(0, len(data), 2**18):
            writer.write(data[start : start + 2**18])
            await writer.drain()


def _parse(received: bytes, closed: bool) -> tuple[list[Answer], int]:
    """The complete responses, and how many bytes at least the next one lacks; one without a length ends with the
    connection.
    """
    answers = list[Answer]()
    while received:
        head, found, rest = received.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        if not found or not re.match(r"HTTP/1\.[01] \d{3}", first):
            break
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        if headers.get("transfer-encoding") == "chunked":
            body, ended, received = rest.partition(b"0\r\n\r\n")
            if not ended:
                break
        elif "content-length" in headers:
            size = int(headers["content-length"])
            if len(rest) < size:
                return answers, size - len(rest)
            body, received = rest[:size], rest[size:]
        else:
            body, received = rest, b""
            if not closed:
                break
        answers.append(Answer(int(first[9:12]), headers, body))
    return answers, 0


def _jpeg(pixels: np.ndarray[Any, np.dtype[np.uint8]], quality: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=quality)
    return stream.getvalue()


@cache
def small_jpeg(seed: int = 0) -> bytes:
    """64 pixels square, a few KB."""
    return _jpeg(np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8), 90)


@cache
def large_jpeg() -> bytes:
    """Few bytes and many pixels: cheap to send, some tens of milliseconds to decode."""
    tile = np.linspace(0, 255, 64, dtype=np.uint8)
    return _jpeg(np.tile(tile[None, :, None], (3000, 47, 3)), 75)


def signed(
    key: Hotkey,
    receiver: str,
    *,
    wire: str = "dendrite",
    payload: bytes | None = None,
    now_ns: int | None = None,
    timeout_s: float = 9.0,
) -> Request:
    """An honest image challenge."""
    return challenge_request(
        wire,
        key=key,
        receiver=receiver,
        modality="image",
        payload=small_jpeg() if payload is None else payload,
        timeout_s=timeout_s,
        uuid=str(uuid.uuid4()),
        now_ns=now_ns,
    )


def changed(request: Request, **headers: str) -> Request:
    """The same request with other headers; its signature stays."""
    return dataclasses.replace(request, headers={**request.headers, **headers})


def claiming(request: Request, **fields: Any) -> Request:
    """The same request with other fields in its JSON body; its signature stays."""
    return dataclasses.replace(request, body=orjson.dumps({**orjson.loads(request.body), **fields}))


def resigned(request: Request, key: Any, **headers: str) -> Request:
    """The Dendrite request with other headers, signed by `key` (anything with ``sign``) over what they say now."""
    now = {**request.headers, **headers}
    parts = (
        "bt_header_dendrite_nonce",
        "bt_header_dendrite_hotkey",
        "bt_header_axon_hotkey",
        "bt_header_dendrite_uuid",
        "computed_body_hash",
    )
    signature = bytes(key.sign(".".join(now[part] for part in parts).encode()))
    return dataclasses.replace(request, headers={**now, "bt_header_dendrite_signature": "0x" + signature.hex()})
