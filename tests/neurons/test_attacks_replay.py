"""A captured request is of no use anywhere else, nor to a second instance that starts with an empty memory."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import time

import pytest

from neurons import keys, miner
from neurons.pipeline import TrivialJudge
from neurons.wire import btauth, dendrite, epistula
from neurons.wire.base import Refusal, Wire
from neurons.wire.client import WIRES
from tests.neurons.loopback import ALICE, BOB, MINER, P, ask, served
from tests.neurons.test_attacks import at

SECOND = 10**9
REFUSED = {"dendrite": 401, "btauth": 401, "epistula": 400}


@pytest.mark.parametrize("name", WIRES)
def test_a_captured_request_is_of_no_use_at_a_second_miner(name: str) -> None:
    async def inner() -> None:
        request = ask(name)
        async with served(TrivialJudge(P)) as first, served(TrivialJudge(P), wires=_wires(BOB)) as second:
            for headers in (
                request.headers,
                {h: BOB.ss58_address if v == MINER.ss58_address else v for h, v in request.headers.items()},
            ):
                captured = dataclasses.replace(request, headers=headers)
                assert (await second.send(captured))[0] == REFUSED[name]
            assert (await first.send(request))[0] == 200
            assert (await first.send(request))[0] == REFUSED[name]

    asyncio.run(inner())


def _wires(key: keys.Hotkey) -> dict[str, Wire]:
    return miner.wires(key.ss58_address)


@pytest.mark.parametrize("name", WIRES)
def test_a_captured_request_is_of_no_use_after_a_restart(name: str) -> None:
    """A second instance of the same hotkey, with an empty memory, while the request would still be fresh."""

    async def inner() -> None:
        request = ask(name)
        async with served(TrivialJudge(P), wires=_wires(MINER)) as first:
            await asyncio.sleep(0.002)  # Epistula counts in whole milliseconds
            late = ask(name)
            assert (await first.send(late))[0] == 200
        async with served(TrivialJudge(P), wires=_wires(MINER)) as second:
            for captured in (request, late):
                status, _, answer = await second.send(captured)
                assert (status, json.loads(answer)["reason"]) == (REFUSED[name], "stale_nonce")
            await asyncio.sleep(0.002)
            assert (await second.send(ask(name)))[0] == 200

    asyncio.run(inner())


@pytest.mark.parametrize(
    ("name", "future_s"),
    [("dendrite", dendrite.FUTURE_S), ("btauth", btauth.FUTURE_S), ("epistula", epistula.FUTURE_S)],
)
def test_nor_is_one_that_was_ahead_of_its_time(name: str, future_s: float) -> None:
    """A validator whose clock is fast sends nonces that are younger than the process that starts next."""
    now = time.time_ns()
    ahead = at(name, now + int((future_s - 0.5) * SECOND))
    first = miner.wires(MINER.ss58_address)[name]
    assert first.verify(dataclasses.replace(ahead, received_ns=now)).hotkey == ALICE.ss58_address
    second = miner.wires(MINER.ss58_address, started_ns=now + SECOND // 10)[name]
    for later_s in (0.2, 1.0, future_s, future_s + 4.0):
        arrived = dataclasses.replace(ahead, received_ns=now + int(later_s * SECOND))
        with pytest.raises(Refusal) as caught:
            second.verify(arrived)
        assert caught.value.reason in ("stale_nonce", "future_nonce")
    # What is sent once that time is over is served; a start that took as long has cost nobody an answer.
    after = now + int(4.2 * SECOND)
    assert second.verify(dataclasses.replace(at(name, after), received_ns=after)).hotkey == ALICE.ss58_address
