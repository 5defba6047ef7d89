"""Chain life by a clock that only moves when somebody sleeps: refresh, outages, the lost slot, publishing."""

from __future__ import annotations

import logging
import random
from pathlib import Path

import pytest
from bittensor.result import ChainError as Rejected
from bittensor.result import RpcConnectionError, RpcPolicyError

from neurons.access import AccessRules
from neurons.chain import ChainError, Endpoint
from neurons.chain_sync import Backoff, NotRegisteredError, Pace, StuckError, first_snapshot
from neurons.life import admission
from tests.neurons.chainkit import HERE, Time, alternating, chain_of, hotkeys, on_a_loop, setup
from tests.neurons.fake_substrate import FakeSubstrate, Row
from tests.neurons.loopback import ALICE, BOB, MINER

DOWN = RpcConnectionError("the endpoint is away")
MINUTE = 60.0
HOUR = 3600.0


@pytest.fixture(autouse=True)
def no_cache_in_the_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BTCLI_TOKEN_SYMBOLS_CACHE", str(tmp_path / "symbols.json"))


def away(name: str) -> bool | None:
    raise DOWN


@on_a_loop
async def test_a_refresh_every_two_minutes_by_the_same_connection() -> None:
    it = await setup()
    await it.run_for(HOUR)
    assert it.time.slept == [120.0] * 31
    assert it.substrate.connections == 1
    assert it.sync.snapshot.block == 1000 + 300
    assert it.sync.age_s == 0
    assert [snapshot.block for snapshot in it.told] == [1000 + 10 * n for n in range(31)]


@on_a_loop
async def test_a_lost_permit_takes_effect_at_the_next_refresh() -> None:
    it = await setup()
    may_ask = admission(AccessRules(), it.sync)
    assert may_ask(ALICE.ss58_address).reason == "registered"
    assert may_ask(ALICE.ss58_address).priority == 5000
    it.substrate.rows[0].validator_permit = False
    await it.run_for(119)
    assert may_ask(ALICE.ss58_address).allowed
    await it.run_for(2)
    await it.run_for(120)
    assert may_ask(ALICE.ss58_address).reason == "no_permit"
    it.substrate.rows[1].validator_permit = True
    await it.run_for(121)
    assert may_ask(BOB.ss58_address).reason == "registered"


@pytest.mark.parametrize("outage", [10.0, 10 * MINUTE])
@on_a_loop
async def test_a_short_outage_is_not_noticed_by_any_caller(outage: float, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    it = await setup()
    may_ask = admission(AccessRules(), it.sync)
    await it.run_for(2 * MINUTE)
    it.substrate.fault = away
    await it.run_for(outage + 121)
    it.sync.check()
    assert it.sync.fresh
    assert outage <= it.sync.age_s <= outage + 4 * MINUTE
    assert may_ask(ALICE.ss58_address).reason == "registered"
    it.substrate.fault = None
    await it.run_for(5 * MINUTE)
    assert it.sync.age_s <= 120
    assert it.substrate.block - it.sync.snapshot.block <= 10
    assert "answers again after" in caplog.text
    assert "refusing everyone" not in caplog.text


@on_a_loop
async def test_beyond_the_limit_it_fails_closed_says_so_once_and_recovers(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    it = await setup()
    rules = AccessRules(allow=frozenset({BOB.ss58_address}), allow_non_registered=True)
    may_ask = admission(rules, it.sync)
    it.substrate.fault = away
    await it.run_for(HOUR)
    assert may_ask(ALICE.ss58_address).allowed
    assert may_ask("5Stranger").allowed
    await it.run_for(1)
    assert not it.sync.fresh
    assert may_ask(ALICE.ss58_address).reason == "stale_metagraph"
    assert may_ask("5Stranger").reason == "stale_metagraph"
    assert may_ask(BOB.ss58_address).reason == "allow_list"
    await it.run_for(3 * HOUR)
    assert caplog.text.count("refusing everyone") == 1
    assert "news from the chain again" not in caplog.text

    it.substrate.fault = None
    await it.run_for(4 * MINUTE)
    assert may_ask(ALICE.ss58_address).reason == "registered"
    assert caplog.text.count("news from the chain again") == 1


@on_a_loop
async def test_the_watchdog_says_it_without_any_look_ending(caplog: pytest.LogCaptureFixture) -> None:
    it = await setup(Pace(refresh_s=1200, max_age_s=600, watch_s=15))
    it.time.now += 601
    it.sync.check()
    it.sync.check()
    assert caplog.text.count("refusing everyone") == 1


@on_a_loop
async def test_a_loop_that_never_comes_round_kills_its_watchdog() -> None:
    it = await setup()
    it.time.now += 120 + 10 * 30
    it.sync.check()
    it.sync.check()
    it.time.now += 15
    it.sync.check()
    with pytest.raises(StuckError, match="315 s"):
        it.sync.check()


@on_a_loop
async def test_the_watchdog_looks_by_itself() -> None:
    it = await setup()
    start = it.time.now
    with pytest.raises(StuckError):
        await it.sync.watch()
    assert set(it.time.slept) == {15.0}
    assert 120 + 300 < it.time.now - start <= 120 + 300 + 2 * 15


@on_a_loop
async def test_a_machine_that_was_paused_gets_a_look_before_the_watchdog_bites() -> None:
    it = await setup()
    for _ in range(3):
        it.time.now += 10 * HOUR
        it.sync.check()
        it.substrate.block += 1
        await it.sync.step()
        it.sync.check()
        assert it.sync.fresh


@on_a_loop
async def test_the_watchdog_is_not_alarmed_by_a_long_outage() -> None:
    it = await setup()
    it.substrate.fault = away
    for _ in range(100):
        it.time.now += await it.sync.step()
        it.sync.check()
    assert it.sync.age_s > HOUR


@on_a_loop
async def test_waits_grow_with_jitter_and_have_an_end() -> None:
    it = await setup()
    it.substrate.fault = away
    waits = [await it.sync.step() for _ in range(40)]
    nominal = [min(120.0, 2.0 * 2**n) for n in range(40)]
    assert all(half / 2 <= wait <= half for wait, half in zip(waits, nominal, strict=True))
    assert len(set(waits[10:])) == 30
    it.substrate.fault = None
    it.substrate.block += 1
    assert await it.sync.step() == 120.0
    it.substrate.fault = away
    assert await it.sync.step() <= 2.0


def test_backing_off_for_months_overflows_nothing() -> None:
    backoff = Backoff(2.0, 120.0, random.Random(3))
    assert all(backoff.next() <= 120.0 for _ in range(100_000))


@on_a_loop
async def test_an_endpoint_that_asks_for_time_gets_it_within_reason() -> None:
    it = await setup()
    for asked, given in (("77", 77.0), ("99999", 600.0)):

        def refuse(name: str, asked: str = asked) -> bool | None:
            raise RpcPolicyError("slow down", status_code=429, retry_after=asked)

        it.substrate.fault = refuse
        assert await it.sync.step() == given


@on_a_loop
async def test_an_endpoint_that_flaps_keeps_the_view_young() -> None:
    it = await setup()
    it.substrate.fault = alternating(DOWN)
    ages: list[float] = []
    await it.run_for(6 * HOUR, each=lambda: ages.append(it.sync.age_s))
    assert len(ages) > 300, "every second look fails and is repeated soon"
    assert max(ages) < 3 * MINUTE
    assert it.substrate.connections == 1


@on_a_loop
async def test_calls_that_hang_are_an_outage_like_any_other() -> None:
    it = await setup(timeout_s=0.005)
    hang = True
    it.substrate.fault = lambda name: hang and name == "get_metagraph"
    for _ in range(4):
        it.time.now += await it.sync.step()
    assert it.sync.age_s > 0
    assert it.substrate.calls.count("close") == 2
    hang = False
    it.substrate.block += 10
    await it.sync.step()
    assert it.sync.age_s == 0


@on_a_loop
async def test_a_node_that_is_stuck_at_one_block_does_not_keep_the_view_young() -> None:
    it = await setup()
    await it.run_for(2 * HOUR, blocks=False)
    assert it.substrate.calls.count("get_metagraph") > 50
    assert it.sync.age_s == 2 * HOUR
    assert not it.sync.fresh


@on_a_loop
async def test_a_node_that_is_behind_takes_nothing_back() -> None:
    it = await setup()
    it.substrate.block = 990
    it.substrate.rows = it.substrate.rows[:2]  # we registered after 990
    for block in (990, 991, 992):
        it.substrate.block = block
        await it.sync.step()
    assert it.sync.snapshot.block == 1000
    assert it.sync.snapshot.uid == 2


@on_a_loop
async def test_a_lost_slot_ends_the_miner_after_a_second_look() -> None:
    it = await setup()
    it.substrate.rows[2] = Row("5Newcomer")
    with pytest.raises(NotRegisteredError, match=r"no longer registered on subnet 34 \(uid 2 is held by 5Newcomer\)"):
        await it.run_for(HOUR)
    assert it.time.slept == [120.0, 24.0]


@on_a_loop
async def test_a_second_look_at_the_same_block_proves_nothing() -> None:
    it = await setup()
    it.substrate.rows = it.substrate.rows[:2]
    it.substrate.block += 1
    assert [await it.sync.step() for _ in range(5)] == [24.0] * 5
    it.substrate.block += 1
    with pytest.raises(NotRegisteredError, match="uid 2 is free"):
        await it.sync.step()


@on_a_loop
async def test_one_bad_answer_does_not_end_a_miner() -> None:
    it = await setup()
    may_ask = admission(AccessRules(), it.sync)
    full = it.substrate.rows
    for _ in range(5):
        it.substrate.block += 2
        it.substrate.rows = []
        await it.sync.step()
        assert may_ask(ALICE.ss58_address).allowed, "the empty answer is not acted on"
        it.substrate.fault = away
        await it.sync.step()
        it.substrate.fault = None
        it.substrate.rows = full
        it.substrate.block += 2
        await it.sync.step()
    assert it.sync.age_s == 0


@on_a_loop
async def test_our_hotkey_at_another_uid_is_followed() -> None:
    it = await setup()
    it.substrate.rows[2] = Row("5Newcomer")
    it.substrate.rows.append(Row(MINER.ss58_address))
    await it.run_for(3 * MINUTE)
    assert it.sync.snapshot.uid == 3
    assert it.told[-1].uid == 3


@on_a_loop
async def test_the_address_is_published_once_and_then_left_alone() -> None:
    it = await setup(publish=HERE)
    await it.run_for(2 * HOUR)
    assert it.substrate.published(MINER.ss58_address) == ("203.0.113.7", 8091)
    assert it.substrate.calls.count("submit") == 1


@on_a_loop
async def test_an_address_that_is_published_already_is_not_published_again() -> None:
    it = await setup(publish=HERE)
    await it.chain.publish(HERE, MINER)
    it.substrate.calls.clear()
    it.substrate.block += 1
    await it.sync.step()
    assert "submit" not in it.substrate.calls


@on_a_loop
async def test_a_changed_address_is_published_when_the_rate_limit_lets_us(caplog: pytest.LogCaptureFixture) -> None:
    it = await setup(publish=HERE)
    await it.chain.publish(Endpoint("203.0.113.99", 1), MINER)  # by the process before us, a moment ago
    it.substrate.calls.clear()
    await it.run_for(30 * MINUTE)
    assert it.substrate.published(MINER.ss58_address) == ("203.0.113.7", 8091)
    assert "rate_limited" in caplog.text
    assert 2 <= it.substrate.calls.count("submit") <= 5, "50 blocks are 10 minutes: few knocks, one of them lets us in"


@on_a_loop
async def test_a_slot_that_was_lost_and_won_again_is_published_again() -> None:
    it = await setup(publish=HERE)
    await it.run_for(5 * MINUTE)
    it.substrate.rows[2] = Row("5Newcomer")
    it.substrate.rows.append(Row(MINER.ss58_address))
    await it.run_for(5 * MINUTE)
    assert it.substrate.published(MINER.ss58_address) == ("203.0.113.7", 8091)


@on_a_loop
async def test_two_miners_with_one_hotkey_do_not_fight_for_ever() -> None:
    it = await setup(publish=HERE)
    other = {"ip": 1, "port": 1, "ip_type": 4}
    for _ in range(24 * 10):
        it.substrate.rows[2].axon, it.substrate.rows[2].served_at = dict(other), None
        await it.run_for(6 * MINUTE)
    assert it.substrate.calls.count("submit") < 80  # a day of it; without backing off 240


@on_a_loop
async def test_a_failure_to_publish_disturbs_nothing_else() -> None:
    it = await setup(publish=HERE)

    def reject(name: str) -> bool | None:
        if name == "submit":
            raise Rejected("no funds", "InsufficientBalance")
        return None

    it.substrate.fault = reject
    await it.run_for(HOUR)
    assert it.sync.age_s == 0
    assert it.substrate.published(MINER.ss58_address) is None


@on_a_loop
async def test_the_first_snapshot_waits_for_a_chain_that_is_away_for_a_moment() -> None:
    substrate, time = FakeSubstrate(hotkeys()), Time()
    chain = chain_of(substrate, time)
    substrate.fault = alternating(DOWN)
    assert (await first_snapshot(chain, sleep=time.sleep)).uid == 2
    assert len(time.slept) == 1
    substrate.fault = away
    with pytest.raises(ChainError, match="rpc_down"):
        await first_snapshot(chain, sleep=time.sleep)
    assert len(time.slept) == 3


@pytest.mark.parametrize(
    "substrate", [FakeSubstrate(hotkeys()[:2]), FakeSubstrate(exists=False)], ids=["no slot", "no subnet"]
)
@on_a_loop
async def test_without_a_slot_there_is_no_first_snapshot_and_no_second_try(substrate: FakeSubstrate) -> None:
    time = Time()
    with pytest.raises(NotRegisteredError, match="subnet 34"):
        await first_snapshot(chain_of(substrate, time), sleep=time.sleep)
    assert time.slept == []
