"""The driver over real loopback sockets: timing, failures, determinism, and whom it agrees to ask."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from detectors.errors import ConfigError
from detectors.types import Detector
from neurons import keys
from neurons.challenges import Issued, MediaSet, Stream
from neurons.simulation import Endpoint, Exchange, Plan, Reply, parse_endpoint, request_id, simulate
from neurons.standins import Constant, serve_in_process
from neurons.wire.client import WIRES
from tests.neurons.simkit import HOTKEY, Sleeper, media_set, raw_server

VALIDATOR = keys.from_uri("//Validator")
URL = "http://127.0.0.1:8091"


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> MediaSet:
    return media_set(tmp_path_factory.mktemp("media"))


def run(plan: Plan, challenges: list[Issued]) -> list[Exchange]:
    async def collect() -> list[Exchange]:
        return [exchange async for exchange in simulate(plan, challenges, key=VALIDATOR)]

    return asyncio.run(collect())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{URL}@{HOTKEY}", Endpoint("127.0.0.1:8091", URL, HOTKEY)),
        (f"mine={URL}/@{HOTKEY}#epistula", Endpoint("mine", URL, HOTKEY, "epistula")),
        (f"a=http://localhost:1@{HOTKEY}", Endpoint("a", "http://localhost:1", HOTKEY)),
        (f"six=http://[::1]:8091@{HOTKEY}#btauth", Endpoint("six", "http://[::1]:8091", HOTKEY, "btauth")),
    ],
)
def test_endpoints_are_read(text: str, expected: Endpoint) -> None:
    assert parse_endpoint(text) == expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (URL, "URL@HOTKEY"),
        (f"http://192.0.2.7:8091@{HOTKEY}", "loopback"),
        (f"http://example.com:8091@{HOTKEY}", "loopback"),
        (f"http://0.0.0.0:8091@{HOTKEY}", "loopback"),
        (f"http://127.0.0.1@{HOTKEY}", "must look like"),
        (f"http://127.0.0.1:99999@{HOTKEY}", "must look like"),
        (f"https://127.0.0.1:1@{HOTKEY}", "must look like"),
        (f"http://127.0.0.1:1/ImageSynapse@{HOTKEY}", "must look like"),
        (f"{URL}@not-a-key", "ss58"),
        (f"{URL}@{HOTKEY}#carrier-pigeon", "unknown wire"),
    ],
)
def test_unusable_endpoints_are_refused(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        parse_endpoint(text)


def test_plans_need_miners_with_different_names() -> None:
    one = Endpoint("a", URL, HOTKEY)
    with pytest.raises(ConfigError, match="no miner"):
        Plan((), 0)
    with pytest.raises(ConfigError, match="same name"):
        Plan((one, one), 0)
    with pytest.raises(ConfigError, match="timeout"):
        Plan((one,), 0, timeout_s=0.0)


def test_a_tuple_answer_is_read_as_one_minus_real() -> None:
    assert Reply((0.25, 0.5, 0.25), 0.0).p_fake == 0.75
    assert Reply(0.3, 0.0).p_fake == 0.3
    assert Reply(None, 0.0, "timeout").p_fake == -1.0


def test_request_ids_follow_from_the_seed() -> None:
    dendrite, epistula = Endpoint("a", URL, HOTKEY), Endpoint("a", URL, HOTKEY, "epistula")
    assert request_id(1, 0, dendrite) == request_id(1, 5, dendrite) != request_id(2, 0, dendrite)
    assert len({request_id(1, k, epistula) for k in range(10)}) == 10
    assert request_id(1, 3, epistula) == request_id(1, 3, epistula)


def test_every_wire_carries_the_same_media(media: MediaSet, tmp_path: Path) -> None:
    detectors: dict[str, Detector] = {wire: Sleeper() for wire in WIRES}
    with serve_in_process(detectors, tmp_path) as served:
        endpoints = tuple(Endpoint(e.name, e.url, e.hotkey, e.name) for e in served)
        exchanges = run(Plan(endpoints, 0), list(Stream(media, seed=3, count=8)))
    assert {e.modality for e in exchanges} == {"image", "video"}
    for exchange in exchanges:
        said = [reply.p_fake for reply in exchange.replies.values()]
        assert not any(reply.failure for reply in exchange.replies.values())
        # A container's frames pass through FFmpeg's JPEG decoder, which rounds chroma its own way.
        assert max(said) - min(said) < (0.0001 if exchange.modality == "image" else 0.05)


@pytest.mark.parametrize("in_flight", [1, 4])
def test_same_seed_same_challenges_and_answers(media: MediaSet, tmp_path: Path, in_flight: int) -> None:
    seen = []
    with serve_in_process({"rough": Sleeper()}, tmp_path) as served:
        for width in (1, in_flight):
            exchanges = run(Plan(tuple(served), 5, in_flight=width), list(Stream(media, seed=5, count=8)))
            seen.append([(e.issued.index, e.sha256, e.size, e.replies["rough"].answer) for e in exchanges])
    assert seen[0] == seen[1]
    assert [index for index, *_ in seen[0]] == list(range(8))


@pytest.mark.parametrize("together", [True, False])
def test_a_slow_miner_does_not_distort_another(media: MediaSet, tmp_path: Path, together: bool) -> None:
    detectors: dict[str, Detector] = {"slow": Sleeper(0.5), "fast": Constant("fast", 0.5)}
    with serve_in_process(detectors, tmp_path) as served:
        exchanges = run(Plan(tuple(served), 0, together=together), list(Stream(media, count=4)))
    fast = sorted(e.replies["fast"].seconds for e in exchanges)
    assert min(e.replies["slow"].seconds for e in exchanges) >= 0.5
    assert fast[len(fast) // 2] < 0.3
    assert all(e.replies["fast"].answer == 0.5 for e in exchanges)


def closed_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"http://127.0.0.1:{server.getsockname()[1]}"


def http(status: str, body: bytes, kind: str = "application/json") -> bytes:
    head = f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
    return head.encode() + body


GOOD = b'{"axon": {"status_code": 200}, "prediction": 0.25}'


@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        (http("200 OK", GOOD), ""),
        (http("200 OK", GOOD.replace(b"0.25", b"-1.0")), "no-prediction"),
        (http("200 OK", GOOD.replace(b"0.25", b"NaN")), "no-prediction"),
        (http("200 OK", b"[]"), "no-prediction"),
        (http("200 OK", b"\xff" * 100), "no-prediction"),
        (http("200 OK", b""), "no-prediction"),
        (http("401 Unauthorized", b"{}"), "status-401"),
        (b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:9/\r\ncontent-length: 0\r\n\r\n", "status-302"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9000\r\n\r\n{", "connection"),
        (b"nonsense\r\n\r\n", "connection"),
        (b"", "connection"),
        (None, "timeout"),
    ],
)
def test_what_a_miner_may_do_wrong(media: MediaSet, answer: bytes | None, failure: str) -> None:
    async def once() -> Reply:
        async with raw_server(answer) as url:
            plan = Plan((Endpoint("bad", url, HOTKEY),), 0, timeout_s=0.3)
            async for exchange in simulate(plan, Stream(media, count=1), key=VALIDATOR):
                return exchange.replies["bad"]
        raise AssertionError("no exchange")

    reply = asyncio.run(once())
    assert reply.failure == failure
    assert reply.p_fake == (-1.0 if failure else 0.25)
    assert reply.seconds < 2.0


def test_a_refused_connection_costs_only_that_miner(media: MediaSet, tmp_path: Path) -> None:
    with serve_in_process({"good": Constant("good", 0.5)}, tmp_path) as served:
        gone = Endpoint("gone", closed_port(), HOTKEY)
        exchanges = run(Plan((gone, *served), 0), list(Stream(media, count=2)))
    assert [e.replies["gone"].failure for e in exchanges] == ["connection"] * 2
    assert [e.replies["good"].answer for e in exchanges] == [0.5, 0.5]


def test_requests_for_another_hotkey_are_refused_by_the_miner(media: MediaSet, tmp_path: Path) -> None:
    with serve_in_process({"good": Constant("good", 0.5)}, tmp_path) as served:
        wrong = Endpoint("wrong", served[0].url, HOTKEY)
        (exchange,) = run(Plan((wrong,), 0), list(Stream(media, count=1)))
    assert exchange.replies["wrong"].failure == "status-401"


def test_vector_profiles_are_answered_with_vectors(media: MediaSet, tmp_path: Path) -> None:
    with serve_in_process({"half": Constant("half", 0.5)}, tmp_path) as served:
        (exchange,) = run(Plan(tuple(served), 0, answer="vector"), list(Stream(media, count=1)))
    assert exchange.replies["half"].answer == (0.5, 0.5, 0.0)


def test_stopping_early_leaves_no_request_behind(media: MediaSet) -> None:
    async def first() -> list[str]:
        async with raw_server(None) as url:
            plan = Plan((Endpoint("mute", url, HOTKEY),), 0, timeout_s=0.2, in_flight=3)
            exchanges = simulate(plan, Stream(media, count=6), key=VALIDATOR)
            async for _ in exchanges:
                break
            await exchanges.aclose()
            return [name for task in asyncio.all_tasks() if "exchange" in (name := repr(task.get_coro()))]

    assert asyncio.run(first()) == []


def test_slim_exchanges_hold_no_media(media: MediaSet) -> None:
    challenge = Stream(media, count=1).challenge(0)
    slim = Exchange(challenge, "0" * 64, len(challenge.payload)).slim()
    assert slim.issued.payload == b""
    assert slim.issued.preview.size == 0
    assert slim.size == len(challenge.payload) > 0
