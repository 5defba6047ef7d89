"""``weights shadow``: orders reach miners, reports come back, what cannot run is refused first."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from neurons import cli
from neurons.noticeboard import Noticeboard
from neurons.operations import ShadowPlan
from neurons.shadow_orders import TOPIC, plan_of
from tests.neurons.shadowkit import PICTURES, Rig, build_store, challenge, rig, wait_for


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_store(tmp_path_factory.mktemp("shadow"))


@pytest.fixture
def miner(tmp_path: Path, source: Path) -> Iterator[Rig]:
    made = rig(tmp_path, source)
    yield made
    made.close()


def run(miner: Rig, *arguments: str) -> int:
    return cli.run(["weights", "shadow", *arguments, "--store", str(miner.store)])


def test_order_run_report_stop(miner: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(miner, "--report") == 0
    assert "no running miner" in capsys.readouterr().out
    assert run(miner, "general@3", "--count", str(PICTURES), "--promote-if-better", "--profile", "sn34-2.1") == 0
    assert "no running miner" in capsys.readouterr().out
    miner.shadow.obey()
    miner.settled("running")
    assert miner.report.plan == ShadowPlan("general@3", PICTURES, promote=True, profile="sn34-2.1")
    miner.feed([challenge(seed, seed % 2) for seed in range(PICTURES)])
    miner.settled("done")
    wait_for(lambda: Noticeboard(miner.store).notices(TOPIC)[0].said["report"]["state"] == "done")
    assert run(miner, "--report") == 0
    shown = capsys.readouterr().out
    assert f"general@3 done, {PICTURES} of {PICTURES} judged, 0 failed, 0 skipped" in shown
    assert "agreement 0.0%" in shown
    assert f"{PICTURES} labelled, sn34-2.1" in shown
    assert "95 % interval" in shown
    assert run(miner, "--report", "--json") == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["report"]["labelled"] == PICTURES
    assert run(miner, "--stop") == 0
    assert "told: process" in capsys.readouterr().out
    order = miner.board.ordered(TOPIC)
    assert order is not None
    assert plan_of(order) is None


def test_a_miner_in_whose_shadow_nothing_was_yet(miner: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    miner.shadow._post(None)
    assert run(miner, "--report") == 0
    assert "nothing was in the shadow yet" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (["general"], 4, "NAME@VERSION"),
        (["general@8"], 4, "general-8.json"),
        (["nothing@1"], 4, "nothing-1.json"),
        (["general@1"], 4, "active already"),
        (["general@2", "--profile", "sn34-2.2"], 2, "sn34-2.2.7"),
        (["general@2", "--count", "0"], 2, "count"),
        (["general@2", "--stop"], 2, "or --stop"),
        ([], 2, "or --stop"),
    ],
)
def test_what_cannot_run_is_refused_before_anybody_is_told(
    miner: Rig, arguments: list[str], code: int, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(miner, *arguments) == code
    assert reason in capsys.readouterr().err
    assert miner.board.ordered(TOPIC) is None


def test_altered_weights_are_refused(miner: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    (miner.store / "general-2.safetensors").write_bytes(b"not these")
    assert run(miner, "general@2") == 4
    assert "sha256" in capsys.readouterr().err
    assert miner.board.ordered(TOPIC) is None


def test_a_store_that_cannot_be_written(miner: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    (miner.store / ".orders").write_text("in the way", encoding="utf-8")
    assert run(miner, "general@2") == 4
    assert "cannot be written" in capsys.readouterr().err
