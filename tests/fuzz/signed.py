"""Signed requests as bytes: written, read back, altered header by header, and signed afresh so that they go deeper.

What a request's signature covers travels along as the digest in ``x-fuzz-signed``, which the wires never see: a request
that is accepted although its digest no longer fits was forged.
"""

from __future__ import annotations

import base64
import dataclasses
import functools
import hashlib
import random
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import orjson

from detectors.media import encode_jpeg, encode_jpeg_frames
from neurons.mp4 import mp4_of_jpegs
from neurons.wire.base import Request
from neurons.wire.client import challenge_request
from neurons.wire.encoding import deflate_base85
from tests.detectors.fixtures_media import photo, video_frames
from tests.fuzz.mutate import havoc
from tests.fuzz.mutate_text import json_text
from tests.neurons.wire.wirekit import NOW, UUID, alice, bob

__all__ = ["MARK", "mutate", "proof", "read", "seeds", "sign", "write"]

MARK = "x-fuzz-signed"

_COVERED = {
    "dendrite": (
        "bt_header_dendrite_nonce",
        "bt_header_dendrite_hotkey",
        "bt_header_axon_hotkey",
        "bt_header_dendrite_uuid",
        "computed_body_hash",
    ),
    "epistula": ("epistula-uuid", "epistula-timestamp", "epistula-signed-for"),
    "btauth": ("x-bittensor-nonce", "x-bittensor-hotkey", "x-bittensor-receiver", "x-bittensor-crypto"),
}
_SIGNATURE = {
    "dendrite": "bt_header_dendrite_signature",
    "epistula": "epistula-request-signature",
    "btauth": "x-bittensor-signature",
}


def write(request: Request) -> bytes:
    """As HTTP/1.1 would carry it, without the lengths."""
    head = [f"{request.method} {request.target} HTTP/1.1", *(f"{k}: {v}" for k, v in request.headers.items())]
    return "\r\n".join(head).encode("latin-1", "replace") + b"\r\n\r\n" + request.body


def read(data: bytes) -> Request:
    """The inverse, for any bytes: what a server would hand on where it takes everything."""
    head, _, body = data.partition(b"\r\n\r\n")
    first, *rest = head.decode("latin-1").split("\r\n")
    method, _, target = first.partition(" ")
    headers: dict[str, str] = {}
    for line in rest:
        name, _, value = line.partition(":")
        headers.setdefault(name.strip().lower(), value.strip())
    return Request(method, target.removesuffix(" HTTP/1.1"), headers, body, NOW)


def _body_hash(wire: str, body: bytes) -> str:
    return "" if wire == "dendrite" else hashlib.sha256(body).hexdigest()


def proof(wire: str, request: Request) -> str:
    """Digest of everything that a signature of this wire covers, part by part."""
    parts = [request.headers.get(name, "") for name in _COVERED[wire]]
    route = [request.method, request.target] if wire == "btauth" else []
    return hashlib.sha256(repr((parts, route, _body_hash(wire, request.body))).encode()).hexdigest()


def sign(wire: str, request: Request) -> Request:
    """The request with Alice's signature over whatever it now says."""
    h = {name: request.headers.get(name, "") for name in _COVERED[wire]}
    values = tuple(h.values())
    if wire == "dendrite":
        text = ".".join(values)
    elif wire == "epistula":
        text = f"{_body_hash(wire, request.body)}.{values[0]}.{values[1]}.{values[2]}"
    else:
        nonce, sender, receiver, crypto = values
        crypto = crypto or "sr25519"
        digest = _body_hash(wire, request.body)
        text = "\n".join(("btauth/1", crypto, request.method, request.target, digest, nonce, sender, receiver or "-"))
    headers = {**request.headers, _SIGNATURE[wire]: "0x" + alice().sign(text.encode("utf-8", "replace")).hex()}
    request = dataclasses.replace(request, headers=headers)
    return dataclasses.replace(request, headers={**headers, MARK: proof(wire, request)})


@functools.cache
def seeds(wire: str) -> tuple[bytes, ...]:
    """Alice's honest challenges to Bob at NOW: image, video, both forms of answer, with and without a label."""
    scene, clip = encode_jpeg(photo(24, 32)), encode_jpeg_frames(video_frames(2, 16, 24))
    found = []
    for modality, payload in (("image", scene), ("video", clip if wire == "dendrite" else mp4_of_jpegs(clip))):
        for answer, label in (("float", None), ("vector", 1)):
            request = challenge_request(
                wire,
                key=alice(),
                receiver=bob().ss58_address,
                modality=modality,  # type: ignore[arg-type]
                payload=payload,
                timeout_s=9.0,
                uuid=UUID,
                label=label,
                answer=answer,  # type: ignore[arg-type]
                now_ns=NOW,
            )
            found.append(request)
    if wire == "epistula":
        mask = dataclasses.replace(found[0], target="/segment_image")  # the path is not in the signed text
        found.append(mask)
    if wire == "dendrite":  # a synapse with a field of its own, named as one without a default
        body = orjson.dumps({**orjson.loads(found[0].body), "challenge_id": "7"})
        hinted = {**found[0].headers, "bt_header_input_obj_challenge_id": base64.b64encode(b'""').decode()}
        found.append(dataclasses.replace(found[0], body=body, headers=hinted))
    if wire == "btauth":  # and synapses by JSON
        found += [dataclasses.replace(read(raw)) for raw in _synapses_for_btauth(found[0])]
    return tuple(write(sign(wire, request)) for request in found)


def _synapses_for_btauth(model: Request) -> list[bytes]:
    made = []
    for raw in seeds("dendrite")[:4]:
        other = read(raw)
        made.append(write(dataclasses.replace(model, target=other.target, body=other.body)))
    return made


_VALUES = (
    "", "0", "-1", "1e3", "nan", "inf", "-inf", "1e400", "0x", "9" * 19, "9" * 20, "9" * 400, "1_0", " 1", "١",
    "²", "½", "0x" + "0" * 128, "0x" + "f" * 128, "0X" + "a" * 128, "0x" + "g" * 128, "a.b",
    "\x00", "\x0b", "\x7f", "\xa0", "\xff", "é", "\x85", "*" * 5000, "5" * 48, "1" * 47,
    "ed25519", "sr25519", "ecdsa", "2", "3", "image/jpeg; x", "video/*", "text/html",
    hashlib.sha3_256().hexdigest(), "None", "null", "9.0", "-9.0", "3599.9", "5e-324",
)  # fmt: skip
_TARGETS = (
    "/ImageSynapse", "/VideoSynapse", "/detect_image", "/detect_video", "/segment_image", "/miner_info", "/",
    "/detect_image?", "/detect_image?a=b", "/detect_image#x", "//detect_image", "/ImageSynapse/", "/imagesynapse", "*",
    "", "http://x/detect_image", "/%69mageSynapse", "/detect_image\x00", "/é", "/detect_image;x", "/../ImageSynapse",
)  # fmt: skip
_METHODS = ("POST", "POST", "GET", "HEAD", "PUT", "OPTIONS", "post", "", "POST ", "\x00")


def _spoiled(rng: random.Random, value: str) -> str:
    draw = rng.random()
    if draw < 0.5 or not value:
        return rng.choice(_VALUES)
    if draw < 0.7 and value.isascii() and value.isdigit():
        return str(max(0, int(value) + rng.choice((-(10**12), -(10**10), -1, 1, 10**9, 10**10, 10**12))))
    if draw < 0.75:
        return value.swapcase()
    if draw < 0.8:
        return value + rng.choice((" ", ".", "0", "\n", "=", ",", value))
    return havoc(rng, value.encode("latin-1", "replace"), ()).decode("latin-1")


def _headers(rng: random.Random, request: Request, others: Sequence[Request]) -> Request:
    headers = dict(request.headers)
    for _ in range(rng.choice((1, 1, 2, 4))):
        names = [*headers, *(rng.choice(others).headers if others else ())]
        if not names:
            break
        name = rng.choice(names)
        draw = rng.random()
        if draw < 0.15:
            headers.pop(name, None)
        elif draw < 0.25:
            headers[name] = str(rng.choice(others).headers.get(name, "")) if others else ""
        elif draw < 0.3:
            hint = rng.choice((b"[]", b"[" * 200, b"1e999", b'"\\ud800"', b"{", rng.randbytes(9)))
            headers[f"bt_header_input_obj_{rng.choice(('image', 'challenge_id', 'name', 'x'))}"] = base64.b64encode(
                hint
            ).decode()
        else:
            headers[name] = _spoiled(rng, headers.get(name, ""))
    return dataclasses.replace(request, headers=headers)


def _media(rng: random.Random, synapse: dict[str, Any]) -> dict[str, Any]:
    """The media inside a synapse altered under its encoding, or the encoding itself."""
    if isinstance(synapse.get("video"), str):
        try:
            payload = zlib.decompress(base64.b85decode(synapse["video"]))
        except (ValueError, zlib.error):
            payload = rng.randbytes(50)
        packed = zlib.compress(havoc(rng, payload, ()))
        text = rng.choice(
            (
                lambda: deflate_base85(havoc(rng, payload, ())),
                lambda: base64.b85encode(havoc(rng, packed, ())).decode(),
                lambda: base64.b85encode(packed[:-4]).decode(),
                lambda: base64.b85encode(packed + packed).decode(),
                lambda: base64.b85encode(zlib.compress(bytes(rng.choice((0, 1, 1 << 20, 1 << 26)) + 1), 9)).decode(),
                lambda: havoc(rng, synapse["video"].encode("utf-8", "replace"), ()).decode("latin-1"),
                lambda: "~" * rng.randrange(20),
            )
        )()
        return {**synapse, "video": text}
    image = synapse.get("image")
    raw = image.encode("utf-8", "replace") if isinstance(image, str) else b"AAAA"
    text = rng.choice(
        (
            lambda: base64.b64encode(havoc(rng, raw, ())).decode(),
            lambda: havoc(rng, raw, ()).decode("latin-1"),
            lambda: raw.decode("latin-1").replace("A", rng.choice("-_=\\\n \u00e9"), rng.randint(1, 3)),
            lambda: raw.decode("latin-1") + "=" * rng.randint(1, 4),
        )
    )()
    return {**synapse, "image": text}


def _body(rng: random.Random, request: Request, _others: Sequence[Request]) -> Request:
    try:
        parsed = orjson.loads(request.body)
    except orjson.JSONDecodeError:
        parsed = None
    draw = rng.random()
    if not isinstance(parsed, dict) or draw < 0.15:
        return dataclasses.replace(request, body=havoc(rng, request.body, ()))
    if draw < 0.5:
        try:
            return dataclasses.replace(request, body=orjson.dumps(_media(rng, parsed)))
        except TypeError:
            return request
    return dataclasses.replace(request, body=json_text(rng, request.body, ()))


def _route(rng: random.Random, request: Request, _others: Sequence[Request]) -> Request:
    if rng.random() < 0.7:
        return dataclasses.replace(request, target=rng.choice(_TARGETS))
    return dataclasses.replace(request, method=rng.choice(_METHODS))


_Step = Callable[[random.Random, Request, Sequence[Request]], Request]
_STEPS: tuple[_Step, ...] = (_headers, _headers, _headers, _body, _body, _body, _body, _route)


def mutate(wire: str) -> Callable[[random.Random, bytes, Sequence[bytes]], bytes]:
    """Alters headers, route, body, or all of them; two in three are signed afresh by Alice afterwards."""

    def mutated(rng: random.Random, data: bytes, known: Sequence[bytes]) -> bytes:
        request = read(data)
        mark = request.headers.get(MARK)
        others = [read(raw) for raw in rng.sample(known, min(2, len(known)))]
        if rng.random() < 0.1:
            request = read(havoc(rng, data, ()))
        for _ in range(rng.choice((1, 1, 2))):
            request = rng.choice(_STEPS)(rng, request, others)
        if rng.random() < 0.67:
            return write(sign(wire, request))
        # The digest is no header of the caller's: what it says is what Alice signed, whatever happened since.
        kept = {} if mark is None else {MARK: mark}
        bare = {name: value for name, value in request.headers.items() if name != MARK}
        return write(dataclasses.replace(request, headers={**bare, **kept}))

    return mutated
