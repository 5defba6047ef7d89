"""The validator's side of the three wires: signed requests, and the answer that a response holds.

For the mock validator, the load generator and the tests. What is sent is what the real peers send; that it is accepted
proves nothing by itself, so the conformance tests use the real peers.
"""

from __future__ import annotations

import base64
import hashlib
import math
import re
import time
from collections.abc import Mapping
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import orjson

from detectors.types import Modality
from neurons.keys import Keypair
from neurons.wire.base import Answer, Request
from neurons.wire.encoding import deflate_base85
from neurons.wire.routes import SEGMENT

__all__ = ["WIRES", "challenge_request", "read_answer", "read_mask"]

WIRES: Final = ("dendrite", "btauth", "epistula")

_DENDRITE_VERSION = 10005000
_EMPTY_HASH = hashlib.sha3_256().hexdigest()
_MAX_ANSWER = 2**20  # bytes; an honest answer has a few hundred
_SHAPE = re.compile(r"([1-9][0-9]{0,4}),([1-9][0-9]{0,4})", re.ASCII)
_SUM_TOLERANCE = 1e-6  # SN34 2.2 and v3: a vector that misses it is no answer


def challenge_request(
    wire: str,
    *,
    key: Keypair,
    receiver: str,
    modality: Modality,
    payload: bytes,
    timeout_s: float,
    uuid: str,
    label: int | None = None,
    answer: Answer = "float",
    now_ns: int | None = None,
    wants: Literal["prediction", "mask"] = "prediction",
) -> Request:
    """Builds and signs one challenge.

    Args:
        wire: one of :data:`WIRES`.
        key: the validator's hotkey.
        receiver: ss58 address of the miner.
        modality: image or video.
        payload: an encoded image, or for a video its concatenated JPEG frames (dendrite) or a container file's bytes
            (btauth, epistula).
        timeout_s: how long the validator will wait, told to the miner on the Dendrite wire.
        uuid: one per validator process on the Dendrite wire, one per request on Epistula; unused by btauth.
        label: the truth, 0 to 2, as test networks send it along; None sends none.
        answer: which form the synapse's default asks for; the other two wires always answer with a vector.
        now_ns: the nonce; the wall clock by default.
        wants: a mask of an image is asked for on the Epistula wire only.

    Returns:
        A request for any HTTP client: send `method`, `target`, `headers` and `body` unchanged, within the wire's
        freshness window.

    Raises:
        ValueError: no such wire, or it has no masks.
    """
    if wants == "mask" and (wire, modality) != ("epistula", "image"):
        raise ValueError(f"the wire {wire!r} has no masks of a {modality}")
    now = time.time_ns() if now_ns is None else now_ns
    if wire == "dendrite":
        return _dendrite(
            key,
            receiver,
            modality,
            payload=payload,
            timeout_s=timeout_s,
            uuid=uuid,
            label=label,
            answer=answer,
            now=now,
        )
    target = SEGMENT if wants == "mask" else f"/detect_{modality}"
    headers = {"content-type": "image/jpeg" if modality == "image" else "video/mp4", "x-media-type": modality}
    if label is not None:
        headers["x-testnet-label"] = str(label)
    if wire == "epistula":
        headers |= _epistula_headers(key, receiver, payload, uuid, now // 1_000_000)
    elif wire == "btauth":
        headers |= _btauth_headers(key, receiver, target, payload, now)
    else:
        raise ValueError(f"unknown wire {wire!r}; known are {', '.join(WIRES)}")
    return Request("POST", target, headers, payload, now)


def _dendrite(
    key: Keypair,
    receiver: str,
    modality: Modality,
    *,
    payload: bytes,
    timeout_s: float,
    uuid: str,
    label: int | None,
    answer: Answer,
    now: int,
) -> Request:
    """A synapse the way the Dendrite of bittensor 10.5 sends it, without the junk sizes and addresses."""
    name = "ImageSynapse" if modality == "image" else "VideoSynapse"
    media = base64.b64encode(payload).decode("ascii") if modality == "image" else deflate_base85(payload)
    message = f"{now}.{key.ss58_address}.{receiver}.{uuid}.{_EMPTY_HASH}"
    dendrite = {
        "version": _DENDRITE_VERSION,
        "nonce": now,
        "uuid": uuid,
        "hotkey": key.ss58_address,
        "signature": "0x" + key.sign(message.encode()).hex(),
    }
    body: dict[str, Any] = {
        "name": name,
        "timeout": float(timeout_s),
        "dendrite": dendrite,
        "axon": {"hotkey": receiver},
        "computed_body_hash": "",
        "testnet_label": -1 if label is None else label,
        modality: media,
        "prediction": -1.0 if answer == "float" else [-1.0, -1.0, -1.0],
    }
    headers = {
        "content-type": "application/json",
        "name": name,
        "timeout": str(float(timeout_s)),
        "bt_header_axon_hotkey": receiver,
        "computed_body_hash": _EMPTY_HASH,
    }
    headers |= {f"bt_header_dendrite_{field}": str(value) for field, value in dendrite.items()}
    return Request("POST", f"/{name}", headers, orjson.dumps(body), now)


def _epistula_headers(key: Keypair, receiver: str, body: bytes, uuid: str, now_ms: int) -> dict[str, str]:
    message = f"{hashlib.sha256(body).hexdigest()}.{uuid}.{now_ms}.{receiver}"
    return {
        "epistula-version": "2",
        "epistula-timestamp": str(now_ms),
        "epistula-uuid": uuid,
        "epistula-signed-by": key.ss58_address,
        "epistula-signed-for": receiver,
        "epistula-request-signature": "0x" + key.sign(message.encode()).hex(),
    }


def _btauth_headers(key: Keypair, receiver: str, target: str, body: bytes, now_ns: int) -> dict[str, str]:
    from bittensor import http_auth  # noqa: PLC0415 - half a second that the other wires need not pay

    signed = http_auth.sign(key, method="POST", path=target, body=body, receiver_ss58=receiver, nonce_ns=now_ns)
    return {name.lower(): value for name, value in signed.items()}


def read_answer(
    wire: str, status: int, headers: Mapping[str, str], body: bytes
) -> tuple[float, float, float] | float | None:
    """What a validator makes of a response.

    Args:
        wire: one of :data:`WIRES`.
        status: of HTTP.
        headers: of the response, names in any case.
        body: complete.

    Returns:
        A float, P(fake) in [0, 1]; or (real, synthetic, semi-synthetic), each in [0, 1] and 1 in total within 1e-6;
        or None where there is no usable answer (refused, late, malformed, NaN, -1). A two-vector (real, fake) is
        returned as its P(fake).
    """
    if status != 200 or len(body) > _MAX_ANSWER:
        return None
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(parsed, dict):
        return None
    if wire == "dendrite" and not _dendrite_success(headers, parsed):
        return None
    return _prediction(parsed.get("prediction"))


def _dendrite_success(headers: Mapping[str, str], parsed: dict[str, Any]) -> bool:
    """The rule of Dendrite 10.5: a JSON content type, and the axon's status from the header, else from the body."""
    lowered = {name.lower(): value for name, value in headers.items()}
    if not lowered.get("content-type", "").startswith("application/json"):
        return False
    axon = parsed.get("axon")
    code = lowered.get("bt_header_axon_status_code") or (axon.get("status_code") if isinstance(axon, dict) else None)
    return str(code) == "200"


def _prediction(value: Any) -> tuple[float, float, float] | float | None:
    if not isinstance(value, list):
        return _probability(value)
    numbers = [p for p in map(_probability, value[:4]) if p is not None]
    if len(numbers) != len(value) or len(value) not in (2, 3) or not abs(math.fsum(numbers) - 1.0) < _SUM_TOLERANCE:
        return None
    return numbers[1] if len(numbers) == 2 else (numbers[0], numbers[1], numbers[2])


def _probability(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0.0 <= value <= 1.0 else None


def read_mask(status: int, headers: Mapping[str, str], body: bytes) -> npt.NDArray[np.float32] | None:
    """What a validator makes of a response to ``/segment_image``.

    Args:
        status: of HTTP.
        headers: of the response, names in any case.
        body: complete.

    Returns:
        ``float32 [H, W]`` in [0, 1], larger where the image is held for fake; None where there is no usable mask.
    """
    lowered = {name.lower(): value for name, value in headers.items()}
    shape = _SHAPE.fullmatch(lowered.get("x-mask-shape", ""))
    if status != 200 or lowered.get("x-mask-dtype") != "float16" or shape is None:
        return None
    height, width = int(shape[1]), int(shape[2])
    if len(body) != 2 * height * width:
        return None
    mask = np.frombuffer(body, "<f2").reshape(height, width).astype(np.float32)
    return mask if bool(((mask >= 0.0) & (mask <= 1.0)).all()) else None
