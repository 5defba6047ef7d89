"""The watch notices what it is there for, or a table without findings would prove nothing."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from tests.fuzz import engine, mutate, mutate_media, seeds_media, signed
from tests.fuzz.blackbox import BlackBox
from tests.fuzz.engine import Fuzzer, judged
from tests.fuzz.misbehaving import targets
from tests.fuzz.supervise import campaign, markdown, save

TARGETS = {target.name: target for target in targets()}


@pytest.mark.parametrize(("name", "kind"), [("raising", "exception"), ("slow", "slow"), ("greedy", "memory")])
def test_one_input(name: str, kind: str) -> None:
    found = judged(TARGETS[name], b"good").finding
    assert found is not None
    assert (found.kind, found.data) == (kind, b"good")


def test_an_endless_loop_is_broken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_STOP_S", 0.2)
    found = judged(TARGETS["endless"], b"x").finding
    assert found is not None
    assert found.kind == "hang"


def test_a_tame_target_is_counted() -> None:
    fuzzer = Fuzzer(TARGETS["tame"], seed=1)
    fuzzer.run(10.0, 200)
    assert fuzzer.inputs == 200
    assert 0 < fuzzer.accepted < 200
    assert fuzzer.refused == {"bad": 200 - fuzzer.accepted}
    assert not fuzzer.findings


def test_the_worker_survives_crashes_and_hangs_and_leaves_their_inputs(tmp_path: Path) -> None:
    shares = dict.fromkeys(("crashing", "stuck", "raising", "tame"), 1.0)
    table = "tests.fuzz.misbehaving:targets"
    found = campaign(shares, seconds=1.2, out=tmp_path, count=50, table=table, hang_s=1.0)
    kinds = {name: {(f.kind, f.data) for f in tally.findings.values()} for name, tally in found.items()}
    assert kinds["crashing"] == {("crash", b"bad")}
    assert {kind for kind, _ in kinds["stuck"]} == {"hang"}
    assert {kind for kind, _ in kinds["raising"]} == {"exception"}
    assert not kinds["tame"]
    assert found["tame"].inputs == 50
    crash = next(iter(found["crashing"].findings.values()))
    assert "SIGSEGV" in crash.detail
    assert "_crashing" in crash.detail
    texts = save(found, tmp_path)
    assert all(text.with_suffix(".bin").exists() for text in texts)
    assert json.loads((tmp_path / "report.json").read_text())["tame"]["inputs"] == 50
    assert "| tame | 50 |" in markdown(found)


def test_the_black_box_outlives_its_writer(tmp_path: Path) -> None:
    writer, other = BlackBox(tmp_path / "box"), BlackBox(tmp_path / "box")
    assert other.last() is None
    writer.note("target", b"input")
    last = other.last()
    assert last is not None
    assert (last.target, last.data) == ("target", b"input")
    writer.clear()
    assert other.last() is None
    writer.close()
    other.close()


def test_a_seed_repeats_a_run() -> None:
    def inputs(seed: int) -> list[bytes]:
        rng = random.Random(seed)
        images = seeds_media.images()
        aware = mutate.mixed(mutate_media.jpeg, mutate_media.png, mutate_media.riff)
        return [aware(rng, rng.choice(images), images) for _ in range(50)]

    assert inputs(1) == inputs(1) != inputs(2)


@pytest.mark.parametrize("wire", ["dendrite", "btauth", "epistula"])
def test_a_request_is_read_back_as_it_was_written(wire: str) -> None:
    for raw in signed.seeds(wire):
        request = signed.read(raw)
        assert signed.write(request) == raw
        assert request.headers[signed.MARK] == signed.proof(wire, request)
