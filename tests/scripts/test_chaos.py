"""Chaos: a few real kills, and proof that a torn file, a forgetful miner and a wrong answer would be noticed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvloop

from neurons import wire
from neurons.pipeline import Judge, TrivialDetector
from scripts.chaos import Chaos, Round, judge, replayed
from scripts.chaos_store import House
from scripts.soak_judge import markdown
from tests.neurons.loopback import MINER, ask, plain, served


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    return House(tmp_path_factory.mktemp("chaos") / "home")


@pytest.fixture(autouse=True)
def whole(house: House) -> Iterator[None]:
    """The folder as it was, after each test."""
    before = {path.name: path.read_bytes() for path in house.root.iterdir()}
    yield
    for path in house.root.iterdir():
        if path.name not in before:
            path.unlink()
    for name, data in before.items():
        (house.root / name).write_bytes(data)


@pytest.mark.slow
def test_two_kills(tmp_path: Path) -> None:
    """One while it serves, one while weights are activated; then the default detector, with the right answers."""
    chaos = Chaos(tmp_path, seed=1)
    chaos.prepare()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(chaos.run(2))
    checks = judge(chaos.rounds)
    assert not [check for check in checks if check.met is False], markdown(checks)
    assert [(r.kind, r.detector) for r in chaos.rounds] == [("serving", "trivial"), ("activate", "camo")]
    for seen in chaos.rounds:
        assert seen.under_load[200] > 0
        assert seen.captured >= 6
        assert sum(seen.replay_statuses.values()) == 2 * seen.captured
        assert set(seen.replay_statuses) <= {400, 401}


def test_a_whole_folder_is_whole(house: House) -> None:
    found = house.look()
    assert (found.problems, found.temporary, found.cardless, found.active) == ([], 0, [], "1.0.0")


@pytest.mark.parametrize("name", ["general-1.0.0.safetensors", "general-1.0.1.safetensors", "general-1.0.1.json"])
def test_a_half_written_file_is_found(house: House, name: str) -> None:
    path = house.root / name
    path.write_bytes(path.read_bytes()[:-1])
    assert any(problem.startswith(name) for problem in house.look().problems)


def test_a_half_written_pointer_is_found(house: House) -> None:
    pointer = house.root / "active.json"
    text = pointer.read_text()
    pointer.write_text(text[:-10])
    assert "not readable as JSON" in " ".join(house.look().problems)
    pointer.write_text(json.dumps({**json.loads(text), "general": "9.9.9"}))
    assert "active.json says" in " ".join(house.look().problems)


def test_a_missing_and_a_strange_file_are_found(house: House) -> None:
    (house.root / "content-1.0.0.json").unlink()
    (house.root / "general-1.0.2.safetensors").write_bytes(b"")
    (house.root / "npr-9.7.safetensors").write_bytes(b"half")
    problems = " ".join(house.look().problems)
    assert "content-1.0.0.json is gone" in problems
    assert "general-1.0.2.safetensors should not be there" in problems
    assert "npr-9.7.safetensors is half-written" in problems


def test_a_broken_off_import_is_completed_by_running_it_again(house: House) -> None:
    house._import(house.store, "9.3")
    (house.root / "npr-9.3.json").unlink()
    (house.root / ".npr-9.3.json.abc.tmp").write_bytes(b"{")
    found = house.look()
    assert (found.problems, found.temporary, found.cardless) == ([], 1, ["9.3"])
    house.mend(found)
    assert found.problems == []
    assert house.look().cardless == []


def test_a_forgetful_miner_is_found_out() -> None:
    """The same requests to two servers that share no memory: the second must be seen to take them again."""

    async def run() -> tuple[list[int], list[int], list[int]]:
        requests = [plain(ask(name)) for name in ("dendrite", "btauth", "epistula")]
        judge = Judge(TrivialDetector())
        try:
            async with served(judge) as first:
                fresh = await replayed((first.ip, first.port), requests)
                again = await replayed((first.ip, first.port), requests)
            async with served(judge, wires=wire.build(MINER.ss58_address)) as second:
                forgotten = await replayed((second.ip, second.port), requests)
        finally:
            judge.close()
        return fresh, again, forgotten

    fresh, again, forgotten = asyncio.run(run())
    assert fresh == forgotten == [200, 200, 200]
    assert again == [401, 401, 400]


def test_each_limit_is_noticed_when_it_is_broken() -> None:
    good = Round("serving", "trivial", captured=6)
    replay = Round("serving", "trivial", captured=6, accepted_again=1)
    wrong = Round("activate", "camo", wrong=["after the restart: 0.4"])
    torn = Round("import", "trivial")
    torn.found.problems.append("active.json is half-written")

    def failed(*rounds: Round) -> list[str]:
        return [check.name for check in judge(rounds) if check.met is False]

    assert failed(good) == []
    assert failed(good, replay) == ["captured requests accepted again"]
    assert failed(wrong, good) == ["wrong answers, before and after"]
    assert failed(torn, good) == ["half-written or missing files"]
