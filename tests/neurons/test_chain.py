"""The chain's edge: the SDK's real client on a chain in memory, and on loopback sockets that refuse or stay silent."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest
from bittensor import result
from bittensor.client import Client
from bittensor.wallet import Wallet

from detectors.errors import ConfigError
from neurons import keys
from neurons.access import Standing
from neurons.chain import Chain, ChainError, Endpoint, Trouble, open_client, wanted_endpoint
from neurons.settings import Axon, Subtensor
from tests.neurons.chainkit import HERE, Time, chain_of, hotkeys, on_a_loop
from tests.neurons.fake_substrate import BLOCK_S, GENESIS_S, NETUID, FakeSubstrate, Row, client
from tests.neurons.loopback import ALICE, BOB, MINER


@pytest.fixture(autouse=True)
def no_cache_in_the_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BTCLI_TOKEN_SYMBOLS_CACHE", str(tmp_path / "symbols.json"))


def failing(error: BaseException) -> FakeSubstrate:
    def fault(name: str) -> bool | None:
        if name == "get_metagraph":
            raise error
        return None

    return FakeSubstrate(hotkeys(), fault=fault)


async def trouble_of(chain: Chain) -> ChainError:
    with pytest.raises(ChainError) as caught:
        await chain.snapshot()
    return caught.value


@on_a_loop
async def test_a_snapshot_has_everybody_and_ourselves() -> None:
    substrate = FakeSubstrate(hotkeys())
    time = Time()
    chain = chain_of(substrate, time)
    seen = await chain.snapshot()
    assert (seen.netuid, seen.block, seen.uid, seen.axon) == (NETUID, 1000, 2, None)
    assert seen.standing(ALICE.ss58_address) == Standing(0, True, 5000.0)
    assert seen.standing(BOB.ss58_address) == Standing(1, False, 10.0)
    assert seen.standing("nobody") is None
    assert seen.holders[2] == MINER.ss58_address
    time.now += 30
    assert seen.age(time.now) == 30


@on_a_loop
async def test_one_connection_serves_every_call() -> None:
    substrate = FakeSubstrate(hotkeys())
    chain = chain_of(substrate)
    await chain.connect()
    for _ in range(3):
        await chain.snapshot()
    assert await chain.uid() == 2
    assert await chain.block_time() == GENESIS_S + 1000 * BLOCK_S
    assert substrate.connections == 1
    await chain.close()
    assert substrate.calls[-1] == "close"


@on_a_loop
async def test_a_hotkey_without_a_slot_has_no_uid() -> None:
    substrate = FakeSubstrate(hotkeys()[:2])
    assert (await chain_of(substrate).snapshot()).uid is None
    assert await chain_of(substrate).uid() is None


@on_a_loop
async def test_no_such_subnet() -> None:
    error = await trouble_of(chain_of(FakeSubstrate(exists=False)))
    assert error.trouble is Trouble.NOT_REGISTERED
    assert str(NETUID) in str(error)


@on_a_loop
async def test_a_metagraph_that_contradicts_the_registrations_is_not_believed() -> None:
    substrate = FakeSubstrate(hotkeys()[:2], registrations={MINER.ss58_address: 9})
    error = await trouble_of(chain_of(substrate))
    assert error.trouble is Trouble.OTHER
    assert "uid 9" in str(error)


@pytest.mark.parametrize(
    ("error", "trouble", "retry_after_s"),
    [
        (result.RpcConnectionError("gone"), Trouble.DOWN, None),
        (result.ConnectionNotReady("not open"), Trouble.DOWN, None),
        (ConnectionResetError("reset"), Trouble.DOWN, None),
        (TimeoutError(), Trouble.TIMEOUT, None),
        (result.RpcPolicyError("slow down", status_code=429, retry_after="30"), Trouble.RATE_LIMITED, 30.0),
        (result.RpcPolicyError("slow down", retry_after="Wed, 21 Oct"), Trouble.RATE_LIMITED, None),
        (result.ChainError("x", "ServingRateLimitExceeded"), Trouble.RATE_LIMITED, None),
        (result.ChainError("x", "HotKeyNotRegisteredInNetwork"), Trouble.NOT_REGISTERED, None),
        (result.ChainError("x", "Overflow"), Trouble.OTHER, None),
        (KeyError("block"), Trouble.OTHER, None),
    ],
)
@on_a_loop
async def test_every_failure_is_one_of_five_kinds(
    error: Exception, trouble: Trouble, retry_after_s: float | None
) -> None:
    caught = await trouble_of(chain_of(failing(error)))
    assert (caught.trouble, caught.retry_after_s) == (trouble, retry_after_s)
    assert caught.__cause__ is error


@on_a_loop
async def test_a_nodes_long_message_becomes_one_short_line() -> None:
    caught = await trouble_of(chain_of(failing(result.ChainError("a\n" * 5000))))
    assert "\n" not in str(caught)
    assert len(str(caught)) < 400


@on_a_loop
async def test_an_answer_that_is_no_metagraph_is_a_failure_and_no_crash() -> None:
    class Odd(FakeSubstrate):
        async def runtime_call(self, *args: object, **options: object) -> object:
            return {"hotkeys": ["5x"], "block": "many"}

    assert (await trouble_of(chain_of(Odd(hotkeys())))).trouble is Trouble.OTHER


@on_a_loop
async def test_a_hung_call_times_out_and_two_in_a_row_open_the_connection_anew() -> None:
    hang = True
    substrate = FakeSubstrate(hotkeys(), fault=lambda name: hang and name == "get_metagraph")
    chain = chain_of(substrate, timeout_s=0.01)
    assert (await trouble_of(chain)).trouble is Trouble.TIMEOUT
    assert "close" not in substrate.calls
    assert (await trouble_of(chain)).trouble is Trouble.TIMEOUT
    assert substrate.calls.count("close") == 1
    hang = False
    assert (await chain_of(substrate).snapshot()).uid == 2
    assert (await chain.snapshot()).uid == 2
    assert substrate.connections == 3


@on_a_loop
async def test_a_connection_that_hangs_is_waited_for_and_never_built_twice() -> None:
    go = asyncio.Event()

    class Slow(FakeSubstrate):
        async def connect(self) -> None:
            await super().connect()
            await go.wait()

    substrate = Slow(hotkeys())
    chain = chain_of(substrate, timeout_s=0.01)
    for _ in range(3):
        assert (await trouble_of(chain)).trouble is Trouble.TIMEOUT
    assert substrate.connections == 1
    go.set()
    assert (await chain.snapshot()).uid == 2
    assert substrate.connections == 1


@pytest.mark.parametrize("turns", range(5))
@on_a_loop
async def test_a_cancellation_that_comes_together_with_the_answer_is_not_lost(turns: int) -> None:
    answered = asyncio.Event()

    class Slow(FakeSubstrate):
        async def runtime_call(self, *args: Any, **options: Any) -> object:
            await answered.wait()
            return await super().runtime_call(*args, **options)

    call = asyncio.ensure_future(chain_of(Slow(hotkeys())).snapshot())
    for _ in range(50):
        await asyncio.sleep(0)
    answered.set()
    for _ in range(turns):
        await asyncio.sleep(0)
    accepted = call.cancel()  # not where the call is over already
    await asyncio.wait({call})
    assert call.cancelled() is accepted


@on_a_loop
async def test_closing_while_connecting_leaves_nothing_behind() -> None:
    substrate = FakeSubstrate(hotkeys(), fault=lambda name: name == "connect")
    chain = chain_of(substrate, timeout_s=0.01)
    assert (await trouble_of(chain)).trouble is Trouble.TIMEOUT
    await chain.close()
    assert len(asyncio.all_tasks()) == 1


def test_publishing_is_signed_by_the_hotkey_of_a_wallet_that_has_no_coldkey(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def touched(self: Wallet) -> None:
        raise AssertionError("somebody wants the coldkey")

    for name in ("coldkey", "coldkeypub"):
        monkeypatch.setattr(Wallet, name, property(touched))
    key = keys.create_throwaway(tmp_path, "miner")
    assert [file.relative_to(tmp_path).parts[:2] for file in tmp_path.rglob("*") if file.is_file()] == [
        ("miner", "hotkeys")
    ]
    substrate = FakeSubstrate([*hotkeys(), Row(key.ss58_address)])

    async def publish() -> Endpoint | None:
        chain = Chain(client(substrate), netuid=NETUID, hotkey=key.ss58_address)
        await chain.publish(Endpoint("2001:db8::7", 443), key)
        return (await chain.snapshot()).axon

    assert asyncio.run(publish()) == Endpoint("2001:db8::7", 443)
    assert substrate.published(key.ss58_address) == ("2001:db8::7", 443)


@on_a_loop
async def test_the_chain_refuses_to_publish_too_soon_or_for_a_stranger() -> None:
    substrate = FakeSubstrate(hotkeys())
    chain = chain_of(substrate)
    await chain.publish(HERE, MINER)
    with pytest.raises(ChainError) as soon:
        await chain.publish(Endpoint("203.0.113.8", 1), MINER)
    assert soon.value.trouble is Trouble.RATE_LIMITED
    with pytest.raises(ChainError) as stranger:
        await chain.publish(HERE, keys.from_uri("//Stranger"))
    assert stranger.value.trouble is Trouble.NOT_REGISTERED
    assert (await chain.snapshot()).axon == HERE


@on_a_loop
async def test_a_real_connection_that_is_refused_is_down_and_stays_usable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    chain = Chain(Client(f"ws://127.0.0.1:{port}"), netuid=NETUID, hotkey=MINER.ss58_address)
    assert [(await trouble_of(chain)).trouble for _ in range(2)] == [Trouble.DOWN, Trouble.DOWN]
    await chain.close()


@on_a_loop
async def test_a_real_connection_that_stays_silent_times_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"ws://127.0.0.1:{silent.getsockname()[1]}"
        chain = Chain(Client(address), netuid=NETUID, hotkey=MINER.ss58_address, timeout_s=0.1)
        assert (await trouble_of(chain)).trouble is Trouble.TIMEOUT
        await chain.close()


@pytest.mark.parametrize(
    ("axon", "expected"),
    [
        (Axon(ip="8.8.8.8"), Endpoint("8.8.8.8", 5)),
        (Axon(external_ip="8.8.4.4"), Endpoint("8.8.4.4", 5)),
        (Axon(ip="8.8.8.8", external_ip="10.0.0.1", external_port=80), Endpoint("10.0.0.1", 80)),
        (Axon(external_ip="2001:4860:0:0::1"), Endpoint("2001:4860::1", 5)),
    ],
)
def test_what_is_published(axon: Axon, expected: Endpoint) -> None:
    assert wanted_endpoint(axon, 5) == expected


@pytest.mark.parametrize(
    "axon",
    [Axon(), Axon(ip="127.0.0.1"), Axon(ip="192.168.1.2"), Axon(ip="::"), Axon(ip="224.0.0.1")]
    + [Axon(external_ip=ip) for ip in ("0.0.0.0", "::", "224.0.0.1")],
)
def test_an_address_nobody_can_reach_is_not_published(axon: Axon) -> None:
    with pytest.raises(ConfigError, match=r"axon\.external_ip"):
        wanted_endpoint(axon, 5)


@pytest.mark.parametrize("text", ["1.2.3.4:8091", "[2001:db8::1]:8091"])
def test_an_endpoint_reads_what_it_writes(text: str) -> None:
    assert str(Endpoint.parse(text)) == text


def test_the_client_is_for_the_network_of_the_settings() -> None:
    assert open_client(Subtensor(network="test")).network == "test"
    assert open_client(Subtensor(chain_endpoint="ws://127.0.0.1:1")).endpoint == "ws://127.0.0.1:1"
    with pytest.raises(ConfigError, match=r"subtensor\.network"):
        open_client(Subtensor(network="finny"))
    with pytest.raises(ConfigError, match=r"subtensor\.chain_endpoint"):
        open_client(Subtensor(chain_endpoint="http://127.0.0.1:1"))
