"""Memory under forged callers: a million distinct ones through the gate, tens of thousands through the whole server.

Three floods, each caller with a hotkey, an address and a nonce of its own:

- gate: the address' limit, the claim, access and, where there is a proof to check, the signature and the replay memory.
  One in twenty names a hotkey that is served, so its (false) signature is really checked.
- app: the same as complete requests through the ASGI application, body and answer included; half of them without the
  address' limit, which would keep most of them from what comes behind it.
- made up: valid signatures of keys made up on the spot, the only way a stranger gets into the replay memory.

Resident memory is read after the first tenth of the first flood, when all tables are full, and at the end. Prints one
line of JSON; exit code 1 when memory grew by more than ``--allowed-mib``, a forged caller was let in, or
there was no time for all of them.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import math
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from neurons import keys
from neurons.access import AccessRules, Standing, decide
from neurons.gate import Gate
from neurons.limits import Rate, RateLimits
from neurons.pipeline import TrivialJudge
from neurons.scheduler import Scheduler
from neurons.server import build_app
from neurons.wire import build
from neurons.wire.base import Refusal, Request
from neurons.wire.client import WIRES, challenge_request
from neurons.wire.replay import ReplayGuard

__all__ = ["Room", "flood_app", "flood_gate", "flood_made_up", "resident_mib"]

SERVED_EVERY = 20
BODY = b"\xff\xd8 nobody decodes this \xff\xd9"


@dataclass
class Room:
    """What the floods run into: the parts of one miner that serves one validator."""

    seed: int = 0
    told: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.hotkey = keys.from_uri("//Miner").ss58_address
        self.validator = keys.from_uri("//Validator")
        self.memory = ReplayGuard()
        self.wires = build(self.hotkey, replay=self.memory)
        standings = {self.validator.ss58_address: Standing(1, True, 1000.0)}
        rules = AccessRules(own=self.hotkey)
        self.access = lambda hotkey: decide(hotkey, standings.get(hotkey), rules)
        self.gate = Gate(self.access, RateLimits())

    def forged(self, index: int) -> Request:
        """A request whose signature is noise: of nobody, or in the validator's name."""
        from bittensor import sp_core  # noqa: PLC0415 - half a second that --help need not pay

        served = index % SERVED_EVERY == 0
        hotkey = self.validator.ss58_address if served else sp_core.ss58_encode(self.random.randbytes(32), 42)
        now = time.time_ns()
        tag, signature = self.random.randbytes(16).hex(), "0x" + self.random.randbytes(64).hex()
        address = f"2001:db8:{index >> 16 & 0xFFFF:x}:{index & 0xFFFF:x}::1"
        wire = WIRES[index % 3]
        headers = {
            "dendrite": lambda: {
                "bt_header_dendrite_nonce": str(now),
                "bt_header_dendrite_uuid": tag,
                "bt_header_dendrite_hotkey": hotkey,
                "bt_header_dendrite_signature": signature,
                "bt_header_axon_hotkey": self.hotkey,
                "computed_body_hash": "a" * 64,
            },
            "btauth": lambda: {
                "x-bittensor-version": "1",
                "x-bittensor-nonce": str(now),
                "x-bittensor-hotkey": hotkey,
                "x-bittensor-receiver": self.hotkey,
                "x-bittensor-signature": signature,
            },
            "epistula": lambda: {
                "epistula-version": "2",
                "epistula-timestamp": str(now // 10**6),
                "epistula-uuid": tag,
                "epistula-signed-by": hotkey,
                "epistula-signed-for": self.hotkey,
                "epistula-request-signature": signature,
            },
        }[wire]()
        target = "/ImageSynapse" if wire == "dendrite" else "/detect_image"
        return Request("POST", target, headers, BODY, now, address)

    def made_up(self, index: int) -> Request:
        """A request that is in order, signed by a key that nobody has heard of."""
        return challenge_request(
            WIRES[index % 3],
            key=keys.from_uri(f"//made-up/{self.seed}/{index}"),
            receiver=self.hotkey,
            modality="image",
            payload=BODY,
            timeout_s=9.0,
            uuid=self.random.randbytes(16).hex(),
        )

    def pass_gate(self, request: Request, wire: str) -> None:
        """As the server does it, except that a limited address goes on, so that the rest is tried as well."""
        try:
            self.gate.knock(request.client)
        except Refusal as refusal:
            self.told[refusal.reason] += 1
        try:
            foreseen = self.gate.foresee(self.wires[wire], request)
            if foreseen is not None:
                raise foreseen
            self.gate.admit(self.wires[wire], request)
            self.told["let in"] += 1
        except Refusal as refusal:
            self.told[refusal.reason] += 1


def flood_gate(room: Room, count: int, each_tenth: Callable[[], None] = lambda: None, limit_s: float = math.inf) -> int:
    """`count` forged callers through the gate, fewer where `limit_s` does not suffice; gives how many there were."""
    until = time.monotonic() + limit_s
    for index in range(count):
        room.pass_gate(room.forged(index), WIRES[index % 3])
        if (index + 1) % max(1, count // 10) == 0:
            each_tenth()
        if index % 1000 == 0 and time.monotonic() > until:
            return index + 1
    return count


def flood_made_up(room: Room, count: int) -> None:
    """`count` made-up keys with valid signatures through the gate."""
    for index in range(count):
        room.pass_gate(room.made_up(index), WIRES[index % 3])


async def flood_app(room: Room, count: int, first: int = 0, rates: RateLimits | None = None) -> Counter[int]:
    """`count` forged callers as complete requests through the application; gives the statuses they got."""
    scheduler = Scheduler(TrivialJudge())
    app = build_app(wires=room.wires, access=room.access, scheduler=scheduler, hotkey=room.hotkey, rates=rates)
    statuses: Counter[int] = Counter()

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses[message["status"]] += 1

    for index in range(first, first + count):
        request = room.forged(index)
        scope = {
            "type": "http",
            "method": request.method,
            "raw_path": request.target.encode(),
            "query_string": b"",
            "headers": [(name.encode(), value.encode()) for name, value in request.headers.items()],
            "client": (request.client, 1),
        }

        async def receive(body: bytes = request.body) -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        await app(scope, receive, send)
    await scheduler.aclose(0.0)
    return statuses


def resident_mib() -> float:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--callers", type=int, default=1_000_000, help="through the gate")
    parser.add_argument("--requests", type=int, default=20_000, help="through the application")
    parser.add_argument("--made-up", type=int, default=5_000, help="valid signatures of made-up keys")
    parser.add_argument("--limit-s", type=float, default=48.0, help="of the first flood, on a busy machine")
    parser.add_argument("--allowed-mib", type=float, default=8.0, help="growth of resident memory that still is flat")
    options = parser.parse_args(argv)
    began = time.monotonic()
    room = Room()
    start_mib = resident_mib()
    course: list[float] = []
    held: list[int] = []

    def look() -> None:
        course.append(round(resident_mib(), 1))
        held.append(room.gate.held())

    callers = flood_gate(room, options.callers, look, options.limit_s)
    gate_s = time.monotonic() - began
    half, after = options.requests // 2, options.callers
    statuses = asyncio.run(flood_app(room, half, after))
    statuses += asyncio.run(flood_app(room, half, after + half, RateLimits(address=Rate(0.0, 1))))
    flood_made_up(room, options.made_up)
    end_mib = resident_mib()
    growth = end_mib - course[0]
    let_in = room.told["let in"] + statuses[200]
    result = {
        "command": "python scripts/prove_bounded.py",
        "callers": callers,
        "requests": options.requests,
        "made_up": options.made_up,
        "rss_mib": {"start": round(start_mib, 1), "each_tenth": course, "end": round(end_mib, 1)},
        "growth_mib": round(growth, 2),
        "most_held_in_limits": max(held),
        "held_in_replay": len(room.memory),
        "told": dict(room.told),
        "statuses": dict(statuses),
        "let_in": let_in,
        "gate_us_a_caller": round(1e6 * gate_s / callers, 1),
        "took_s": round(time.monotonic() - began, 1),
    }
    print(json.dumps(result))
    return 0 if growth <= options.allowed_mib and not let_in and callers == options.callers else 1


if __name__ == "__main__":
    sys.exit(main())
