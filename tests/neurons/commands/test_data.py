"""``deepfake-miner data``, from a data set on disk to a probed pool with a split."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from detectors import datasets
from detectors.training.splits import load_split
from detectors.types import Label
from neurons import cli
from tests.detectors.hub import local
from tests.detectors.training.pool_of_photos import write_pool

RECIPE = "name: t\nversion: 1.0.0\narchitecture: npr\nside: 64\nbatch: 16\nmade_share: 0.5\nvalidation: 0.2\n"


def test_the_sources_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["data", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "bitmind/bm-real                                    real           image  general  parquet" in lines
    assert all(line == line.rstrip() for line in lines)


def test_two_data_sets_become_one_pool(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reals, fakes, pool = tmp_path / "bitmind--lfw", tmp_path / "anywhere", tmp_path / "pool"
    images = [local.encoded(p) for p in local.parts(8)]
    local.shard(reals / "data/train-00000-of-00001.parquet", images[:5])
    local.shard(fakes / "data/train-00000-of-00001.parquet", [*images[5:], b"broken"])
    assert cli.run(["data", "prepare", str(reals), "--to", str(pool)]) == 0
    given = ["--label", "synthetic", "--modality", "image", "--content", "people", "--generator", "flux"]
    assert cli.run(["data", "prepare", "me/fakes", "--local", str(fakes), "--to", str(pool), *given]) == 0
    assert "3 files of me/fakes, 3 of them new; left out: 1 undecodable" in capsys.readouterr().out
    assert cli.run(["data", "list", str(pool)]) == 0
    out = capsys.readouterr().out
    assert "5 real images, 3 synthetic images from 2 sources" in out
    assert "me/fakes" in out
    made = [item for item in datasets.read(pool) if item.label is Label.SYNTHETIC]
    assert {(item.source, item.content, item.generator) for item in made} == {("me/fakes", "people", "flux")}


def test_split_and_probe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_pool(tmp_path / "pool", groups=8)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    split = tmp_path / "splits/pool.json"
    arguments = ["--data", str(tmp_path / "pool")]
    assert cli.run(["data", "split", *arguments, "--out", str(split), "--fraction", "0.3", "--seed", "4"]) == 0
    items = datasets.read(tmp_path / "pool")
    assert load_split(split).apply(items) == datasets.split_by_group(items, 0.3, 4)
    assert load_split(split).sha256 in capsys.readouterr().out
    found = tmp_path / "probe.json"
    options = ["--recipe", str(tmp_path / "recipe.yaml"), "--views", "64", "--json", str(found)]
    assert cli.run(["data", "probe", *arguments, *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["stored", "training view"]
    report = json.loads(found.read_text())
    assert set(report) == {"stored", "training view"}
    assert report["training view"]["n"] == 64
    assert report["training view"]["families"]["size"] == 0.5


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["pull", "bitmind/lfw", "--to", "DIR/x"], "--trust-latest"),
        (["pull", "genmo/mochi-1-preview", "--to", "DIR/x", "--trust-latest"], "is a model"),
        (["prepare", "DIR/none", "--to", "DIR/pool"], "no such folder"),
        (["prepare", "bitmind/lfw", "--to", "DIR/pool"], "--local"),
        (["prepare", "DIR", "--to", "DIR/pool"], "which data set"),
        (["split", "--data", "DIR", "--out", "DIR/s.json"], "expected a manifest.csv"),
        (["probe", "--data", "DIR/few"], "cannot be probed"),
        (["prepare", "DIR", "--to", "DIR/pool", "--label", "fake"], "Invalid value"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pool(tmp_path / "few", groups=1)
    assert cli.run(["data", *(a.replace("DIR", str(tmp_path)) for a in arguments)]) == 2
    assert said in capsys.readouterr().err


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom neurons import cli\nassert cli.run(['data', 'prepare', '--help']) == 0\n"
        "assert not {'torch', 'cv2', 'av', 'pyarrow', 'sklearn', 'huggingface_hub'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)
