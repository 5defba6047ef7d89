"""``btauth/1`` as bittensor 11 signs it and Epistula v2 as an independent signer does, over HTTP, to our server."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
import random
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import aiohttp
import av
import numpy as np
import pytest
from bittensor import http_auth
from bittensor.sp_core import Keypair
from PIL import Image

from tests.conformance.serve import PROBABILITIES, Miner

pytestmark = pytest.mark.conformance

ALICE = Keypair.create_from_uri("//Alice")
EVE = Keypair.create_from_uri("//Eve")
STRANGER = Keypair.create_from_uri("//Ferdie").ss58_address

Sent = tuple[int, Mapping[str, str], Any]
Sign = Callable[..., dict[str, str]]


def btauth(
    target: str, body: bytes, receiver: str, *, method: str = "POST", key: Any = ALICE, at_ns: int | None = None
) -> dict[str, str]:
    """The headers that bittensor 11 makes."""
    return http_auth.sign(key, method=method, path=target, body=body, receiver_ss58=receiver, nonce_ns=at_ns)


def epistula(
    target: str, body: bytes, receiver: str, *, method: str = "POST", key: Any = ALICE, at_ns: int | None = None
) -> dict[str, str]:
    """Written from the published formula; shares nothing with the project."""
    timestamp = (time.time_ns() if at_ns is None else at_ns) // 10**6
    request_id = str(uuid.uuid4())
    signature = key.sign(f"{hashlib.sha256(body).hexdigest()}.{request_id}.{timestamp}.{receiver}".encode())
    interval = timestamp // 10_000
    return {
        "Epistula-Version": "2",
        "Epistula-Timestamp": str(timestamp),
        "Epistula-Uuid": request_id,
        "Epistula-Signed-By": key.ss58_address,
        "Epistula-Signed-For": receiver,
        "Epistula-Request-Signature": "0x" + bytes(signature).hex(),
        **{f"Epistula-Secret-Signature-{i}": "0x" + key.sign(f"{interval + i - 1}.x".encode()).hex() for i in range(3)},
        "Content-Type": "image/jpeg" if target.endswith("image") else "video/mp4",
        "X-Media-Type": "image" if target.endswith("image") else "video",
    }


SIGNERS: dict[str, Sign] = {"btauth": btauth, "epistula": epistula}
REFUSAL_STATUS = {"btauth": 401, "epistula": 400}
SIGNATURE = {"btauth": http_auth.HEADER_SIGNATURE, "epistula": "Epistula-Request-Signature"}


def clip(frames: int = 4) -> bytes:
    """An MP4 of a moving square."""
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=8)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for k in range(frames):
            picture = np.full((64, 64, 3), 30, np.uint8)
            picture[8 * k : 8 * k + 16, 8 : 8 + 16] = 200
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return out.getvalue()


async def post(
    session: aiohttp.ClientSession, miner: Miner, target: str, body: bytes, headers: Mapping[str, str]
) -> Sent:
    async with session.post(miner.url + target, data=io.BytesIO(body), headers=headers) as response:
        return response.status, response.headers, json.loads(await response.read())


def send(miner: Miner, target: str, body: bytes, *headers: Mapping[str, str]) -> list[Sent]:
    """The same body with each of the headers, one after the other."""

    async def run() -> list[Sent]:
        async with aiohttp.ClientSession() as session:
            return [await post(session, miner, target, body, h) for h in headers]

    return asyncio.run(run())


@pytest.fixture(params=SIGNERS)
def wire(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("target", ["/detect_image", "/detect_video"])
def test_media_is_answered(miners: list[Miner], jpeg: bytes, wire: str, target: str) -> None:
    body = jpeg if target.endswith("image") else clip()
    ((status, _, answer),) = send(miners[0], target, body, SIGNERS[wire](target, body, miners[0].hotkey))
    assert (status, set(answer), answer["status"]) == (200, {"status", "prediction"}, "success")
    assert answer["prediction"] == pytest.approx(list(PROBABILITIES), abs=1e-7)


def test_synapse_under_btauth_is_answered_in_its_form(miners: list[Miner], jpeg: bytes) -> None:
    synapse = {"image": base64.b64encode(jpeg).decode(), "prediction": -1.0, "testnet_label": -1}
    body = json.dumps(synapse).encode()
    headers = btauth("/ImageSynapse", body, miners[0].hotkey)
    ((status, _, answer),) = send(miners[0], "/ImageSynapse", body, headers)
    assert (status, answer["testnet_label"]) == (200, -1)
    assert answer["prediction"] == pytest.approx(1 - PROBABILITIES[0], abs=1e-7)


def test_miner_info_is_for_verified_callers(miners: list[Miner], wire: str) -> None:
    async def run() -> list[tuple[int, Any]]:
        found = []
        async with aiohttp.ClientSession() as session:
            for key in (ALICE, EVE, None):
                headers = {}
                if key is not None:
                    headers = SIGNERS[wire]("/miner_info", b"", miners[0].hotkey, method="GET", key=key)
                    headers.pop("Content-Type", None)
                async with session.get(miners[0].url + "/miner_info", headers=headers) as response:
                    found.append((response.status, json.loads(await response.read())))
        return found

    (known, info), (denied, refusal), (unsigned, nothing) = asyncio.run(run())
    assert (known, info["miner_type"], info["hotkey"]) == (200, "DETECTOR", miners[0].hotkey)
    assert (denied, unsigned) == (403, 404)
    assert "hotkey" not in refusal
    assert "hotkey" not in nothing


def test_64_in_flight_with_jitter_over_three_miners(miners: list[Miner], jpeg: bytes, wire: str) -> None:
    async def run() -> list[int]:
        chance = random.Random(5)

        async def one(session: aiohttp.ClientSession, miner: Miner) -> int:
            headers = SIGNERS[wire]("/detect_image", jpeg, miner.hotkey)
            await asyncio.sleep(chance.uniform(0, 0.06))  # signed before, sent after: they overtake each other
            return (await post(session, miner, "/detect_image", jpeg, headers))[0]

        async with aiohttp.ClientSession() as session:
            return await asyncio.gather(*(one(session, miners[i % 3]) for i in range(192)))

    assert asyncio.run(run()) == [200] * 192


def test_large_body_is_answered(miners: list[Miner], wire: str) -> None:
    """Padding after the last frame of the file: 10 MiB that have to be hashed, checked and decoded."""
    padding = 10 * 2**20
    body = clip() + padding.to_bytes(4, "big") + b"free" + bytes(padding - 8)
    ((status, _, _),) = send(miners[0], "/detect_video", body, SIGNERS[wire]("/detect_video", body, miners[0].hotkey))
    assert status == 200


def test_replay_is_refused(miners: list[Miner], jpeg: bytes, wire: str) -> None:
    headers = SIGNERS[wire]("/detect_image", jpeg, miners[0].hotkey)
    first, second = send(miners[0], "/detect_image", jpeg, headers, headers)
    assert (first[0], second[0]) == (200, REFUSAL_STATUS[wire])
    assert second[2]["reason"] == "replayed_nonce"


@pytest.mark.parametrize(
    ("shift_s", "reason"), [(-60, "stale_nonce"), (60, "future_nonce"), (365 * 86400, "future_nonce")]
)
def test_other_times_are_refused(miners: list[Miner], jpeg: bytes, wire: str, shift_s: int, reason: str) -> None:
    at_ns = time.time_ns() + shift_s * 10**9
    headers = SIGNERS[wire]("/detect_image", jpeg, miners[0].hotkey, at_ns=at_ns)
    ((status, _, answer),) = send(miners[0], "/detect_image", jpeg, headers)
    assert (status, answer["reason"]) == (REFUSAL_STATUS[wire], reason)


@pytest.mark.parametrize("fault", ["wrong-receiver", "tampered", "unsigned", "altered-body", "other-sender"])
def test_what_was_not_signed_like_this_is_refused(miners: list[Miner], jpeg: bytes, wire: str, fault: str) -> None:
    receiver = STRANGER if fault == "wrong-receiver" else miners[0].hotkey
    headers, body, expected = SIGNERS[wire]("/detect_image", jpeg, receiver), jpeg, "bad_signature"
    if fault == "wrong-receiver":
        expected = "wrong_receiver"
    elif fault == "tampered":
        signature = headers[SIGNATURE[wire]]
        headers[SIGNATURE[wire]] = signature[:-1] + ("0" if signature[-1] != "0" else "1")
    elif fault == "unsigned":
        del headers[SIGNATURE[wire]]
        expected = "missing_header"
    elif fault == "altered-body":
        body = jpeg + b"\0"
    else:
        headers[{"btauth": http_auth.HEADER_HOTKEY, "epistula": "Epistula-Signed-By"}[wire]] = EVE.ss58_address
    ((status, response_headers, answer),) = send(miners[0], "/detect_image", body, headers)
    assert (status, answer["reason"]) == (REFUSAL_STATUS[wire], expected)
    # No refusal carries a signature or an address of ours.
    assert not any(miners[0].hotkey in str(v) or "0x" in str(v) for v in (*response_headers.values(), answer))


def test_path_is_covered_by_btauth(miners: list[Miner], jpeg: bytes) -> None:
    headers = btauth("/detect_image", jpeg, miners[0].hotkey)
    for target in ("/detect_video", "/detect_image?x=1"):
        ((status, _, answer),) = send(miners[0], target, jpeg, headers)
        assert (status, answer["reason"]) == (401, "bad_signature")


def test_unknown_path_tells_nothing(miners: list[Miner], jpeg: bytes, wire: str) -> None:
    headers = SIGNERS[wire]("/detect_sound", jpeg, miners[0].hotkey)
    ((status, _, answer),) = send(miners[0], "/detect_sound", jpeg, headers)
    assert (status, answer["reason"]) == (404, "unknown_route")
    assert "detect" not in json.dumps(answer)


@pytest.mark.parametrize("target", ["/ImageSynapse", "/VideoSynapse", "/detect_image", "/docs", "/openapi.json"])
def test_get_is_no_way_in(miners: list[Miner], wire: str, target: str) -> None:
    """The 10.5 Axon takes GET like POST."""

    async def run() -> int:
        headers = SIGNERS[wire](target, b"", miners[0].hotkey, method="GET")
        headers.pop("Content-Type", None)
        async with aiohttp.ClientSession() as session, session.get(miners[0].url + target, headers=headers) as response:
            return response.status

    assert asyncio.run(run()) == 404


def test_a_mask_is_raw_float16_of_the_pictures_shape(miners: list[Miner], jpeg: bytes) -> None:
    headers = epistula("/segment_image", jpeg, miners[0].hotkey)

    async def run() -> tuple[int, Mapping[str, str], bytes]:
        url = miners[0].url + "/segment_image"
        async with aiohttp.ClientSession() as session, session.post(url, data=jpeg, headers=headers) as response:
            return response.status, response.headers, await response.read()

    status, said, body = asyncio.run(run())
    assert (status, said["X-Mask-Dtype"]) == (200, "float16")
    shape = tuple(int(side) for side in said["X-Mask-Shape"].split(","))
    mask = np.frombuffer(body, np.float16).reshape(shape)
    assert shape == Image.open(io.BytesIO(jpeg)).size[::-1]
    assert ((mask >= 0) & (mask <= 1)).all()


def test_denied_caller_is_refused(miners: list[Miner], jpeg: bytes, wire: str) -> None:
    headers = SIGNERS[wire]("/detect_image", jpeg, miners[0].hotkey, key=EVE)
    assert send(miners[0], "/detect_image", jpeg, headers)[0][0] == 403


def test_undecodable_media_is_refused_with_its_reason(miners: list[Miner], wire: str) -> None:
    body = b"no image at all"
    headers = SIGNERS[wire]("/detect_image", body, miners[0].hotkey)
    ((status, _, answer),) = send(miners[0], "/detect_image", body, headers)
    assert 400 <= status < 500
    assert "prediction" not in answer
