"""The doctor: says what there is, works where things are broken, and gives no secret away."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from neurons import cli, doctor, doctor_machine
from neurons.chain import Chain
from neurons.noticeboard import Noticeboard
from neurons.operations import ShadowPlan, ShadowReport, SwapReport
from neurons.settings import FlagError, MinerSettings, SettingsError, origins
from tests.neurons.chainkit import chain_of
from tests.neurons.fake_substrate import FakeSubstrate
from tests.neurons.shadowkit import CAMO, build_store

MNEMONIC = "abandon ability able about above absent absorb abstract absurd abuse access accident"
SEED = "0x" + "5a" * 32
KEY = "k3yK3yk3yK3yk3yK3yk3y0123456789ab"
TOKEN = "console-token-that-nobody-may-see"
SECRETS = (MNEMONIC, "abstract absurd", SEED, SEED[2:40], KEY, TOKEN, "hunter2", "jane", "secretwallet")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_store(tmp_path_factory.mktemp("doctor"))


@pytest.fixture
def home(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's home with an installation in it and secrets in every place that one can be in."""
    home = tmp_path / "jane"
    root = home / "miner"
    shutil.copytree(source, root / "weights")
    (root / "configs").mkdir()
    (root / "configs" / "camo.yaml").write_text(CAMO, encoding="utf-8")
    key = home / "vault" / "secretwallet" / "hotkeys" / "jane-hot"
    key.parent.mkdir(parents=True)
    key.write_text(json.dumps({"secretPhrase": MNEMONIC, "secretSeed": SEED}), encoding="utf-8")
    (home / "token").write_text(TOKEN, encoding="utf-8")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("DEEPFAKE_MINER_HOME", str(root))
    return home


def flags(home: Path) -> list[str]:
    endpoint = f"wss://jane:hunter2@{KEY}.rpc.example.org:443/v1/{KEY}?key={KEY}"
    return [
        *("--wallet.path", str(home / "vault"), "--wallet.name", "secretwallet", "--wallet.hotkey", "jane-hot"),
        *("--subtensor.chain_endpoint", endpoint, "--console.token_file", str(home / "token")),
        *("--axon.ip", "127.0.0.1", "--axon.port", "0", "--telemetry.port", "0"),
    ]


def look(argv: Sequence[str], environ: Mapping[str, str] | None = None) -> dict[str, doctor.Section]:
    return {part.name: part for part in doctor.examine(argv, environ or {})}


def rows(section: doctor.Section) -> dict[str, str]:
    return dict(section.rows)


# Secrets


@pytest.mark.parametrize("more", [[], ["--json"]], ids=["text", "json"])
def test_no_secret_of_the_configuration_is_shown(
    home: Path, more: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEEPFAKE_MINER_BLACKLIST__DENY", MNEMONIC)
    monkeypatch.setenv("BT_PW_SECRET", "hunter2")
    assert cli.run(["doctor", *more, *flags(home)]) == 0
    shown = capsys.readouterr().out
    for secret in SECRETS:
        assert secret not in shown
    assert "wss://***.rpc.example.org:443/***" in shown
    assert "BT_PW_SECRET" in shown
    assert "~/miner/weights" in shown
    if more:
        assert set(json.loads(shown)) >= {"version", "settings", "weights", "ports"}


def test_secrets_in_a_damaged_file_stay_in_it(home: Path) -> None:
    (home / "miner" / "configs" / "miner.yaml").write_text(f"wallet: {{name: '{MNEMONIC}', seed: {SEED}]", "utf-8")
    found = look([])
    assert "miner.yaml" in found["settings"].problem
    assert not any(secret in str(found) for secret in SECRETS)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/home/mary/x and /Users/john/y", "~/x and ~/y"),
        ("/root/.bittensor: no", "~/.bittensor: no"),
        ("/srv/root/x", "/srv/root/x"),
        ("two\nlines  here", "two lines here"),
        (f"https://{KEY}.example.org", "https://***.example.org"),
    ],
)
def test_clean(text: str, expected: str) -> None:
    assert doctor.clean(text) == expected


# What it finds


def test_settings_say_where_they_come_from(home: Path) -> None:
    file = home / "miner" / "configs" / "miner.yaml"
    file.write_text("netuid: 34\naxon: {grace_s: 3.5, max_in_flight: 7}\n", encoding="utf-8")
    environ = {"DEEPFAKE_MINER_LOGGING__LEVEL": "debug", "DEEPFAKE_MINER_AXON__MAX_IN_FLIGHT": "8"}
    found = rows(look(["--offline", "--axon.ip", "127.0.0.1", "--axon.port=0"], environ)["settings"])
    assert found["offline"] == "True (flag)"
    assert found["axon.port"] == "0 (flag)"
    assert found["axon.max_in_flight"] == "8 (environment)"
    assert found["logging.level"] == "debug (environment)"
    assert found["axon.grace_s"] == "3.5 (file)"
    assert "netuid" not in found
    assert origins(["--no-offline"], environ)["offline"] == "flag"


def test_a_sound_installation_has_no_problem_but_the_missing_wallet(home: Path) -> None:
    found = look(["--axon.ip", "127.0.0.1", "--axon.port", "0", "--telemetry.port", "0"])
    assert [part.name for part in found.values() if part.problem] == ["wallet"]
    weights = rows(found["weights"])
    assert (weights["active"], weights["verify"]) == ("general@1, other@1", "all well")
    assert rows(found["configuration"])["experts"] == "general (general)"
    assert rows(found["packages"])["torch"][0].isdigit()
    assert rows(found["device"])["computes on cpu"] == "cpu"
    assert rows(found["miners"]) == {"running": "none that says so in this store"}
    assert "can be bound" in rows(found["ports"])["axon"]
    assert rows(found["ports"])["console"] == "off"
    assert "not asked" in rows(found["clock"])["against the chain"]


def test_living_miners_and_their_last_swap(home: Path) -> None:
    board = Noticeboard(home / "miner" / "weights")
    swap = SwapReport(1.7e9, accepted=False, stage="golden", reason="other scores", wanted="", before="b", after="b")
    board.post("swap", {"detector": "camo@abc", "report": swap.as_data()})
    board.post("shadow", {"order": None, "report": ShadowReport(ShadowPlan("general@2"), "running").as_data()})
    said = " ".join(rows(look([])["miners"]).values())
    assert "camo@abc, last swap 2023-11-14 22:13:20 UTC, refused (golden): other scores" in said
    assert "general@2 running, 0 judged" in said


def test_a_port_that_is_taken(home: Path) -> None:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as holder:
        port = holder.getsockname()[1]
        found = rows(look(["--axon.ip", "127.0.0.1", "--axon.port", str(port)])["ports"])
    assert f"cannot listen on 127.0.0.1:{port}" in found["axon"]


def test_the_clock_against_the_chain(home: Path) -> None:
    asked = []

    def chains(settings: MinerSettings, hotkey: str) -> Chain:
        asked.append(hotkey)
        return chain_of(FakeSubstrate([]))

    found = {part.name: part for part in doctor.examine([], {}, chains=chains)}["clock"]
    assert asked == [""]
    assert rows(found)["against the chain"].startswith(("ok", "warn", "FAIL"))


def test_a_chain_that_cannot_be_read_is_a_line(home: Path) -> None:
    def chains(settings: MinerSettings, hotkey: str) -> Chain:
        raise OSError("no such node")

    found = {part.name: part for part in doctor.examine([], {}, chains=chains)}["clock"]
    assert found.problem == "OSError: no such node"
    assert rows(found)["UTC"]


# Broken installations


def _damaged_pointer(root: Path) -> None:
    (root / "weights" / "active.json").write_text("[", encoding="utf-8")


def _altered(root: Path) -> None:
    (root / "weights" / "general-1.safetensors").write_bytes(b"short")


def _damaged_card(root: Path) -> None:
    (root / "weights" / "general-2.json").write_text("{}", encoding="utf-8")


@pytest.mark.parametrize(
    ("harm", "expected"),
    [(_damaged_pointer, "active.json"), (_altered, "sha256"), (_damaged_card, "general-2.json")],
)
def test_a_broken_store_is_described(home: Path, harm: object, expected: str) -> None:
    assert callable(harm)
    harm(home / "miner")
    section = look([])["weights"]
    assert expected in str(section)
    assert "\n" not in section.problem


def test_nothing_there_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DEEPFAKE_MINER_HOME", str(tmp_path / "nowhere"))
    found = look(["--axon.ip", "192.0.2.1"])
    assert found["weights"].problem == "there is no such folder"
    assert "FileNotFoundError" in found["configuration"].problem
    assert "cannot be found" in found["wallet"].problem
    assert "cannot listen" in rows(found["ports"])["axon"]


def test_damaged_camo(home: Path) -> None:
    (home / "miner" / "configs" / "camo.yaml").write_text("experts: {general: {wieghts: x}}", encoding="utf-8")
    section = look([])["configuration"]
    assert "wieghts" in section.problem
    assert rows(section)["sha256"]


def test_a_section_that_fails_takes_no_other_with_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> Iterator[tuple[str, str]]:
        yield "one", "row"
        raise RuntimeError("two\nlines")

    monkeypatch.setattr(doctor_machine, "memory", fail)
    found = look([])
    assert (rows(found["memory"]), found["memory"].problem) == ({"one": "row"}, "RuntimeError: two lines")
    assert found["ports"].rows


# The command


def test_wrong_flags_are_usage_and_a_wrong_file_is_not(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["doctor", "--axon.prot", "1"]) == 2
    assert "--axon.port" in capsys.readouterr().err
    assert cli.run(["doctor", "--config", str(home / "none.yaml")]) == 0
    assert "none.yaml" in capsys.readouterr().out
    with pytest.raises(FlagError):
        origins(["--axon.prot"], {})
    assert issubclass(FlagError, SettingsError)


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom neurons import cli\nassert cli.run(['doctor', '--help']) == 0\n"
        "assert not {'torch', 'cv2', 'av', 'bittensor', 'neurons.doctor'} & set(sys.modules), 'heavy import'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)
    code = "import sys, neurons.commands.doctor\nassert not {'torch', 'cv2', 'bittensor'} & set(sys.modules)\n"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)
