from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from detectors.datasets import split_by_group
from detectors.training.splits import fits, make_split
from neurons import cli
from neurons.rewards import PROFILES
from tests.detectors.evaluation.made_scores import write_files

TOP = {
    *("n", "auc", "ap", "balanced_accuracy", "tnr", "tpr", "mcc", "brier", "ece", "reward", "three_class"),
    *("by_source", "by_content", "by_generator", "by_level", "by_modality", "intervals", "reliability"),
    *("detector", "detectors", "data", "undecodable", "undecodable_files", "compare", "seconds", "command"),
}


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_files(tmp_path_factory.mktemp("pool")).origin


def run(out: Path, *arguments: str, code: int = 0) -> dict[str, Any]:
    path = out / "report.json"
    assert cli.run(["evaluate", "--json", str(path), *arguments]) == code
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if code == 0 else {}
    return found


def test_camo_and_a_baseline_on_the_same_views(pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = run(
        tmp_path,
        *("--data", str(pool), "--detector", "camo", "--detector", "random", "--threads", "1"),
        *("--markdown", str(tmp_path / "docs/page.md"), "--plots", str(tmp_path / "plots")),
    )
    assert set(found) >= TOP
    assert (found["n"], found["undecodable"]) == (14, 2)
    assert {row["key"] for row in found["undecodable_files"]} == {"real/one/broken.jpg", "synthetic/clips/broken.mp4"}
    assert set(found["reward"]) == set(PROFILES)
    assert found["reward"]["sn34-2.0"]["modalities"] == ["image", "video"]
    assert found["by_modality"]["video"]["n"] == 2
    assert set(found["detectors"]) == {"camo", "random"}
    assert found["auc"] == found["detectors"]["camo"]["auc"]
    assert found["detector"]["weights"]
    assert len(found["detector"]["config_sha256"]) == 64
    assert found["compare"]["camo against random"]["n"] == 14
    assert "reward sn34-2.0" in found["compare"]["camo against random"]
    assert found["command"].startswith("deepfake-miner evaluate --json")
    assert str(pool) not in json.dumps({k: v for k, v in found.items() if k != "command"})
    shown = capsys.readouterr().out
    assert "camo" in shown
    assert "random" in shown
    assert "| random | 14 |" in (tmp_path / "docs/page.md").read_text(encoding="utf-8")
    assert len(list((tmp_path / "plots").glob("*.png"))) == 3


def test_a_dump_reports_and_compares_like_the_run(pool: Path, tmp_path: Path) -> None:
    dump, other = tmp_path / "dump.jsonl", tmp_path / "other.jsonl"
    common = ("--data", str(pool), "--level", "0", "--views", "3")
    direct = run(tmp_path, *common, "--detector", "random", "--predictions", str(dump))
    again = run(tmp_path, "--from", str(dump))
    for key in ("n", "auc", "brier", "by_source", "intervals", "reward", "reliability"):
        assert again[key] == direct[key], key
    assert again["data"]["level"] == "0"
    run(tmp_path, *common, "--detector", "always-real", "--predictions", str(other))
    row = run(tmp_path, "--from", str(dump), "--compare", str(other))["compare"]
    assert row["random against always-real of other.jsonl"]["auc"]["b"] == 0.5


def test_the_format_probe_sees_a_leak_of_format(tmp_path: Path) -> None:
    root = tmp_path / "pool"
    write_files(root)
    for k, path in enumerate(sorted((root / "synthetic").rglob("*.jpg"))):
        path.write_bytes(path.read_bytes() + b"\0" * 2000)
        path.rename(path.with_stem(f"other{k}"))
    found = run(tmp_path, "--data", str(root), "--level", "none", "--detector", "format-probe", "--views", "4")
    assert found["n"] == 56
    assert found["by_modality"]["image"]["auc"] > 0.9


def test_the_grid_stands_in_the_report(pool: Path, tmp_path: Path) -> None:
    found = run(tmp_path, "--data", str(pool), "--detector", "random", "--grid", "--most", "1")
    assert found["data"]["items"] == 3
    assert len(found["grid"]) == 24
    cell = found["grid"]["scale 0.5, quality 50, blur 1.5, noise 8"]
    assert (cell["scale"], cell["quality"], cell["blur"], cell["noise"]) == (0.5, 50, 1.5, 8.0)
    assert {"n", "auc", "balanced_accuracy"} <= set(cell)


def test_split_files_choose_a_side(pool: Path, tmp_path: Path) -> None:
    from detectors import datasets  # noqa: PLC0415

    items = datasets.read(pool)
    made = make_split(items, 0.4, 3)
    made.save(tmp_path / "split.json")
    sides = split_by_group(items, 0.4, 3)
    assert all(sides)
    for only, side in zip(("train", "validation"), sides, strict=True):
        for body in (None, {"seed": 3, "fraction": 0.4, "groups": {"validation": list(made.validation)}}):
            path = tmp_path / "split.json"
            if body is not None:
                path = tmp_path / "groups.json"
                path.write_text(json.dumps(body), encoding="utf-8")
            arguments = ("--data", str(pool), "--detector", "always-real", "--split", str(path), "--only", only)
            found = run(tmp_path, *arguments)
            assert found["data"]["items"] == len(side)
            assert found["data"]["split"]["only"] == only
    halves = []
    for only in ("fitting", "reporting"):
        where = ("--data", str(pool), "--detector", "always-real", "--split", str(tmp_path / "split.json"))
        halves.append(run(tmp_path, *where, "--only", only)["data"]["items"])
    assert sum(halves) == len(sides[1])
    assert halves[0] == sum(fits(item.group) for item in sides[1])


def test_leave_one_out_is_composed(pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path, "--data", str(pool), "--detector", "always-real")
    report = tmp_path / "report.json"
    out = tmp_path / "loo.json"
    arguments = ["evaluate", "--leave-one-out", f"source:one={report}", "--leave-one-out", f"two={report}"]
    assert cli.run([*arguments, "--json", str(out), "--markdown", str(tmp_path / "loo.md")]) == 0
    found = json.loads(out.read_text(encoding="utf-8"))
    assert found["mean"]["tnr"] == 1.0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["mean"]["tnr"] == 1.0
    assert "left out" in (tmp_path / "loo.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "--data"),
        (("--data", "POOL", "--from", "x.jsonl"), "--from"),
        (("--data", "nowhere"), "nowhere"),
        (("--data", "POOL", "--level", "4"), "mix-2.0"),
        (("--data", "POOL", "--detector", "nobody"), "always-real"),
        (("--data", "POOL", "--detector", "random", "--detector", "random"), "once"),
        (("--data", "POOL", "--only", "train"), "--split"),
        (("--data", "POOL", "--split", "POOL"), "split"),
        (("--from", "nowhere.jsonl"), "nowhere.jsonl"),
        (("--leave-one-out", "x"), "NAME=FILE"),
    ],
)
def test_bad_usage_names_the_fix(
    arguments: tuple[str, ...], said: str, pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path, *(str(pool) if a == "POOL" else a for a in arguments), code=2)
    assert said in capsys.readouterr().err


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom neurons import cli\n"
        "assert cli.run(['evaluate', '--help']) == 0\n"
        "assert not {'torch', 'cv2', 'av', 'sklearn', 'matplotlib'} & set(sys.modules), 'heavy import'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)


def test_baselines_do_not_import_torch(pool: Path) -> None:
    code = (
        "import sys\nfrom neurons import cli\n"
        f"assert cli.run(['evaluate', '--data', {str(pool)!r}, '--detector', 'random']) == 0\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)
