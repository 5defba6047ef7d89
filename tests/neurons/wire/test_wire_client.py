from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest

from neurons import wire
from neurons.wire.client import WIRES, challenge_request, read_answer, read_mask
from neurons.wire.replay import ReplayGuard
from neurons.wire.routes import miner_info_response, root_response, wire_name
from tests.neurons.wire.wirekit import IMAGE, NOW, UUID, alice, bob

DENDRITE_OK = {"Content-Type": "application/json", "bt_header_axon_status_code": "200"}


@pytest.mark.parametrize("name", WIRES)
@pytest.mark.parametrize("modality", ["image", "video"])
@pytest.mark.parametrize("label", [None, 0, 2])
def test_what_is_sent_is_understood(name: str, modality: Any, label: int | None) -> None:
    request = challenge_request(
        name,
        key=alice(),
        receiver=bob().ss58_address,
        modality=modality,
        payload=IMAGE,
        timeout_s=9,
        uuid=UUID,
        label=label,
        answer="vector",
        now_ns=NOW,
    )
    assert wire_name(request.headers) == name
    dialect = wire.build(bob().ss58_address, replay=ReplayGuard())[name]
    assert dialect.verify(request).hotkey == alice().ss58_address
    challenge = dialect.decode(request)
    assert (challenge.modality, challenge.payload, challenge.answer) == (modality, IMAGE, "vector")
    assert challenge.testnet_label == label


def test_unknown_wire_is_an_error() -> None:
    with pytest.raises(ValueError, match="unknown wire 'smtp'"):
        challenge_request(
            "smtp", key=alice(), receiver="", modality="image", payload=b"", timeout_s=1.0, uuid=UUID, now_ns=NOW
        )


@pytest.mark.parametrize(
    ("prediction", "expected"),
    [
        (0.25, 0.25),
        (0, 0.0),
        (1, 1.0),
        ([0.25, 0.5, 0.25], (0.25, 0.5, 0.25)),
        ([0.25, 0.75], 0.75),
        ([1, 0, 0], (1.0, 0.0, 0.0)),
        (-1.0, None),
        (1.5, None),
        (True, None),
        (None, None),
        ("0.5", None),
        ([], None),
        ([1.0], None),
        ([-1.0, -1.0, -1.0], None),
        ([0.5, 0.5, 0.1], None),
        ([0.25, 0.25, 0.25, 0.25], None),
        ([[0.5, 0.5], 0.5], None),
        ([True, False, False], None),
    ],
)
@pytest.mark.parametrize("name", WIRES)
def test_answers_are_read_as_validators_do(name: str, prediction: Any, expected: Any) -> None:
    assert read_answer(name, 200, DENDRITE_OK, orjson.dumps({"prediction": prediction})) == expected


@pytest.mark.parametrize("body", [b"", b"{", b"[0.5]", b'{"prediction": NaN}', b" " * (2**20 + 1)])
@pytest.mark.parametrize("name", WIRES)
def test_anything_else_is_no_answer(name: str, body: bytes) -> None:
    assert read_answer(name, 200, DENDRITE_OK, body) is None


@pytest.mark.parametrize("status", [201, 401, 500, 503])
def test_other_status_is_no_answer(status: int) -> None:
    assert read_answer("epistula", status, {}, b'{"prediction": 0.5}') is None


@pytest.mark.parametrize(
    ("headers", "axon", "success"),
    [
        (DENDRITE_OK, None, True),
        ({"content-type": "application/json; charset=utf-8"}, {"status_code": 200}, True),
        ({"content-type": "application/json"}, {"status_code": 500}, False),
        ({"content-type": "application/json"}, None, False),
        ({"content-type": "text/plain", "bt_header_axon_status_code": "200"}, None, False),
        ({"content-type": "application/json", "bt_header_axon_status_code": "500"}, {"status_code": 200}, False),
    ],
)
def test_success_on_the_dendrite_wire(headers: dict[str, str], axon: Any, success: bool) -> None:
    answer = read_answer("dendrite", 200, headers, orjson.dumps({"prediction": 0.5, "axon": axon}))
    assert answer == (0.5 if success else None)


def test_a_mask_is_asked_for_by_its_path() -> None:
    request = challenge_request(
        "epistula",
        key=alice(),
        receiver=bob().ss58_address,
        modality="image",
        payload=IMAGE,
        timeout_s=9,
        uuid=UUID,
        now_ns=NOW,
        wants="mask",
    )
    dialect = wire.build(bob().ss58_address, replay=ReplayGuard())["epistula"]
    assert dialect.verify(request).hotkey == alice().ss58_address
    assert dialect.decode(request).wants == "mask"


@pytest.mark.parametrize(("name", "modality"), [("dendrite", "image"), ("btauth", "image"), ("epistula", "video")])
def test_nobody_else_has_masks(name: str, modality: Any) -> None:
    with pytest.raises(ValueError, match="has no masks"):
        challenge_request(
            name,
            key=alice(),
            receiver="",
            modality=modality,
            payload=b"",
            timeout_s=1.0,
            uuid=UUID,
            now_ns=NOW,
            wants="mask",
        )


MASK = np.array([[0.0, 0.5], [1.0, 0.25], [0.125, 0.75]], np.float16)
SAID = {"X-Mask-Shape": "3,2", "X-Mask-Dtype": "float16"}


def test_a_mask_is_read() -> None:
    found = read_mask(200, SAID, MASK.tobytes())
    assert found is not None
    assert found.dtype == np.float32
    assert np.array_equal(found, MASK.astype(np.float32))


@pytest.mark.parametrize(
    ("status", "headers", "mask"),
    [
        (503, {}, MASK),
        (200, {"X-Mask-Shape": "2,2"}, MASK),
        (200, {"X-Mask-Shape": "3"}, MASK),
        (200, {"X-Mask-Shape": "-3,-2"}, MASK),
        (200, {"X-Mask-Shape": "3,2,1"}, MASK),
        (200, {"X-Mask-Shape": "99999999999,2"}, MASK),
        (200, {"X-Mask-Dtype": "float32"}, MASK),
        (200, {}, MASK + np.float16(0.01)),
        (200, {}, MASK - np.float16(0.01)),
        (200, {}, MASK * np.float16("nan")),
        (200, {}, MASK[:2]),
    ],
)
def test_what_is_no_mask_is_no_answer(status: int, headers: dict[str, str], mask: Any) -> None:
    assert read_mask(status, SAID | headers, mask.tobytes()) is None


def test_pages() -> None:
    assert orjson.loads(root_response().body) == {"status": "ok"}
    info = orjson.loads(miner_info_response("5F", 7).body)
    assert info == {"miner_type": "DETECTOR", "uid": 7, "hotkey": "5F"}


def test_of_several_versions_the_first_decides() -> None:
    assert wire_name({"x-bittensor-version": "1", "epistula-version": "2"}) == "btauth"
    assert wire_name({"epistula-version": "9"}) == "epistula"
    assert wire_name({}) == "dendrite"
    assert wire.select({}, {}) is None
