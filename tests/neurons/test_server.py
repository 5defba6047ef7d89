"""The server over real sockets: three wires, limits, strangers, overload, hang-ups, and bad input among good."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import io
import json
import struct
import threading
import time
import uuid
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import aiohttp
import numpy as np
import pytest
from PIL import Image

from detectors.types import Modality, Prediction
from neurons import keys, wire
from neurons.access import AccessRules, decide
from neurons.httpd import Listen, serving
from neurons.pipeline import Judge, JudgesChallenges, Outcome, TrivialDetector
from neurons.scheduler import Limits, Scheduler
from neurons.server import BodyLimits, build_app
from neurons.wire.base import Challenge, Request
from neurons.wire.client import WIRES, challenge_request, read_answer
from neurons.wire.encoding import deflate_base85

MINER, ALICE, BOB = keys.from_uri("//Miner"), keys.from_uri("//Alice"), keys.from_uri("//Bob")
P = (0.25, 0.75, 0.0)


def jpeg(side: int = 64, seed: int = 0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that says it is large and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    ihdr = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", ihdr) + chunk(b"IDAT", zlib.compress(bytes(64))) + chunk(b"IEND", b"")


GOOD = jpeg()


def ask(
    name: str = "dendrite", payload: bytes = GOOD, modality: Modality = "image", key: keys.Hotkey = ALICE
) -> Request:
    return challenge_request(
        name,
        key=key,
        receiver=MINER.ss58_address,
        modality=modality,
        payload=payload,
        timeout_s=9.0,
        uuid=str(uuid.uuid4()),
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
) -> AsyncIterator[Client]:
    allowed = rules or AccessRules(offline=True)
    app = build_app(
        wires=wire.build(MINER.ss58_address),
        access=lambda caller: decide(caller, None, allowed),
        scheduler=Scheduler(judge, queue),
        hotkey=MINER.ss58_address,
        uid=3,
        limits=limits,
    )
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


@pytest.mark.parametrize("name", WIRES)
def test_every_wire_gets_its_answer(name: str) -> None:
    async def body(client: Client) -> None:
        for _ in range(3):
            status, headers, answer = await client.send(ask(name))
            assert status == 200
            assert read_answer(name, status, headers, answer) == (0.75 if name == "dendrite" else P)

    against(body)


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


def test_a_large_body_is_answered_too() -> None:
    async def body(client: Client) -> None:
        frames = b"".join(jpeg(256, seed) for seed in range(24))
        assert len(frames) > 512 * 1024
        status, headers, answer = await client.send(ask("dendrite", frames, "video"))
        assert read_answer("dendrite", status, headers, answer) == 0.75

    against(body)


def test_many_at_once_in_any_order_none_refused() -> None:
    async def body(client: Client) -> None:
        async def one(index: int) -> int:
            request = ask(WIRES[index % 3])
            await asyncio.sleep((index * 37 % 60) / 1000)
            return (await client.send(request))[0]

        assert set(await asyncio.gather(*(one(index) for index in range(96)))) == {200}

    against(body)


def test_a_stranger_learns_nothing() -> None:
    async def body(client: Client) -> None:
        seen = []
        for method, path in [
            ("GET", "/docs"),
            ("GET", "/openapi.json"),
            ("GET", "/ImageSynapse"),
            ("GET", "/detect_image"),
            ("POST", "/Synapse"),
            ("POST", "/nothing"),
            ("PUT", "/"),
            ("DELETE", "/detect_image"),
        ]:
            status, headers, answer = await client.send(Request(method, path, {}, b"", 0))
            assert status == 404, path
            assert "server" not in headers
            for word in (b"Synapse", b"detect", b"python", b"uvicorn", b"version", MINER.ss58_address.encode()):
                assert word not in answer
            seen.append(answer)
        assert len(set(seen)) == 1
        status, headers, answer = await client.send(Request("GET", "/", {}, b"", 0))
        assert (status, json.loads(answer)) == (200, {"status": "ok"})
        assert "server" not in headers

    against(body)


def test_miner_info_is_for_verified_callers() -> None:
    async def body(client: Client) -> None:
        now, tag = str(time.time_ns() // 1_000_000), str(uuid.uuid4())
        text = f"{hashlib.sha256(b'').hexdigest()}.{tag}.{now}.{MINER.ss58_address}"
        headers = {
            "epistula-version": "2",
            "epistula-timestamp": now,
            "epistula-uuid": tag,
            "epistula-signed-by": ALICE.ss58_address,
            "epistula-signed-for": MINER.ss58_address,
            "epistula-request-signature": "0x" + ALICE.sign(text.encode()).hex(),
        }
        status, _, answer = await client.send(Request("GET", "/miner_info", headers, b"", 0))
        assert (status, json.loads(answer)) == (200, {"miner_type": "DETECTOR", "uid": 3, "hotkey": MINER.ss58_address})
        status, _, answer = await client.send(Request("GET", "/miner_info", {}, b"", 0))
        assert status == 404
        assert MINER.ss58_address.encode() not in answer

    against(body)


def test_access_decides_after_the_signature() -> None:
    async def body(client: Client) -> None:
        assert (await client.send(ask(key=ALICE)))[0] == 200
        assert (await client.send(ask(key=BOB)))[0] == 403
        forged = ask(key=BOB)
        headers = {**forged.headers, "bt_header_dendrite_hotkey": ALICE.ss58_address}
        assert (await client.send(dataclasses.replace(forged, headers=headers)))[0] == 401

    against(body, rules=AccessRules(allow=frozenset({ALICE.ss58_address})))


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


def test_connections_beyond_the_limit_are_closed() -> None:
    async def body(client: Client) -> None:
        opened = [await client.raw() for _ in range(6)]
        closed = await asyncio.gather(*(closed_within(reader, 0.5) for reader, _ in opened))
        assert sorted(closed) == [False] * 4 + [True] * 2
        for _, writer in opened:
            writer.close()

    against(body, listen=Listen(max_connections=4))


@pytest.mark.parametrize("name", WIRES)
@pytest.mark.parametrize(
    ("payload", "status", "reason"),
    [(b"no image at all", 422, "undecodable"), (png_header(20000, 20000), 413, "too_large")],
    ids=["no-image", "too-large"],
)
def test_media_errors_name_their_reason(name: str, payload: bytes, status: int, reason: str) -> None:
    async def body(client: Client) -> None:
        got, headers, answer = await client.send(ask(name, payload))
        assert got == status
        assert reason in answer.decode()
        assert read_answer(name, got, headers, answer) is None

    against(body)


def test_a_detector_that_fails_is_our_fault_and_tells_nothing() -> None:
    class Broken:
        def judge(self, challenges: Sequence[Challenge], deadline: float | None) -> list[Outcome]:
            raise RuntimeError("/secret/path")

    async def body(client: Client) -> None:
        status, _, answer = await client.send(ask())
        assert status == 500
        assert b"secret" not in answer

    against(body, Broken())


def test_a_bug_costs_one_request() -> None:
    async def body(client: Client) -> None:
        status, _, answer = await client.send(ask(key=BOB))
        assert (status, json.loads(answer)) == (500, {"message": "internal error"})
        assert (await client.send(ask(key=ALICE)))[0] == 200

    class Buggy(frozenset[str]):
        def __contains__(self, hotkey: object) -> bool:
            return 1 // (hotkey != BOB.ss58_address) == 0

    against(body, rules=AccessRules(offline=True, deny=Buggy()))


def test_overload_is_503_at_once_with_retry_after() -> None:
    judge = Held()

    async def body(client: Client) -> None:
        kept = [asyncio.ensure_future(client.send(ask()))]
        await asyncio.sleep(0.1)
        kept += [asyncio.ensure_future(client.send(ask())) for _ in range(2)]
        await asyncio.sleep(0.1)
        before = time.monotonic()
        status, headers, answer = await client.send(ask())
        assert time.monotonic() - before < 0.5
        assert (status, int(headers["retry-after"]) >= 1) == (503, True)
        assert read_answer("dendrite", status, headers, answer) is None
        judge.go.set()
        assert [status for status, _, _ in await asyncio.gather(*kept)] == [200] * 3

    against(body, judge, queue=Limits(queue_limit=2, max_batch=1))


@pytest.mark.parametrize("limits", [BodyLimits(max_in_flight=2), BodyLimits(max_buffered_bytes=2 * 20_000)])
def test_what_is_held_at_once_is_bounded(limits: BodyLimits) -> None:
    judge = Held()
    payload = jpeg(100)
    request = ask(payload=payload)
    assert 12_000 < len(request.body) < 20_000

    async def body(client: Client) -> None:
        kept = [asyncio.ensure_future(client.send(ask(payload=payload))) for _ in range(2)]
        await asyncio.sleep(0.1)
        status, headers, _ = await client.send(request)
        assert (status, headers["retry-after"]) == (503, "1")
        judge.go.set()
        assert [status for status, _, _ in await asyncio.gather(*kept)] == [200] * 2
        assert (await client.send(ask(payload=payload)))[0] == 200  # what they held was given back

    against(body, judge, limits=limits)


def test_large_bodies_leave_room_for_small_ones() -> None:
    async def body(client: Client) -> None:
        slow = []
        for _ in range(6):  # 6 x 1.5 MiB against three quarters of 8 MiB: the last ones are refused
            reader, writer = await client.raw()
            writer.write(
                b"POST /detect_video HTTP/1.1\r\nhost: m\r\ncontent-length: 2000000\r\n\r\n" + bytes(1_500_000)
            )
            slow.append((reader, writer))
        await asyncio.sleep(0.3)
        answered = [reader for reader, _ in slow if reader._buffer]  # type: ignore[attr-defined]
        assert 1 <= len(answered) <= 3
        assert (await read_response(answered[0]))[0] == 503
        assert (await client.send(ask()))[0] == 200
        for _, writer in slow:
            writer.close()

    against(body, limits=BodyLimits(max_buffered_bytes=8 * 1024 * 1024))


def test_a_caller_that_hangs_up_is_not_computed() -> None:
    judge = Held()

    async def body(client: Client) -> None:
        stays = asyncio.ensure_future(client.send(ask()))
        await asyncio.sleep(0.1)
        _, writer = await client.raw()
        writer.write(plain(ask()))
        await asyncio.sleep(0.1)
        writer.close()
        await asyncio.sleep(0.1)
        judge.go.set()
        assert (await stays)[0] == 200
        assert (await client.send(ask()))[0] == 200
        assert judge.judged == 2

    against(body, judge, queue=Limits(max_batch=1))


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


def bad_requests() -> list[tuple[str, Request, set[int]]]:
    """Name, request and the statuses that are right for it, over all kinds of bad input."""
    good = ask()
    video = ask("dendrite", GOOD * 2, "video")
    synapse = json.loads(video.body)

    def with_video(text: str) -> bytes:
        return json.dumps({**synapse, "video": text}).encode()

    def image_body(**fields: object) -> bytes:
        return json.dumps({**json.loads(good.body), **fields}).encode()

    def fresh(body: bytes, modality: Modality = "image") -> Request:
        return dataclasses.replace(ask("dendrite", GOOD, modality), body=body)

    replayed = ask()
    small = io.BytesIO()
    Image.new("RGB", (32, 32)).save(small, "JPEG")
    tampered = {**good.headers, "bt_header_dendrite_nonce": str(time.time_ns())}
    return [
        ("empty body", fresh(b""), {400, 422}),
        ("not JSON", fresh(b"{"), {400, 422}),
        ("JSON list", fresh(b"[]"), {400, 422}),
        ("deep JSON", fresh(b"[" * 100_000 + b"]" * 100_000), {400, 413, 422}),
        ("no image", fresh(image_body(image="")), {422}),
        ("image of another type", fresh(image_body(image=5)), {400, 422}),
        ("wrong base64", fresh(image_body(image="!!!!")), {400, 422}),
        ("truncated JPEG", ask("epistula", GOOD[: len(GOOD) // 2]), {422}),
        ("zero bytes", ask("epistula", b""), {422}),
        ("20000 x 20000", ask("btauth", png_header(20000, 20000)), {413}),
        ("wrong base85", fresh(with_video("\x7f\x7f\x7f"), "video"), {400, 422}),
        ("not zlib", fresh(with_video("0" * 50), "video"), {400, 422}),
        ("zlib bomb", fresh(with_video(deflate_base85(bytes(300_000_000))), "video"), {413}),
        ("no frame", fresh(with_video(deflate_base85(b"")), "video"), {422}),
        ("300 frames", ask("dendrite", small.getvalue() * 300, "video"), {413, 422}),
        ("frames of two sizes", ask("dendrite", GOOD + small.getvalue(), "video"), {422}),
        ("no container", ask("epistula", b"\0\0\0\x18ftypmp42", "video"), {422}),
        ("bad signature", dataclasses.replace(good, headers=tampered), {401}),
        ("no headers", dataclasses.replace(good, headers={}), {401}),
        ("replayed", replayed, {200}),
        ("replayed again", replayed, {401}),
        ("unknown path", dataclasses.replace(good, target="/TextSynapse"), {404}),
    ]


def test_bad_input_of_every_kind_loses_nothing_else_in_flight() -> None:
    async def body(client: Client) -> None:
        bad = bad_requests()
        assert (await client.send({name: request for name, request, _ in bad}["replayed"]))[0] == 200
        expected: list[set[int]] = [{401} if name == "replayed" else statuses for name, _, statuses in bad]

        async def garbage() -> None:
            _, writer = await client.raw()
            writer.write(b"\x16\x03\x01\x02\x00 not http at all\r\n\r\n")
            await asyncio.sleep(0.05)
            writer.close()

        async def hang_up() -> None:
            _, writer = await client.raw()
            writer.write(plain(ask("epistula"))[:-100])
            await asyncio.sleep(0.05)
            writer.close()

        async def honest(index: int) -> tuple[int, object]:
            await asyncio.sleep(index * 0.004)
            name = WIRES[index % 3]
            status, headers, answer = await client.send(ask(name, GOOD))
            return status, read_answer(name, status, headers, answer)

        good = [asyncio.ensure_future(honest(index)) for index in range(90)]
        noise = [asyncio.ensure_future(task()) for task in (garbage, hang_up) * 5]
        answers = await asyncio.gather(*(client.send(request) for _, request, _ in bad))
        for (name, _, _), allowed, (status, _, answer) in zip(bad, expected, answers, strict=True):
            assert status in allowed, (name, status, answer[:200])
            assert len(answer) < 2000
        await asyncio.gather(*noise)
        for index, (status, prediction) in enumerate(await asyncio.gather(*good)):
            assert (status, prediction) == (200, P if index % 3 else 0.75)

    against(body)


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
