"""Each check finds what it is for and says how to mend it; real sockets, limits and weights, a chain in memory."""

from __future__ import annotations

import io
import logging
import shutil
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest
from bittensor.result import RpcConnectionError

from detectors import paths
from neurons import keys, miner, preflight
from neurons.chain import Chain
from neurons.exits import Exit
from neurons.preflight import Finding, Status
from neurons.settings import MinerSettings, load
from neurons.wire import btauth, dendrite, epistula
from tests.neurons.chainkit import Time, on_a_loop
from tests.neurons.fake_substrate import BLOCK_S, GENESIS_S, NETUID, FakeSubstrate, Row, client

CHECKS = ["wallet", "address", "port", "registered", "published", "clock", "open files", "memory", "device", "weights"]


@pytest.fixture(autouse=True)
def no_traces(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No file in the home folder, no packet past loopback."""
    connect = socket.create_connection

    def at_home(target: tuple[str, int], timeout: float) -> socket.socket:
        if not ip_address(target[0]).is_loopback:
            raise ConnectionRefusedError
        return connect(target, timeout)

    monkeypatch.setattr(socket, "create_connection", at_home)
    monkeypatch.setenv("BTCLI_TOKEN_SYMBOLS_CACHE", str(tmp_path / "symbols.json"))


def settings_of(wallets: Path, *more: str) -> MinerSettings:
    return load(
        [
            *("--netuid", str(NETUID), "--wallet.path", str(wallets), "--wallet.name", "miner"),
            *("--axon.ip", "127.0.0.1", "--axon.port", "0", "--axon.external_ip", "127.0.0.1"),
            *("--neuron.detector", "trivial"),
            *more,
        ],
        {},
    )


class World:
    """A chain whose blocks come every 12 s of a clock, and that clock, which may be wrong by `skew_s`."""

    def __init__(self, wallets: Path, *, registered: bool = True, skew_s: float = 0.0) -> None:
        self.hotkey = keys.load_hotkey("miner", path=wallets).ss58_address
        self.substrate = FakeSubstrate([Row("5Other"), *([Row(self.hotkey)] if registered else [])])
        self.time = Time(GENESIS_S + self.substrate.block * BLOCK_S + 9.0)
        self.skew_s = skew_s
        self.blocks = True
        self.time.each = self._advance

    def _advance(self) -> None:
        if self.blocks:
            self.substrate.block = int((self.time.now - GENESIS_S) // BLOCK_S)

    def now(self) -> float:
        return self.time.now + self.skew_s

    def chains(self, settings: MinerSettings, hotkey: str) -> Chain:
        return Chain(client(self.substrate), netuid=settings.netuid, hotkey=hotkey)

    async def examine(self, settings: MinerSettings) -> dict[str, Finding]:
        found = preflight.examine(settings, self.chains, now=self.now, sleep=self.time.sleep)
        return {finding.name: finding async for finding in found}


@on_a_loop
async def _examined(world: World, settings: MinerSettings, into: dict[str, Finding]) -> None:
    into |= await world.examine(settings)


def examined(world: World, settings: MinerSettings) -> dict[str, Finding]:
    found: dict[str, Finding] = {}
    _examined(world, settings, found)
    return found


def test_all_is_well(wallets: Path) -> None:
    world = World(wallets)
    found = examined(world, settings_of(wallets, "--axon.external_ip", "8.8.8.8", "--axon.external_port", "1"))
    assert list(found) == CHECKS
    assert found["registered"].found == "uid 1 on subnet 34 at block 1000"
    assert world.hotkey in found["wallet"].found
    assert found["address"] == Finding("address", Status.OK, "validators are sent to 8.8.8.8:1")
    assert "the chain has nothing" in found["published"].found
    assert found["clock"].status is Status.OK
    assert found["weights"].status is Status.SKIPPED
    assert {found[name].status for name in ("wallet", "registered", "device", "open files")} == {Status.OK}
    assert world.substrate.calls[-1] == "close"
    assert "submit" not in world.substrate.calls


def test_what_is_published_is_named(wallets: Path) -> None:
    world = World(wallets)
    world.substrate.rows[1].axon = {"ip": int(ip_address("127.0.0.1")), "port": 8091, "ip_type": 4}
    same = examined(world, settings_of(wallets, "--axon.port", "8091"))["published"]
    other = examined(world, settings_of(wallets, "--axon.port", "8092"))["published"]
    assert same.found == "the chain has 127.0.0.1:8091"
    assert other.found == "the chain has 127.0.0.1:8091; the start publishes our address"


def test_offline_nothing_is_asked_of_the_chain(wallets: Path) -> None:
    world = World(wallets)
    found = examined(world, settings_of(wallets, "--offline"))
    assert {name for name, finding in found.items() if finding.status is Status.SKIPPED} == {
        "address",
        "registered",
        "clock",
        "weights",
    }
    assert world.substrate.calls == []


def test_a_hotkey_without_a_slot_is_told_the_command(wallets: Path) -> None:
    found = examined(World(wallets, registered=False), settings_of(wallets))
    failed = found["registered"]
    assert (failed.status, failed.code) == (Status.FAIL, Exit.REGISTRATION)
    assert failed.fix.startswith("btcli subnet register --netuid 34 --wallet miner --wallet-hotkey default")
    assert found["clock"].status is Status.OK


def test_a_subnet_that_is_not_there(wallets: Path) -> None:
    world = World(wallets)
    world.substrate.exists = False
    failed = examined(world, settings_of(wallets))["registered"]
    assert (failed.status, failed.code, failed.fix) == (Status.FAIL, Exit.REGISTRATION, "set another with --netuid")


def test_a_chain_that_is_away_fails_and_its_clock_is_left_out(wallets: Path) -> None:
    world = World(wallets)

    def fault(name: str) -> bool | None:
        raise RpcConnectionError("gone")

    world.substrate.fault = fault
    found = examined(world, settings_of(wallets))
    assert (found["registered"].status, found["registered"].code) == (Status.FAIL, Exit.CHAIN)
    assert "--subtensor.chain_endpoint" in found["registered"].fix
    assert found["clock"].status is Status.SKIPPED


def test_a_network_nobody_knows(wallets: Path) -> None:
    found: dict[str, Finding] = {}

    @on_a_loop
    async def run() -> None:
        async for finding in preflight.examine(settings_of(wallets, "--subtensor.network", "finny")):
            found[finding.name] = finding

    run()
    assert (found["registered"].status, found["registered"].code) == (Status.FAIL, Exit.USAGE)
    assert "subtensor.network" in found["registered"].found


def test_no_wallet_no_question_to_the_chain(wallets: Path) -> None:
    world = World(wallets)
    found = examined(world, settings_of(wallets, "--wallet.name", "none"))
    assert (found["wallet"].status, found["wallet"].code) == (Status.FAIL, Exit.USAGE)
    assert "wallet.path" in found["wallet"].found
    assert found["registered"].status is found["clock"].status is Status.SKIPPED
    assert world.substrate.calls == []


@pytest.mark.parametrize(
    ("flags", "status", "words"),
    [
        (["--axon.external_ip", "1.1.1.1"], Status.OK, "1.1.1.1, at the port"),
        (["--axon.external_ip", "2606:4700::1111", "--axon.port", "5"], Status.OK, "[2606:4700::1111]:5"),
        (["--axon.external_ip", "192.168.1.4"], Status.WARN, "--axon.external_ip"),
        (["--axon.external_ip", "0.0.0.0"], Status.FAIL, "axon.external_ip"),
    ],
)
def test_address(wallets: Path, flags: list[str], status: Status, words: str) -> None:
    finding = preflight.address(settings_of(wallets, *flags))
    assert finding.status is status
    assert words in finding.text
    assert finding.code == (Exit.USAGE if status is Status.FAIL else Exit.STOPPED)


def test_the_tolerances_are_those_of_the_wires() -> None:
    wires = (btauth, dendrite, epistula)
    assert min(wire.FUTURE_S for wire in wires) == preflight.AHEAD_LEAST_S
    assert max(wire.FUTURE_S for wire in wires) == preflight.AHEAD_MOST_S
    assert min(wire.WINDOW_S for wire in wires) == preflight.OLD_LEAST_S


@pytest.mark.parametrize(
    ("age_s", "slack_s", "status"),
    [
        (-6.1, 4.0, Status.FAIL),
        (-5.9, 4.0, Status.WARN),
        (-2.1, 4.0, Status.WARN),
        (-1.9, 4.0, Status.OK),
        (3.0, 4.0, Status.OK),
        (7.9, 4.0, Status.OK),
        (8.1, 4.0, Status.WARN),
        (19.0, 16.0, Status.OK),
        (1e9, 16.0, Status.WARN),
    ],
)
def test_clock_by_the_age_of_a_block(age_s: float, slack_s: float, status: Status) -> None:
    finding = preflight.clock(age_s, slack_s=slack_s)
    assert finding.status is status
    assert ("timedatectl" in finding.fix) is (status is not Status.OK)


@pytest.mark.parametrize(
    ("skew_s", "status"),
    [(0, Status.OK), (-2, Status.OK), (-4, Status.WARN), (-8, Status.FAIL), (4, Status.OK), (10, Status.WARN)],
)
def test_waiting_for_a_block_shows_a_wrong_clock_wherever_in_its_block_it_is_asked(
    wallets: Path, skew_s: float, status: Status
) -> None:
    """The world's clock stands at 9 s after a block: a single look would take -8 s for a block 1 s old."""
    world = World(wallets, skew_s=skew_s)
    assert examined(world, settings_of(wallets))["clock"].status is status
    assert sum(world.time.slept) <= 12.0


def test_a_chain_that_stands_still_is_not_waited_for_for_ever(wallets: Path) -> None:
    world = World(wallets)
    world.blocks = False
    examined(world, settings_of(wallets))
    assert sum(world.time.slept) == 24.0


def test_a_start_looks_once_and_asks_for_nothing_else(wallets: Path) -> None:
    world = World(wallets)
    settings = settings_of(wallets)
    found: list[Finding] = []

    @on_a_loop
    async def run() -> None:
        chain = world.chains(settings, world.hotkey)
        first = await chain.snapshot()
        calls = len(world.substrate.calls)
        found.extend(await preflight.after_joining(settings, chain, first, now=world.now))
        assert world.substrate.calls[calls:] == ["Now"]
        world.skew_s = -30.0
        found.extend(await preflight.after_joining(settings, chain, first, now=world.now))

        def fault(name: str) -> bool | None:
            raise RpcConnectionError("gone")

        world.substrate.fault = fault
        found.extend(await preflight.after_joining(settings, chain, first, now=world.now))
        world.substrate.fault = None
        await chain.close()

    run()
    clocks = [finding.status for finding in found if finding.name == "clock"]
    assert clocks == [Status.OK, Status.FAIL, Status.WARN]
    assert world.time.slept == []


def test_a_start_logs_what_is_well_and_what_is_not_and_ends_at_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    well = Finding("a", Status.OK, "fine")
    odd = Finding("b", Status.WARN, "odd", "do this")
    bad = Finding("c", Status.FAIL, "bad", "do that", Exit.BIND)
    with caplog.at_level(logging.INFO), pytest.raises(preflight.PreflightError, match="bad; do that") as caught:
        preflight.enforce(iter([well, odd, bad, replace(bad, name="never seen")]))
    assert caught.value.code == 6
    assert [(r.levelname, r.getMessage()) for r in caplog.records] == [
        ("INFO", "preflight ok a fine"),
        ("WARNING", "preflight warn b odd; do this"),
    ]


def _wrong_clock(world: World) -> None:
    # The miner's clock is this machine's here, so it is the chain that is ahead.
    world.substrate.block = int((time.time() - GENESIS_S) / BLOCK_S) + 10


def _away(world: World) -> None:
    def fault(name: str) -> bool | None:
        raise RpcConnectionError("gone")

    world.substrate.fault = fault


@pytest.mark.parametrize(
    ("flags", "change", "code", "words"),
    [
        (["--wallet.name", "none"], lambda _: None, 2, "no hotkey"),
        (["--axon.external_ip", "0.0.0.0"], lambda _: None, 2, "axon.external_ip"),
        (["--axon.ip", "192.0.2.1"], lambda _: None, 6, "192.0.2.1"),
        (["--neuron.device", "cuda:99", "--neuron.detector", "camo"], lambda _: None, 2, "--neuron.device cpu"),
        ([], _away, 5, "rpc_down"),
        ([], _wrong_clock, 2, "timedatectl"),
    ],
)
def test_a_start_that_fails_a_check_ends_with_its_code_and_the_fix(
    wallets: Path,
    flags: list[str],
    change: Callable[[World], None],
    code: int,
    words: str,
    capsys: pytest.CaptureFixture[str],
    restored_logging: None,
) -> None:
    world = World(wallets)
    change(world)
    argv = [
        *("--netuid", "34", "--wallet.path", str(wallets), "--wallet.name", "miner", "--axon.ip", "127.0.0.1"),
        *("--axon.port", "0", "--axon.external_ip", "127.0.0.1", "--neuron.detector", "trivial"),
        *("--subtensor.refresh_s", "0.01"),
    ]
    assert miner.main([*argv, *flags], chains=world.chains) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[-1].startswith("miner: ")
    assert words in err.splitlines()[-1]


def test_alone_it_prints_a_line_a_check_and_exits_with_the_first_failure(
    wallets: Path, capsys: pytest.CaptureFixture[str], restored_logging: None
) -> None:
    argv = ["--preflight", "--offline", "--wallet.path", str(wallets), "--axon.ip", "127.0.0.1", "--axon.port", "0"]
    argv += ["--neuron.detector", "trivial"]
    assert miner.main([*argv, "--wallet.name", "miner"]) == 0
    well = capsys.readouterr().out.splitlines()
    assert [line[8:18].strip() for line in well] == [name for name in CHECKS if name != "published"]
    assert {line.split()[0] for line in well} <= {"ok", "warn", "skipped"}
    assert miner.main([*argv, "--wallet.name", "none", "--axon.ip", "192.0.2.1"]) == 2
    bad = capsys.readouterr().out.splitlines()
    assert [line[:17].split() for line in bad if line.startswith("FAIL")] == [["FAIL", "wallet"], ["FAIL", "port"]]


def test_alone_the_endpoints_key_is_not_printed(wallets: Path) -> None:
    world = World(wallets, registered=False)
    out = io.StringIO()
    settings = settings_of(wallets, "--subtensor.chain_endpoint", "wss://node.example/the-customers-key")
    _away(world)
    assert preflight.alone(settings, world.chains, out) == 5
    assert "wss://node.example/***" in out.getvalue()
    assert "the-customers-key" not in out.getvalue()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("home")
    shutil.copytree(paths.weights(), root / "weights")
    shutil.copytree(paths.configs(), root / "configs")
    return root


def test_weights_are_held_against_their_cards(wallets: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPFAKE_MINER_HOME", str(home))
    neuron = settings_of(wallets, "--neuron.detector", "camo").neuron
    assert preflight.weights(neuron, "cpu").status is Status.OK
    file = home / "weights" / "face-points-1.0.0.safetensors"  # a gate's: no expert names it
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    failed = preflight.weights(neuron, "cpu")
    file.write_bytes(whole)
    assert (failed.status, failed.code) == (Status.FAIL, Exit.WEIGHTS)
    assert "face-points-1.0.0.safetensors: sha256 is" in failed.found
    assert "weights verify" in failed.fix
    config = home / "configs" / "camo.yaml"
    config.write_text(config.read_text(encoding="utf-8").replace("weights: general ", "weights: generel "))
    failed = preflight.weights(neuron, "cpu")
    assert (failed.status, failed.code) == (Status.FAIL, Exit.USAGE)
