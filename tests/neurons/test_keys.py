from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path

import bittensor as bt
import pytest
from bittensor import sp_core
from bittensor.sp_core import ss58_encode
from hypothesis import given
from hypothesis import strategies as st

from detectors.errors import ConfigError
from neurons import keys

# The development key //Alice under the password "secret of nobody", as bittensor writes it; making it takes seconds.
ENCRYPTED_ALICE = (
    "JE5BQ0w6d8i4TRqWLxuxsXgaPesDQOLhN4qy+wlpNg3NPyeStYAHMXHq9LK7v/rRrSntVxm2vGRLKQH6mCuSwANm3+HmWQp7dz8A"
    "870kCIrI1nC0FMizazQaWqwJ1y/724solbfn4IsRpl78JT+nTb0fB2SAVlNIlN8UR50pmUu6MjmxFlizno2cWrqOvJmlFr8irJLx"
    "3ftvC2YSR/FMi/AZljSes9oihrwAbT0NNA5QKfiRJhG7ylD37xcX/2q33lNED22k7ck/SGntOxFdMYkwKS+bO5QHPaNkXt0DcMQc"
    "beVRX1SCfFlQMhL51Hgi6roiv8scjrju2XvcOYRVR0qncnk0vEUKWMdEv78W6RiXI6jmAbZ9QqKw6XhNX3YItqaLi6E+OgjyOe1b"
    "FNJl6XfcAuBtkNbrFCLiEwz4Ll1sSvrWffghVj5LSDsNi/kiEixab1g5P8WYXH/DFnJZFlnKCwuZQDZJcPJtmQ54T1HinyPV3SLW"
    "WWiByZnRvfBvrprv+5DUve2VtK91i/TDhqb1FgJbY9hwX4NR2T5kPDbvLrPVfAXx4Y34f1V8L8ADCPU="
)
ALICE = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"


def test_throwaway_is_a_wallet_that_bittensor_reads(tmp_path: Path) -> None:
    made = keys.create_throwaway(tmp_path, "demo")
    assert bt.Wallet("demo", "default", str(tmp_path)).hotkey.ss58_address == made.ss58_address
    file = tmp_path / "demo" / "hotkeys" / "default"
    assert file.stat().st_mode & 0o077 == 0
    assert not (tmp_path / "demo" / "coldkey").exists()
    assert made.ss58_address in repr(made)
    assert json.loads(file.read_text())["privateKey"].removeprefix("0x") not in repr(made)


def test_existing_throwaway_is_kept(tmp_path: Path) -> None:
    first = keys.create_throwaway(tmp_path, "demo")
    keys._loaded.clear()
    assert keys.create_throwaway(tmp_path, "demo").ss58_address == first.ss58_address


def test_hotkey_is_read_once(tmp_path: Path) -> None:
    made = keys.create_throwaway(tmp_path, "demo", "h1")
    (tmp_path / "demo" / "hotkeys" / "h1").unlink()
    assert keys.load_hotkey("demo", "h1", tmp_path) is made


def test_loading_touches_no_coldkey(tmp_path: Path) -> None:
    keys.create_throwaway(tmp_path, "demo")
    keys._loaded.clear()
    (tmp_path / "demo" / "coldkey").write_text("must not be read")
    (tmp_path / "demo" / "coldkeypub.txt").write_text("must not be read")
    assert keys.load_hotkey("demo", path=tmp_path).sign(b"x")


@pytest.mark.parametrize("flag", ["name", "hotkey"])
@pytest.mark.parametrize("value", ["", "..", "a/b", "/etc"])
def test_names_cannot_leave_the_folder(tmp_path: Path, flag: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"wallet.{flag}"):
        keys.load_hotkey(**{"name": "demo", "hotkey": "default", flag: value}, path=tmp_path)


def test_missing_hotkey_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no hotkey at .*demo.*hotkeys.*default; set wallet\.path"):
        keys.load_hotkey("demo", path=tmp_path)


def test_broken_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "demo" / "hotkeys" / "default"
    file.parent.mkdir(parents=True)
    file.write_text("{")
    with pytest.raises(ConfigError, match="is not usable"):
        keys.load_hotkey("demo", path=tmp_path)


def test_public_only_file_is_refused(tmp_path: Path) -> None:
    bt.Wallet("demo", "default", str(tmp_path)).hotkey_file.set_keypair(
        sp_core.Keypair(ss58_address=ALICE), encrypt=False
    )
    with pytest.raises(ConfigError, match="is not usable"):
        keys.load_hotkey("demo", path=tmp_path)


def test_encrypted_hotkey_needs_its_variable_and_never_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = bt.Wallet("demo", "default", str(tmp_path)).hotkey_file
    file.make_dirs()
    Path(file.path).write_bytes(base64.b64decode(ENCRYPTED_ALICE))
    with pytest.raises(ConfigError, match="is encrypted; put its password into BT_PW_"):
        keys.load_hotkey("demo", path=tmp_path)
    monkeypatch.setenv(file.env_var_name(), "")  # restored afterwards, whatever the next line writes
    sp_core.save_password_to_environment(file.env_var_name(), "secret of nobody")
    assert keys.load_hotkey("demo", path=tmp_path).ss58_address == ALICE


def test_uri() -> None:
    assert keys.from_uri("//Alice").ss58_address == ALICE
    with pytest.raises(ConfigError, match="like //Alice"):
        keys.from_uri("two words")


def test_signature_round_trip() -> None:
    key = keys.from_uri("//Alice")
    signature = key.sign(b"message")
    assert keys.verify(ALICE, b"message", signature)
    assert not keys.verify(ALICE, b"messagf", signature)
    assert not keys.verify(keys.from_uri("//Bob").ss58_address, b"message", signature)


@pytest.mark.parametrize("spelling", [0, 2, 41, 43, 64])
def test_only_one_spelling_of_an_address_counts(spelling: int) -> None:
    key = keys.from_uri("//Alice")
    other = ss58_encode(key.public_key, spelling)
    assert not keys.is_address(other)
    assert not keys.verify(other, b"message", key.sign(b"message"))
    assert keys.is_address(ALICE)


@given(st.text() | st.just(ALICE), st.binary(max_size=40), st.binary(max_size=80) | st.binary(min_size=64, max_size=64))
def test_verify_never_raises_and_never_believes(ss58: str, message: bytes, signature: bytes) -> None:
    assert not keys.verify(ss58, message, signature)


@pytest.mark.parametrize("ss58", ["", "5", ALICE[:-1], ALICE + "x", ALICE.lower(), " " + ALICE, "é", "\x00", "\ud800"])
def test_malformed_address_is_false(ss58: str) -> None:
    assert not keys.is_address(ss58)
    assert not keys.verify(ss58, b"m", bytes(64))


def test_importing_pulls_in_nothing_heavy() -> None:
    code = (
        "import sys, neurons.keys, neurons.wire, neurons.wire.client, neurons.wire.btauth, neurons.wire.epistula\n"
        "print([m for m in ('torch', 'bittensor', 'cv2', 'av') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
