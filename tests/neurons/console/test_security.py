"""The token on disk, sessions, and attempts to sign in."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from detectors.errors import ConfigError
from neurons.console.security import Door, Sessions, load_token
from tests.neurons.console.kit import Clock


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "own" / "token"


def test_a_token_is_made_once_and_for_the_owner_alone(file: Path) -> None:
    token = load_token(file)
    assert len(token) == 43
    assert load_token(file) == token
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert [path.name for path in file.parent.iterdir()] == ["token"]


def test_two_processes_that_start_together_share_a_token(file: Path) -> None:
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(load_token(file))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o602])
def test_a_file_that_others_can_open_is_refused(file: Path, mode: int) -> None:
    load_token(file)
    file.chmod(mode)
    with pytest.raises(ConfigError, match="chmod 600"):
        load_token(file)


@pytest.mark.parametrize("content", ["", "short", "two words of a sentence that is no token", "ünïcödé" * 5])
def test_what_holds_no_token_is_refused(file: Path, content: str) -> None:
    load_token(file)
    file.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match="holds no token"):
        load_token(file)


def test_a_link_is_not_followed(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    load_token(other)
    file.parent.mkdir()
    file.symlink_to(other)
    with pytest.raises(ConfigError, match="token_file"):
        load_token(file)


def test_a_dangling_link_makes_no_file_elsewhere(file: Path, tmp_path: Path) -> None:
    file.parent.mkdir()
    file.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="token_file"):
        load_token(file)
    assert not (tmp_path / "elsewhere").exists()


def test_a_pipe_does_not_hang_it(file: Path) -> None:
    file.parent.mkdir()
    os.mkfifo(file, 0o600)
    with pytest.raises(ConfigError, match="regular file"):
        load_token(file)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="token_file"):
        load_token(tmp_path / "file" / "token")


def test_a_session_ends_at_its_time() -> None:
    clock = Clock()
    sessions = Sessions(lifetime_s=100.0, clock=clock)
    name, session = sessions.begin()
    clock.now += 99.9
    assert sessions.find(name) is session
    clock.now += 0.1
    assert sessions.find(name) is None
    assert len(sessions) == 0


def test_sessions_are_bounded_and_the_oldest_goes() -> None:
    sessions = Sessions(most=3)
    names = [sessions.begin()[0] for _ in range(5)]
    assert [sessions.find(name) is not None for name in names] == [False, False, True, True, True]


@pytest.mark.parametrize("name", [None, "", "nonsense", "\udcff"])
def test_no_session_of_an_unknown_name(name: str | None) -> None:
    sessions = Sessions()
    sessions.begin()
    assert sessions.find(name) is None


def test_messages_are_told_once_and_bounded() -> None:
    _, session = Sessions().begin()
    for k in range(9):
        session.tell(True, str(k))
    assert [one.text for one in session.take()] == ["4", "5", "6", "7", "8"]
    assert session.take() == []


def test_the_token_opens_and_nothing_else_does() -> None:
    sessions = Sessions()
    door = Door("right-token", sessions, Clock())
    for wrong in ("", "right-toke", "right-tokens", "\udcff"):
        assert door.knock(wrong, "127.0.0.1") is None
    opened = door.knock(" right-token\n", "127.0.0.1")
    assert isinstance(opened, str)
    assert sessions.find(opened) is not None


def test_attempts_are_limited_and_then_let_in_again() -> None:
    clock = Clock()
    door = Door("right-token", Sessions(), clock)
    assert [door.knock("wrong", "127.0.0.1") for _ in range(5)] == [None] * 5
    wait = door.knock("right-token", "127.0.0.1")
    assert isinstance(wait, float)
    assert 0 < wait <= 5
    clock.now += wait
    assert isinstance(door.knock("right-token", "127.0.0.1"), str)


def test_one_address_does_not_lock_another_out() -> None:
    door = Door("right-token", Sessions(), Clock())
    for _ in range(20):
        door.knock("wrong", "192.0.2.1")
    assert isinstance(door.knock("right-token", "127.0.0.1"), str)
