"""The ten defects of the 10.5 Axon (reference of the three wires), each tried on the real server over a socket."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
import socket
import threading
import time
import uuid
from collections.abc import Sequence

import pytest

from detectors.types import Prediction
from neurons.access import AccessRules, Standing
from neurons.bodies import BodyLimits
from neurons.httpd import Listen
from neurons.pipeline import Outcome
from neurons.scheduler import Limits
from neurons.wire import build
from neurons.wire.base import Challenge, Request
from neurons.wire.client import WIRES
from neurons.wire.dendrite import EMPTY_BODY_HASH
from neurons.wire.replay import ReplayGuard
from tests.neurons.loopback import (
    ALICE,
    BOB,
    MINER,
    Client,
    P,
    against,
    ask,
    closed_within,
    jpeg,
    plain,
    read_response,
    served,
)

REFUSED = {"dendrite": 401, "btauth": 401, "epistula": 400}
DAY_NS = 86_400 * 10**9


def changed(request: Request, **headers: str) -> Request:
    return dataclasses.replace(request, headers={**request.headers, **headers})


def at(name: str, now_ns: int) -> Request:
    """Alice's request, signed at another time."""
    return ask(name, now_ns=now_ns)


@pytest.mark.parametrize("name", WIRES)
def test_defect_01_unsigned_request_is_refused(name: str) -> None:
    async def body(client: Client) -> None:
        good = ask(name)
        (header,) = (h for h in good.headers if h.endswith("signature"))
        unsigned = dataclasses.replace(good, headers={h: v for h, v in good.headers.items() if h != header})
        for request in (unsigned, *(changed(good, **{header: s}) for s in ("", "0x", "0x" + "0" * 128, "None"))):
            status, _, answer = await client.send(request)
            assert status == REFUSED[name]
            assert b"prediction" not in answer
        # As the old clients did it: another version, nothing else.
        older = changed(unsigned, bt_header_dendrite_version="6000000")
        assert (await client.send(older))[0] == REFUSED[name]

    against(body)


def test_defect_02_altered_body_is_refused_wherever_the_signature_covers_it() -> None:
    """A Dendrite signs the media only if the validator's class says so; ours can insist, the other two always do."""
    other = jpeg(seed=1)

    async def body(client: Client) -> None:
        for name in ("btauth", "epistula"):
            status, _, _ = await client.send(dataclasses.replace(ask(name), body=other))
            assert status == REFUSED[name]
        # A signed body hash is compared with the media that came.
        request = ask()
        lying = changed(request, computed_body_hash="0" * 64)
        assert (await client.send(lying))[0] == 401
        assert request.headers["computed_body_hash"] == EMPTY_BODY_HASH
        # Even uncovered, a body is altered at most once: the signature that came with it is used up.
        altered = json.dumps({**json.loads(request.body), "testnet_label": 1}).encode()
        answers = await asyncio.gather(client.send(request), client.send(dataclasses.replace(request, body=altered)))
        assert sorted(status for status, _, _ in answers) == [200, 401]

    against(body)

    async def insisting(client: Client) -> None:
        status, _, answer = await client.send(ask())
        assert (status, json.loads(answer)["reason"]) == (401, "unsigned_body")

    against(insisting, wires=build(MINER.ss58_address, require_body_hash=True))


def test_defect_03_identity_comes_from_the_verified_headers_only() -> None:
    async def body(client: Client) -> None:
        request = ask(key=BOB)
        claims = json.loads(request.body)
        claims["dendrite"]["hotkey"] = ALICE.ss58_address
        claims["axon"]["hotkey"] = BOB.ss58_address
        for extra in ({}, {"hotkey": ALICE.ss58_address, "caller": ALICE.ss58_address}):
            fresh = dataclasses.replace(ask(key=BOB), body=json.dumps({**claims, **extra}).encode())
            status, _, answer = await client.send(fresh)
            assert (status, json.loads(answer)["reason"]) == (403, "not_registered")
        # And the other way round: what the body says of Bob costs Alice nothing.
        claims["dendrite"]["hotkey"] = BOB.ss58_address
        status, headers, answer = await client.send(dataclasses.replace(ask(), body=json.dumps(claims).encode()))
        assert status == 200
        assert headers["bt_header_dendrite_hotkey"] == ALICE.ss58_address
        assert json.loads(answer)["dendrite"]["hotkey"] == ALICE.ss58_address

    against(body, rules=AccessRules(), standing={ALICE.ss58_address: Standing(1, True, 5.0)}.get)


@pytest.mark.parametrize("unsigned", [{}, {"timeout": "1000000000.0"}, {"bt_header_dendrite_version": "1"}])
@pytest.mark.parametrize("name", WIRES)
def test_defect_04_nothing_unsigned_widens_freshness(name: str, unsigned: dict[str, str]) -> None:
    async def body(client: Client) -> None:
        now = time.time_ns()
        for when, reason in ((now - DAY_NS, "stale_nonce"), (now + 365 * DAY_NS, "future_nonce")):
            status, _, answer = await client.send(changed(at(name, when), **unsigned))
            assert (status, json.loads(answer)["reason"]) == (REFUSED[name], reason)

    against(body)


@pytest.mark.parametrize("name", WIRES)
def test_defect_05_no_answer_is_signed_for_a_stranger(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server could not if it wanted to: it is built from an address and never sees a key."""
    request = ask(name)
    (receiver,) = (h for h, v in request.headers.items() if v == MINER.ss58_address)
    (signature,) = (h for h in request.headers if h.endswith("signature"))
    changes = [
        {receiver: "text.of.a.stranger"},
        {receiver: BOB.ss58_address},
        {signature: "0x" + "17" * 64},
        {signature: request.headers[signature][:-2] + "00"},
        {"computed_body_hash": "f" * 64, signature: "0x" + "18" * 64},
    ]
    attempts = [changed(request, **change) for change in changes]
    signed: list[bytes] = []

    def spy(_: object, payload: bytes) -> bytes:
        signed.append(payload)
        return bytes(64)

    monkeypatch.setattr(type(MINER), "sign", spy)

    async def body(client: Client) -> None:
        for attempt in attempts:
            status, headers, answer = await client.send(attempt)
            assert status == REFUSED[name]
            text = f"{headers} {answer.decode()}"
            assert not re.search(r"[0-9a-fA-F]{64}", text)
            assert MINER.ss58_address not in text
            assert "stranger" not in text

    against(body)
    assert not signed


def test_defect_06_no_route_is_open_to_any_key_and_no_table_grows() -> None:
    memory = ReplayGuard()

    async def body(client: Client) -> None:
        answers = set()
        for path in ("/Synapse", "/ping", "/Ping", "/is_alive", "/docs", "/openapi.json", "/imagesynapse"):
            for method in ("GET", "POST"):
                status, _, answer = await client.send(Request(method, path, ask().headers, b"{}", 0))
                assert status == 404
                answers.add(answer)
        assert len(answers) == 1
        assert not re.search(rb"Synapse|detect|route|/", answers.pop().replace(b"unknown_route", b""))
        assert len(memory) == 0

    against(body, wires=build(MINER.ss58_address, replay=memory))


@pytest.mark.parametrize("name", WIRES)
def test_defect_07_honest_concurrency_is_not_refused(name: str) -> None:
    """One validator process, one uuid, 32 in flight, 0 to 60 ms of jitter: the Axon refused 88 % of these."""
    one = str(uuid.uuid4())

    async def body(client: Client) -> None:
        places = asyncio.Semaphore(32)

        async def send(index: int) -> int:
            async with places:
                request = ask(name, own_uuid=one if name == "dendrite" else None)
                await asyncio.sleep((index * 37 % 60) / 1000)
                return (await client.send(request))[0]

        assert set(await asyncio.gather(*(send(index) for index in range(192)))) == {200}

    against(body)


class Sleeper:
    """A judge that blocks its thread, as a slow detector does."""

    def __init__(self, seconds: float) -> None:
        self._stop = threading.Event()
        self._seconds = seconds

    def judge(self, challenges: Sequence[Challenge], deadline: float | None) -> list[Outcome]:
        self._stop.wait(self._seconds)
        return [Prediction(P)] * len(challenges)


def test_defect_08_nothing_blocks_the_loop_and_everything_has_a_limit() -> None:
    listen = Listen(grace_s=3, header_timeout_s=0.3)
    limits = BodyLimits(max_body_bytes=1024 * 1024, body_timeout_s=0.4)

    async def body(client: Client) -> None:
        # A handler that blocks: others are still talked to, and the deadline is the server's.
        slow = asyncio.ensure_future(client.send(ask()))
        await asyncio.sleep(0.05)
        before = time.monotonic()
        assert (await client.send(Request("GET", "/", {}, b"", 0)))[0] == 200
        assert time.monotonic() - before < 0.5
        status, _, _ = await slow
        assert status == 408
        assert time.monotonic() - before < 2.0
        # Slow headers, a slow body, a body without end.
        reader, writer = await client.raw()
        writer.write(b"POST /ImageSynapse HTTP/1.1\r\nhost: m\r\n")
        assert await closed_within(reader, 1.5)
        writer.close()
        reader, writer = await client.raw()
        writer.write(plain(ask("epistula"))[:-1])
        assert (await read_response(reader))[0] == 408
        writer.close()
        reader, writer = await client.raw()
        writer.write(b"POST /ImageSynapse HTTP/1.1\r\nhost: m\r\ncontent-length: 33600000\r\n\r\n")
        assert (await read_response(reader))[0] == 413
        writer.close()

    against(body, Sleeper(3.0), listen=listen, limits=limits, queue=Limits(deadline_s=0.6, margin_s=0.0))


def test_defect_09_stake_orders_the_queue() -> None:
    order: list[bytes] = []
    go = threading.Event()

    class Recorder:
        def judge(self, challenges: Sequence[Challenge], deadline: float | None) -> list[Outcome]:
            assert go.wait(10)
            order.extend(challenge.payload for challenge in challenges)
            return [Prediction(P)] * len(challenges)

    async def body(client: Client) -> None:
        sent = [asyncio.ensure_future(client.send(ask("epistula", b"first", key=BOB)))]
        await asyncio.sleep(0.1)
        for payload, key in ((b"poor 1", BOB), (b"rich 1", ALICE), (b"poor 2", BOB), (b"rich 2", ALICE)):
            sent.append(asyncio.ensure_future(client.send(ask("epistula", payload, key=key))))
            await asyncio.sleep(0.05)
        go.set()
        assert {status for status, _, _ in await asyncio.gather(*sent)} == {200}
        assert order == [b"first", b"rich 1", b"rich 2", b"poor 1", b"poor 2"]

    standing = {ALICE.ss58_address: Standing(1, True, 1000.0), BOB.ss58_address: Standing(2, True, 1.0)}
    against(body, Recorder(), rules=AccessRules(), standing=standing.get, queue=Limits(max_batch=1))


def test_defect_10_binds_what_it_is_told_and_asks_nobody_for_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_up: list[object] = []
    real = socket.getaddrinfo

    def watched(host: object, *args: object, **options: object) -> object:
        if host not in ("127.0.0.1", b"127.0.0.1", "::1", "localhost"):
            looked_up.append(host)
            raise OSError("no network in here")
        return real(host, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", watched)

    class Constant:
        def judge(self, challenges: Sequence[Challenge], deadline: float | None) -> list[Outcome]:
            return [Prediction(P)] * len(challenges)

    async def inner() -> None:
        async with served(Constant(), listen=Listen(ip="127.0.0.1", grace_s=2)) as client:
            assert client.ip == "127.0.0.1"
            assert (await client.send(ask()))[0] == 200
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.2", client.port)

    asyncio.run(inner())
    # 127.0.0.2 is the test's own; the server itself has looked up nothing.
    assert [host for host in looked_up if host != "127.0.0.2"] == []
