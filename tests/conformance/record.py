"""Records ``tests/golden/wire/*.json``: what real peers send, byte for byte, with fixed keys, nonces and media.

    .venv/bin/python -m tests.conformance.record

The Dendrite's requests are caught on a socket; ``btauth/1`` comes from ``bittensor.http_auth.sign``; Epistula from its
formula. sr25519 signatures are randomised, so a second run gives other, equally valid files.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from bittensor import http_auth

from neurons import keys
from neurons.wire.encoding import deflate_base85

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden" / "wire"
PEER_PYTHON = ROOT / ".venv-conformance" / "bin" / "python"

ALICE, BOB = keys.from_uri("//Alice"), keys.from_uri("//Bob")
NONCE = 1_750_000_000_123_456_789
UUID = "7d9f3a52-4c1b-11f0-9a3e-0242ac120002"

DENDRITE: dict[str, dict[str, Any]] = {
    "image": {"kind": "image", "label": -1},
    "image-vector": {"kind": "image-vector", "label": 2},
    "image-hashed": {"kind": "image-hashed", "label": 1},
    "image-both-hashed": {"kind": "image-both-hashed", "label": 0},
    "image-required": {"kind": "image-required"},
    "video": {"kind": "video", "label": -1, "repeat": 3},
    "video-vector": {"kind": "video-vector", "label": -1, "repeat": 3},
    "video-hashed": {"kind": "video-hashed", "label": -1, "repeat": 3},
}


def tiny_jpeg() -> bytes:
    ramp = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)
    return bytes(cv2.imencode(".jpg", ramp, [cv2.IMWRITE_JPEG_QUALITY, 50])[1])


async def caught(case: Mapping[str, Any]) -> tuple[str, str, dict[str, str], bytes]:
    """Runs the real Dendrite against a socket; gives method, target, headers and body of what it sent."""
    got: asyncio.Future[tuple[bytes, bytes]] = asyncio.get_running_loop().create_future()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        got.set_result((head, await reader.readexactly(length)))
        writer.write(b"HTTP/1.1 503 Recorded\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    job = [{"name": "x", **case, "axons": [[port, BOB.ss58_address]], "payload": tiny_jpeg().hex()}]
    peer = await asyncio.create_subprocess_exec(
        str(PEER_PYTHON),
        str(Path(__file__).with_name("peer_dendrite.py")),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    await peer.communicate(json.dumps(job).encode())
    head, body = await got
    server.close()
    first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    method, target, _ = first.split(" ")
    return method, target, {n.lower(): v for n, v in (line.split(": ", 1) for line in lines)}, body


def entry(method: str, target: str, headers: Mapping[str, str], body: bytes, **expected: Any) -> dict[str, Any]:
    return {
        "method": method,
        "target": target,
        "headers": dict(headers),
        "body": base64.b64encode(body).decode("ascii"),
        "caller": ALICE.ss58_address,
        "receiver": BOB.ss58_address,
        "nonce_ns": NONCE,
        **expected,
    }


async def dendrite() -> dict[str, Any]:
    vectors = {}
    for name, case in DENDRITE.items():
        full = {**case, "action": "fixed", "nonce": NONCE, "uuid": UUID, "key": "//Alice"}
        method, target, headers, body = await caught(full)
        body_hash = headers["computed_body_hash"]
        vectors[name] = entry(
            method,
            target,
            headers,
            body,
            message=f"{NONCE}.{ALICE.ss58_address}.{BOB.ss58_address}.{UUID}.{body_hash}",
            modality="video" if "video" in name else "image",
            answer="vector" if "vector" in name else "float",
            label=case["label"] if case.get("label", -1) != -1 else None,
            payload_sha256=hashlib.sha256(tiny_jpeg() * case.get("repeat", 1)).hexdigest(),
        )
    return vectors


def btauth() -> dict[str, Any]:
    image = tiny_jpeg()
    video_synapse = {"video": deflate_base85(image * 3), "prediction": [-1.0, -1.0, -1.0], "testnet_label": -1}
    cases: dict[str, tuple[str, str, bytes, str, str]] = {
        "detect-image": ("POST", "/detect_image", image, "image", "vector"),
        "detect-image-query": ("POST", "/detect_image?round=7", image, "image", "vector"),
        "image-synapse": (
            "POST",
            "/ImageSynapse",
            json.dumps({"image": base64.b64encode(image).decode("ascii"), "prediction": -1.0}).encode(),
            "image",
            "float",
        ),
        "video-synapse": ("POST", "/VideoSynapse", json.dumps(video_synapse).encode(), "video", "vector"),
        "miner-info": ("GET", "/miner_info", b"", "", ""),
    }
    vectors = {}
    for name, (method, target, body, modality, answer) in cases.items():
        signed = http_auth.sign(
            ALICE, method=method, path=target, body=body, receiver_ss58=BOB.ss58_address, nonce_ns=NONCE
        )
        lines = ["btauth/1", "sr25519", method, target, hashlib.sha256(body).hexdigest()]
        vectors[name] = entry(
            method,
            target,
            {n.lower(): v for n, v in signed.items()},
            body,
            message="\n".join([*lines, str(NONCE), ALICE.ss58_address, BOB.ss58_address]),
            modality=modality,
            answer=answer,
            payload_sha256=hashlib.sha256(image * (3 if modality == "video" else 1)).hexdigest(),
        )
    return vectors


def epistula() -> dict[str, Any]:
    cases = {
        "detect-image": ("POST", "/detect_image", "image/jpeg", tiny_jpeg(), "image"),
        "detect-video": ("POST", "/detect_video", "video/mp4", b"\0\0\0\x18ftypmp42 not a whole file", "video"),
        "miner-info": ("GET", "/miner_info", "", b"", ""),
    }
    vectors = {}
    stamp = NONCE // 1_000_000
    for name, (method, target, content, body, modality) in cases.items():
        message = f"{hashlib.sha256(body).hexdigest()}.{UUID}.{stamp}.{BOB.ss58_address}"
        headers = {
            "epistula-version": "2",
            "epistula-timestamp": str(stamp),
            "epistula-uuid": UUID,
            "epistula-signed-by": ALICE.ss58_address,
            "epistula-signed-for": BOB.ss58_address,
            "epistula-request-signature": "0x" + ALICE.sign(message.encode()).hex(),
            "epistula-secret-signature-0": "0x" + ALICE.sign(b"ignored").hex(),
            **({"content-type": content, "x-media-type": modality} if content else {}),
        }
        expected = {
            "message": message,
            "modality": modality,
            "answer": "vector" if modality else "",
            "payload_sha256": hashlib.sha256(body).hexdigest(),
        }
        vectors[name] = {**entry(method, target, headers, body, **expected), "nonce_ns": stamp * 1_000_000}
    return vectors


async def main() -> None:
    GOLDEN.mkdir(parents=True, exist_ok=True)
    for name, vectors in (("dendrite", await dendrite()), ("btauth", btauth()), ("epistula", epistula())):
        (GOLDEN / f"{name}.json").write_text(json.dumps(vectors, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    asyncio.run(main())
