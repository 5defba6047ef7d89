"""The miner's entry as people start it: a process that says when it serves, exits with a code that says why."""

from __future__ import annotations

import http.client
import io
import json
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from neurons import keys, logs, miner
from neurons.settings import MinerSettings, load
from neurons.wire import btauth, dendrite, epistula
from neurons.wire.client import challenge_request, read_answer

ROOT = Path(__file__).resolve().parents[2]


def jpeg() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (64, 64), (120, 120, 120)).save(stream, "JPEG")
    return stream.getvalue()


def command(wallets: Path, *more: str) -> list[str]:
    return [
        sys.executable,
        "neurons/miner.py",
        *("--netuid", "34", "--wallet.path", str(wallets), "--wallet.name", "miner"),
        *("--axon.ip", "127.0.0.1", "--axon.port", "0", "--offline", "--neuron.detector", "trivial"),
        *more,
    ]


def finished(*flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "neurons/miner.py", *flags], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )


@contextmanager
def running(wallets: Path, *more: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    process = subprocess.Popen(command(wallets, *more), cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process, json.loads(process.stdout.readline())
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stdout.close()


def ask(ready: dict[str, Any], wire: str, payload: bytes) -> tuple[int, object]:
    request = challenge_request(
        wire,
        key=keys.from_uri("//Alice"),
        receiver=ready["hotkey"],
        modality="image",
        payload=payload,
        timeout_s=9.0,
        uuid=str(uuid.uuid4()),
    )
    connection = http.client.HTTPConnection(ready["ip"], ready["port"], timeout=10)
    try:
        connection.request(request.method, request.target, request.body, dict(request.headers))
        response = connection.getresponse()
        return response.status, read_answer(wire, response.status, dict(response.getheaders()), response.read())
    finally:
        connection.close()


def test_serves_says_so_and_ends_gracefully(wallets: Path) -> None:
    with running(wallets) as (process, ready):
        assert set(ready) == {"event", "ip", "port", "hotkey"}
        assert (ready["event"], ready["ip"]) == ("serving", "127.0.0.1")
        assert ready["hotkey"] == keys.load_hotkey("miner", path=wallets).ss58_address
        assert ask(ready, "dendrite", jpeg()) == (200, 0.5)
        assert ask(ready, "epistula", jpeg()) == (200, (0.5, 0.5, 0.0))
        assert ask(ready, "btauth", b"no image")[0] == 422
        idle = socket.create_connection((ready["ip"], ready["port"]))
        before = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert time.monotonic() - before < 5
        idle.close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((ready["ip"], ready["port"]))


@pytest.mark.parametrize(("second", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_second_signal_does_not_wait_for_what_runs(wallets: Path, second: signal.Signals, code: int) -> None:
    with running(wallets) as (process, ready), socket.create_connection((ready["ip"], ready["port"])) as slow:
        slow.sendall(b"POST /detect_image HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf")
        assert ask(ready, "dendrite", jpeg()) == (200, 0.5)  # by now the slow request is in its body
        process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)  # the grace period: the slow one may still finish
        before = time.monotonic()
        process.send_signal(second)
        assert process.wait(5) == code
        assert time.monotonic() - before < 1


def test_binds_exactly_the_address_it_is_told(wallets: Path) -> None:
    with running(wallets, "--axon.ip", "127.0.0.2") as (process, ready):
        assert ready["ip"] == "127.0.0.2"
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", ready["port"]))
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0


def test_an_operator_can_insist_on_covered_bodies(wallets: Path) -> None:
    with running(wallets, "--axon.require_body_hash") as (_, ready):
        assert ask(ready, "dendrite", jpeg())[0] == 401  # the synapse names no field to be hashed
        assert ask(ready, "btauth", jpeg())[0] == 200


def test_an_address_in_use_is_named(wallets: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            command(wallets, "--axon.port", port), cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
        )
    assert done.returncode == 6
    assert f"127.0.0.1:{port}" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (["--axon.prot", "1"], 2, "did you mean --axon.port?"),
        (["--axon.port", "none"], 2, "axon.port"),
        (["--offline", "--wallet.path", "/nowhere"], 2, "wallet"),
        (["--wallet.path", "/nowhere"], 2, "wallet"),
    ],
)
def test_a_mistake_is_one_line_and_a_code(flags: list[str], code: int, words: str) -> None:
    done = finished(*flags)
    assert done.returncode == code
    assert done.stdout == ""
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


def test_help_is_quick_because_nothing_heavy_is_imported() -> None:
    code = "import sys; from neurons.miner import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    heavy = "print('HEAVY', sorted({'torch','bittensor','av','cv2','uvicorn'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code + heavy], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert "--axon.port" in done.stdout
    assert "HEAVY []" in done.stdout


def test_the_listener_follows_the_settings() -> None:
    settings = load(["--axon.ip", "127.0.0.3", "--axon.port", "99", "--axon.header_timeout_s", "1"], {})
    listen = miner.listen_of(settings)
    assert (listen.ip, listen.port, listen.header_timeout_s) == ("127.0.0.3", 99, 1.0)
    assert listen.grace_s == MinerSettings().axon.grace_s


def test_every_request_is_remembered_for_longer_than_it_is_fresh() -> None:
    wires = miner.wires("5x", body_timeout_s=60.0)
    memory = wires["dendrite"]._replay  # type: ignore[attr-defined]
    for dialect in (btauth, dendrite, epistula):
        assert memory.lifetime_s > dialect.WINDOW_S + dialect.FUTURE_S + 60.0


@pytest.mark.parametrize("style", ["json", "console"])
def test_logs_are_one_line_each_on_standard_error(style: str) -> None:
    code = (
        f"from neurons import logs; import logging; logs.configure('info', {style!r})\n"
        "logging.getLogger('a.b').info('hello %s', 'you', extra={'port': 7}); logging.getLogger('a.b').debug('hidden')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "hello you" in done.stderr
    if style == "json":
        line = json.loads(done.stderr)
        assert (line["level"], line["logger"], line["port"]) == ("info", "a.b", 7)
    assert logs.__all__ == ["configure", "plain"]
