"""Whatever a stranger puts into a request, a wire answers with its caller or with a refusal, and with nothing else."""

from __future__ import annotations

import base64
import dataclasses
import functools
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.types import Prediction
from neurons import wire
from neurons.wire.base import Refusal, Request
from neurons.wire.client import WIRES
from neurons.wire.dendrite import DendriteWire
from neurons.wire.replay import ReplayGuard
from tests.neurons.wire.wirekit import alice, bob, make, signed

PREDICTION = Prediction((0.125, 0.75, 0.125))

UNSIGNED = {"timeout", "name", "content-type", "x-media-type", "bt_header_dendrite_version"}

once = functools.cache(signed)


def verify(name: str, request: Request) -> str:
    return wire.build(bob().ss58_address, replay=ReplayGuard())[name].verify(request).hotkey


@pytest.mark.parametrize("name", WIRES)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_value_of_any_header(name: str, data: st.DataObject) -> None:
    request = once(name)
    header = data.draw(st.sampled_from(sorted(request.headers)))
    good = request.headers[header]
    near = st.integers(0, len(good)).map(lambda i: good[:i] + good[i + 1 :])
    value = data.draw(st.text(max_size=200) | st.from_regex(r"[0-9]{1,30}|0x[0-9a-f]{100,140}") | near)
    changed = dataclasses.replace(request, headers={**request.headers, header: value})
    if header in UNSIGNED or value == good:
        assert verify(name, changed) == alice().ss58_address
    else:
        with pytest.raises(Refusal) as caught:
            verify(name, changed)
        assert caught.value.status in (400, 401)


@pytest.mark.parametrize("name", WIRES)
@settings(max_examples=100, deadline=None)
@given(target=st.text(max_size=30).map(lambda t: "/" + t), method=st.sampled_from(["GET", "POST", "HEAD", "", "é"]))
def test_any_target(name: str, target: str, method: str) -> None:
    with pytest.raises(Refusal) as caught:
        verify(name, dataclasses.replace(once(name), target=target, method=method))
    assert caught.value.status in (404, 405)


@pytest.mark.parametrize("name", WIRES)
def test_of_many_threads_with_one_request_one_wins(name: str) -> None:
    dialect = wire.build(bob().ss58_address, replay=ReplayGuard())[name]

    def attempt(_: int) -> bool:
        try:
            dialect.verify(once(name))
        except Refusal as refusal:
            if refusal.reason != "replayed_nonce":
                raise
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(attempt, range(64))) == 1


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def _is_base64(text: Any) -> bool:
    """What the standard library reads and would write back at the same length."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (TypeError, ValueError):
        return False
    return bool(raw) and len(base64.b64encode(raw)) == len(text)


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(st.sampled_from(["image", "prediction", "testnet_label", "dendrite", "x"]), _JSON)
    | st.binary().map(lambda raw: {"image": base64.b64encode(raw).decode(), "prediction": -1})
)
def test_any_json_is_decoded_or_refused(body: dict[str, Any]) -> None:
    dialect = make(DendriteWire)
    request = dataclasses.replace(once("dendrite"), body=orjson.dumps(body))
    media, default = body.get("image"), body.get("prediction")
    if _is_base64(media) and not isinstance(default, str | bool | dict):
        assert isinstance(media, str)
        challenge = dialect.decode(request)
        assert challenge.payload == base64.b64decode(media)
        assert orjson.loads(dialect.encode(PREDICTION, challenge, request, 0.0).body)["axon"]["status_code"] == 200
    else:
        with pytest.raises(Refusal, match="422"):
            dialect.decode(request)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_refused(body: bytes) -> None:
    with pytest.raises(Refusal):
        make(DendriteWire).decode(dataclasses.replace(once("dendrite"), body=body))


def test_names_of_the_package() -> None:
    assert sorted(wire.__all__) == ["build", "select"]
    assert list(wire.build(bob().ss58_address)) == list(WIRES)
