"""Connections: keep-alive, pipelining, slow and endless headers and bodies, limits, the graceful end."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import socket
import time

import aiohttp
import pytest
import uvloop

from neurons.bodies import BodyLimits
from neurons.httpd import Listen
from neurons.pipeline import TrivialJudge
from neurons.wire.client import WIRES
from tests.neurons.loopback import (
    Client,
    Held,
    P,
    against,
    ask,
    closed_within,
    plain,
    read_response,
    served,
)


def test_one_connection_serves_all_wires_one_after_the_other() -> None:
    async def body(client: Client) -> None:
        reader, writer = await client.raw()
        for name in (*WIRES, *WIRES):
            writer.write(plain(ask(name)))
            assert (await read_response(reader))[0] == 200
        writer.close()

    against(body)


def test_pipelined_requests_are_answered_in_order() -> None:
    async def body(client: Client) -> None:
        reader, writer = await client.raw()
        writer.write(plain(ask("epistula")) + plain(ask("epistula", b"no image")) + plain(ask("btauth")))
        assert [(await read_response(reader))[0] for _ in range(3)] == [200, 422, 200]
        writer.close()

    against(body)


def test_a_body_that_says_it_is_too_large_is_refused_before_it_is_read() -> None:
    async def body(client: Client) -> None:
        reader, writer = await client.raw()
        writer.write(b"POST /detect_image HTTP/1.1\r\nhost: m\r\ncontent-length: 99999999999\r\n\r\n")
        status, headers, answer = await read_response(reader)
        assert (status, headers["connection"]) == (413, "close")
        assert json.loads(answer)["reason"] == "too_large"
        assert await closed_within(reader, 4)
        writer.close()
        assert (await client.send(ask()))[0] == 200

    against(body)


def test_a_body_without_a_length_is_refused_while_it_comes_and_its_sender_sees_why() -> None:
    async def body(client: Client) -> None:
        reader, writer = await client.raw()
        writer.write(b"POST /detect_image HTTP/1.1\r\nhost: m\r\ntransfer-encoding: chunked\r\n\r\n")
        for _ in range(40):
            writer.write(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
            await writer.drain()
        assert (await read_response(reader))[0] == 413
        writer.close()

    against(body, limits=BodyLimits(max_body_bytes=1024 * 1024))


def test_a_body_that_does_not_come_gets_408() -> None:
    async def body(client: Client) -> None:
        reader, writer = await client.raw()
        before = time.monotonic()
        writer.write(plain(ask("epistula"))[:-10])
        status, headers, _ = await read_response(reader)
        assert (status, headers["connection"]) == (408, "close")
        assert time.monotonic() - before < 2
        assert await closed_within(reader, 4)
        writer.close()

    against(body, limits=BodyLimits(body_timeout_s=0.3))


def test_headers_that_arrived_while_the_loop_was_busy_are_not_late() -> None:
    """A miner that computes too long on its loop must not take its own standstill for a silent caller's."""

    async def body() -> None:
        async with served(TrivialJudge(P), listen=Listen(header_timeout_s=0.2)) as client:
            half, rest = plain(ask("epistula")).split(b"\r\n", 1)
            loop = asyncio.get_running_loop()
            ring, bell = socket.socketpair()
            with ring, bell, socket.create_connection((client.ip, client.port)) as caller:

                def stand_still() -> None:
                    loop.remove_reader(bell)
                    caller.sendall(b"\r\n" + rest)  # too late for this round of the loop
                    time.sleep(0.3)

                loop.add_reader(bell, stand_still)
                caller.sendall(half)
                await asyncio.sleep(0.05)  # the server has it, and its clock runs
                ring.send(b"!")
                await asyncio.sleep(0)
                caller.setblocking(False)
                answer = await asyncio.wait_for(loop.sock_recv(caller, 65536), 5)
                assert answer.startswith(b"HTTP/1.1 200")

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # as in production: timers come before sockets
        runner.run(body())


@pytest.mark.parametrize(
    "pieces",
    [[b""], [b"POST /detect_image HTTP/1.1\r\nhost: m\r\n"], [b"\r\n"] * 50, [b"a: b\r\n"] * 50, [b"G"]],
    ids=["silent", "half", "line-breaks", "junk", "one-letter"],
)
@pytest.mark.parametrize("after_a_request", [False, True])
def test_headers_that_do_not_end_close_the_connection(pieces: list[bytes], after_a_request: bool) -> None:
    async def body(client: Client) -> None:
        reader, writer = await client.raw()
        if after_a_request:
            writer.write(plain(ask("epistula")))
            assert (await read_response(reader))[0] == 200
        before = time.monotonic()

        async def dribble() -> None:
            with contextlib.suppress(ConnectionError):
                for piece in pieces:
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0.05)

        _, closed = await asyncio.gather(dribble(), closed_within(reader, 2))
        assert closed
        assert time.monotonic() - before < 3
        writer.close()

    against(body, listen=Listen(header_timeout_s=0.4, keep_alive_s=0.5))


def test_headers_without_end_are_refused() -> None:
    async def body(client: Client) -> None:
        reader, writer = await client.raw()
        writer.write(b"GET / HTTP/1.1\r\n")
        with contextlib.suppress(ConnectionError):
            for index in range(3000):
                writer.write(b"x-%d: %s\r\n" % (index, b"y" * 100))
                await writer.drain()
        assert await closed_within(reader, 2)
        writer.close()
        assert (await client.send(ask()))[0] == 200

    against(body)


@pytest.mark.parametrize(("length", "status"), [(60_000, 200), (70_000, 400)])
def test_headers_that_come_in_one_piece_have_the_same_bound(length: int, status: int) -> None:
    async def body(client: Client) -> None:
        reader, writer = await client.raw()
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: " + b"y" * length + b"\r\n\r\n")
        assert (await reader.readline()).split()[1] == str(status).encode()
        writer.close()

    against(body)


def test_connections_beyond_the_limit_are_closed() -> None:
    async def body(client: Client) -> None:
        opened = [await client.raw() for _ in range(6)]
        closed = await asyncio.gather(*(closed_within(reader, 0.5) for reader, _ in opened))
        assert sorted(closed) == [False] * 4 + [True] * 2
        for _, writer in opened:
            writer.close()

    against(body, listen=Listen(max_connections=4))


def test_large_bodies_leave_room_for_small_ones() -> None:
    async def body(client: Client) -> None:
        slow = []
        for _ in range(6):  # 6 x 1.5 MiB against three quarters of 8 MiB: the last ones are refused
            reader, writer = await client.raw()
            writer.write(plain(ask("epistula", bytes(2_000_000), "video"))[:-500_000])
            slow.append((reader, writer))
        await asyncio.sleep(0.3)
        answered = [reader for reader, _ in slow if reader._buffer]  # type: ignore[attr-defined]
        assert 1 <= len(answered) <= 3
        assert (await read_response(answered[0]))[0] == 503
        assert (await client.send(ask()))[0] == 200
        for _, writer in slow:
            writer.close()

    against(body, limits=BodyLimits(max_buffered_bytes=8 * 1024 * 1024))


def test_bodies_that_will_be_refused_anyway_are_not_kept() -> None:
    async def body(client: Client) -> None:
        pending = []
        for _ in range(6):  # as above, but nobody's: no header says who
            reader, writer = await client.raw()
            writer.write(
                b"POST /detect_video HTTP/1.1\r\nhost: m\r\ncontent-length: 2000000\r\n\r\n" + bytes(1_500_000)
            )
            pending.append((reader, writer))
        await asyncio.sleep(0.3)
        assert not any(reader._buffer for reader, _ in pending)  # type: ignore[attr-defined]
        assert (await client.send(ask("epistula", bytes(3_000_000), "video")))[0] == 422  # there is room for it
        for reader, writer in pending:
            writer.write(bytes(500_000))
            assert (await read_response(reader))[0] == 404
            writer.close()

    against(body, limits=BodyLimits(max_buffered_bytes=8 * 1024 * 1024))


def test_stopping_finishes_what_is_in_flight() -> None:
    judge = Held()

    async def inner() -> None:
        async with contextlib.AsyncExitStack() as stack:
            async with aiohttp.ClientSession() as session:
                async with served(judge) as client:
                    waiting = asyncio.ensure_future(dataclasses.replace(client, session=session).send(ask()))
                    await asyncio.sleep(0.1)
                    asyncio.get_running_loop().call_later(0.3, judge.go.set)
                assert (await waiting)[0] == 200
            stack.pop_all()

    asyncio.run(inner())


def test_of_a_repeated_header_the_first_counts() -> None:
    async def body(client: Client) -> None:
        reader, writer = await client.raw()
        fresh = plain(ask("epistula"))
        writer.write(fresh.replace(b"\r\ncontent-length", b"\r\nepistula-signed-for: 5Fother\r\ncontent-length", 1))
        assert (await read_response(reader))[0] == 200
        fresh = plain(ask("epistula"))
        writer.write(fresh.replace(b"host: miner", b"host: miner\r\nepistula-signed-for: 5Fother", 1))
        assert (await read_response(reader))[0] == 400
        writer.close()

    against(body)
