"""Runs what the README tells people to type."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import pytest
import torch

from detectors import media, registry
from neurons import miner
from neurons.demo_media import build, photographs
from neurons.exits import Exit
from tests.detectors.training.pool_of_photos import write_pool

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    line for block in re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL) for line in block.splitlines() if line
]


def command(part: str) -> list[str]:
    """The one README command that holds `part`, as words, with absolute paths of its programs and configurations."""
    (line,) = [c for c in COMMANDS if part in c]
    words = shlex.split(line)
    return [str(ROOT / w) if w.startswith((".venv/", "neurons/", "configs/")) else w for w in words]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder but for what the README's reader brings."""
    root = tmp_path_factory.mktemp("reader")
    photos = dict(photographs())
    (root / "photo.jpg").write_bytes(media.encode_jpeg(photos["astronaut"]))
    demo = build(root / "build" / "demo" / "media")
    shutil.copy(next((demo / "real").rglob("*.mp4")), root / "clip.mp4")
    return root


def run(words: list[str], folder: Path, *, expect: int = 0) -> str:
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == expect, done.stderr
    return done.stdout


def test_every_command_is_known_to_this_test() -> None:
    tested = (
        "make setup",
        "detect photo",
        "make demo",
        "make test",
        "wallet trial",
        "neurons/miner.py",
        "simulate",
        "evaluate",
        "train configs",
        "weights import",
        "weights list",
        "deepfake-miner console",
        "doctor",
    )
    assert [c for c in COMMANDS if not any(part in c for part in tested)] == []
    assert len(COMMANDS) == len(tested)


@pytest.mark.parametrize("target", ["setup", "demo", "test"])
def test_make_targets_exist(target: str) -> None:
    assert run(["make", "--dry-run", target], ROOT)


def test_detect(folder: Path) -> None:
    lines = run(command("detect photo"), folder).splitlines()
    shown = re.search(r"```text\nphoto\.jpg: (.*?)\n```", README)
    assert shown
    form = r"(real|synthetic|semisynthetic), P\(fake\) \d\.\d{3}, \d+ ms, \S+( > \S+)*"
    assert re.fullmatch(form, shown[1])
    assert re.fullmatch(r"photo\.jpg: " + form, lines[0])
    assert re.fullmatch(r"clip\.mp4: " + form, lines[1])


def test_wallet_miner_and_simulation(folder: Path) -> None:
    hotkey = run(command("wallet trial"), folder).strip()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    words = [w.replace("8091", port) for w in command("neurons/miner.py")]
    with subprocess.Popen(words, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as miner:
        assert miner.stdout is not None
        try:
            serving = json.loads(miner.stdout.readline())
            assert serving["event"] == "serving"
            assert serving["hotkey"] == hotkey
            words = [w.replace("8091", port).replace("HOTKEY", hotkey) for w in command("simulate")]
            words[words.index("--count") + 1] = "6"
            assert "reward" in run(words, folder).lower()
            assert list((folder / "build" / "simulation").glob("report.json"))
        finally:
            miner.send_signal(signal.SIGTERM)
        assert miner.wait(30) == 0


def test_console_and_doctor(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder))
    address = run(command("deepfake-miner console"), folder)
    token = re.fullmatch(r"http://127\.0\.0\.1:9109/\?token=(\S{40,})\n", address)
    assert token
    said = run(command("doctor"), folder)
    assert "general@1.0.0" in said
    assert token[1] not in said


def test_to_earn_the_miner_says_what_is_missing(folder: Path) -> None:
    run(command("wallet trial"), folder)
    nowhere = ["--subtensor.chain_endpoint", "ws://127.0.0.1:1", "--axon.port", "0"]
    words = [w for w in command("neurons/miner.py") if w != "--offline"] + nowhere
    assert run(words, folder, expect=2) == ""
    lines = run([*words, "--preflight"], folder, expect=2).splitlines()
    checks = {line[8:18].strip(): line.split()[0] for line in lines}
    assert {name for name, status in checks.items() if status == "FAIL"} == {"address", "registered"}
    assert checks["weights"] == checks["wallet"] == "ok"


def test_the_exit_codes_are_the_miners() -> None:
    told = re.search(r"Exit codes: 0 stopped, (.*?)\. After (.*?) start it again", README, flags=re.DOTALL)
    assert told
    documented = re.findall(r"(?:^|, )(\d) ", " ".join(told[1].split()))
    assert [0, *map(int, documented)] == list(Exit)
    assert [line.split()[0] for line in (miner.__doc__ or "").splitlines() if re.match(r"\d  ", line)] == [
        str(int(code)) for code in Exit
    ]


def test_import_and_list(folder: Path) -> None:
    published = registry.architecture("ucf")(inference_only=False).state_dict()
    torch.save({f"module.{k}": v for k, v in published.items()}, folder / "ucf_best.pth")
    store = ["--store", str(folder / "weights")]
    said = run([*command("weights import"), *store], folder)
    assert len(published) == 600
    assert "293 tensors fit" in said
    assert "ignored (307)" in said
    assert "stored as ucf-face@1.0.0" in said
    assert "ucf-face@1.0.0" in run([*command("weights list"), *store], folder)
    (folder / "ucf_best.pth").unlink()


def test_evaluate(folder: Path) -> None:
    words = command("evaluate")
    words[words.index("DIR")] = "build/demo/media"
    run([*words, "--most", "3"], folder)
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    wanted = {"n", "auc", "balanced_accuracy", "tnr", "tpr", "mcc", "brier", "ece", "reward", "by_source"}
    assert wanted <= set(report)
    assert report["n"] > 6
    assert set(report["reward"]) >= {"sn34-2.0", "sn34-2.2.7"}


def test_train(folder: Path) -> None:
    write_pool(folder / "pool", groups=12)
    words = command("train configs")
    words[words.index("DIR")] = "pool"
    said = run([*words, "--steps", "1", "--store", "trained"], folder)
    assert "general@1.0.0: sha256" in said
    assert (folder / "trained" / "general-1.0.0.safetensors").is_file()


def test_train_is_a_recipe_that_exists(folder: Path) -> None:
    words = command("train configs")
    words[words.index("DIR")] = "no-such-folder"
    environment = {**os.environ, "COLUMNS": "200"}
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=120, check=False, env=environment)
    assert done.returncode == 2
    assert "no-such-folder" in done.stderr
