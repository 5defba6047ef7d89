"""Bad input over HTTP: each kind has its answer, and none costs anybody else theirs."""

from __future__ import annotations

import asyncio
import dataclasses
import io
import json
import time

import pytest
from PIL import Image

from detectors.types import Modality
from neurons.wire.base import Request
from neurons.wire.client import WIRES, read_answer
from neurons.wire.encoding import deflate_base85
from tests.neurons.loopback import (
    GOOD,
    Client,
    P,
    against,
    ask,
    plain,
    png_header,
)


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
