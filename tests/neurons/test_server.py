"""The application over real sockets: three wires, strangers, access, overload, hang-ups, our own faults."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
import threading
import time
import uuid
from collections.abc import Sequence
from typing import Any

import pytest

from detectors.types import Modality
from neurons.access import AccessRules
from neurons.bodies import BodyLimits
from neurons.pipeline import Outcome
from neurons.scheduler import Limits
from neurons.wire import dendrite
from neurons.wire.base import Challenge, Request
from neurons.wire.bodies import synapse_challenge
from neurons.wire.client import WIRES, read_answer
from tests.neurons.loopback import (
    ALICE,
    BOB,
    GOOD,
    MINER,
    Client,
    Held,
    P,
    against,
    ask,
    jpeg,
    plain,
)


@pytest.mark.parametrize("name", WIRES)
def test_every_wire_gets_its_answer(name: str) -> None:
    async def body(client: Client) -> None:
        for _ in range(3):
            status, headers, answer = await client.send(ask(name))
            assert status == 200
            assert read_answer(name, status, headers, answer) == (0.75 if name == "dendrite" else P)

    against(body)


def test_a_large_body_is_answered_too() -> None:
    async def body(client: Client) -> None:
        frames = b"".join(jpeg(256, seed) for seed in range(24))
        assert len(frames) > 512 * 1024
        status, headers, answer = await client.send(ask("dendrite", frames, "video"))
        assert read_answer("dendrite", status, headers, answer) == 0.75

    against(body)


@pytest.mark.parametrize("modality", ["image", "video"])
def test_a_video_is_inflated_off_the_event_loop_however_small_it_came(
    modality: Modality, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[str] = []

    def noting(*given: Any) -> Challenge:
        threads.append(threading.current_thread().name)
        return synapse_challenge(*given)

    monkeypatch.setattr(dendrite, "synapse_challenge", noting)

    async def body(client: Client) -> None:
        assert (await client.send(ask("dendrite", GOOD, modality)))[0] == 200

    against(body)
    assert [name.startswith("unpack") for name in threads] == [modality == "video"]


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
