"""Attacks on the framing: what HTTP clients cannot send, written to the socket by hand.

Whatever is ambiguous is refused and ends the connection, so that no two readers can see two different requests in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gzip
import itertools
import json
import re
import socket
import struct

import pytest

from neurons import gate
from neurons.httpd import Listen
from neurons.wire.client import WIRES
from tests.neurons.loopback import ALICE, BOB, Client, against, ask, closed_within, plain, read_response

INSIDE = b"GET / HTTP/1.1\r\nhost: inside\r\n\r\n"  # what a smuggler hides in a body
SIGNATURE = {
    "dendrite": "bt_header_dendrite_signature",
    "btauth": "x-bittensor-signature",
    "epistula": "epistula-request-signature",
}
HOTKEY = {
    "dendrite": "bt_header_dendrite_hotkey",
    "btauth": "x-bittensor-hotkey",
    "epistula": "epistula-signed-by",
}


async def everything(client: Client, data: bytes, *, answers: int | None = None) -> bytes:
    """All that comes back: until the connection ends, or for a moment longer than it takes to give `answers`."""
    reader, writer = await client.raw()
    writer.write(data)
    if answers is None:
        writer.write_eof()
    received = b""
    with contextlib.suppress(TimeoutError, ConnectionError):
        while True:
            done = answers is not None and complete(received) >= answers
            chunk = await asyncio.wait_for(reader.read(65536), 0.05 if done else 5)
            if not chunk:
                break
            received += chunk
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    return received


def complete(received: bytes) -> int:
    """Answers that have arrived to their last byte."""
    count = 0
    while True:
        head, found, rest = received.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head.lower())
        if not found or length is None or len(rest) < int(length[1]):
            return count
        count, received = count + 1, rest[int(length[1]) :]


def statuses(received: bytes) -> list[int]:
    return [int(part[:3]) for part in received.split(b"HTTP/1.1 ")[1:]]


def framed(*headers: bytes, body: bytes = INSIDE, start: bytes = b"POST /detect_image HTTP/1.1") -> bytes:
    return b"\r\n".join((start, b"host: m", *headers, b"", b"")) + body


LENGTH = b"content-length: %d" % len(INSIDE)


@pytest.mark.parametrize(
    "data",
    [
        framed(LENGTH, b"content-length: 0"),
        framed(b"content-length: 0", LENGTH),
        framed(b"content-length: %d, 0" % len(INSIDE)),
        framed(b"content-length: 0, %d" % len(INSIDE)),
        framed(LENGTH, b"transfer-encoding: chunked", body=b"0\r\n\r\n" + INSIDE),
        framed(b"transfer-encoding: chunked", b"content-length: 4", body=b"0\r\n\r\n" + INSIDE),
        framed(b"transfer-encoding: chunked, identity", body=b"0\r\n\r\n" + INSIDE),
        framed(b"transfer-encoding: identity", b"content-length: 0"),
        framed(b"transfer-encoding: xchunked", body=b"0\r\n\r\n" + INSIDE),
        framed(b"transfer-encoding : chunked", body=b"0\r\n\r\n" + INSIDE),
        framed(b"content-length: +%d" % len(INSIDE)),
        framed(b"content-length: -1"),
        framed(b"content-length: 0x10"),
        framed(b"content-length: 1_0"),
        framed(b"content-length: %d" % 2**64),
        framed(b"content-length:"),
        framed(b"x: a\r\n continued", b"content-length : 0"),
        framed(b"no colon"),
        framed(b": no name"),
        framed(b"a b: c"),
        framed(b"x: a\x00b"),
        framed(b"transfer-encoding: chunked", body=b"zz\r\n" + INSIDE),
        framed(b"transfer-encoding: chunked", body=b"-1\r\n" + INSIDE),
        framed(b"transfer-encoding: chunked", body=b"ffffffffffffffff1\r\n" + INSIDE),
        framed(start=b"POST /detect_image HTTP/1.1 HTTP/1.1"),
        framed(start=b"POST  /detect_image HTTP/9.9"),
        framed(start=b"POST /detect image HTTP/1.1"),
        framed(start=b"P\xc3\x96ST /detect_image HTTP/1.1"),
    ],
)
def test_what_is_ambiguous_is_refused_and_nothing_after_it_is_read(data: bytes) -> None:
    async def body(client: Client) -> None:
        received = await everything(client, data)
        found = statuses(received)
        assert len(found) <= 1, received
        assert all(400 <= status < 500 for status in found), received
        assert b'"ok"' not in received
        assert (await client.send(ask()))[0] == 200

    against(body)


def test_a_hidden_request_stays_a_body() -> None:
    async def body(client: Client) -> None:
        assert statuses(await everything(client, framed(LENGTH), answers=1)) == [404]
        chunked = framed(b"transfer-encoding: chunked", body=b"%x\r\n" % len(INSIDE) + INSIDE + b"\r\n0\r\n\r\n")
        assert statuses(await everything(client, chunked, answers=1)) == [404]

    against(body)


@pytest.mark.parametrize("name", WIRES)
@pytest.mark.parametrize("header", [SIGNATURE, HOTKEY])
def test_of_two_signatures_or_names_the_second_is_not_tried(name: str, header: dict[str, str]) -> None:
    """A proxy that checked the first must not be overruled by the second."""
    wrong = {**dict.fromkeys(SIGNATURE.values(), "0x" + "17" * 64), **dict.fromkeys(HOTKEY.values(), BOB.ss58_address)}

    async def body(client: Client) -> None:
        line = f"{header[name]}: {wrong[header[name]]}\r\n".encode()
        good = plain(ask(name))
        assert statuses(await everything(client, good.replace(b"host: miner\r\n", line, 1), answers=1))[0] in (400, 401)
        shouted = good.replace(
            b"host: miner\r\n", line.replace(header[name].encode(), header[name].upper().encode()), 1
        )
        assert statuses(await everything(client, shouted, answers=1))[0] in (400, 401)
        # Two in one header are no signature at all.
        request = ask(name)
        both = f"{wrong[header[name]]}, {request.headers[header[name]]}"
        answer = await client.send(dataclasses.replace(request, headers={**request.headers, header[name]: both}))
        assert answer[0] in (400, 401)

    against(body)


@pytest.mark.parametrize("size", [70_000, 2_000_000])
@pytest.mark.parametrize("shape", ["one", "many", "name", "target"])
def test_oversized_heads_are_refused_and_kept_nowhere(size: int, shape: str) -> None:
    head = {
        "one": b"GET / HTTP/1.1\r\nx: " + b"y" * size,
        "many": b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * (size // 6),
        "name": b"GET / HTTP/1.1\r\n" + b"x" * size + b": y",
        "target": b"GET /" + b"x" * size + b" HTTP/1.1",
    }[shape]

    async def body(client: Client) -> None:
        reader, writer = await client.raw()
        with contextlib.suppress(ConnectionError):
            for start in range(0, size, 16_384):
                writer.write(head[start : start + 16_384])
                await writer.drain()
        assert await closed_within(reader, 3)
        writer.close()
        assert (await client.send(ask()))[0] == 200

    against(body, listen=Listen(header_timeout_s=2, grace_s=3))


@pytest.mark.parametrize("name", WIRES)
def test_a_content_coding_is_never_honoured(name: str) -> None:
    """Neither undone, which would be a bomb's way in, nor passed over, when the body is what was signed."""

    async def body(client: Client) -> None:
        request = ask(name)
        packed = gzip.compress(bytes(10_000_000))
        codings = ("gzip", "GZIP", "deflate", "br", "zstd", "identity, gzip", "gzip, gzip", "x")
        for coding, content in itertools.product(codings, (request.body, packed)):
            fresh = dataclasses.replace(request, body=content, headers={**request.headers, "content-encoding": coding})
            status, _, answer = await client.send(fresh)
            assert (status, json.loads(answer)["reason"]) == (415, "content_coding")
        # The signature was not looked at, so it is still good.
        plainly = dataclasses.replace(request, headers={**request.headers, "content-encoding": "identity"})
        assert (await client.send(plainly))[0] == 200

    against(body)


def test_gzip_in_place_of_the_body_without_saying_so_is_no_image() -> None:
    async def body(client: Client) -> None:
        status, _, answer = await client.send(ask("epistula", gzip.compress(ask().body)))
        assert (status, json.loads(answer)["reason"]) == (422, "undecodable")
        fresh = ask()
        assert (await client.send(dataclasses.replace(fresh, body=gzip.compress(fresh.body))))[0] == 422

    against(body)


def test_pipelined_strangers_cost_the_one_behind_them_nothing_and_borrow_nothing_from_the_one_before() -> None:
    """Who one request on a connection is from says nothing of the next."""

    async def body(client: Client) -> None:
        good, bad = ask("epistula"), ask("epistula")
        bare = dataclasses.replace(bad, headers={"epistula-version": "2"})
        forged = dataclasses.replace(bad, headers={**bad.headers, "epistula-signed-by": BOB.ss58_address})
        replayed = plain(good)
        data = plain(good) + plain(bare) + plain(forged) + replayed + plain(bad)
        assert statuses(await everything(client, data, answers=5)) == [200, 400, 400, 400, 200]

    against(body)


def test_a_thousand_pipelined_requests_are_answered_one_by_one_in_order() -> None:
    async def body(client: Client) -> None:
        reader, writer = await client.raw()
        writer.write(b"GET / HTTP/1.1\r\nhost: m\r\n\r\n" * 999 + plain(ask()))
        assert [(await read_response(reader))[0] for _ in range(1000)] == [200] * 1000
        writer.close()

    against(body)


@pytest.mark.parametrize("name", WIRES)
def test_http_1_0_is_answered_once(name: str) -> None:
    async def body(client: Client) -> None:
        old = plain(ask(name)).replace(b"HTTP/1.1", b"HTTP/1.0", 1)
        received = await everything(client, old + INSIDE, answers=1)
        assert statuses(received) == [200]
        assert b"connection: close" in received.lower()
        # A chunked body does not exist there: its length is read in one way only, or not at all.
        chunked = framed(
            b"transfer-encoding: chunked", body=b"0\r\n\r\n" + INSIDE, start=b"POST /detect_image HTTP/1.0"
        )
        assert len(statuses(await everything(client, chunked))) <= 1

    against(body)


@pytest.mark.parametrize(
    "data",
    [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET /\r\n",
        b"GET / HTTP/0.9\r\n",
        b"GET / HTTP/1.2\r\n",
        b"\r\n\r\n\r\n",
    ],
)
def test_other_protocols_end_without_an_answer_of_ours(data: bytes) -> None:
    async def body(client: Client) -> None:
        received = await everything(client, data + b"\r\n\r\n")
        assert b"200" not in received
        assert len(received) < 300
        assert (await client.send(ask()))[0] == 200

    against(body, listen=Listen(header_timeout_s=0.3, grace_s=3))


def test_the_host_header_decides_nothing() -> None:
    hosts = ("", "evil.example", "127.0.0.1:1", "m, n", "m@evil", "[::1", "\x7f", "a" * 5000, "localhost/../x")

    async def body(client: Client) -> None:
        for name, host in itertools.product(WIRES, hosts):
            data = plain(ask(name)).replace(b"host: miner", b"host: " + host.encode(), 1)
            received = await everything(client, data, answers=1)
            assert statuses(received) in ([200], [400]), host
            assert b"evil" not in received
        twice = plain(ask()).replace(b"host: miner", b"host: evil\r\nhost: miner", 1)
        assert statuses(await everything(client, twice, answers=1)) in ([200], [400])

    against(body)


OTHER_TARGETS = (
    "//detect_image",
    "/detect_image/",
    "/./detect_image",
    "/x/../detect_image",
    "/%64etect_image",
    "/detect_image%00",
    "/detect_image;x",
    "/DETECT_IMAGE",
    "/detect_image%3Fx",
    "/miner_info/../detect_image",
    "\\detect_image",
    "*",
    "detect_image",
    "http://evil.example/nothing",
)


def test_a_path_has_one_spelling() -> None:
    async def body(client: Client) -> None:
        for target in OTHER_TARGETS:
            request = dataclasses.replace(ask("epistula"), target=target)
            received = await everything(client, plain(request), answers=1)
            assert statuses(received) in ([404], [400]), target
            assert b"evil" not in received

    against(body)


@pytest.mark.parametrize("path", ["/detect_image", "/ImageSynapse"])
def test_other_methods_are_no_way_in(path: str) -> None:
    async def body(client: Client) -> None:
        for method in ("GET", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "post", "X"):
            request = dataclasses.replace(ask("epistula"), method=method, target=path)
            received = await everything(client, plain(request), answers=1)
            assert statuses(received) in ([404], [400]), received
            assert b"prediction" not in received
            assert request.headers["epistula-request-signature"].encode() not in received  # TRACE would echo it

    against(body)


def test_an_upgrade_is_not_made() -> None:
    async def body(client: Client) -> None:
        asked = b"connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: AAAA"
        received = await everything(client, framed(asked, body=b"", start=b"GET / HTTP/1.1"))
        assert b"101" not in received[:20]
        received = await everything(client, framed(b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c", body=b""))
        assert b"101" not in received[:20]
        assert (await client.send(ask()))[0] == 200

    against(body)


def test_expect_100_is_asked_for_a_body_that_may_be_dropped_and_the_answer_is_the_refusal() -> None:
    async def body(client: Client) -> None:
        reader, writer = await client.raw()
        request = ask("epistula")
        head, _, content = plain(request).partition(b"\r\n\r\n")
        writer.write(head + b"\r\nexpect: 100-continue\r\n\r\n")
        assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 3)).startswith(b"HTTP/1.1 100")
        writer.write(content)
        assert (await read_response(reader))[0] == 200
        writer.close()

    against(body)


def test_connections_that_are_reset_leave_nothing_behind() -> None:
    async def body(client: Client) -> None:
        for cut in (1, 20, 300, -20, None):
            for _ in range(10):
                _, writer = await client.raw()
                raw = writer.get_extra_info("socket")
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.write(plain(ask("epistula"))[:cut])
                await asyncio.sleep(0.002)
                writer.transport.abort()
        await asyncio.sleep(0.1)
        opened = [await client.raw() for _ in range(6)]
        for reader, writer in opened:  # all places that one address has are free again
            writer.write(plain(ask("epistula")))
            assert (await read_response(reader))[0] == 200
        seventh, writer = await client.raw()
        assert await closed_within(seventh, 1)
        for _, each in (*opened, (seventh, writer)):
            each.close()

    against(body, listen=Listen(max_per_address=6, max_connections=100, grace_s=3))


def test_the_callers_address_is_the_sockets() -> None:
    """Nothing in a header makes a caller somebody else for the limits (`tests/neurons/test_gate.py` has the rest)."""
    seen: list[str] = []

    async def body(client: Client) -> None:
        good = ask()
        forwarded = {
            "x-forwarded-for": "192.0.2.9",
            "bt_header_dendrite_ip": "192.0.2.9",
            "cf-connecting-ip": "192.0.2.9",
        }
        status, _, answer = await client.send(dataclasses.replace(good, headers={**good.headers, **forwarded}))
        assert status == 200
        assert json.loads(answer)["dendrite"]["hotkey"] == ALICE.ss58_address

    original = gate.Gate.knock

    def knock(self: gate.Gate, address: str) -> None:
        seen.append(address)
        original(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gate.Gate, "knock", knock)
        against(body)
    assert seen == ["127.0.0.1"]
