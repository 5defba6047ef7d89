from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
import orjson
import pytest
from bittensor.sp_core import ss58_encode
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.types import Prediction
from neurons import keys
from neurons.wire.base import Refusal, Request, Response
from neurons.wire.client import read_answer, read_mask
from neurons.wire.epistula import FUTURE_S, WINDOW_S, EpistulaWire
from tests.neurons.wire.wirekit import IMAGE, NOW, SECOND, UUID, alice, altered, bob, make, refused, signed

PREDICTION = Prediction((0.125, 0.75, 0.125))
MILLISECOND = 1_000_000


def resigned(request: Request, **headers: str) -> Request:
    """Alice signs the formula over what these headers say."""
    h = {**request.headers, **headers}
    digest = hashlib.sha256(request.body).hexdigest()
    text = f"{digest}.{h['epistula-uuid']}.{h['epistula-timestamp']}.{h['epistula-signed-for']}"
    return altered(request, **headers, **{"epistula-request-signature": "0x" + alice().sign(text.encode()).hex()})


def test_honest_request_names_its_caller() -> None:
    caller = make(EpistulaWire).verify(signed("epistula"))
    assert (caller.hotkey, caller.wire) == (alice().ss58_address, "epistula")
    assert (caller.nonce_ns, caller.timeout_s) == (NOW, None)


@pytest.mark.parametrize("version", [None, "", "1", "3", "2.0", " 2"])
def test_unknown_version_is_refused(version: str | None) -> None:
    request = altered(signed("epistula"), **{"epistula-version": version})
    assert refused(make(EpistulaWire).verify, request) == (400, "unknown_version")


@pytest.mark.parametrize("field", ["timestamp", "uuid", "signed-by", "signed-for", "request-signature"])
@pytest.mark.parametrize("value", ["", " ", "\x00", "é", "1.5", "-1", "0x", "x" * 5000, "a.b", "٣", "\ud800"])
def test_malformed_header_is_refused(field: str, value: str) -> None:
    dialect = make(EpistulaWire)
    assert refused(dialect.verify, altered(signed("epistula"), **{f"epistula-{field}": value}))[0] == 400
    assert refused(dialect.verify, altered(signed("epistula"), **{f"epistula-{field}": None})) == (
        400,
        "missing_header",
    )


def test_wrong_receiver_is_refused() -> None:
    other = keys.from_uri("//Charlie").ss58_address
    request = resigned(signed("epistula"), **{"epistula-signed-for": other})
    assert refused(make(EpistulaWire).verify, request) == (400, "wrong_receiver")
    claimed = altered(request, **{"epistula-signed-for": bob().ss58_address})
    assert refused(make(EpistulaWire).verify, claimed) == (400, "bad_signature")


@pytest.mark.parametrize(
    "header", [{"epistula-uuid": UUID.replace("1", "2")}, {"epistula-timestamp": str(NOW // MILLISECOND - 1)}]
)
def test_every_signed_part_is_covered(header: dict[str, str]) -> None:
    assert refused(make(EpistulaWire).verify, altered(signed("epistula"), **header)) == (400, "bad_signature")


def test_altered_body_is_refused() -> None:
    request = dataclasses.replace(signed("epistula"), body=IMAGE + b"\0")
    assert refused(make(EpistulaWire).verify, request) == (400, "bad_signature")


def test_signature_of_another_key_is_refused() -> None:
    request = altered(signed("epistula"), **{"epistula-signed-by": keys.from_uri("//Eve").ss58_address})
    assert refused(make(EpistulaWire).verify, request) == (400, "bad_signature")


@pytest.mark.parametrize("spelling", [0, 2, 41, 43])
def test_another_spelling_of_the_sender_is_no_second_caller(spelling: int) -> None:
    """The sender is not in the signed text, so a captured request could be sent again under another spelling."""
    dialect = make(EpistulaWire)
    request = signed("epistula")
    dialect.verify(request)
    respelled = altered(request, **{"epistula-signed-by": ss58_encode(alice().public_key, spelling)})
    assert refused(dialect.verify, respelled) == (400, "bad_signature")


@pytest.mark.parametrize(
    ("shift_s", "reason"),
    [(-WINDOW_S - 0.001, "stale_nonce"), (FUTURE_S + 0.001, "future_nonce"), (-86_400.0, "stale_nonce")],
)
def test_timestamp_outside_the_window_is_refused(shift_s: float, reason: str) -> None:
    request = signed("epistula", now_ns=NOW + int(shift_s * SECOND))
    assert refused(make(EpistulaWire).verify, request) == (400, reason)


@pytest.mark.parametrize("shift_s", [-WINDOW_S, 0.0, FUTURE_S])
def test_timestamp_inside_the_window_is_fresh(shift_s: float) -> None:
    make(EpistulaWire).verify(signed("epistula", now_ns=NOW + int(shift_s * SECOND)))


def test_replay_is_refused() -> None:
    dialect = make(EpistulaWire)
    dialect.verify(signed("epistula"))
    assert refused(dialect.verify, signed("epistula")) == (400, "replayed_nonce")
    dialect.verify(resigned(signed("epistula"), **{"epistula-uuid": "another"}))


@pytest.mark.parametrize(
    ("method", "target", "expected"),
    [
        ("GET", "/detect_image", (405, "method")),
        ("POST", "/miner_info", (405, "method")),
        ("GET", "/segment_image", (405, "method")),
        ("POST", "/ImageSynapse", (404, "unknown_route")),
        ("POST", "/docs", (404, "unknown_route")),
    ],
)
def test_only_known_routes(method: str, target: str, expected: tuple[int, str]) -> None:
    request = dataclasses.replace(signed("epistula"), method=method, target=target)
    assert refused(make(EpistulaWire).verify, request) == expected


@pytest.mark.parametrize(
    ("target", "content", "encoding"),
    [
        ("/detect_image", "image/jpeg", "image"),
        ("/detect_image", "IMAGE/PNG; x=1", "image"),
        ("/detect_image", "application/octet-stream", "image"),
        ("/detect_image", None, "image"),
        ("/detect_video", "video/mp4", "container"),
        ("/detect_video", "video/webm", "container"),
        ("/detect_video", "image/gif", "container"),
        ("/detect_video", None, "container"),
        ("/segment_image", "image/jpeg", "image"),
    ],
)
def test_body_is_what_the_path_says(target: str, content: str | None, encoding: str) -> None:
    request = dataclasses.replace(altered(signed("epistula"), **{"content-type": content}), target=target)
    challenge = make(EpistulaWire).decode(request)
    assert (challenge.payload, challenge.encoding, challenge.answer) == (IMAGE, encoding, "vector")
    assert challenge.wants == ("mask" if target == "/segment_image" else "prediction")


@pytest.mark.parametrize(
    ("target", "content"),
    [
        ("/detect_image", "video/mp4"),
        ("/detect_image", "text/html"),
        ("/detect_video", "image/jpeg"),
        ("/segment_image", "video/mp4"),
    ],
)
def test_other_content_is_refused(target: str, content: str) -> None:
    request = dataclasses.replace(altered(signed("epistula"), **{"content-type": content}), target=target)
    assert refused(make(EpistulaWire).decode, request) == (415, "content_type")


def test_empty_body_is_refused() -> None:
    assert refused(make(EpistulaWire).decode, signed("epistula", payload=b"")) == (422, "empty")


@pytest.mark.parametrize(("sent", "label"), [("0", 0), ("2", 2), ("3", None), ("x", None), (None, None)])
def test_testnet_label(sent: str | None, label: int | None) -> None:
    request = altered(signed("epistula"), **{"x-testnet-label": sent})
    assert make(EpistulaWire).decode(request).testnet_label == label


def test_answer_is_read_by_a_validator() -> None:
    dialect = make(EpistulaWire)
    request = signed("epistula")
    response = dialect.encode(PREDICTION, dialect.decode(request), request, 0.01)
    assert orjson.loads(response.body) == {"status": "success", "prediction": [0.125, 0.75, 0.125]}
    assert read_answer("epistula", response.status, response.headers, response.body) == (0.125, 0.75, 0.125)


@settings(max_examples=300, deadline=None)
@given(st.floats(0, 1), st.floats(0, 1))
def test_vector_always_sums_to_one(p_fake: float, share: float) -> None:
    dialect = make(EpistulaWire)
    request = Request("POST", "/detect_image", {}, IMAGE, NOW)
    response = dialect.encode(Prediction(Prediction.split(p_fake, share)), dialect.decode(request), request, 0.0)
    vector = orjson.loads(response.body)["prediction"]
    assert abs(sum(vector) - 1.0) < 1e-9
    assert read_answer("epistula", 200, {}, response.body) == tuple(vector)


def masked(heat_map: np.ndarray | None, p_fake: float = 0.75) -> Response:
    dialect = make(EpistulaWire)
    request = dataclasses.replace(signed("epistula"), target="/segment_image")
    prediction = Prediction(Prediction.split(p_fake), heat_map=heat_map)
    return dialect.encode(prediction, dialect.decode(request), request, 0.01)


def test_a_mask_is_raw_float16_with_its_shape() -> None:
    heat = np.linspace(0, 1, 6, dtype=np.float32).reshape(2, 3)
    response = masked(heat)
    assert response.headers == {
        "content-type": "application/octet-stream",
        "x-mask-shape": "2,3",
        "x-mask-dtype": "float16",
    }
    assert np.array_equal(np.frombuffer(response.body, np.float16).reshape(2, 3), heat.astype(np.float16))
    read = read_mask(response.status, response.headers, response.body)
    assert read is not None
    assert np.allclose(read, heat, atol=1e-3)


def test_without_a_map_the_mask_is_p_fake_everywhere() -> None:
    response = masked(None, 0.625)
    read = read_mask(response.status, response.headers, response.body)
    assert read is not None
    assert read.shape == (256, 256)
    assert np.all(read == 0.625)


def test_refusal_is_json() -> None:
    response = make(EpistulaWire).refuse(Refusal(400, "stale_nonce", "too old"), signed("epistula"))
    assert response.status == 400
    assert orjson.loads(response.body) == {"status": "error", "reason": "stale_nonce", "detail": "too old"}
