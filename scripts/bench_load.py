"""The load of the service benchmark: a closed loop of signed Dendrite requests over keep-alive connections.

``make soak`` and ``make chaos`` send over the same connections.

Raw sockets under one event loop, because any HTTP client would cost more than the server it measures.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import random
import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

from neurons.keys import Hotkey

__all__ = ["Connection", "Requests", "Tally", "drive", "status_of"]

_EMPTY_HASH = hashlib.sha3_256().hexdigest()
_HEAD = 1024  # bytes that are searched for
_CLOSES = b"\r\nconnection: close\r\n"


@dataclass
class Tally:
    """What came back.

    Attributes:
        statuses: answers by HTTP status; 0 for a connection that broke.
        latencies: seconds from the first byte out to the last byte in, of the answers that count.
        seconds: length of the measurement.
    """

    statuses: Counter[int] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def answers(self) -> int:
        return sum(count for status, count in self.statuses.items() if status)


class Requests:
    """Makes signed image challenges as a Dendrite of bittensor 10.5 sends them.

    Args:
        key: the caller.
        receiver: ss58 address of the server.
        image: the encoded picture; the body is built once, as no signature covers it.
        one_uuid: True signs as one Dendrite object does; False takes a fresh uuid for each request, without which an
            Axon refuses most of what overtakes.
        forged: sign something else, so that the server has to find out.
    """

    def __init__(
        self, key: Hotkey, receiver: str, image: bytes, *, one_uuid: bool = False, forged: bool = False
    ) -> None:
        self._key = key
        self._receiver = receiver
        self._uuid = str(uuid.uuid4()) if one_uuid else ""
        self._forged = forged
        self._count = 0
        self._body = _body(key.ss58_address, receiver, image)

    def make(self) -> bytes:
        """One request, signed now."""
        self._count += 1
        nonce = time.time_ns()
        tag = self._uuid or f"{self._count:x}-{nonce:x}"
        caller = self._key.ss58_address
        text = f"{nonce}.{caller}.{self._receiver}.{tag}.{_EMPTY_HASH}"
        signature = self._key.sign((text + "x" if self._forged else text).encode()).hex()
        head = (
            f"POST /ImageSynapse HTTP/1.1\r\nHost: {self._receiver}\r\nname: ImageSynapse\r\ntimeout: 9.0\r\n"
            f"bt_header_axon_ip: 127.0.0.1\r\nbt_header_axon_port: 8091\r\nbt_header_axon_hotkey: {self._receiver}\r\n"
            f"bt_header_dendrite_ip: 127.0.0.1\r\nbt_header_dendrite_version: 10005000\r\n"
            f"bt_header_dendrite_nonce: {nonce}\r\nbt_header_dendrite_uuid: {tag}\r\n"
            f"bt_header_dendrite_hotkey: {caller}\r\nbt_header_dendrite_signature: 0x{signature}\r\n"
            f"header_size: 640\r\ntotal_size: 3520\r\ncomputed_body_hash: {_EMPTY_HASH}\r\n"
            f"Accept: */*\r\nAccept-Encoding: gzip, deflate\r\nUser-Agent: Python/3.11 aiohttp/3.14.5\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(self._body)}\r\n\r\n"
        )
        return head.encode("ascii") + self._body


def _body(caller: str, receiver: str, image: bytes) -> bytes:
    terminal = {"status_code": None, "status_message": None, "process_time": None, "ip": "127.0.0.1", "uuid": None}
    return json.dumps(
        {
            "name": "ImageSynapse",
            "timeout": 9.0,
            "total_size": 3520,
            "header_size": 640,
            "dendrite": {**terminal, "port": None, "version": 10005000, "hotkey": caller},
            "axon": {**terminal, "port": 8091, "version": None, "hotkey": receiver},
            "computed_body_hash": "",
            "testnet_label": -1,
            "image": base64.b64encode(image).decode("ascii"),
            "prediction": -1.0,
        }
    ).encode("ascii")


class Connection(asyncio.Protocol):
    """One keep-alive connection with at most one request on the way.

    Attributes:
        transport: write the request to it, after setting
        answered: gets the whole response, head and body; empty where the connection broke before its end.
    """

    def __init__(self) -> None:
        self.transport: asyncio.Transport
        self.answered: asyncio.Future[bytes] | None = None
        self._buffer = bytearray()
        self._need = -1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._need < 0:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(self._buffer[:end]).lower()
            start = head.index(b"content-length:") + 15
            self._need = end + 4 + int(head[start:].split(b"\r", 1)[0])
        if len(self._buffer) >= self._need:
            response = bytes(self._buffer)
            self._buffer.clear()
            self._need = -1
            self._finish(response)

    def connection_lost(self, exc: Exception | None) -> None:
        self._finish(b"")

    def _finish(self, response: bytes) -> None:
        if self.answered is not None and not self.answered.done():
            self.answered.set_result(response)


def status_of(response: bytes) -> int:
    """The HTTP status of a response, 0 of an empty one."""
    return int(response[9:12] or 0)


async def drive(
    address: tuple[str, int],
    make: Callable[[], bytes],
    *,
    in_flight: int,
    seconds: float | None = None,
    count: int | None = None,
    jitter_s: float = 0.0,
    warm_up_s: float = 0.0,
    started: Callable[[], None] = lambda: None,
    ended: Callable[[], None] = lambda: None,
) -> Tally:
    """Keeps `in_flight` requests on the way and tells what came back.

    Args:
        address: ip and port of the server.
        make: signs and builds a request; the time of the call is its nonce.
        in_flight: connections, each with one request at a time.
        seconds: how long to measure, after the warm-up; or
        count: how many requests to send in all.
        jitter_s: each request waits 0 to this long between its signature and the wire, as on a real network.
        warm_up_s: answers in this time do not count.
        started, ended: called when the warm-up is over and when the time to measure is.
    """
    loop = asyncio.get_running_loop()
    tally = Tally()
    begin = time.perf_counter()
    measured_from = begin + warm_up_s
    left = count if count is not None else -1
    stop = False
    chance = random.Random(7)

    async def one() -> None:
        nonlocal left
        connection: Connection | None = None
        while not stop and left != 0:
            left -= 1
            if connection is None or connection.transport.is_closing():
                _, connection = await loop.create_connection(Connection, *address)
            request = make()
            if jitter_s:
                await asyncio.sleep(chance.random() * jitter_s)
            connection.answered = loop.create_future()
            sent = time.perf_counter()
            connection.transport.write(request)
            response = await connection.answered
            now = time.perf_counter()
            status = status_of(response)
            if _CLOSES in response[:_HEAD].lower():
                connection.transport.close()  # it says that it takes no other request
            if now >= measured_from and not stop:
                tally.statuses[status] += 1
                tally.latencies.append(now - sent)
        if connection is not None:
            connection.transport.close()

    tasks = [asyncio.ensure_future(one()) for _ in range(in_flight)]
    if warm_up_s:
        await asyncio.sleep(warm_up_s)
    measured_from = time.perf_counter()
    started()
    if seconds is not None:
        await asyncio.sleep(seconds)
        tally.seconds = time.perf_counter() - measured_from
        stop = True
        ended()
    await asyncio.gather(*tasks)
    if seconds is None:
        tally.seconds = time.perf_counter() - measured_from
    return tally
