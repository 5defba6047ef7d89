"""``weights activate --wait``, ``rollback`` and ``list`` against miners that run: real reloaders, real processes."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from neurons import cli
from neurons.commands import weights
from neurons.noticeboard import Noticeboard
from neurons.reload import TOPIC, fingerprint
from tests.detectors.fixtures_store import House
from tests.neurons.reloadkit import Running, run


@pytest.fixture
def house(tmp_path: Path) -> House:
    made = House(tmp_path)
    made.save("one", "2", intercept=2.0)
    return made


@pytest.fixture
def other() -> Iterator[int]:
    """The id of another process that lives."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process.pid
    process.communicate()


async def command(house: House, *arguments: str) -> int:
    return await asyncio.to_thread(cli.run, ["weights", *arguments, "--store", str(house.root)])


def test_waiting_for_a_miner_that_takes_it_up(house: House, capsys: pytest.CaptureFixture[str]) -> None:
    async def body(running: Running) -> None:
        assert await command(house, "activate", "one@2", "--wait", "60") == 0
        assert running.live.card.options["experts"]["one"] == "one@2"
        said = capsys.readouterr()
        assert said.out.startswith("active: one@2\n")
        assert f"miner {os.getpid()} serves {running.live.card.key}: content@1, one@2, two@1" in said.out
        assert not said.err
        assert await command(house, "rollback", "--wait", "60") == 0
        assert "active: content@1, one@1, two@1" in capsys.readouterr().out
        assert running.live.card.options["experts"]["one"] == "one@1"
        assert await command(house, "list") == 0
        line = capsys.readouterr().out.splitlines()[-1]
        assert line.startswith(f"miner {os.getpid()} serves {running.live.card.key}")
        assert line.endswith("accepted")

    run(house, body)


def test_waiting_for_a_miner_that_refuses(house: House, capsys: pytest.CaptureFixture[str]) -> None:
    async def body(running: Running) -> None:
        house.rewrite("one@2", golden={"noise": 0.9, "smooth": 0.9})
        for _ in range(2):  # the second time it is tried again, and not answered from memory
            since = time.time()
            assert await command(house, "activate", "one@2", "--wait", "60") == weights.EXIT_REFUSED
            said = capsys.readouterr().err
            assert f"miner {os.getpid()} refused it (golden): one@2: P(fake) on probe 'noise' is" in said
            assert "`deepfake-miner weights rollback`" in said
            assert house.store.pointer()["one"] == "2"
            assert running.reloader.reports[-1].at >= since
        assert await command(house, "list") == 0
        line = capsys.readouterr().out.splitlines()[-1]
        assert "(the store asks for something else); last swap" in line
        assert "refused (golden): one@2" in line
        assert await command(house, "rollback", "--wait", "60") == 0

    run(house, body)


def test_nobody_answers(house: House, capsys: pytest.CaptureFixture[str], other: int) -> None:
    assert cli.run(["weights", "activate", "one@2", "--store", str(house.root), "--wait", "0"]) == 9
    assert f"no running miner follows {house.root}" in capsys.readouterr().err
    _posted(house, other, "elsewhere")
    assert cli.run(["weights", "rollback", "--store", str(house.root), "--wait", "0.05"]) == 9
    assert f"miner {other} has not answered in time" in capsys.readouterr().err


def _posted(house: House, pid: int, serving: str) -> None:
    """What a miner with that id would say."""
    board = house.root / ".miners"
    board.mkdir(exist_ok=True)
    said: dict[str, Any] = {
        "serving": serving,
        "camo": str(house.camo),
        "detector": "camo@x",
        "weights": {},
        "report": None,
    }
    (board / f"{pid}.{TOPIC}.json").write_text(json.dumps(said))


def test_one_of_two_is_silent_for_a_while(house: House, other: int) -> None:
    """It waits for every one of them; the first alone is not enough."""
    Noticeboard(house.root)
    house.store.activate("one", "2")
    wanted = fingerprint(house.camo, house.root)
    _posted(house, os.getpid(), wanted)
    _posted(house, other, "elsewhere")
    now = 0.0
    said: list[str] = []
    complained: list[str] = []

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds
        if now > 1.0:
            _posted(house, other, wanted)

    options: dict[str, Any] = {"since": time.time(), "say": said.append, "complain": complained.append}
    waited = weights.wait(house.root, {"one": "2"}, seconds=5.0, clock=lambda: now, sleep=sleep, **options)
    assert (waited, len(said), complained) == (0, 2, [])
    assert 1.0 < now < 1.5


def test_somebody_else_activates_meanwhile(house: House) -> None:
    _posted(house, os.getpid(), "elsewhere")
    house.store.activate("one", "2")
    complained: list[str] = []

    def sleep(_: float) -> None:
        house.store.activate("one", "1")

    waited = weights.wait(
        house.root, {"one": "2"}, since=0.0, seconds=60, say=complained.append, complain=complained.append, sleep=sleep
    )
    assert waited == weights.EXIT_UNANSWERED
    assert "changed again" in complained[0]


def test_without_waiting_nothing_is_waited_for(house: House, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["weights", "activate", "one@2", "--store", str(house.root)]) == 0
    assert cli.run(["weights", "rollback", "--store", str(house.root)]) == 0
    house.weights("one-2").write_bytes(b"cut")
    assert cli.run(["weights", "activate", "one@2", "--store", str(house.root)]) == 4
    (house.root / ".history.json").unlink()
    assert cli.run(["weights", "rollback", "--store", str(house.root)]) == 4
    assert "nothing to roll back to" in capsys.readouterr().err


def test_the_exit_codes_are_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("activate", "rollback"):
        assert cli.run(["weights", name, "--help"]) == 0
        said = " ".join(capsys.readouterr().out.split())
        assert all(words in said for words in ("Exit codes: 0", "4 the" if name == "activate" else "4 there", "9 not"))
