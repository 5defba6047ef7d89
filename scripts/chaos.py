"""Kills a miner again and again, and whoever changes its weights with it: ``make chaos`` (``ARGS="--rounds 50"``).

A round: a miner that serves under load, in two rounds of three a process beside it that activates or imports weights as
fast as it can, and at a random moment SIGKILL to all of them: every second writer is killed in the middle of a write.
Then

- the weights folder holds nothing half-written: each file is the old or the new one, the pointer names a version;
- the miner starts again on the same port, and gives the answers that it gave before: those of the version that the
  pointer names now, computed beforehand in this process;
- nothing that was sent before the kill is accepted: as soon as it serves, and again when it takes new requests.

Every fifth miner runs the default detector, the others answer a constant. Ends with 1 where a limit is broken.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import functools
import json
import os
import platform
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import uvloop

from neurons import keys
from neurons.wire import btauth, dendrite, epistula
from neurons.wire.base import Challenge, Request
from neurons.wire.bodies import decode_raw, decode_synapse
from scripts.bench_load import Connection, status_of
from scripts.chaos_store import Found, House, Writer
from scripts.chaos_writer import VERSIONS
from scripts.soak_child import EMBARGO_S, Child
from scripts.soak_judge import TOLD, Check, as_data, markdown
from scripts.soak_load import Ask, Caller, Load, Outcome, asks, signed
from tests.neurons.loopback import plain

__all__ = ["Chaos", "Round", "judge", "main", "replayed"]

ROOT = Path(__file__).resolve().parents[1]
KINDS = ("serving", "activate", "import")
CAMO_EVERY, CAMO_AT = 5, 1
IN_FLIGHT = 4
TOLERANCE = 1e-6
AHEAD_S = {"dendrite": dendrite.FUTURE_S, "btauth": btauth.FUTURE_S, "epistula": epistula.FUTURE_S}


@dataclass
class Round:
    """What one kill did.

    Attributes:
        kind: what was going on.
        detector: of the miner that was started after it.
        under_load: answers, broken connections and the like before the kill, by status.
        wrong: answers that were not the right ones, before the kill and after the restart, one line each.
        captured: requests that were sent before the kill, a third of them signed for a moment ahead.
        accepted_again: of those, how often one was answered after the restart.
        replay_statuses: what they got.
        found: see :class:`Found`.
        restart_s: from the kill until it served.
        answering_s: from the kill until it answered what was new.
    """

    kind: str
    detector: str
    under_load: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    captured: int = 0
    accepted_again: int = 0
    replay_statuses: Counter[int] = field(default_factory=Counter)
    found: Found = field(default_factory=Found)
    restart_s: float = 0.0
    answering_s: float = 0.0


async def replayed(address: tuple[str, int], requests: Sequence[bytes]) -> list[int]:
    """Sends captured bytes once more, each on a connection of its own; the statuses, 0 for no answer in 10 s."""

    async def send(data: bytes) -> int:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(Connection, *address)
        connection.answered = loop.create_future()
        connection.transport.write(data)
        try:
            return status_of(await asyncio.wait_for(connection.answered, 10.0))
        except TimeoutError:
            return 0
        finally:
            connection.transport.close()

    return list(await asyncio.gather(*map(send, requests)))


class Chaos:
    """A miner and its weights through `rounds` kills; see the module's docstring.

    Args:
        folder: for everything; empty.
        seed: of the moments.
        camo: whether some miners run the default detector.
    """

    def __init__(self, folder: Path, *, seed: int = 0, camo: bool = True) -> None:
        self._folder = folder
        self._chance = random.Random(seed)
        self._camo = camo
        self._caller = Caller(keys.from_uri("//Validator"), "127.0.1.1")
        made = asks(2, seed=100)
        self._mix = made
        self._asks: list[Ask] = [*made["image"], *made["video"]]
        self.house = House(folder / "home")
        self._answers: dict[str, list[tuple[float, float, float]]] = {"trivial": [(0.5, 0.5, 0.0)] * len(self._asks)}
        self._port = 0
        self.rounds: list[Round] = []
        self.log = folder / "miner.log"

    def prepare(self) -> None:
        """Computes the right answers of both versions; they differ, or nothing would be proven."""
        if not self._camo:
            return
        challenges = [_challenge(ask) for ask in self._asks]
        for version in reversed(VERSIONS):  # the first stays active
            self._answers[version] = self.house.answers(version, challenges)
        first, second = (self._answers[version] for version in VERSIONS)
        if any(abs(a[0] - b[0]) < 100 * TOLERANCE for a, b in zip(first, second, strict=True)):
            raise RuntimeError("the two versions cannot be told apart by their answers")

    async def run(self, rounds: int) -> None:
        """All of it; no child is left whatever happens."""
        child = self._start("trivial")
        active = ""
        try:
            await asyncio.to_thread(child.wait_until_serving)
            self._port = child.address[1]
            for k in range(rounds):
                camo = self._camo and k % CAMO_EVERY == CAMO_AT
                seen = Round(KINDS[k % len(KINDS)], "camo" if camo else "trivial")
                self.rounds.append(seen)
                await _past_embargo(child)
                recent = await self._kill(child, seen, active)
                killed = time.monotonic()
                child = self._start(seen.detector)
                seen.found = await asyncio.to_thread(self.house.look)
                await asyncio.to_thread(child.wait_until_serving)
                seen.restart_s = time.monotonic() - killed
                await self._replay(child, seen, recent)
                await asyncio.to_thread(self.house.mend, seen.found)
                await _past_embargo(child)
                active = seen.found.active if camo else ""
                await self._ask_all(child, seen, active)
                seen.answering_s = time.monotonic() - killed
                await self._replay(child, seen, recent)
                print(f"{k + 1:3d} {_line(seen)}", flush=True)
        finally:
            if child.process.poll() is None:
                child.kill()

    def _start(self, detector: str) -> Child:
        flags = ["--neuron.detector", detector, "--subtensor.refresh_s", "1"]
        validators = [self._caller.key.ss58_address]
        return Child(self._folder, validators, flags, home=self.house.home, port=self._port)

    async def _kill(self, child: Child, seen: Round, active: str) -> list[bytes]:
        """Load, perhaps a writer, and the end of all; gives what was sent before it."""
        writer = None if seen.kind == "serving" else Writer(seen.kind, self.house)
        try:
            load = Load(child.address, child.hotkey, [self._caller], self._mix, seed=len(self.rounds))
            if writer is not None:
                await asyncio.to_thread(writer.wait)
            captured = await self._capture(child, seen)
            moment = self._chance.uniform(0.02, 2.0 if active else 1.0)
            asking = asyncio.ensure_future(_until_gone(load, child))
            if writer is not None:
                writer.go()
            await asyncio.sleep(moment)
            if writer is not None and len(self.rounds) % 2 == 0:
                strike = functools.partial(self.house.strike, writer.process, self._chance.uniform(0.0, 0.002))
                await asyncio.to_thread(strike)
        finally:
            child.process.kill()
            if writer is not None and writer.kill() != -9:
                seen.wrong.append("the writer ended by itself")
        child.kill()
        await asking
        seen.under_load += Counter(o.status for o in load.outcomes)
        seen.wrong += [f"before the kill: {_what(o)}" for o in load.outcomes if not self._fits(o, active)]
        await load.close()
        return [*captured, *load.recent]

    async def _capture(self, child: Child, seen: Round) -> list[bytes]:
        """Requests that are answered now, some signed for as far ahead as their wire allows."""
        requests = []
        for ahead in (False, True):
            for ask in self._asks[:3]:
                now = time.time_ns() + int((AHEAD_S[ask.wire] - 0.5) * 1e9) * ahead
                requests.append(plain(signed(ask, self._caller.key, child.hotkey, self._caller.uuid, now)))
        statuses = await replayed(child.address, requests)
        if any(status != 200 for status in statuses):
            seen.wrong.append(f"before the kill, new requests: {statuses}")
        return requests

    async def _replay(self, child: Child, seen: Round, requests: Sequence[bytes]) -> None:
        statuses = await replayed(child.address, requests)
        seen.captured = len(requests)
        seen.accepted_again += sum(status == 200 for status in statuses)
        seen.replay_statuses += Counter(statuses)
        if any(status not in (400, 401) for status in statuses):
            seen.wrong.append(f"captured requests got {dict(Counter(statuses))}")

    async def _ask_all(self, child: Child, seen: Round, active: str) -> None:
        """Each challenge on each wire, one at a time, as the right answers were computed."""
        load = Load(child.address, child.hotkey, [self._caller], self._mix)
        for ask, right in zip(self._asks, self._answers[active or "trivial"], strict=True):
            outcome = await load.exchange(self._caller, ask, time.monotonic())
            if outcome.status != 200 or not _same(outcome.answer, right):
                seen.wrong.append(f"after the restart: {_what(outcome)}, expected {right}")
        await load.close()

    def _fits(self, outcome: Outcome, active: str) -> bool:
        """Under load any of the right answers will do: which challenge it was is not kept."""
        if outcome.status == 0:  # the kill
            return True
        rights = self._answers[active or "trivial"]
        # In a batch with others the last digits differ, and a late expert may be missing under load: valid is enough.
        return outcome.status == 200 and (outcome.answer is not None if active else outcome.answer in (0.5, rights[0]))


async def _past_embargo(child: Child) -> None:
    await asyncio.sleep(max(0.0, child.started_ns / 1e9 + EMBARGO_S - time.time()))


async def _until_gone(load: Load, child: Child) -> None:
    async def ask() -> None:
        while child.process.poll() is None and (await load.one(time.monotonic())).status:
            pass

    await asyncio.gather(*(ask() for _ in range(IN_FLIGHT)))


def _challenge(ask: Ask) -> Challenge:
    """What the miner makes of it, for the detector in this process."""
    request = signed(ask, keys.from_uri("//Validator"), "", "0")
    decode = decode_synapse if ask.wire == "dendrite" else decode_raw
    return decode(Request(request.method, request.target, request.headers, request.body, 0))


def _same(answer: float | tuple[float, float, float] | None, right: tuple[float, float, float]) -> bool:
    if isinstance(answer, tuple):
        return all(abs(a - b) <= TOLERANCE for a, b in zip(answer, right, strict=True))
    return answer is not None and abs(answer - (1.0 - right[0])) <= TOLERANCE


def _what(outcome: Outcome) -> str:
    return f"{outcome.wire} {outcome.modality} {outcome.status} {outcome.reason} {outcome.answer}"


def _line(seen: Round) -> str:
    what = [
        f"{seen.kind:8s} {seen.detector:7s} {seen.under_load[200]:4d} answers before",
        f"{seen.found.temporary} temporary files",
        f"{len(seen.found.cardless)} without a card",
        f"serving after {seen.restart_s:.1f} s",
        f"replays {dict(sorted(seen.replay_statuses.items()))}",
    ]
    return "; ".join([", ".join(what), *seen.wrong, *seen.found.problems])


def _data(seen: Round) -> dict[str, Any]:
    counted = {"under_load": dict(seen.under_load), "replay_statuses": dict(seen.replay_statuses)}
    return asdict(dataclasses.replace(seen, under_load=Counter(), replay_statuses=Counter())) | counted


def judge(rounds: Sequence[Round]) -> list[Check]:
    """Every limit, in the order of the table."""
    wrong = [line for r in rounds for line in r.wrong]
    torn = [line for r in rounds for line in r.found.problems]
    again, sent = sum(r.accepted_again for r in rounds), sum(2 * r.captured for r in rounds)
    camo = sum(r.detector == "camo" for r in rounds)
    writing = sum(r.kind != "serving" for r in rounds)
    before = [0, *(r.found.temporary for r in rounds)]  # what an earlier kill left is still there
    in_write = sum(r.found.temporary > old or bool(r.found.cardless) for r, old in zip(rounds, before, strict=False))
    temporary = max((r.found.temporary for r in rounds), default=0)
    size = max((r.found.temporary_bytes for r in rounds), default=0) / 2**20
    times = sorted(r.restart_s for r in rounds)
    return [
        Check("kills", TOLD, f"{len(rounds)}, {writing} of them during a change of weights", None),
        Check("requests under way when killed", TOLD, str(sum(r.under_load[0] for r in rounds)), None),
        Check("wrong answers, before and after", "0", f"{len(wrong)} {'; '.join(wrong[:3])}".strip(), not wrong),
        Check("restarts with the default detector", TOLD, f"{camo}, answers equal within {TOLERANCE:g}", None),
        Check("half-written or missing files", "0", f"{len(torn)} {'; '.join(torn[:3])}".strip(), not torn),
        Check("captured requests accepted again", "0", f"{again} of {sent}", again == 0 if sent else None),
        Check("kills that fell into a write", TOLD, f"{in_write} of {writing}", None),
        Check("temporary files left in all, which nothing reads", TOLD, f"{temporary}, {size:.1f} MiB", None),
        Check(
            "seconds from the kill to serving",
            TOLD,
            f"median {statistics.median(times):.1f}, most {times[-1]:.1f}" if times else "",
            None,
        ),
    ]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=50, help="kills (default: 50)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    parser.add_argument("--no-camo", action="store_true", help="only the trivial detector")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "chaos.json", help="where the figures go")
    options = parser.parse_args(argv)
    began = time.monotonic()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        chaos = Chaos(Path(folder), seed=options.seed, camo=not options.no_camo)
        try:
            chaos.prepare()
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(chaos.run(options.rounds))
            leftover = chaos.house.store.verify()
        finally:
            if chaos.log.exists():
                options.out.with_suffix(".log").write_bytes(chaos.log.read_bytes())
    checks = judge(chaos.rounds)
    checks.append(Check("`weights verify` at the end", "nothing", "; ".join(leftover) or "nothing", not leftover))
    figures: dict[str, Any] = {
        "command": "python scripts/chaos.py",
        "seed": options.seed,
        "machine": {"cpus": os.cpu_count(), "python": platform.python_version(), "system": platform.platform()},
        "load_average_at_end": os.getloadavg()[0],
        "checks": as_data(checks),
        "rounds": [_data(r) for r in chaos.rounds],
        "took_s": time.monotonic() - began,
    }
    options.out.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    print(markdown(checks))
    print(f"\n{figures['took_s']:.0f} s; figures in {options.out}")
    return 1 if any(check.met is False for check in checks) else 0


if __name__ == "__main__":
    sys.exit(main())
