"""What comes over the network before any pixel: the three wires, their encodings, and how answers are read."""

from __future__ import annotations

import base64
import dataclasses
import random
import zlib
from collections.abc import Callable, Sequence

import orjson

from detectors.types import Prediction
from neurons.wire.base import Refusal, Request, Response, Wire
from neurons.wire.btauth import BtAuthWire
from neurons.wire.client import WIRES, read_answer, read_mask
from neurons.wire.dendrite import DendriteWire
from neurons.wire.encoding import b85_decode, b85_encode, decode_base64, inflate_base85, parse_object
from neurons.wire.epistula import EpistulaWire
from tests.fuzz import signed
from tests.fuzz.engine import Outcome, Target
from tests.fuzz.mutate import havoc, mixed
from tests.fuzz.mutate_text import json_text
from tests.neurons.wire.wirekit import alice, make

__all__ = ["KINDS", "targets", "well_formed"]

KINDS: dict[str, Callable[..., Wire]] = {"dendrite": DendriteWire, "btauth": BtAuthWire, "epistula": EpistulaWire}
PREDICTION = Prediction((0.125, 0.75, 0.125))
_MAX_INFLATED = 1 << 20  # so that a bomb is refused after a megabyte, not after 64


def well_formed(response: Response) -> None:
    """Checks what goes back to a stranger: a status that may be, JSON or a mask, and headers that cannot be split."""
    assert response.status in (200, 400, 401, 403, 404, 405, 408, 413, 415, 422, 429, 503), response.status
    if response.headers["content-type"] == "application/octet-stream":
        assert read_mask(response.status, response.headers, response.body) is not None
    else:
        orjson.loads(response.body)
    for name, value in response.headers.items():
        assert (name + value).isascii(), name
        assert (name + value).isprintable(), name


def _verified(name: str, wire: Wire, request: Request) -> str | None:
    """The reason of the refusal, None for a caller; a caller is Alice, once, for what she signed."""
    mark = request.headers.get(signed.MARK)
    bare = {k: v for k, v in request.headers.items() if k != signed.MARK}
    request = dataclasses.replace(request, headers=bare)
    claimed = None
    try:
        claimed = wire.claim(request)
        caller = wire.verify(request)
    except Refusal as refusal:
        well_formed(wire.refuse(refusal, request))
        assert 400 <= refusal.status < 500
        if claimed is not None:  # the contract of `claim`, on which it depends what a stranger can learn
            assert refusal.reason == wire.unproven().reason, refusal.reason
        return refusal.reason
    assert caller.hotkey == alice().ss58_address
    assert mark is None or mark == signed.proof(name, request), "something was accepted that Alice did not sign"
    assert caller.timeout_s is None or 0 < caller.timeout_s < 3600
    try:
        wire.verify(request)
    except Refusal as refusal:
        assert refusal.reason == "replayed_nonce"
    else:
        raise AssertionError("a replay was accepted")
    return None


def _exchange(name: str) -> Callable[[bytes], Outcome]:
    """One request through verify, decode and encode of a fresh wire; and decoded even where it was refused."""

    def run(data: bytes) -> Outcome:
        request = signed.read(data)
        options = {} if name == "epistula" else {"max_inflated": _MAX_INFLATED}
        wire = make(KINDS[name], **options)
        refused = _verified(name, wire, request)
        try:
            challenge = wire.decode(request)
        except Refusal as refusal:
            well_formed(wire.refuse(refusal, request))
            return Outcome(False, refused or f"verified, then {refusal.reason}")
        assert challenge.payload
        if refused is not None:  # what is not verified is never answered
            return Outcome(False, refused)
        answer = wire.encode(PREDICTION, challenge, request, 0.01)
        well_formed(answer)
        if challenge.wants == "mask":
            assert read_mask(answer.status, answer.headers, answer.body) is not None
        else:
            assert "prediction" in orjson.loads(answer.body)
            assert len(answer.body) <= 4096 + len(request.body)
        return Outcome(True, f"{challenge.encoding} {challenge.answer} {challenge.wants}")

    return run


def _encodings(data: bytes) -> Outcome:
    """Base64, base85 and base85+zlib against the standard library's, which are right and slow."""
    try:
        expected: bytes | None = base64.b85decode(data)
    except ValueError:
        expected = None
    try:
        assert b85_decode(data) == expected
    except ValueError:
        assert expected is None
    assert b85_decode(b85_encode(data)) == data
    text = data.decode("latin-1")
    keys = []
    for decode in (decode_base64, lambda t: inflate_base85(t, _MAX_INFLATED)):
        try:
            assert 0 < len(decode(text)) <= max(_MAX_INFLATED, len(text))
            keys.append("ok")
        except Refusal as refusal:
            keys.append(refusal.reason)
    return Outcome("ok" in keys, " ".join(keys))


def _object(data: bytes) -> Outcome:
    try:
        parsed = parse_object(data)
    except Refusal as refusal:
        return Outcome(False, refusal.reason)
    orjson.dumps(parsed)
    return Outcome(True, "object")


def _answer(data: bytes) -> Outcome:
    """What a miner answered, as the mock validator reads it: a number, a distribution, or nothing."""
    head, _, body = data.partition(b"\n")
    wire = WIRES[len(head) % 3]
    status, _, kind = head.decode("latin-1").partition(" ")
    headers = {"Content-Type": kind, "bt_header_axon_status_code": status}
    found = read_answer(wire, 200 if status in ("", "200") else 500, headers if len(head) % 2 else {}, body)
    if isinstance(found, tuple):
        assert len(found) == 3
        assert abs(sum(found) - 1) < 1e-5
    elif found is not None:
        assert 0.0 <= found <= 1.0
    return Outcome(found is not None, f"{wire} {type(found).__name__}")


def _texts() -> Sequence[bytes]:
    rng = random.Random(1)
    raw = [rng.randbytes(n) for n in (1, 2, 3, 4, 63, 300)]
    return [
        f(r) for r in raw for f in (base64.b64encode, base64.b85encode, lambda r: base64.b85encode(zlib.compress(r)))
    ]


def _answers() -> Sequence[bytes]:
    bodies = [
        b'{"prediction": %s, "axon": {"status_code": 200}, "status": "success"}' % p
        for p in (b"0.5", b"[0.2, 0.8]", b"[0.25, 0.5, 0.25]", b"-1", b"[-1.0, -1.0, -1.0]")
    ]
    return [
        head + b"\n" + body for body in bodies for head in (b"200 application/json", b"200  application/json", b"200")
    ]


def targets() -> tuple[Target, ...]:
    """The wires take the most of the time here: they are what strangers reach first."""

    def wire(name: str) -> Target:
        return Target(
            f"wire-{name}", lambda: signed.seeds(name), _exchange(name), signed.mutate(name), megabytes=32, share=1.5
        )

    def bodies() -> Sequence[bytes]:
        return [signed.read(raw).body for raw in signed.seeds("dendrite")]

    return (
        *map(wire, WIRES),
        Target("encodings", _texts, _encodings, havoc, share=0.5, megabytes=32),
        Target("json-object", bodies, _object, mixed(json_text), share=0.5, megabytes=64),
        Target("answers", _answers, _answer, mixed(json_text), share=0.5, megabytes=32),
    )
