from __future__ import annotations

import base64
import dataclasses
from typing import Any

import orjson
import pytest
from bittensor import http_auth
from bittensor.sp_core import CRYPTO_ED25519, Keypair, ss58_encode

from detectors.types import Prediction
from neurons import keys
from neurons.wire.base import Refusal, Request, Wire
from neurons.wire.btauth import FUTURE_S, WINDOW_S, BtAuthWire
from neurons.wire.client import read_answer
from tests.neurons.wire.wirekit import IMAGE, NOW, SECOND, alice, altered, bob, make, refused, signed

PREDICTION = Prediction((0.125, 0.75, 0.125))
SYNAPSE = orjson.dumps({"image": base64.b64encode(IMAGE).decode(), "prediction": -1.0, "testnet_label": 1})


def sign(
    *,
    method: str = "POST",
    target: str = "/detect_image",
    body: bytes = IMAGE,
    key: Any = None,
    receiver: str | None = "",
    now_ns: int = NOW,
) -> Request:
    headers = http_auth.sign(
        key or alice(),
        method=method,
        path=target,
        body=body,
        receiver_ss58=bob().ss58_address if receiver == "" else receiver,
        nonce_ns=now_ns,
    )
    return Request(method, target, {name.lower(): value for name, value in headers.items()}, body, NOW)


@pytest.mark.parametrize(
    ("method", "target", "body"),
    [
        ("POST", "/detect_image", IMAGE),
        ("POST", "/detect_video?x=1&y=%20", IMAGE),
        ("POST", "/ImageSynapse", SYNAPSE),
        ("GET", "/miner_info", b""),
    ],
)
def test_what_bittensor_signs_is_verified(method: str, target: str, body: bytes) -> None:
    caller = make(BtAuthWire).verify(sign(method=method, target=target, body=body))
    assert (caller.hotkey, caller.wire) == (alice().ss58_address, "btauth")
    assert (caller.nonce_ns, caller.timeout_s) == (NOW, None)


def test_ed25519_hotkey_is_verified_under_its_own_scheme_only() -> None:
    key = Keypair.create_from_uri("//Alice", CRYPTO_ED25519)
    request = sign(key=key)
    assert request.headers["x-bittensor-crypto"] == "ed25519"
    assert make(BtAuthWire).verify(request).hotkey == key.ss58_address
    assert refused(make(BtAuthWire).verify, altered(request, **{"x-bittensor-crypto": None}))[0] == 401


@pytest.mark.parametrize(
    "change",
    [
        {"body": IMAGE + b"\0"},
        {"target": "/detect_video"},
        {"target": "/detect_image?x=1"},
    ],
)
def test_everything_is_covered_by_the_signature(change: dict[str, Any]) -> None:
    request = dataclasses.replace(sign(), **change)
    assert refused(make(BtAuthWire).verify, request) == (401, "bad_signature")


@pytest.mark.parametrize("field", ["version", "hotkey", "receiver", "nonce", "signature"])
@pytest.mark.parametrize("value", [None, "", " ", "\x00", "é", "1.5", "-1", "0x", "x" * 5000, "1_0", "٣", "\ud800"])
def test_malformed_header_is_refused(field: str, value: str | None) -> None:
    assert refused(make(BtAuthWire).verify, altered(sign(), **{f"x-bittensor-{field}": value}))[0] == 401


@pytest.mark.parametrize("scheme", ["", "rsa", "2", "\ud800"])
def test_unknown_scheme_is_refused(scheme: str) -> None:
    request = altered(sign(), **{"x-bittensor-crypto": scheme})
    assert refused(make(BtAuthWire).verify, request) == (401, "malformed_header")


def test_signature_of_another_key_is_refused() -> None:
    request = altered(sign(), **{"x-bittensor-hotkey": keys.from_uri("//Eve").ss58_address})
    assert refused(make(BtAuthWire).verify, request) == (401, "bad_signature")


def test_address_in_another_spelling_is_refused() -> None:
    request = altered(sign(), **{"x-bittensor-hotkey": ss58_encode(alice().public_key, 0)})
    assert refused(make(BtAuthWire).verify, request) == (401, "malformed_header")


@pytest.mark.parametrize("receiver", [None, "//Charlie"])
def test_request_must_be_bound_to_us(receiver: str | None) -> None:
    other = None if receiver is None else keys.from_uri(receiver).ss58_address
    assert refused(make(BtAuthWire).verify, sign(receiver=other)) == (401, "wrong_receiver")
    claimed = altered(sign(receiver=other), **{"x-bittensor-receiver": bob().ss58_address})
    assert refused(make(BtAuthWire).verify, claimed) == (401, "bad_signature")


@pytest.mark.parametrize(
    ("shift_s", "reason"),
    [
        (-WINDOW_S - 0.001, "stale_nonce"),
        (-86_400.0, "stale_nonce"),
        (FUTURE_S + 0.001, "future_nonce"),
        (365 * 86_400.0, "future_nonce"),
    ],
)
def test_nonce_outside_the_window_is_refused(shift_s: float, reason: str) -> None:
    assert refused(make(BtAuthWire).verify, sign(now_ns=NOW + int(shift_s * SECOND))) == (401, reason)


@pytest.mark.parametrize("shift_s", [-WINDOW_S, 0.0, FUTURE_S])
def test_nonce_inside_the_window_is_fresh(shift_s: float) -> None:
    make(BtAuthWire).verify(sign(now_ns=NOW + int(shift_s * SECOND)))


def test_replay_is_refused_and_overtaking_is_not() -> None:
    dialect = make(BtAuthWire)
    requests = [sign(now_ns=NOW - i) for i in range(32)]
    for request in requests:
        dialect.verify(request)
    for request in requests:
        assert refused(dialect.verify, request) == (401, "replayed_nonce")


@pytest.mark.parametrize(
    ("method", "target", "expected"),
    [
        ("GET", "/detect_image", (405, "method")),
        ("POST", "/miner_info", (405, "method")),
        ("POST", "/", (404, "unknown_route")),
        ("POST", "/PoemSynapse", (404, "unknown_route")),
    ],
)
def test_only_known_routes(method: str, target: str, expected: tuple[int, str]) -> None:
    assert refused(make(BtAuthWire).verify, sign(method=method, target=target)) == expected


def answered(dialect: Wire, request: Request) -> Any:
    dialect.verify(request)
    response = dialect.encode(PREDICTION, dialect.decode(request), request, 0.01)
    return read_answer("btauth", response.status, response.headers, response.body)


def test_answers_take_the_form_of_the_path() -> None:
    dialect = make(BtAuthWire)
    assert answered(dialect, sign()) == (0.125, 0.75, 0.125)
    assert answered(dialect, sign(target="/ImageSynapse", body=SYNAPSE, now_ns=NOW + 1)) == 0.875
    assert answered(dialect, signed("btauth", modality="video", now_ns=NOW + 2)) == (0.125, 0.75, 0.125)


def test_synapse_fields_are_echoed_without_the_media() -> None:
    request = sign(target="/ImageSynapse", body=SYNAPSE)
    dialect = make(BtAuthWire)
    body = orjson.loads(dialect.encode(PREDICTION, dialect.decode(request), request, 0.01).body)
    assert body == {"testnet_label": 1, "status": "success", "prediction": 0.875}


def test_refusal_is_json() -> None:
    response = make(BtAuthWire).refuse(Refusal(405, "method", "no"), sign())
    assert (response.status, response.headers["allow"]) == (405, "POST")
    assert orjson.loads(response.body) == {"status": "error", "reason": "method", "message": "no"}
