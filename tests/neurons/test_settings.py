"""Settings: flags > environment > YAML > defaults, typos refused everywhere, the shipped YAML equal to the defaults."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import yaml

from neurons.settings import MinerSettings, SettingsError, load

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def no_shipped_yaml(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DEEPFAKE_MINER_HOME", str(tmp_path / "home"))


def test_defaults_without_any_source() -> None:
    assert load([], {}) == MinerSettings()


def test_the_shipped_file_names_every_setting_with_its_default() -> None:
    shipped = yaml.safe_load((ROOT / "configs" / "miner.yaml").read_text(encoding="utf-8"))
    assert shipped == MinerSettings().model_dump(mode="json")
    assert load(["--config", str(ROOT / "configs" / "miner.yaml")], {}) == MinerSettings()


def test_the_shipped_file_is_read_without_being_asked_for(tmp_path: Path) -> None:
    configs = tmp_path / "home" / "configs"
    configs.mkdir(parents=True)
    (configs / "miner.yaml").write_text("axon: {port: 7}\n", encoding="utf-8")
    assert load([], {}).axon.port == 7


@pytest.mark.parametrize(
    ("flags", "environ", "file", "port"),
    [
        ([], {}, {}, 8091),
        ([], {}, {"axon": {"port": 1}}, 1),
        ([], {"DEEPFAKE_MINER_AXON__PORT": "2"}, {"axon": {"port": 1}}, 2),
        (["--axon.port", "3"], {"DEEPFAKE_MINER_AXON__PORT": "2"}, {"axon": {"port": 1}}, 3),
        (["--axon.port=3"], {}, {}, 3),
    ],
)
def test_precedence(
    flags: list[str], environ: dict[str, str], file: dict[str, object], port: int, tmp_path: Path
) -> None:
    path = tmp_path / "my.yaml"
    path.write_text(yaml.safe_dump(file), encoding="utf-8")
    settings = load([*flags, "--config", str(path)], environ)
    assert settings.axon.port == port
    assert settings.axon.ip == "0.0.0.0"


def test_sources_mix_within_one_group(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text("wallet: {name: from_file, hotkey: from_file, path: /from/file}\n", encoding="utf-8")
    settings = load(
        ["--config", str(path), "--wallet.hotkey", "from_flag"], {"DEEPFAKE_MINER_WALLET__NAME": "from_env"}
    )
    assert (settings.wallet.name, settings.wallet.hotkey, settings.wallet.path) == (
        "from_env",
        "from_flag",
        "/from/file",
    )


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ([], True),
        (["--blacklist.force_validator_permit"], True),
        (["--no-blacklist.force_validator_permit"], False),
        (["--blacklist.no-force_validator_permit"], False),
    ],
)
def test_a_switch_can_be_switched_off(flags: list[str], expected: bool) -> None:
    assert load(flags, {}).blacklist.force_validator_permit is expected


@pytest.mark.parametrize(("text", "expected"), [("False", False), ("0", False), ("no", False), ("true", True)])
def test_a_boolean_in_the_environment_means_what_it_says(text: str, expected: bool) -> None:
    assert (
        load([], {"DEEPFAKE_MINER_BLACKLIST__FORCE_VALIDATOR_PERMIT": text}).blacklist.force_validator_permit
        is expected
    )


def test_every_flag_a_miner_knows_is_taken() -> None:
    settings = load(
        shlex.split(
            "--netuid 379 --wallet.name w --wallet.hotkey h --wallet.path /p --subtensor.network test"
            " --subtensor.chain_endpoint ws://127.0.0.1:9944 --axon.port 8000 --axon.ip 127.0.0.1"
            " --axon.external_ip 1.2.3.4 --axon.external_port 80 --axon.max_body_bytes 4096 --axon.header_timeout_s 1"
            " --axon.body_timeout_s 2 --axon.max_in_flight 3 --blacklist.allow_non_registered --blacklist.min_stake 10"
            " --blacklist.deny a,b --logging.level DEBUG --neuron.device cuda:1 --neuron.threads 2"
            " --neuron.camo my.yaml --neuron.deadline_s 5 --neuron.margin_s 1 --neuron.max_batch 4"
            " --neuron.queue_limit 9 --neuron.detector trivial --offline"
        ),
        {},
    )
    assert settings.netuid == 379
    assert settings.offline is True
    assert settings.subtensor.chain_endpoint == "ws://127.0.0.1:9944"
    assert settings.blacklist.deny == ("a", "b")
    assert settings.logging.level == "debug"
    assert settings.neuron.camo == Path("my.yaml")


@pytest.mark.parametrize(
    ("flags", "environ", "file", "words"),
    [
        (["--axon.prot", "1"], {}, "", ["--axon.prot", "did you mean --axon.port?"]),
        (["--axon.por", "1"], {}, "", ["--axon.por", "did you mean --axon.port?"]),
        (["stray"], {}, "", ["stray"]),
        (["--axon.port"], {}, "", ["--axon.port", "expected one argument"]),
        (["--axon.port", "x"], {}, "", ["axon.port", "integer"]),
        (["--axon.port", "70000"], {}, "", ["axon.port", "65535"]),
        (["--axon.ip", "localhost"], {}, "", ["axon.ip", "localhost"]),
        (["--neuron.deadline_s", "nan"], {}, "", ["neuron.deadline_s", "nan"]),
        (["--neuron.device", "cuda:x"], {}, "", ["neuron.device"]),
        (["--logging.level", "loud"], {}, "", ["logging.level", "debug"]),
        (["--no-offline", "--offline"], {}, "", ["--offline", "not allowed with"]),
        (
            [],
            {"DEEPFAKE_MINER_AXON__PROT": "1"},
            "",
            ["DEEPFAKE_MINER_AXON__PROT", "did you mean DEEPFAKE_MINER_AXON__PORT?"],
        ),
        ([], {"DEEPFAKE_MINER_AXON__PORT": "x"}, "", ["axon.port", "integer"]),
        ([], {}, "axon: {prot: 1}", ["axon.prot", "did you mean axon.port?"]),
        ([], {}, "axno: {port: 1}", ["unknown setting axno"]),
        ([], {}, "- 1", ["must hold a mapping"]),
        ([], {}, "axon: {port", ["is not YAML"]),
        ([], {}, "axon: 3", ["axon"]),
    ],
)
def test_a_mistake_is_one_line_that_names_it(
    flags: list[str], environ: dict[str, str], file: str, words: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "my.yaml"
    path.write_text(file, encoding="utf-8")
    with pytest.raises(SettingsError) as caught:
        load([*flags, "--config", str(path)], environ)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"none\.yaml"):
        load(["--config", str(tmp_path / "none.yaml")], {})


def test_the_home_folder_is_no_setting() -> None:
    assert load([], {"DEEPFAKE_MINER_HOME": "/x"}) == MinerSettings()


def test_settings_do_not_change() -> None:
    name = "port"  # a variable: the type checker knows as well that it cannot be set
    with pytest.raises(ValueError, match="frozen"):
        setattr(MinerSettings().axon, name, 1)


def test_help_names_flags_and_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        load(["--help"], {})
    assert caught.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "--axon.port N" in shown
    assert "(default: 8091)" in shown


# The flags that miners of other subnets know, all at once, and the same in the other two places.
_FAMILIAR = {
    "netuid": 379,
    "wallet.name": "w",
    "wallet.hotkey": "h",
    "wallet.path": "/p",
    "subtensor.network": "test",
    "subtensor.chain_endpoint": "ws://127.0.0.1:9944",
    "axon.port": 8000,
    "axon.ip": "127.0.0.1",
    "axon.external_ip": "1.2.3.4",
    "axon.external_port": 80,
    "blacklist.force_validator_permit": False,
    "blacklist.allow_non_registered": True,
    "blacklist.min_stake": 10.5,
    "logging.level": "debug",
    "neuron.device": "cuda:1",
    "offline": True,
}


def test_the_familiar_settings_mean_the_same_in_all_three_places(tmp_path: Path) -> None:
    flags: list[str] = []
    nested: dict[str, object] = {}
    for name, value in _FAMILIAR.items():
        off = "no-" if value is False else ""
        flags += [f"--{off}{name}"] if isinstance(value, bool) else [f"--{name}", str(value)]
        group, _, leaf = name.rpartition(".")
        place = nested.setdefault(group, {}) if group else nested
        assert isinstance(place, dict)
        place[leaf] = value
    environ = {f"DEEPFAKE_MINER_{n.replace('.', '__').upper()}": str(v).lower() for n, v in _FAMILIAR.items()}
    path = tmp_path / "my.yaml"
    path.write_text(yaml.safe_dump(nested), encoding="utf-8")

    from_flags = load(flags, {})
    assert load([], environ) == from_flags
    assert load(["--config", str(path)], {}) == from_flags
    for name, value in _FAMILIAR.items():
        held: object = from_flags
        for part in name.split("."):
            held = getattr(held, part)
        assert held == value
        assert type(held) is type(value)


def test_the_preflight_is_asked_for_by_its_flag_alone(tmp_path: Path) -> None:
    assert load(["--preflight", "--netuid", "1"], {}).netuid == 1
    with pytest.raises(SettingsError, match="unknown environment variable DEEPFAKE_MINER_PREFLIGHT"):
        load([], {"DEEPFAKE_MINER_PREFLIGHT": "1"})
    path = tmp_path / "my.yaml"
    path.write_text("preflight: true\n", encoding="utf-8")
    with pytest.raises(SettingsError, match="unknown setting preflight"):
        load(["--config", str(path)], {})
