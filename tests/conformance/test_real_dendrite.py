"""The real Dendrite of bittensor 10.5.0 against our server: what must be answered, and what must be refused."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from neurons import keys
from tests.conformance.serve import PROBABILITIES, Miner

pytestmark = pytest.mark.conformance

PEER = Path(__file__).with_name("peer_dendrite.py")
P_FAKE = 1 - PROBABILITIES[0]
FRAMES_10_MIB = 140

# name -> what the peer does; payload and axons are filled in by the fixture
ANSWERED: dict[str, dict[str, Any]] = {
    "image": {"kind": "image"},
    "image-vector": {"kind": "image-vector"},
    "image-labelled": {"kind": "image", "label": 1},
    "image-hashed": {"kind": "image-hashed"},
    "image-both-hashed": {"kind": "image-both-hashed"},
    "image-required": {"kind": "image-required"},
    "video": {"kind": "video", "repeat": 8},
    "video-vector": {"kind": "video-vector", "repeat": 8},
    "video-hashed": {"kind": "video-hashed", "repeat": 3},
    "video-10-mib": {"kind": "video", "heavy": True, "repeat": FRAMES_10_MIB},
    "in-flight-64": {"kind": "image", "count": 64},
    "fan-out": {"kind": "image", "fan_out": True, "count": 8},
    "fan-out-video": {"kind": "video-vector", "fan_out": True, "repeat": 4},
    "jitter": {"kind": "image", "count": 32, "rounds": 4, "jitter_ms": 60.0},
}
REFUSED: dict[str, tuple[dict[str, Any], int, str]] = {
    "wrong-receiver": ({"kind": "image", "stranger": True}, 401, "another hotkey"),
    "redirected": ({"kind": "image", "action": "redirect"}, 401, "another hotkey"),
    "tampered": ({"kind": "image", "action": "tamper"}, 401, "signature does not hold"),
    "unsigned": ({"kind": "image", "action": "unsigned"}, 401, "bt_header_dendrite_signature is missing"),
    "stale": ({"kind": "image", "action": "stale"}, 401, "old"),
    "stale-raised-timeout": ({"kind": "image", "action": "stale", "timeout": 600.0}, 401, "old"),
    "stale-old-version": ({"kind": "image", "action": "old-version"}, 401, "old"),
    "future": ({"kind": "image", "action": "future"}, 401, "ahead"),
    "future-year": ({"kind": "image", "action": "year"}, 401, "ahead"),
    "altered-hashed": ({"kind": "image-hashed", "action": "alter"}, 401, "not the one that was signed"),
    "altered-both-hashed": ({"kind": "image-both-hashed", "action": "alter"}, 401, "not the one that was signed"),
    "unknown-synapse": ({"kind": "unknown"}, 404, "nothing at this path"),
    "denied": ({"kind": "image", "key": "//Eve"}, 403, "not served"),
}
REPLAYED = {"kind": "image", "action": "replay", "count": 2}


@pytest.fixture(scope="session")
def report(
    peer_python: Path, miners: list[Miner], jpeg: bytes, heavy_jpeg: bytes, tmp_path_factory: pytest.TempPathFactory
) -> Mapping[str, Any]:
    """All cases in one run of the peer: importing it takes longer than everything it does."""

    def job(name: str, case: dict[str, Any]) -> dict[str, Any]:
        axons = [[m.port, m.hotkey] for m in (miners if case.get("fan_out") else miners[:1])]
        if case.get("stranger"):
            axons[0][1] = keys.from_uri("//Ferdie").ss58_address
        return {"name": name, **case, "payload": (heavy_jpeg if case.get("heavy") else jpeg).hex(), "axons": axons}

    cases = {**ANSWERED, **{name: case for name, (case, _, _) in REFUSED.items()}, "replayed": REPLAYED}
    done = subprocess.run(
        [str(peer_python), str(PEER)],
        input=json.dumps([job(name, case) for name, case in cases.items()]),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={"HOME": str(tmp_path_factory.mktemp("peer-home")), "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 0, done.stderr[-4000:]
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.mark.parametrize("name", ANSWERED)
def test_is_answered(report: Mapping[str, Any], name: str) -> None:
    case, answers = ANSWERED[name], report[name]["answers"]
    assert len(answers) == case.get("count", 1) * case.get("rounds", 1) * (3 if case.get("fan_out") else 1)
    failed = [a for a in answers if not a["is_success"]]
    assert not failed, failed[:3]
    for answer in answers:
        assert answer["status"] == 200
        wanted = list(PROBABILITIES) if "vector" in case["kind"] else P_FAKE
        assert answer["prediction"] == pytest.approx(wanted, abs=1e-7)
        if case["kind"] != "image-required":
            assert answer["label"] == case.get("label", -1)


@pytest.mark.parametrize("name", REFUSED)
def test_is_refused(report: Mapping[str, Any], name: str) -> None:
    _, status, message = REFUSED[name]
    (answer,) = report[name]["answers"]
    assert not answer["is_success"]
    assert answer["status"] == status
    assert message in answer["message"]
    assert answer["prediction"] == -1.0
    assert answer["failed_verification"] == (status == 401)


def test_replayed_nonce_is_answered_once(report: Mapping[str, Any]) -> None:
    first, second = sorted(report["replayed"]["answers"], key=lambda a: not a["is_success"])
    assert first["is_success"]
    assert second["status"] == 401
    assert "accepted before" in second["message"]


def test_the_large_video_is_really_large(heavy_jpeg: bytes) -> None:
    assert len(heavy_jpeg) * FRAMES_10_MIB >= 10 * 2**20
