"""``simulate`` end to end against real servers, and the validator's command line."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from detectors.errors import ConfigError
from detectors.types import Detector
from neurons import validator
from neurons.conduct import terminable
from neurons.simulation import Endpoint
from neurons.standins import serve_in_process
from neurons.summary import stable
from tests.neurons.simkit import HOTKEY, Sleeper, camo_home, media_folder

SCRIPT = Path(validator.__file__)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return media_folder(tmp_path_factory.mktemp("media"))


def text(endpoint: Endpoint) -> str:
    return f"{endpoint.name}={endpoint.url}@{endpoint.hotkey}#{endpoint.wire}"


def simulate(miners: list[str], data: Path, out: Path, **options: Any) -> tuple[dict[str, Any], str]:
    shown = io.StringIO()
    path = validator.run_simulation(
        miners, data=data, out=out, console=Console(file=shown, width=160), command=["simulate"], **options
    )
    report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return report, shown.getvalue()


def test_same_seed_same_report(data: Path, tmp_path: Path) -> None:
    detectors: dict[str, Detector] = {"rough": Sleeper()}
    with serve_in_process(detectors, tmp_path) as served:
        miners = [text(served[0])]
        first, shown = simulate(miners, data, tmp_path / "a", count=16, seed=4, standins=True)
        second, _ = simulate(miners, data, tmp_path / "b", count=16, seed=4, standins=True, in_flight=3)
        other, _ = simulate(miners, data, tmp_path / "c", count=16, seed=5, standins=True)
    assert stable(first) == stable(second)
    assert [row["sha256"] for row in first["rows"]] != [row["sha256"] for row in other["rows"]]
    assert list(first["miners"]) == ["rough", "always-real", "always-fake", "random"]
    assert first["miners"]["rough"]["answered"] == 16
    assert first["miners"]["rough"]["auc"] > 0.9  # smooth is real, noise is fake
    assert "rough" in shown
    assert "report.json" in shown
    assert not first["data"]["smoke_test"]
    assert first["run"]["command"] == "simulate"
    assert (tmp_path / "a" / "report.html").stat().st_size > 10_000
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["report.html", "report.json"]  # no keys left behind


def test_several_profiles_and_a_failing_miner(data: Path, tmp_path: Path) -> None:
    with serve_in_process({"rough": Sleeper()}, tmp_path) as served:
        wrong = f"wrong={served[0].url}@{HOTKEY}"
        report, _ = simulate(
            [text(served[0]), wrong], data, tmp_path / "out", count=4, profiles=["sn34-2.1", "sn34-2.0"]
        )
    assert report["profile"] == "sn34-2.1"
    assert set(report["miners"]["rough"]["profiles"]) == {"sn34-2.0", "sn34-2.1"}
    assert report["miners"]["wrong"]["failures"] == {"status-401": 4}
    assert report["miners"]["wrong"]["reward"] == 0.0


def test_a_configuration_can_be_simulated_without_a_running_miner(data: Path, tmp_path: Path) -> None:
    home = camo_home(tmp_path / "home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEEPFAKE_MINER_HOME", str(home))
        report, shown = simulate([], data, tmp_path / "out", count=4, camo=home / "configs" / "camo.yaml")
    assert report["miners"]["camo"]["routes"] == {"tiny → merge:learned": 4}
    assert "4 of 4 answers" in report["routes_note"]
    assert report["rows"][0]["miners"]["camo"]["experts"].keys() == {"tiny"}
    assert "camo: 4 × tiny → merge:learned" in shown


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"count": 0}, "count"),
        ({"seed": -1}, "seed"),
        ({"profiles": ["sn34-0"]}, "profiles"),
        ({"timeout_s": 0.0}, "timeout"),
    ],
)
def test_wrong_options_are_refused(data: Path, tmp_path: Path, options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        simulate([f"http://127.0.0.1:9@{HOTKEY}"], data, tmp_path, **options)


@pytest.mark.parametrize(
    "argv",
    [
        ["--miner", f"http://192.0.2.1:80@{HOTKEY}", "--data", "DATA"],
        ["--miner", f"http://127.0.0.1:80@{HOTKEY}", "--data", "no/such/folder"],
        [
            "--miner",
            f"http://127.0.0.1:80@{HOTKEY}",
            "--data",
            "DATA",
            "--wallet.name",
            "none",
            "--wallet.path",
            "DATA",
        ],
        ["--data", "DATA"],
        ["--data", "DATA", "--camo", "no/such/camo.yaml"],
    ],
)
def test_the_command_line_refuses_with_two(
    argv: list[str], data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(data) if word == "DATA" else word for word in argv]
    assert validator.main([*words, "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("validator.py: ")


def test_the_script_answers_help_without_heavy_imports() -> None:
    probe = (
        "import runpy, sys\n"
        f"sys.argv = ['validator.py', '--help']\n"
        f"try: runpy.run_path({str(SCRIPT)!r}, run_name='__main__')\n"
        "except SystemExit as end: assert not end.code\n"
        "assert not {'torch', 'aiohttp', 'sklearn', 'bittensor'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "--miner" in done.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_script_with_130(data: Path, tmp_path: Path, number: signal.Signals) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        mute.settimeout(60)
        url = f"http://127.0.0.1:{mute.getsockname()[1]}"
        words = ["--miner", f"{url}@{HOTKEY}", "--data", str(data), "--out", str(tmp_path), "--standins"]
        child = subprocess.Popen([sys.executable, str(SCRIPT), *words], stderr=subprocess.PIPE, text=True)
        try:
            peer, _ = mute.accept()  # it is in the middle of its first challenge
            child.send_signal(number)
            _, errors = child.communicate(timeout=30)
            peer.close()
        finally:
            child.kill()
            child.wait()
    assert child.returncode == 130, errors
    assert "Traceback" not in errors
    assert list(tmp_path.iterdir()) == []


def test_terminate_is_an_interrupt_inside_and_what_it_was_outside() -> None:
    before, ctrl_c = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in a background job of a shell

    def interrupted() -> None:
        with terminable():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)

    try:
        with pytest.raises(KeyboardInterrupt):
            interrupted()
    finally:
        signal.signal(signal.SIGINT, ctrl_c)
    assert signal.getsignal(signal.SIGTERM) is before
