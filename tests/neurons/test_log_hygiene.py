"""Whatever goes wrong, nothing that a miner logs or prints holds a key, a signature, a body or an endpoint's secret.

A registered miner at level debug gets honest and hostile requests on all three wires, bugs that put whole requests into
their messages, a chain that fails with its address in the error, and wallets that cannot be opened. Then everything
that came out is searched.
"""

from __future__ import annotations

import base64
import dataclasses
import http.client
import json
import os
import socket
import threading
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from bittensor import sp_core
from bittensor.keyfiles import Keyfile
from bittensor.result import RpcConnectionError

from neurons import keys, miner, pipeline, server
from neurons.wire.base import Request
from neurons.wire.client import WIRES, challenge_request
from neurons.wire.encoding import deflate_base85
from tests.neurons.loopback import ALICE, BOB, jpeg
from tests.neurons.test_life import Miner

PASSWORD = "correct-horse-battery-staple"
TOKEN = "a1b2c3d4customerkey"
ENDPOINT = f"wss://customer:{TOKEN}@node.example/{TOKEN}?key={TOKEN}"
SIGNED_BY = {
    "dendrite": "bt_header_dendrite_signature",
    "btauth": "x-bittensor-signature",
    "epistula": "epistula-request-signature",
}
WINDOW = 32  # characters of a secret in a row that count as a leak; a body's: 64


@pytest.fixture(autouse=True)
def no_traces(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, restored_logging: None) -> None:
    monkeypatch.setenv("BTCLI_TOKEN_SYMBOLS_CACHE", str(tmp_path / "symbols.json"))
    monkeypatch.setattr(miner, "_STARTED_NS", 0)  # see test_life


@pytest.fixture(scope="module")
def encrypted(wallets: Path) -> bytes:
    """The miner's hotkey behind another password; once, because the derivation of its key takes seconds."""
    file = Keyfile(keyfile(wallets, "encrypted"))
    phrase = json.loads(keyfile(wallets).read_text(encoding="utf-8"))["secretPhrase"]
    file.set_keypair(sp_core.Keypair.create_from_mnemonic(phrase, 1), encrypt=True, password=f"not {PASSWORD}")
    return Path(file.path).read_bytes()


def keyfile(wallets: Path, name: str = "miner") -> Path:
    return wallets / name / "hotkeys" / "default"


def windows(text: str, size: int, step: int = 1) -> Iterator[str]:
    return (text[i : i + size] for i in range(0, max(1, len(text) - size + 1), step))


class Secrets:
    """What must not come out, with how many characters of it in a row are too many."""

    def __init__(self) -> None:
        self.all: list[tuple[str, str, int]] = []

    def add(self, name: str, texts: Iterable[str], size: int = WINDOW) -> None:
        self.all += [(name, text, min(size, len(text))) for text in texts]

    def add_bytes(self, name: str, data: bytes, size: int = WINDOW) -> None:
        b64 = base64.b64encode(data).decode()
        texts = (data.hex(), b64, b64.translate(str.maketrans("+/", "-_")), deflate_base85(data), repr(data)[2:-1])
        self.add(name, texts, size)

    def add_wallet(self, file: Path) -> None:
        held = json.loads(file.read_text(encoding="utf-8"))
        for name in ("secretSeed", "privateKey"):
            self.add_bytes(name, bytes.fromhex(held[name].removeprefix("0x")))
        words = held["secretPhrase"].split()
        self.add("mnemonic", (" ".join(words[i : i + 4]) for i in range(len(words) - 3)), 1000)

    def leaked(self, shown: str) -> list[str]:
        """Which secrets come out: a run of `size` characters has a whole piece of half that length in it."""
        pieces = {(max(1, size // 2) if len(text) > size else size) for _, text, size in self.all}
        by_size = {size: set(windows(shown, size)) for size in pieces}
        found = []
        for name, text, size in self.all:
            piece = max(1, size // 2) if len(text) > size else size
            if any(part in by_size[piece] for part in windows(text, piece, piece)):
                found.append(f"{name}: {text[:20]}...")
        return found


def requests(hotkey: str) -> Iterator[Request]:
    """Honest and hostile ones on every wire, each with a signature that holds somewhere."""
    for number, wire in enumerate(WIRES):

        def signed(
            payload: bytes, key: keys.Hotkey = ALICE, receiver: str = hotkey, *, wire: str = wire, **more: Any
        ) -> Request:
            return challenge_request(
                wire,
                key=key,
                receiver=receiver,
                modality="image",
                payload=payload,
                timeout_s=9.0,
                uuid=str(uuid.uuid4()),
                **more,
            )

        honest = signed(jpeg(seed=number))
        yield honest
        yield honest  # replayed
        yield signed(jpeg(seed=number), BOB)  # no permit
        yield signed(jpeg(seed=number), keys.from_uri("//Stranger"))
        yield signed(jpeg(seed=number), receiver=BOB.ss58_address)
        yield signed(jpeg(seed=number), now_ns=1)  # long ago
        yield signed(b"no image " * 30)
        other = signed(jpeg(seed=10 + number))
        yield dataclasses.replace(other, body=signed(jpeg(seed=20 + number)).body)
        yield dataclasses.replace(other, body=other.body[:-50])
        misplaced = {**other.headers, SIGNED_BY[wire]: other.headers[SIGNED_BY[wire]] + "zz", "content-encoding": "x"}
        yield dataclasses.replace(other, headers=misplaced)
        yield dataclasses.replace(other, target=f"{other.target}?signature={other.headers[SIGNED_BY[wire]]}")
        yield dataclasses.replace(other, method="PUT", target=f"/{other.headers[SIGNED_BY[wire]]}")


def send(port: int, request: Request) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(request.method, request.target, request.body, dict(request.headers))
        response = connection.getresponse()
        response.read()
        return response.status
    finally:
        connection.close()


def send_junk(port: int, request: Request) -> None:
    """The same signature in what is no HTTP at all."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(f"{request.headers[SIGNED_BY['btauth']]} / HTTP/9\r\n\r\n".encode())
        connection.settimeout(10)
        while connection.recv(1000):
            pass


class Bugs:
    """Breaks one part of a miner at a time, with messages that hold all that the part knew."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.part = ""
        for part, (owner, name) in {
            "detector": (pipeline.TrivialDetector, "predict"),
            "judge": (pipeline.Judge, "judge"),
            "server": (server.App, "_unpack"),
        }.items():
            monkeypatch.setattr(owner, name, self._broken(part, getattr(owner, name)))

    def _broken(self, part: str, method: Any) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            if self.part == part:
                raise ValueError(f"{part}: cannot do {args!r} {options!r} {_all_of(args)!r}")
            return method(*args, **options)

        return call


def _all_of(args: Sequence[Any]) -> list[Any]:
    """What reprs leave out: a careless message would hold it."""
    pieces = [piece for arg in args for piece in (arg if isinstance(arg, list | tuple) else [arg])]
    return [getattr(piece, name) for piece in pieces for name in ("payload", "body", "headers") if hasattr(piece, name)]


@pytest.mark.parametrize("style", ["console", "json"])
def test_a_bad_day_leaves_no_secret_in_the_log(
    style: str, wallets: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bugs, secrets, seen = Bugs(monkeypatch), Secrets(), set()
    secrets.add_wallet(keyfile(wallets))
    secrets.add("endpoint", [TOKEN])
    failed = threading.Event()

    def away(name: str) -> bool | None:
        failed.set()
        raise RpcConnectionError(f"cannot connect to {ENDPOINT}: refused; tried '{ENDPOINT}'")

    flags = ("--logging.level", "debug", "--logging.format", style, "--subtensor.chain_endpoint", ENDPOINT)
    with Miner(wallets, *flags) as running:
        port = running.address()[1]
        for part in ("", "detector", "judge", "server"):
            bugs.part = part
            for request in requests(running.hotkey):
                for name in SIGNED_BY.values():
                    if name in request.headers:
                        hexadecimal = request.headers[name].removeprefix("0x").removesuffix("zz")
                        secrets.add_bytes("signature", bytes.fromhex(hexadecimal))
                seen.add(send(port, request))
        send_junk(
            port,
            challenge_request(
                "btauth", key=ALICE, receiver=running.hotkey, modality="image", payload=b"", timeout_s=9.0, uuid="u"
            ),
        )
        running.substrate.fault = away
        assert failed.wait(10)
        running.substrate.fault = None
    for seed in (*range(3), *range(10, 13), *range(20, 23)):
        secrets.add_bytes("body", jpeg(seed=seed), 64)
    secrets.add_bytes("body", b"no image " * 30, 64)

    assert {200, 401, 403, 422, 500} <= seen
    shown = "".join(capsys.readouterr())
    for said in ("failed on one item", "the judge failed", "a request failed", "refused ", "chain cannot be read"):
        assert said in shown
    assert "ValueError" in shown
    assert "wss://node.example/***" in shown  # the line to register with, at the end
    assert secrets.leaked(shown) == []


@contextmanager
def forbidding() -> Iterator[tuple[int, list[bytes]]]:
    """A node that refuses whoever asks; gives its port and what it was asked."""
    asked: list[bytes] = []

    def answer() -> None:
        while True:
            taken, _ = listener.accept()
            with taken:
                head = taken.recv(10_000)
                if not head:
                    return
                asked.append(head)
                taken.sendall(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer)
        thread.start()
        try:
            yield listener.getsockname()[1], asked
        finally:
            socket.create_connection(listener.getsockname()).close()
            thread.join(10)


@pytest.mark.parametrize("flags", [[], ["--preflight"]])
def test_a_nodes_key_stays_out_of_the_log_of_the_real_client(
    flags: list[str], wallets: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with forbidding() as (port, asked):
        argv = ["--wallet.path", str(wallets), "--wallet.name", "miner", "--axon.ip", "127.0.0.1", "--axon.port", "0"]
        argv += ["--axon.external_ip", "127.0.0.1", "--neuron.detector", "trivial", "--logging.level", "debug"]
        argv += ["--subtensor.refresh_s", "0.01", "--subtensor.timeout_s", "5"]
        argv += ["--subtensor.chain_endpoint", f"ws://127.0.0.1:{port}/{TOKEN}?key={TOKEN}"]
        assert miner.main([*argv, *flags]) == 5
    assert any(TOKEN.encode() in head for head in asked)
    shown = "".join(capsys.readouterr())
    assert "metagraph: " in shown
    assert TOKEN not in shown


@pytest.mark.parametrize(
    "endpoint", [f"https://node.example/{TOKEN}", f"wss://{TOKEN}@node.example:port/{TOKEN}", f"ws:///{TOKEN}"]
)
def test_an_endpoint_that_is_none_is_not_repeated_whole(
    endpoint: str, wallets: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["--wallet.path", str(wallets), "--wallet.name", "miner", "--axon.ip", "127.0.0.1", "--axon.port", "0"]
    argv += ["--axon.external_ip", "127.0.0.1", "--neuron.detector", "trivial", "--subtensor.refresh_s", "0.01"]
    assert miner.main([*argv, "--subtensor.chain_endpoint", endpoint]) in (2, 5)
    shown = "".join(capsys.readouterr())
    assert TOKEN not in shown


@pytest.mark.parametrize("flags", [[], ["--preflight"]])
def test_a_wallet_that_cannot_be_opened_is_not_repeated(
    flags: list[str],
    wallets: Path,
    encrypted: bytes,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    secrets = Secrets()
    whole = keyfile(wallets).read_text(encoding="utf-8")
    phrase = json.loads(whole)["secretPhrase"]
    secrets.add_wallet(keyfile(wallets))
    damaged = {
        "cut": whole[:-10],
        "words": f"{phrase} zebra",
        "inside": json.dumps({"secretPhrase": f"{phrase} zebra"}),
        "seed": json.loads(whole)["secretSeed"] + "zz",
    }
    for name, text in damaged.items():
        keyfile(wallets, name).parent.mkdir(parents=True, exist_ok=True)
        keyfile(wallets, name).write_text(text, encoding="utf-8")
    for name in ("wrong", "odd"):
        keyfile(wallets, name).parent.mkdir(parents=True, exist_ok=True)
        keyfile(wallets, name).write_bytes(encrypted)
        variable = Keyfile(keyfile(wallets, name)).env_var_name()
        monkeypatch.setenv(variable, f"{PASSWORD} as it is, which the wallet cannot read")
        if name == "wrong":
            sp_core.save_password_to_environment(variable, PASSWORD)
        secrets.add("password", [PASSWORD, os.environ[variable]])
    argv = ["--offline", "--neuron.detector", "trivial", "--axon.ip", "127.0.0.1", "--axon.port", "0"]
    argv += ["--wallet.path", str(wallets), "--logging.level", "debug"]
    codes = {name: miner.main([*argv, *flags, "--wallet.name", name]) for name in (*damaged, "wrong", "odd")}
    assert codes == dict.fromkeys(codes, 2)
    shown = "".join(capsys.readouterr())
    assert shown.count("not usable") == len(codes)
    assert secrets.leaked(shown) == []


@pytest.mark.parametrize("style", ["console", "json"])
def test_a_bug_of_the_process_is_logged_not_printed(
    style: str, wallets: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = keyfile(wallets).read_text(encoding="utf-8")

    def bug(*_: object) -> None:
        raise ZeroDivisionError(f"with {secret} and {ENDPOINT}")

    monkeypatch.setattr(miner, "_run", bug)
    assert miner.main(["--logging.format", style]) == 1
    secrets = Secrets()
    secrets.add_wallet(keyfile(wallets))
    secrets.add("endpoint", [TOKEN])
    out, err = capsys.readouterr()
    assert out == ""
    assert "ZeroDivisionError" in err
    if style == "json":
        assert json.loads(err)["level"] == "critical"
    assert secrets.leaked(err) == []
