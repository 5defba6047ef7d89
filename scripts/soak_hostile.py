"""Hostile callers: everything that must cost them more than the miner, over real sockets from addresses of their own.

Each attack tells what it got; :data:`EXPECTED` says what it should have got. ``mallory`` is a registered validator
gone bad, without whom no bomb would ever reach a decoder.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import time
import uuid
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final

from neurons import keys
from neurons.wire.base import Request
from neurons.wire.client import WIRES, challenge_request
from neurons.wire.encoding import MAX_INFLATED, deflate_base85
from scripts.soak_load import TIMEOUT_S, still
from tests.neurons.loopback import plain, png_header

__all__ = ["EXPECTED", "Hostile", "Tried"]

CLOSED, HUNG = "closed", "hung"
_REFUSED = frozenset({"400", "401"})
_UNREAD = frozenset({"413", "422"})

#: By attack, what it may get. ``closed`` is a connection that was ended without an answer.
EXPECTED: Final[dict[str, frozenset[str]]] = {
    "forged signature": _REFUSED,
    "stranger": _REFUSED | {"403", "503"},
    "replay": _REFUSED,
    "slow headers": frozenset({CLOSED}),
    "slow body": frozenset({"408"}),
    "reset in the body": frozenset({CLOSED}),
    "oversized": frozenset({"413"}),
    "image bomb": _UNREAD,
    "zip bomb": _UNREAD,
    "frames bomb": _UNREAD,
    "coded body": frozenset({"415"}),
    "garbage": frozenset({"400", "404", CLOSED}),
    "endless headers": frozenset({"400", CLOSED}),
}
_OF_MALLORY: Final = frozenset({"replay", "slow body", "oversized", "image bomb", "zip bomb", "frames bomb"})
_GARBAGE: Final = (
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),  # a TLS hello
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"POST /ImageSynapse HTTP/1.1\r\nhost: m\r\ncontent-length: -1\r\n\r\n",
    b"POST /ImageSynapse HTTP/1.1\r\nhost: m\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    b"\x00" * 512,
)


@dataclass
class Tried:
    """What the attacks got.

    Attributes:
        got: how often, by (attack, result).
        unexpected: the first of those that :data:`EXPECTED` does not have, as text.
        let_in: hostile requests that were answered.
    """

    got: dict[str, Counter[str]] = field(default_factory=dict)
    unexpected: list[str] = field(default_factory=list)
    let_in: int = 0

    @property
    def count(self) -> int:
        return sum(sum(results.values()) for results in self.got.values())

    def note(self, attack: str, result: str, *, stale: bool) -> None:
        """Counts one; `stale` where the miner may refuse everybody for want of a metagraph."""
        self.got.setdefault(attack, Counter())[result] += 1
        allowed = EXPECTED[attack]
        if stale or attack in _OF_MALLORY:  # a full miner refuses a known caller's attacks like anything else
            allowed = allowed | {"503"}
        self.let_in += result == "200"
        if result not in allowed and len(self.unexpected) < 50:
            self.unexpected.append(f"{attack}: {result}")


class Hostile:
    """Attacks one miner.

    Args:
        address: of the miner.
        receiver: its hotkey.
        mallory: a registered hotkey.
        header_timeout_s, body_timeout_s: the miner's own.
        max_body_bytes: the miner's own.
        is_stale: whether the chain is or was lately away.
        seed: of who does what.
    """

    def __init__(
        self,
        address: tuple[str, int],
        receiver: str,
        mallory: keys.Hotkey,
        *,
        header_timeout_s: float,
        body_timeout_s: float,
        max_body_bytes: int,
        is_stale: Callable[[], bool] = lambda: False,
        seed: int = 0,
    ) -> None:
        self._address = address
        self._receiver = receiver
        self._mallory = mallory
        self._stranger = keys.from_uri("//Stranger")
        self._header_timeout_s = header_timeout_s
        self._body_timeout_s = body_timeout_s
        self._max_body = max_body_bytes
        self._is_stale = is_stale
        self._chance = random.Random(seed)
        self._picture = still(77)
        self._bomb = _inflating(2 * MAX_INFLATED)
        self.tried = Tried()
        self._attacks: dict[str, Callable[[], Coroutine[Any, Any, str]]] = {
            "forged signature": self._forged,
            "stranger": lambda: self._send(self._request(self._stranger)),
            "replay": self._replay,
            "slow headers": self._slow_headers,
            "slow body": self._slow_body,
            "reset in the body": self._reset,
            "oversized": self._oversized,
            "image bomb": lambda: self._send(self._request(payload=png_header(60_000, 60_000))),
            "zip bomb": self._zip_bomb,
            "frames bomb": self._frames_bomb,
            "coded body": self._coded,
            "garbage": lambda: self._raw(self._chance.choice(_GARBAGE)),
            "endless headers": lambda: self._raw(b"GET / HTTP/1.1\r\nx: " + b"a" * 100_000),
        }
        self._order = list(self._attacks)
        self._turn = self._chance.randrange(len(self._order))

    async def one(self, _due: float) -> None:
        """The next attack of the list; never raises for what the miner does."""
        attack = self._order[self._turn % len(self._order)]
        self._turn += 1
        stale = self._is_stale()
        longest = max(self._header_timeout_s, self._body_timeout_s) + TIMEOUT_S
        try:
            async with asyncio.timeout(longest):
                result = await self._attacks[attack]()
        except TimeoutError:
            result = HUNG
        except (OSError, asyncio.IncompleteReadError):
            result = CLOSED
        except Exception as error:  # noqa: BLE001 - ten minutes must not be lost to a fault of the attacker
            result = f"attacker failed: {error!r}"
        self.tried.note(attack, result, stale=stale or self._is_stale())

    def _request(
        self, key: keys.Hotkey | None = None, *, wire: str | None = None, payload: bytes | None = None
    ) -> Request:
        return challenge_request(
            wire or self._chance.choice(WIRES),
            key=key or self._mallory,
            receiver=self._receiver,
            modality="image",
            payload=self._picture if payload is None else payload,
            timeout_s=TIMEOUT_S,
            uuid=str(uuid.uuid4()),
        )

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        source = f"127.0.9.{self._chance.randrange(1, 17)}"
        return await asyncio.open_connection(*self._address, local_addr=(source, 0))

    async def _raw(self, data: bytes) -> str:
        reader, writer = await self._open()
        try:
            writer.write(data)
            await writer.drain()
            return await _status(reader)
        finally:
            writer.transport.abort()

    async def _send(self, request: Request) -> str:
        return await self._raw(plain(request))

    async def _forged(self) -> str:
        request = self._request()
        name = next(n for n in request.headers if n.endswith("signature"))
        headers = {**request.headers, name: "0x" + self._chance.randbytes(64).hex()}
        return await self._send(Request("POST", request.target, headers, request.body, 0))

    async def _replay(self) -> str:
        data = plain(self._request())
        first = await self._raw(data)
        return await self._raw(data) if first == "200" else first

    async def _slow_headers(self) -> str:
        reader, writer = await self._open()
        try:
            writer.write(b"POST /ImageSynapse HTTP/1.1\r\nhost: m\r\n")
            return await self._drip(reader, writer, b"x-a: 1\r\n", self._header_timeout_s)
        finally:
            writer.transport.abort()

    async def _slow_body(self) -> str:
        reader, writer = await self._open()
        try:
            head, _, body = plain(self._request()).partition(b"\r\n\r\n")
            writer.write(head + b"\r\n\r\n" + body[:100])
            return await self._drip(reader, writer, body[100:101], self._body_timeout_s)
        finally:
            writer.transport.abort()

    @staticmethod
    async def _drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, drop: bytes, patience_s: float) -> str:
        """One drop at a time until there is an answer or an end."""
        answer = asyncio.ensure_future(_status(reader))
        started = time.monotonic()
        try:
            while not answer.done() and time.monotonic() - started < patience_s + TIMEOUT_S:
                if not writer.is_closing():
                    writer.write(drop)
                await asyncio.wait({answer}, timeout=patience_s / 10)
            return answer.result() if answer.done() else HUNG
        finally:
            answer.cancel()

    async def _reset(self) -> str:
        _, writer = await self._open()
        head, _, body = plain(self._request()).partition(b"\r\n\r\n")
        writer.write(head + b"\r\n\r\n" + body[: len(body) // 2])
        await writer.drain()
        await asyncio.sleep(0.02)
        linger = struct.pack("ii", 1, 0)  # close sends a reset instead of a goodbye
        peer = writer.get_extra_info("socket")
        if peer is not None:  # else the miner has hung up by now
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()
        return CLOSED

    async def _oversized(self) -> str:
        head, _, _ = plain(self._request()).partition(b"\r\ncontent-length")
        return await self._raw(head + f"\r\ncontent-length: {self._max_body + 1}\r\n\r\n".encode() + bytes(65536))

    async def _zip_bomb(self) -> str:
        """A video synapse that inflates to twice what is allowed."""
        request = self._request(wire="dendrite")
        body = b'{"name": "VideoSynapse", "timeout": 9.0, "prediction": -1.0, "video": "' + self._bomb + b'"}'
        return await self._send(Request("POST", "/VideoSynapse", request.headers, body, 0))

    async def _frames_bomb(self) -> str:
        """Thousands of frames without pixels."""
        request = self._request(wire="dendrite")
        frames = deflate_base85(b"\xff\xd8\xff\xd9" * 20_000).encode()
        body = b'{"name": "VideoSynapse", "timeout": 9.0, "prediction": -1.0, "video": "' + frames + b'"}'
        return await self._send(Request("POST", "/VideoSynapse", request.headers, body, 0))

    async def _coded(self) -> str:
        request = self._request()
        return await self._send(
            Request("POST", request.target, {**request.headers, "content-encoding": "gzip"}, request.body, 0)
        )


def _inflating(size: int) -> bytes:
    """Base85 text that becomes `size` zero bytes."""
    return deflate_base85(bytes(size)).encode()


async def _status(reader: asyncio.StreamReader) -> str:
    """The answer's status, or ``closed`` where the connection ended without one."""
    line = await reader.readline()
    return line.split()[1].decode("latin-1") if line.startswith(b"HTTP/1.") and len(line.split()) > 1 else CLOSED
