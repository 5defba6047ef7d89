"""The gate over real sockets: what a stranger is told, what proofs cost, and how often one may knock."""

from __future__ import annotations

import asyncio
import dataclasses
import json

import pytest

from neurons import keys
from neurons.access import AccessRules, Decision, Standing, decide
from neurons.gate import Gate
from neurons.limits import Rate, RateLimited, RateLimits
from neurons.scheduler import Overloaded
from neurons.wire import build
from neurons.wire.base import Refusal, Request
from neurons.wire.client import WIRES
from neurons.wire.replay import ReplayGuard
from tests.neurons.loopback import ALICE, BOB, MINER, Client, against, ask, plain, read_response

EVE, POOR, DAVE = keys.from_uri("//Eve"), keys.from_uri("//Poor"), keys.from_uri("//Dave")
SIGNATURE = {
    "dendrite": "bt_header_dendrite_signature",
    "btauth": "x-bittensor-signature",
    "epistula": "epistula-request-signature",
}
# One of each kind: served, denied, unregistered, without a permit, too poor, ourselves.
RULES = AccessRules(deny=frozenset({EVE.ss58_address}), min_stake=100.0, own=MINER.ss58_address)
STANDINGS = {
    ALICE.ss58_address: Standing(1, True, 500.0),
    EVE.ss58_address: Standing(2, True, 500.0),
    DAVE.ss58_address: Standing(3, False, 500.0),
    POOR.ss58_address: Standing(4, True, 1.0),
    MINER.ss58_address: Standing(5, True, 500.0),
}
REFUSED = {"deny_list": EVE, "not_registered": BOB, "no_permit": DAVE, "low_stake": POOR, "own_hotkey": MINER}
NO_PROOFS = RateLimits(proofs=Rate(1e-6, 1))  # after the first


def forged(name: str, key: keys.Hotkey) -> Request:
    """As `key`'s request, with the signature of nobody."""
    request = ask(name, key=key)
    return dataclasses.replace(request, headers={**request.headers, SIGNATURE[name]: "0x" + "17" * 64})


@dataclasses.dataclass
class Counter:
    """Counts the signatures that are really checked, in either of the two places where that happens."""

    checked: int = 0


@pytest.fixture
def proofs(monkeypatch: pytest.MonkeyPatch) -> Counter:
    from bittensor import http_auth  # noqa: PLC0415 - half a second

    from neurons.wire import dendrite, epistula  # noqa: PLC0415

    counter = Counter()
    for module, name in (
        (dendrite, "verify_signature"),
        (epistula, "verify_signature"),
        (http_auth, "_sp_core_verify"),
    ):
        original = getattr(module, name)

        def counted(*args: object, original: object = original) -> object:
            counter.checked += 1
            return original(*args)  # type: ignore[operator]

        monkeypatch.setattr(module, name, counted)
    return counter


async def exchange(client: Client, request: Request) -> bytes:
    """Everything that comes back, headers included, byte for byte (there is no date in it)."""
    reader, writer = await client.raw()
    writer.write(plain(request))
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    answer = head + await reader.readexactly(length)
    # The connection lives on, for every one of them alike.
    writer.write(plain(ask("epistula")))
    assert (await read_response(reader))[0] == 200
    writer.close()
    return b"\r\n".join(line for line in answer.split(b"\r\n") if not line.lower().startswith(b"date:"))


@pytest.mark.parametrize("budget", ["proofs", "no proofs"])
@pytest.mark.parametrize("name", WIRES)
def test_an_unproven_claim_is_answered_alike_whoever_it_names(name: str, budget: str, proofs: Counter) -> None:
    async def body(client: Client) -> None:
        if budget == "no proofs":
            await client.send(forged(name, EVE))
        served = await exchange(client, forged(name, ALICE))
        assert b"bad_signature" in served
        before = proofs.checked
        for reason, key in REFUSED.items():
            assert await exchange(client, forged(name, key)) == served, reason
        honest = len(REFUSED)  # `exchange` proves Alice each time
        assert proofs.checked - before == (honest if budget == "no proofs" else 2 * honest)

    rates = NO_PROOFS if budget == "no proofs" else RateLimits()
    against(body, rules=RULES, standing=STANDINGS.get, rates=rates)


@pytest.mark.parametrize("name", WIRES)
def test_who_proves_a_refused_key_is_told_why(name: str) -> None:
    async def body(client: Client) -> None:
        for reason, key in REFUSED.items():
            status, _, answer = await client.send(ask(name, key=key))
            assert (status, json.loads(answer)["reason"]) == (403, reason)

    against(body, rules=RULES, standing=STANDINGS.get)


@pytest.mark.parametrize("name", WIRES)
def test_out_of_proofs_even_the_owner_of_a_refused_key_looks_like_a_stranger(name: str) -> None:
    async def body(client: Client) -> None:
        assert (await client.send(ask(name, key=EVE)))[0] == 403
        status, _, answer = await client.send(ask(name, key=EVE))
        assert (status, json.loads(answer)["reason"]) == (400 if name == "epistula" else 401, "bad_signature")
        assert (await client.send(ask(name)))[0] == 200  # who is served never needs the budget

    against(body, rules=RULES, standing=STANDINGS.get, rates=NO_PROOFS)


STALE = {
    "dendrite": {"bt_header_dendrite_nonce": "1"},
    "btauth": {"x-bittensor-nonce": "1"},
    "epistula": {"epistula-timestamp": "1"},
}
OTHERS = {
    "dendrite": {"bt_header_axon_hotkey": BOB.ss58_address},
    "btauth": {"x-bittensor-receiver": BOB.ss58_address},
    "epistula": {"epistula-signed-for": BOB.ss58_address},
}
MALFORMED = {name: {header: "0x17"} for name, header in SIGNATURE.items()}


@pytest.mark.parametrize("name", WIRES)
@pytest.mark.parametrize(
    "change",
    [STALE, OTHERS, MALFORMED, {"btauth": {"x-bittensor-crypto": "rsa"}}, {"btauth": {"x-bittensor-version": "2"}}],
)
def test_other_faults_do_not_tell_them_apart_either(name: str, change: dict[str, dict[str, str]]) -> None:
    """Were a stale nonce named for a served hotkey only, it would be the question that the signature is not."""

    async def body(client: Client) -> None:
        await client.send(forged(name, EVE))
        told = []
        for key in (ALICE, EVE, BOB, MINER):
            request = forged(name, key)
            headers = {**request.headers, **change.get(name, {"content-encoding": "gzip"})}
            status, _, answer = await client.send(dataclasses.replace(request, headers=headers))
            told.append((status, _ageless(answer)))
        assert all(one == told[0] for one in told)
        assert told[0][1]["reason"] != "bad_signature"

    against(body, rules=RULES, standing=STANDINGS.get, rates=NO_PROOFS)


def _ageless(answer: bytes) -> dict[str, str]:
    """Without the one sentence that says by how much two clocks differ, which is another every time."""
    parsed: dict[str, str] = json.loads(answer)
    return {key: value for key, value in parsed.items() if parsed["reason"] != "stale_nonce" or key == "reason"}


@pytest.mark.parametrize("name", WIRES)
def test_nothing_unproven_enters_the_replay_memory(name: str) -> None:
    memory = ReplayGuard()

    async def body(client: Client) -> None:
        for key in (ALICE, *REFUSED.values()):
            await client.send(forged(name, key))
        assert len(memory) == 0
        assert (await client.send(ask(name)))[0] == 200
        assert len(memory) == 1

    against(body, rules=RULES, standing=STANDINGS.get, wires=build(MINER.ss58_address, replay=memory))


def test_made_up_keys_with_good_signatures_fill_the_replay_memory_only_at_the_budgets_pace() -> None:
    memory = ReplayGuard()
    wires = build(MINER.ss58_address, replay=memory)
    now = 0.0
    gate = Gate(lambda hotkey: decide(hotkey, None, AccessRules()), RateLimits(proofs=Rate(5, 10)), clock=lambda: now)
    told = []
    for index in range(60):
        request = ask("dendrite", key=keys.from_uri(f"//made up/{index}"))
        refusal = gate.foresee(wires["dendrite"], request)
        if refusal is None:
            with pytest.raises(Refusal) as caught:
                gate.admit(wires["dendrite"], request)
            refusal = caught.value
        told.append(refusal.reason)
        now += 0.1
    assert told.count("not_registered") == len(memory) == pytest.approx(10 + 6 * 5, abs=1)
    assert set(told) == {"not_registered", "bad_signature"}


@pytest.mark.parametrize("name", WIRES)
def test_an_address_that_knocks_too_often_gets_429_with_retry_after_in_its_dialect(name: str) -> None:
    async def body(client: Client) -> None:
        good = [await client.send(ask(name)) for _ in range(3)]
        assert [status for status, _, _ in good] == [200] * 3
        status, headers, answer = await client.send(ask(name))
        assert (status, json.loads(answer)["reason"]) == (429, "address_rate")
        assert int(headers["retry-after"]) == 1000
        if name == "dendrite":
            assert headers["bt_header_axon_status_code"] == "429"
        # Nor is anything else answered, and what it says of where it comes from counts for nothing.
        elsewhere = {"x-forwarded-for": "192.0.2.7", "forwarded": "for=192.0.2.7", "x-real-ip": "192.0.2.7"}
        assert (await client.send(Request("GET", "/", elsewhere, b"", 0)))[0] == 429

    against(body, rates=RateLimits(address=Rate(0.001, 3)))


@pytest.mark.parametrize("name", WIRES)
def test_a_hotkey_that_asks_too_often_gets_429_and_nobody_else_does(name: str) -> None:
    async def body(client: Client) -> None:
        for _ in range(2):
            assert (await client.send(forged(name, ALICE)))[0] in (400, 401)  # who has not proven it spends nothing
        assert [(await client.send(ask(name)))[0] for _ in range(2)] == [200] * 2
        status, headers, answer = await client.send(ask(name))
        assert (status, json.loads(answer)["reason"], headers["retry-after"]) == (429, "hotkey_rate", "1000")
        assert (await client.send(ask(name, key=BOB)))[0] == 200

    against(body, rates=RateLimits(hotkey=Rate(0.001, 2)))


def test_the_default_rates_are_out_of_the_way_of_a_simulation() -> None:
    """64 in flight from one address with one key, as fast as they are answered."""

    async def body(client: Client) -> None:
        gate = asyncio.Semaphore(64)
        requests = [ask("epistula") for _ in range(600)]

        async def one(request: Request) -> int:
            async with gate:
                return (await client.send(request))[0]

        assert set(await asyncio.gather(*map(one, requests))) == {200}

    against(body)


def test_a_stale_metagraph_is_our_fault_and_says_when_to_come_back() -> None:
    def access(hotkey: str) -> Decision:
        return decide(hotkey, Standing(1, True, 5.0), AccessRules(), fresh=False)

    gate = Gate(access, RateLimits(proofs=Rate(1, 1)))
    request = ask("epistula")
    wire = build(MINER.ss58_address)["epistula"]
    for _ in range(3):  # not even a proof is needed, so no budget of proofs can run out
        foreseen = gate.foresee(wire, request)
        assert isinstance(foreseen, Overloaded)
        assert (foreseen.status, foreseen.reason, foreseen.retry_after_s) == (503, "stale_metagraph", 60)
    with pytest.raises(Overloaded):  # it grew too old between the headers and the body
        gate.admit(wire, request)


def test_a_stale_metagraph_tells_nothing_of_the_lists() -> None:
    rules = AccessRules(deny=frozenset({ALICE.ss58_address}), own=MINER.ss58_address)
    gate = Gate(lambda hotkey: decide(hotkey, None, rules, fresh=False))
    wire = build(MINER.ss58_address)["epistula"]
    said = {str(gate.foresee(wire, ask("epistula", key=key))) for key in (ALICE, MINER, keys.from_uri("//Stranger"))}
    assert len(said) == 1
    assert "stale_metagraph" in said.pop()


def test_a_validators_address_is_not_crowded_out_by_a_flood_of_others() -> None:
    gate = Gate(lambda hotkey: decide(hotkey, STANDINGS.get(hotkey), RULES), RateLimits(address=Rate(2, 4), capacity=8))
    wire = build(MINER.ss58_address)["epistula"]
    home = dataclasses.replace(ask("epistula"), client="2001:db8::1")
    gate.admit(wire, home)
    refused = 0
    for index in range(500):
        try:
            gate.knock(f"2001:db8:{index % 0xFFFF:x}:7::1")
        except RateLimited:
            refused += 1
    assert refused >= 480
    gate.knock(home.client)
    assert gate.held() <= 8 + 3
