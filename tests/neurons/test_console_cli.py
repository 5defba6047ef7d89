"""``deepfake-miner console``: where the console is, with the token that opens it."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from detectors.errors import ConfigError
from neurons.console.address import TOPIC, address
from neurons.console_cli import addresses, console
from neurons.noticeboard import Noticeboard
from neurons.settings import SettingsError


@pytest.fixture
def flags(tmp_path: Path) -> list[str]:
    (tmp_path / "store").mkdir()
    return ["--weights.store", str(tmp_path / "store"), "--console.token_file", str(tmp_path / "own" / "token")]


def test_without_a_running_miner_it_is_what_the_settings_say(flags: list[str], tmp_path: Path) -> None:
    found = addresses([*flags, "--console.port", "9200"])
    token = (tmp_path / "own" / "token").read_text().strip()
    assert found == [f"http://127.0.0.1:9200/?token={token}"]
    assert stat.S_IMODE((tmp_path / "own" / "token").stat().st_mode) == 0o600


def test_a_running_miner_says_where_it_really_is(flags: list[str], tmp_path: Path) -> None:
    Noticeboard(tmp_path / "store").post(TOPIC, {"ip": "::", "port": 40123})
    found = addresses([*flags, "--console.port", "0"])
    assert [one.partition("?")[0] for one in found] == ["http://[::1]:40123/"]


def test_a_port_that_nobody_knows_is_said(flags: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"console\.port"):
        addresses([*flags, "--console.port", "0"])


def test_a_wrong_flag_is_the_settings_error(flags: list[str]) -> None:
    with pytest.raises(SettingsError, match="consle"):
        addresses([*flags, "--consle.port", "1"])


@pytest.mark.parametrize(
    ("ip", "expected"),
    [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::", "[::1]"), ("192.0.2.1", "192.0.2.1")],
)
def test_every_address_leads_somewhere(ip: str, expected: str) -> None:
    assert address(ip, 80) == f"http://{expected}:80/"


def test_the_command_prints_it_or_says_why_not(flags: list[str], tmp_path: Path) -> None:
    app = typer.Typer()
    app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(console)
    good = CliRunner().invoke(app, [*flags, "--console.port", "9200"])
    assert good.exit_code == 0
    assert good.stdout.startswith("http://127.0.0.1:9200/?token=")
    (tmp_path / "own" / "token").chmod(0o644)
    bad = CliRunner().invoke(app, [*flags, "--console.port", "9200"])
    assert bad.exit_code == 2
    assert "chmod 600" in bad.output
