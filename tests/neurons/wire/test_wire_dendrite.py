from __future__ import annotations

import base64
import dataclasses
import hashlib
import math
import timeit
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.types import Prediction
from neurons import keys
from neurons.wire.base import Refusal, Request
from neurons.wire.client import read_answer
from neurons.wire.dendrite import EMPTY_BODY_HASH, FUTURE_S, WINDOW_S, DendriteWire
from tests.neurons.wire.wirekit import IMAGE, NOW, SECOND, UUID, alice, altered, bob, make, refused, signed

PREDICTION = Prediction((0.125, 0.75, 0.125))


def with_body(request: Request, **fields: Any) -> Request:
    return dataclasses.replace(request, body=orjson.dumps({**orjson.loads(request.body), **fields}))


def resigned(request: Request, **headers: str) -> Request:
    """Alice signs what these headers say, whatever they say."""
    h = {**request.headers, **headers}
    text = (
        f"{h['bt_header_dendrite_nonce']}.{h['bt_header_dendrite_hotkey']}.{h['bt_header_axon_hotkey']}"
        f".{h['bt_header_dendrite_uuid']}.{h['computed_body_hash']}"
    )
    return altered(request, **headers, bt_header_dendrite_signature="0x" + alice().sign(text.encode()).hex())


def test_honest_request_names_its_caller() -> None:
    caller = make(DendriteWire).verify(signed("dendrite"))
    assert (caller.hotkey, caller.wire) == (alice().ss58_address, "dendrite")
    assert (caller.nonce_ns, caller.timeout_s) == (NOW, 9.0)


def test_identity_never_comes_from_the_body() -> None:
    """Defect 3 of the 10.5 Axon."""
    eve = keys.from_uri("//Eve").ss58_address
    request = with_body(signed("dendrite"), dendrite={"hotkey": eve}, axon={"hotkey": eve})
    dialect = make(DendriteWire)
    assert dialect.verify(request).hotkey == alice().ss58_address
    response = dialect.encode(PREDICTION, dialect.decode(request), request, 0.01)
    assert eve.encode() not in response.body


@pytest.mark.parametrize(
    "header",
    [
        "bt_header_dendrite_nonce",
        "bt_header_dendrite_uuid",
        "bt_header_dendrite_hotkey",
        "bt_header_dendrite_signature",
        "bt_header_axon_hotkey",
        "computed_body_hash",
    ],
)
@pytest.mark.parametrize("value", ["", " ", "\x00", "é", "1.5", "-1", "0x", "x" * 5000, "a\r\nset-cookie: a=b", "٣"])
def test_malformed_header_is_refused(header: str, value: str) -> None:
    """Defect 1, too: there is no way around the signature."""
    dialect = make(DendriteWire)
    assert refused(dialect.verify, altered(signed("dendrite"), **{header: value}))[0] == 401
    assert refused(dialect.verify, altered(signed("dendrite"), **{header: None})) == (401, "missing_header")


def test_wrong_receiver_is_refused() -> None:
    dialect = make(DendriteWire)
    other = keys.from_uri("//Charlie").ss58_address
    honest = signed("dendrite")
    assert refused(dialect.verify, resigned(honest, bt_header_axon_hotkey=other)) == (401, "wrong_receiver")
    for_other = altered(resigned(honest, bt_header_axon_hotkey=other), bt_header_axon_hotkey=bob().ss58_address)
    assert refused(dialect.verify, for_other) == (401, "bad_signature")


@pytest.mark.parametrize("header", ["bt_header_dendrite_nonce", "bt_header_dendrite_uuid", "computed_body_hash"])
def test_every_signed_part_is_covered(header: str) -> None:
    other = {
        "bt_header_dendrite_nonce": str(NOW - 1),
        "bt_header_dendrite_uuid": UUID.replace("1", "2"),
        "computed_body_hash": hashlib.sha3_256(b"x").hexdigest(),
    }
    request = altered(signed("dendrite"), **{header: other[header]})
    assert refused(make(DendriteWire).verify, request) == (401, "bad_signature")


def test_signature_of_another_key_is_refused() -> None:
    request = altered(signed("dendrite"), bt_header_dendrite_hotkey=keys.from_uri("//Eve").ss58_address)
    assert refused(make(DendriteWire).verify, request) == (401, "bad_signature")


def test_one_signature_cannot_be_read_as_two_requests() -> None:
    """The signed text joins its parts by dots; a dot moved from one part to the next must not make a new nonce key."""
    request = resigned(signed("dendrite"), bt_header_dendrite_uuid="a.b")
    assert refused(make(DendriteWire).verify, request) == (401, "malformed_header")
    moved = altered(request, bt_header_dendrite_uuid="a", computed_body_hash="b." + EMPTY_BODY_HASH)
    assert refused(make(DendriteWire).verify, moved) == (401, "malformed_header")


def test_address_in_another_spelling_is_refused() -> None:
    from bittensor.sp_core import ss58_encode  # noqa: PLC0415

    polkadot = ss58_encode(alice().public_key, 0)
    request = resigned(signed("dendrite"), bt_header_dendrite_hotkey=polkadot)
    assert refused(make(DendriteWire).verify, request) == (401, "bad_signature")


@pytest.mark.parametrize(
    ("shift_s", "reason"),
    [
        (-WINDOW_S - 0.001, "stale_nonce"),
        (-86_400.0, "stale_nonce"),
        (FUTURE_S + 0.001, "future_nonce"),
        (365 * 86_400.0, "future_nonce"),
    ],
)
@pytest.mark.parametrize(
    "unsigned",
    [
        {},
        {"timeout": "100000.0"},
        {"timeout": "inf"},
        {"bt_header_dendrite_version": "7001000"},
        {"bt_header_dendrite_version": "-1"},
    ],
)
def test_nothing_unsigned_widens_freshness(shift_s: float, reason: str, unsigned: dict[str, str]) -> None:
    """Defect 4."""
    request = altered(signed("dendrite", now_ns=NOW + int(shift_s * SECOND)), **unsigned)
    assert refused(make(DendriteWire).verify, request) == (401, reason)


@pytest.mark.parametrize("shift_s", [-WINDOW_S, -0.5, 0.0, FUTURE_S])
def test_nonce_inside_the_window_is_fresh(shift_s: float) -> None:
    make(DendriteWire).verify(signed("dendrite", now_ns=NOW + int(shift_s * SECOND)))


def test_nonce_from_before_the_start_is_refused() -> None:
    dialect = make(DendriteWire, not_before_ns=NOW - SECOND)
    assert refused(dialect.verify, signed("dendrite", now_ns=NOW - 2 * SECOND)) == (401, "stale_nonce")
    dialect.verify(signed("dendrite", now_ns=NOW - SECOND))


def test_refusal_says_by_how_much_the_clocks_differ() -> None:
    with pytest.raises(Refusal, match=r"15\.00 s old, 3\.00 s too much"):
        make(DendriteWire).verify(signed("dendrite", now_ns=NOW - 15 * SECOND))


def test_replay_is_refused_and_overtaking_is_not() -> None:
    """Defect 7: honest requests arrive in any order."""
    dialect = make(DendriteWire)
    requests = [signed("dendrite", now_ns=NOW - i * 1_000_000) for i in range(64)]
    for request in requests[::2] + requests[1::2]:
        dialect.verify(request)
    for request in requests:
        assert refused(dialect.verify, request) == (401, "replayed_nonce")


def test_refused_request_does_not_use_up_its_nonce() -> None:
    dialect = make(DendriteWire)
    honest = signed("dendrite")
    refused(dialect.verify, altered(honest, bt_header_dendrite_signature="0x" + "00" * 64))
    dialect.verify(honest)


@pytest.mark.parametrize(
    ("method", "target", "expected"),
    [
        ("GET", "/ImageSynapse", (405, "method")),
        ("PUT", "/VideoSynapse", (405, "method")),
        ("POST", "/PoemSynapse", (404, "unknown_route")),
        ("POST", "/imagesynapse", (404, "unknown_route")),
        ("POST", "/ImageSynapse/", (404, "unknown_route")),
        ("POST", "/detect_image", (404, "unknown_route")),
        ("GET", "/", (404, "unknown_route")),
    ],
)
def test_only_post_to_a_known_synapse(method: str, target: str, expected: tuple[int, str]) -> None:
    """Defect 6: a 404 tells nothing of the routes."""
    dialect = make(DendriteWire)
    request = dataclasses.replace(signed("dendrite"), method=method, target=target)
    assert refused(dialect.verify, request) == expected


@pytest.mark.parametrize("timeout", ["nan", "inf", "-1", "0", "9s", "1e9", ""])
def test_senseless_timeout_is_no_hint(timeout: str) -> None:
    assert make(DendriteWire).verify(altered(signed("dendrite"), timeout=timeout)).timeout_s is None


def hashed(request: Request, *fields: str) -> Request:
    body = orjson.loads(request.body)
    parts = "".join(hashlib.sha3_256(str(body[field]).encode()).hexdigest() for field in fields)
    return resigned(request, computed_body_hash=hashlib.sha3_256(parts.encode()).hexdigest())


@pytest.mark.parametrize(
    "fields", [("image",), ("image", "testnet_label"), ("testnet_label", "image"), ("testnet_label",)]
)
def test_signed_body_is_compared(fields: tuple[str, ...]) -> None:
    """Defect 2, as far as the validator lets us."""
    dialect = make(DendriteWire)
    request = hashed(signed("dendrite"), *fields)
    dialect.verify(request)
    assert dialect.decode(request).payload == IMAGE
    changes = {"image": base64.b64encode(b"another").decode(), "testnet_label": 1}
    for field in fields:
        assert refused(dialect.decode, with_body(request, **{field: changes[field]})) == (401, "altered_body")


def test_body_hash_can_be_required() -> None:
    dialect = make(DendriteWire, require_body_hash=True)
    assert refused(dialect.verify, signed("dendrite")) == (401, "unsigned_body")
    covered = hashed(signed("dendrite"), "image")
    dialect.verify(covered)
    assert dialect.decode(covered).payload == IMAGE
    assert refused(dialect.decode, hashed(signed("dendrite"), "testnet_label")) == (401, "altered_body")


@pytest.mark.parametrize(
    ("default", "form"),
    [
        (-1.0, "float"),
        (-1, "float"),
        (0.5, "float"),
        (None, "float"),
        ([-1.0, -1.0, -1.0], "vector"),
        ([], "vector"),
    ],
)
def test_answer_takes_the_form_of_the_default(default: Any, form: str) -> None:
    assert make(DendriteWire).decode(with_body(signed("dendrite"), prediction=default)).answer == form


def test_missing_default_is_answered_with_a_float() -> None:
    body = orjson.loads(signed("dendrite").body)
    del body["prediction"]
    request = dataclasses.replace(signed("dendrite"), body=orjson.dumps(body))
    assert make(DendriteWire).decode(request).answer == "float"


@pytest.mark.parametrize(("sent", "label"), [(-1, None), (0, 0), (1, 1), (2, 2), (3, None), (True, None), ("1", None)])
def test_testnet_label(sent: Any, label: int | None) -> None:
    assert make(DendriteWire).decode(with_body(signed("dendrite"), testnet_label=sent)).testnet_label == label


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", (422, "not_json")),
        (b"{", (422, "not_json")),
        (b"[]", (422, "not_json")),
        (b"\xff\xfe", (422, "not_json")),
        (b'{"image": NaN}', (422, "not_json")),
        (b'{"image": 1}', (422, "encoding")),
        (b'{"image": null}', (422, "encoding")),
        (b"{}", (422, "empty")),
        (b'{"image": ""}', (422, "empty")),
        (b'{"image": "A"}', (422, "encoding")),
        (b'{"image": "QUJD\\n"}', (422, "encoding")),
        (b'{"image": "QUJD QUJD"}', (422, "encoding")),
        ('{"image": "QUJDé"}'.encode(), (422, "encoding")),
        (b'{"image": "QUJD", "prediction": "high"}', (422, "prediction")),
        (b'{"image": "QUJD", "prediction": true}', (422, "prediction")),
        (b'{"a":' * 50 + b"1" + b"}" * 50, (422, "too_complex")),
        (b"[" * 100_000, (422, "too_complex")),
        (b'{"a":[' + b"[]," * 100_000 + b"[]]}", (422, "too_complex")),
    ],
)
def test_broken_body_is_refused(body: bytes, expected: tuple[int, str]) -> None:
    request = dataclasses.replace(signed("dendrite"), body=body)
    assert refused(make(DendriteWire).decode, request) == expected


def test_zlib_bomb_is_refused_without_inflating_it() -> None:
    dialect = make(DendriteWire, max_inflated=1_000_000)
    assert refused(dialect.decode, signed("dendrite", modality="video", payload=bytes(1_000_001))) == (413, "too_large")
    assert len(dialect.decode(signed("dendrite", modality="video", payload=bytes(1_000_000))).payload) == 1_000_000


def test_video_is_unpacked() -> None:
    challenge = make(DendriteWire).decode(signed("dendrite", modality="video", payload=IMAGE * 3, answer="vector"))
    assert (challenge.payload, challenge.encoding, challenge.answer) == (IMAGE * 3, "jpeg-frames", "vector")


@pytest.mark.parametrize("answer", ["float", "vector"])
def test_answer_is_read_by_a_validator_and_leaves_the_media_out(answer: Any) -> None:
    dialect = make(DendriteWire)
    request = signed("dendrite", answer=answer, payload=bytes(100_000))
    response = dialect.encode(PREDICTION, dialect.decode(request), request, 0.0123)
    read = read_answer("dendrite", response.status, response.headers, response.body)
    assert read == (0.875 if answer == "float" else (0.125, 0.75, 0.125))
    body = orjson.loads(response.body)
    assert body["axon"]["status_code"] == 200
    assert body["dendrite"]["uuid"] == UUID
    assert body["testnet_label"] == -1
    assert response.headers["bt_header_axon_process_time"] == "0.0123"
    assert len(response.body) < 1000


def test_field_without_a_default_is_echoed_as_its_empty_value() -> None:
    hints = {
        "bt_header_input_obj_image": "IiI=",
        "bt_header_input_obj_other": "!",
        "bt_header_input_obj_frames": "W10=",
    }
    request = altered(with_body(signed("dendrite"), frames=[1, 2], other=[3], note="x" * 1000), **hints)
    echo = make(DendriteWire).decode(request).echo
    assert (echo["image"], echo["frames"]) == ("", [])
    assert not {"note", "other"} & set(echo)


def test_response_headers_hold_nothing_unchecked() -> None:
    poison = "1\r\nset-cookie: a=b"
    names = ["bt_header_axon_ip", "bt_header_axon_port", "bt_header_dendrite_version", "bt_header_dendrite_ip"]
    request = altered(
        signed("dendrite"), name=poison, timeout=poison, bt_header_dendrite_uuid=poison, **dict.fromkeys(names, poison)
    )
    dialect = make(DendriteWire)
    response = dialect.encode(PREDICTION, dialect.decode(request), request, 0.0)
    assert not any("\n" in value or "\r" in value for value in response.headers.values())
    response = dialect.refuse(Refusal(401, "x", "über\r\nset-cookie: a=b"), request)
    assert all(value.isascii() and value.isprintable() for value in response.headers.values())


def test_refusal_as_a_dendrite_reads_it() -> None:
    response = make(DendriteWire).refuse(Refusal(401, "stale_nonce", "too old"), signed("dendrite"))
    assert response.status == 401
    assert orjson.loads(response.body)["message"] == "too old"
    assert response.headers["bt_header_axon_status_code"] == "401"
    assert response.headers["bt_header_axon_status_message"] == "too old"


def test_nothing_is_signed_for_anybody() -> None:
    """Defect 5: the wire knows its address only; a keypair never gets near it."""
    dialect = make(DendriteWire)
    request = signed("dendrite")
    ours = request.headers["bt_header_dendrite_signature"].encode()
    for response in (
        dialect.refuse(Refusal(401, "bad_signature", "no"), request),
        dialect.encode(PREDICTION, dialect.decode(request), request, 0.0),
    ):
        assert response.body.replace(ours, b"").count(b"0x") == 0
        assert not [k for k, v in response.headers.items() if v.startswith("0x") and v.encode() != ours]


def test_encoding_is_cheap() -> None:
    dialect = make(DendriteWire)
    request = signed("dendrite", payload=bytes(45_000))
    challenge = dialect.decode(request)
    best = min(timeit.repeat(lambda: dialect.encode(PREDICTION, challenge, request, 0.01), number=50, repeat=5)) / 50
    assert best < 1e-4


@settings(max_examples=200, deadline=None)
@given(st.tuples(st.floats(0, 1), st.floats(0, 1)).map(lambda t: (t[0], (1 - t[0]) * t[1], (1 - t[0]) * (1 - t[1]))))
def test_vector_sums_to_one_after_json(probabilities: tuple[float, float, float]) -> None:
    dialect = make(DendriteWire)
    request = signed("dendrite", answer="vector")
    response = dialect.encode(Prediction(probabilities), dialect.decode(request), request, 0.0)
    vector = orjson.loads(response.body)["prediction"]
    assert abs(sum(vector) - 1) < 1e-9
    assert all(0 <= p <= 1 and math.isclose(p, q, abs_tol=1e-6) for p, q in zip(vector, probabilities, strict=True))
