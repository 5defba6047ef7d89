"""Recorded requests of real peers (``tests/conformance/record.py``): each must be understood, to the byte."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from neurons import keys, wire
from neurons.wire.base import Refusal, Request, Wire
from neurons.wire.replay import ReplayGuard
from neurons.wire.routes import wire_name

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "wire"
VECTORS: dict[tuple[str, str], dict[str, Any]] = {
    (file.stem, name): vector
    for file in sorted(GOLDEN.glob("*.json"))
    for name, vector in json.loads(file.read_text(encoding="utf-8")).items()
}
SIGNATURES = {
    "dendrite": "bt_header_dendrite_signature",
    "btauth": "x-bittensor-signature",
    "epistula": "epistula-request-signature",
}


def request_of(vector: dict[str, Any], late_s: float = 1.0) -> Request:
    return Request(
        vector["method"],
        vector["target"],
        vector["headers"],
        base64.b64decode(vector["body"]),
        vector["nonce_ns"] + int(late_s * 1e9),
    )


def wire_of(name: str, vector: dict[str, Any]) -> Wire:
    return wire.build(vector["receiver"], replay=ReplayGuard())[name]


def test_all_three_wires_are_recorded() -> None:
    assert {name for name, _ in VECTORS} == {"dendrite", "btauth", "epistula"}
    assert len(VECTORS) >= 16


@pytest.mark.parametrize(("name", "case"), VECTORS)
def test_recorded_request_is_verified(name: str, case: str) -> None:
    vector = VECTORS[name, case]
    request, dialect = request_of(vector), wire_of(name, vector)
    assert wire_name(request.headers) == name
    caller = dialect.verify(request)
    assert (caller.hotkey, caller.wire, caller.nonce_ns) == (vector["caller"], name, vector["nonce_ns"])
    with pytest.raises(Refusal, match="replayed_nonce"):
        dialect.verify(request)


@pytest.mark.parametrize(("name", "case"), VECTORS)
def test_signed_text_is_the_documented_one(name: str, case: str) -> None:
    vector = VECTORS[name, case]
    signature = bytes.fromhex(vector["headers"][SIGNATURES[name]].removeprefix("0x"))
    assert keys.verify(vector["caller"], vector["message"].encode(), signature)


@pytest.mark.parametrize(("name", "case"), [key for key, vector in VECTORS.items() if vector["modality"]])
def test_recorded_body_is_decoded(name: str, case: str) -> None:
    vector = VECTORS[name, case]
    challenge = wire_of(name, vector).decode(request_of(vector))
    assert hashlib.sha256(challenge.payload).hexdigest() == vector["payload_sha256"]
    assert (challenge.modality, challenge.answer) == (vector["modality"], vector["answer"])
    assert challenge.testnet_label == vector.get("label")


@pytest.mark.parametrize(("name", "case"), VECTORS)
@pytest.mark.parametrize(("late_s", "reason"), [(60.0, "stale_nonce"), (-60.0, "future_nonce")])
def test_recorded_request_is_refused_at_another_time(name: str, case: str, late_s: float, reason: str) -> None:
    vector = VECTORS[name, case]
    with pytest.raises(Refusal, match=reason):
        wire_of(name, vector).verify(request_of(vector, late_s))


@pytest.mark.parametrize(("name", "case"), VECTORS)
def test_every_bit_of_the_signature_counts(name: str, case: str) -> None:
    vector = VECTORS[name, case]
    header = SIGNATURES[name]
    signature = bytearray.fromhex(vector["headers"][header].removeprefix("0x"))
    dialect = wire_of(name, vector)
    for bit in range(0, 512, 37):
        flipped = bytearray(signature)
        flipped[bit // 8] ^= 1 << bit % 8
        request = request_of(vector)
        broken = dataclasses.replace(request, headers={**request.headers, header: "0x" + flipped.hex()})
        with pytest.raises(Refusal, match="bad_signature"):
            dialect.verify(broken)
