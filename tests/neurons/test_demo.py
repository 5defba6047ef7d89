"""The demo's parts: the plain-max configuration, the lookup of routes, and, where weights ship, all of it."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from detectors import paths
from detectors.errors import ConfigError
from neurons.challenges import Stream
from neurons.demo import max_merge, run_demo
from neurons.explain import explain
from neurons.standins import STANDINS
from neurons.summary import SMOKE_TEST
from tests.neurons.simkit import Sleeper, camo_home, media_folder, media_set


def test_max_merge_changes_the_merge_alone(tmp_path: Path) -> None:
    source = paths.configs() / "camo.yaml"
    made = yaml.safe_load(max_merge(source, tmp_path / "max.yaml").read_text(encoding="utf-8"))
    original = yaml.safe_load(source.read_text(encoding="utf-8"))
    assert made == {**original, "merge": "max"}
    assert original["merge"] == "learned"


@pytest.mark.parametrize("text", ["", "- a", "a: [", None])
def test_max_merge_refuses_what_is_no_configuration(tmp_path: Path, text: str | None) -> None:
    source = tmp_path / "camo.yaml"
    if text is not None:
        source.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"camo\.yaml"):
        max_merge(source, tmp_path / "max.yaml")


def test_routes_are_looked_up_for_images_and_videos_and_left_out_where_there_is_none(tmp_path: Path) -> None:
    challenges = {issued.index: issued for issued in Stream(media_set(tmp_path), seed=3, count=8)}
    assert {issued.modality for issued in challenges.values()} == {"image", "video"}
    found = explain(Sleeper(), challenges)
    assert set(found) == set(challenges)
    assert {p.route for p in found.values()} == {("roughness",)}
    real = [found[k].p_fake for k, issued in challenges.items() if not issued.item.fake]
    fake = [found[k].p_fake for k, issued in challenges.items() if issued.item.fake]
    assert max(real) < max(fake)


@pytest.mark.parametrize("options", [{"challenges": 0}, {"seed": -1}, {"profile": "sn34-0"}])
def test_wrong_options_are_refused_before_anything_starts(tmp_path: Path, options: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        run_demo(tmp_path / "out", console=Console(file=io.StringIO()), **options)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_the_whole_demo_with_data_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPFAKE_MINER_HOME", str(camo_home(tmp_path / "home")))
    shown = io.StringIO()
    data, out = media_folder(tmp_path / "media"), tmp_path / "out"
    console = Console(file=shown, width=160)
    path = run_demo(out, challenges=8, seed=2, data=data, console=console, command=["demo"])
    report = json.loads(path.read_text(encoding="utf-8"))
    assert path == out / "report.json"
    assert list(report["miners"]) == ["camo", "max", *STANDINS]
    for miner in report["miners"].values():
        assert miner["answered"] == 8
        assert {"p50", "p99"} <= set(miner["latency_ms"])
    assert sum(report["miners"]["camo"]["routes"].values()) == 8
    assert "16 of 16 answers" in report["routes_note"]
    assert report["data"]["note"] != SMOKE_TEST
    assert "camo: 8 × tiny → merge:learned" in shown.getvalue()
    assert sorted(p.name for p in out.iterdir()) == ["miner-camo.log", "miner-max.log", "report.html", "report.json"]
