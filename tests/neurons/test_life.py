"""A registered miner from its flags to its exit code, with the SDK's real client on a chain in memory."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

import pytest
from bittensor.result import RpcConnectionError

from neurons import keys, miner
from neurons.chain import Chain
from neurons.chain_sync import ChainSync
from neurons.settings import MinerSettings
from neurons.wire.client import challenge_request
from tests.neurons.fake_substrate import NETUID, FakeSubstrate, Row, client
from tests.neurons.loopback import ALICE, BOB, GOOD

ROOT = Path(__file__).resolve().parents[2]
OUTSIDE = "203.0.113.7"


@pytest.fixture(autouse=True)
def no_traces(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, restored_logging: None) -> None:
    """The SDK's cache goes elsewhere than home, and the loggers are as they were before the miner set them."""
    monkeypatch.setenv("BTCLI_TOKEN_SYMBOLS_CACHE", str(tmp_path / "symbols.json"))
    # The miner of these tests is younger than its process: what was sent a moment ago is no replay from before.
    monkeypatch.setattr(miner, "_STARTED_NS", 0)


def flags(wallets: Path, *more: str) -> list[str]:
    return [
        *("--netuid", str(NETUID), "--wallet.path", str(wallets), "--wallet.name", "miner"),
        *("--axon.ip", "127.0.0.1", "--axon.port", "0", "--axon.external_ip", OUTSIDE),
        *("--neuron.detector", "trivial", "--subtensor.refresh_s", "0.05"),
        *more,
    ]


class Miner:
    """The miner's own ``main`` in a thread of this process; whoever wants to reach it finds it on the chain."""

    def __init__(self, wallets: Path, *more: str, registered: bool = True) -> None:
        self.hotkey = keys.load_hotkey("miner", path=wallets).ss58_address
        rows = [Row(ALICE.ss58_address, True, 5000.0), Row(BOB.ss58_address, False, 10.0)]
        self.substrate = FakeSubstrate([*rows, *([Row(self.hotkey)] if registered else [])], step=1)
        self.code: int | None = None
        self.later_s = 0.0  # how far the miner's clock is ahead of everybody's
        self._thread = threading.Thread(target=self._run, args=(flags(wallets, *more),))

    def _run(self, argv: list[str]) -> None:
        self.code = miner.main(argv, chains=self._chain)

    def _chain(self, settings: MinerSettings, hotkey: str) -> Chain:
        return Chain(client(self.substrate), netuid=settings.netuid, hotkey=hotkey, clock=self.clock)

    def clock(self) -> float:
        return time.monotonic() + self.later_s

    def __enter__(self) -> Miner:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.substrate.rows = self.substrate.rows[:2]  # ends a miner that is still running
        self.ended()

    def address(self) -> tuple[str, int]:
        assert self.substrate.served.wait(30)
        published = self.substrate.published(self.hotkey)
        assert published is not None
        return published

    def ended(self) -> int | None:
        self._thread.join(30)
        assert not self._thread.is_alive()
        return self.code

    def ask(self, key: keys.Hotkey) -> int:
        """A challenge on the wire; the answer's status."""
        return self._send("POST", "/detect_image", key, GOOD)[0]

    def uid(self) -> object:
        """What the miner says its number is."""
        return json.loads(self._send("GET", "/miner_info", ALICE, b"")[1])["uid"]

    def _send(self, method: str, path: str, key: keys.Hotkey, body: bytes) -> tuple[int, bytes]:
        port = self.address()[1]  # before the request is signed: what is older than the service is refused
        signed = challenge_request(
            "epistula",
            key=key,
            receiver=self.hotkey,
            modality="image",
            payload=body,
            timeout_s=9.0,
            uuid=str(uuid.uuid4()),
        )
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            connection.request(method, path, body or None, dict(signed.headers))
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()


def test_registered_it_serves_whom_the_metagraph_lets_in_and_ends_with_its_slot(
    wallets: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Miner(wallets) as running:
        ip, port = running.address()
        assert (ip, port) != (OUTSIDE, 0)
        assert ip == OUTSIDE
        assert running.ask(ALICE) == 200
        assert running.ask(BOB) == 403
        running.substrate.rows[2] = Row("5Newcomer")
        assert running.ended() == 7
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    out, err = capsys.readouterr()
    assert json.loads(out)["hotkey"] == running.hotkey
    assert "uid 2 is held by 5Newcomer" in err
    assert "btcli subnet register --netuid 34 --wallet miner --wallet-hotkey default" in err
    assert running.substrate.calls[-1] == "close"
    assert running.substrate.calls.count("submit") == 1
    assert running.substrate.connections == 1


def test_a_hotkey_that_registers_again_is_served_under_its_new_number(wallets: Path) -> None:
    with Miner(wallets) as running:
        running.address()
        assert running.uid() == 2
        running.substrate.served.clear()
        running.substrate.rows[2:] = [Row("5Newcomer"), Row(running.hotkey)]
        running.address()  # waits until it is published for the new slot
        assert running.uid() == 3
        assert running.ask(ALICE) == 200


def test_not_registered_it_says_how_and_serves_nobody(wallets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Miner(wallets, registered=False) as running:
        assert running.ended() == 7
    out, err = capsys.readouterr()
    assert out == ""
    assert (
        "not registered on subnet 34; register with: btcli subnet register --netuid 34 --wallet miner"
        f" --wallet-hotkey default --wallet-path {wallets} --network finney\n"
    ) in err
    assert [line for line in err.splitlines() if "preflight ok" not in line and "preflight warn" not in line] == [
        err.splitlines()[-1]
    ]


def test_a_view_that_is_too_old_lets_nobody_in(wallets: Path) -> None:
    with Miner(wallets) as running:
        assert running.ask(ALICE) == 200
        away = threading.Event()

        def fault(name: str) -> bool | None:
            away.set()
            raise RpcConnectionError("gone")

        running.substrate.fault = fault
        assert away.wait(10)
        assert running.ask(ALICE) == 200
        running.later_s = 3601.0
        assert running.ask(ALICE) == 503
        running.substrate.fault = None


def test_a_task_that_dies_takes_the_process_down(
    wallets: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def bug(self: ChainSync) -> float:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(ChainSync, "step", bug)
    with Miner(wallets) as running:
        assert running.ended() == 8
    assert "the task chain sync died: ZeroDivisionError: a bug" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--axon.external_ip", "0.0.0.0"], "axon.external_ip"),
        (["--subtensor.network", "finny"], "subtensor.network"),
    ],
)
def test_what_the_operator_can_mend_is_said_at_once(
    wallets: Path, more: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert miner.main(flags(wallets, *more)) == 2
    assert words in capsys.readouterr().err


def test_a_chain_that_is_not_there_is_a_code_of_its_own(wallets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert miner.main(flags(wallets, "--subtensor.chain_endpoint", f"ws://127.0.0.1:{port}")) == 5
    out, err = capsys.readouterr()
    assert out == ""
    assert "rpc_down" in err.splitlines()[-1]


def test_told_to_stop_it_leaves_with_zero(wallets: Path) -> None:
    hotkey = keys.load_hotkey("miner", path=wallets).ss58_address
    code = (
        "import sys; from neurons import miner; from neurons.chain import Chain\n"
        "from tests.neurons.fake_substrate import FakeSubstrate, Row, client\n"
        f"fake = FakeSubstrate([Row({hotkey!r})], step=1)\n"
        "chain = lambda settings, hotkey: Chain(client(fake), netuid=settings.netuid, hotkey=hotkey)\n"
        "miner.leave(miner.main(sys.argv[1:], chains=chain))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, *flags(wallets)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["event"] == "serving"
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=20)
        assert process.returncode == 0
        assert "Traceback" not in err
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
