"""A registered miner at 70 % of its capacity for ten minutes, with 5 % hostile traffic and a chain that goes away.

``make soak`` (``ARGS="--seconds 600 --detector trivial"``). The miner is a process of its own behind real sockets on
loopback, with the SDK's client on a chain in memory (``soak_miner.py``). Its capacity is measured first, in the same
run and for the same traffic, attacks included: an attack costs the miner several times what a request does, so 70 % of
what it can do when nobody attacks would be some 85 % of what it can do. Then validators on all three wires keep 70 %
of it up while attackers from addresses of their own do what they can.
In the middle the chain goes away for longer than the miner may trust what it knows.

Memory is judged by the medians of the first and the last fifth of the samples after the warm-up; open files, threads
and children at rest, without a connection, before the load and after it. Ends with 1 where a limit is broken.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import uvloop

from neurons import keys
from neurons.settings import Axon
from scripts.soak_child import EMBARGO_S, Child, Vitals, vitals
from scripts.soak_hostile import EXPECTED, Hostile
from scripts.soak_judge import Check, Course, Outage, as_data, granted, judge, markdown, percentile
from scripts.soak_load import Caller, Load, Outcome, asks, paced

__all__ = ["Plan", "Soak", "main", "plan_for"]

ROOT = Path(__file__).resolve().parents[1]
VALIDATORS = 8  # with a hotkey and an address each, so that the miner's own rate limits stay as they are
IN_FLIGHT = 32
MOST = 400  # at once, once: a burst, in the warm-up
_TRIVIAL = (0.5, (0.5, 0.5, 0.0))  # what the trivial detector always answers


@dataclass(frozen=True)
class Plan:
    """How a soak goes; seconds and shares.

    Attributes:
        detector: the miner's.
        seconds: under load, the warm-up included.
        capacity_s: to measure capacity before: half of it without attacks, for comparison.
        warm_up_s: of the load; no samples are taken of it.
        share: of the capacity that honest callers take.
        hostile: share of all requests that are attacks.
        video_share: of the honest requests.
        refresh_s, max_age_s, timeout_s: of the miner's view of the chain.
        away_at, away_s: when the chain goes, counted from the start of the load, and for how long; 0 s: it stays.
        header_timeout_s, body_timeout_s: of the miner.
        sample_s: between two looks at the miner.
        seed: of everything random.
    """

    detector: str = "trivial"
    seconds: float = 600.0
    capacity_s: float = 10.0
    warm_up_s: float = 30.0
    share: float = 0.7
    hostile: float = 0.05
    video_share: float = 0.1
    refresh_s: float = 2.0
    max_age_s: float = 20.0
    timeout_s: float = 2.0
    away_at: float = 240.0
    away_s: float = 60.0
    header_timeout_s: float = 5.0
    body_timeout_s: float = 10.0
    sample_s: float = 1.0
    seed: int = 0


def plan_for(seconds: float, *, detector: str = "trivial", share: float = 0.7, seed: int = 0) -> Plan:
    """The ten-minute plan, or a shorter one of the same shape: everything that can be shorter is."""
    if seconds >= 300:
        away_at = 0.4 * seconds
        return Plan(detector=detector, seconds=seconds, share=share, away_at=away_at, away_s=0.1 * seconds, seed=seed)
    max_age_s = max(2.5, seconds / 15)
    return Plan(
        detector=detector,
        seconds=seconds,
        capacity_s=max(2.0, seconds / 10),
        warm_up_s=seconds / 10,
        share=share,
        refresh_s=0.4,
        max_age_s=max_age_s,
        timeout_s=1.0,
        away_at=0.15 * seconds,
        away_s=max_age_s + max(2.5, seconds / 20),
        header_timeout_s=1.0,
        body_timeout_s=2.0,
        sample_s=0.15,
        seed=seed,
    )


class Soak:
    """One run; see the module's docstring.

    Args:
        plan: see :class:`Plan`.
        folder: for the miner's wallet and log.
    """

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.plan = plan
        self._callers = [
            Caller(keys.from_uri(f"//Validator/{k}"), f"127.0.1.{k + 1}", listed=k == 0) for k in range(VALIDATORS)
        ]
        self._mallory = keys.from_uri("//Mallory")
        listed = self._callers[0].key.ss58_address
        validators = [c.key.ss58_address for c in self._callers[1:]] + [self._mallory.ss58_address]
        flags = {
            "neuron.detector": plan.detector,
            "blacklist.allow": listed,
            "subtensor.refresh_s": plan.refresh_s,
            "subtensor.max_age_s": plan.max_age_s,
            "subtensor.timeout_s": plan.timeout_s,
            "axon.header_timeout_s": plan.header_timeout_s,
            "axon.body_timeout_s": plan.body_timeout_s,
        }
        self.child = Child(folder, validators, [part for k, v in flags.items() for part in (f"--{k}", str(v))])
        self._outage = Outage(plan.refresh_s, plan.max_age_s, plan.timeout_s)
        self._vitals: list[Vitals] = []
        self.began = 0.0
        self.facts: dict[str, Any] = {}

    async def run(self) -> Course:
        """The whole of it; the miner is gone afterwards, whatever happens."""
        try:
            return await self._run()
        finally:
            if self.child.process.poll() is None:
                self.child.kill()

    async def _run(self) -> Course:
        plan, child = self.plan, self.child
        began = time.monotonic()
        address = await asyncio.to_thread(child.wait_until_serving)
        self.facts["start_s"] = time.monotonic() - began
        load = Load(address, child.hotkey, self._callers, asks(), video_share=plan.video_share, seed=plan.seed)
        # What was signed before the miner is sure that no earlier process took it, is refused.
        await asyncio.sleep(max(0.0, child.started_ns / 1e9 + EMBARGO_S - time.time()))
        hostile = Hostile(
            address,
            child.hotkey,
            self._mallory,
            header_timeout_s=plan.header_timeout_s,
            body_timeout_s=plan.body_timeout_s,
            max_body_bytes=Axon().max_body_bytes,
            is_stale=self._may_be_stale,
            seed=plan.seed,
        )
        # One attack of each kind belongs to the warm-up: what they load is loaded.
        await asyncio.gather(*(hostile.one(0.0) for _ in EXPECTED))
        capacity = await self._capacity(load, hostile)
        # Once to the most that it takes: what memory that needs it keeps, and it shall not look like a leak later.
        await load.full(MOST, min(3.0, plan.capacity_s / 2))
        at_rest = await self._rest(load, None)
        await self._under_load(load, hostile, capacity)
        ended = time.monotonic()
        after = await self._rest(load, at_rest)
        kept = list(load.outcomes)
        code, stopped_with = await self._stopped(load, capacity)
        expected = _TRIVIAL if plan.detector == "trivial" else None
        outage = self._outage if plan.away_s else None
        course = Course(
            kept, self._vitals, (at_rest, after), outage, ended, code, child.left_behind(), expected, hostile.tried
        )
        course.stopped_with = stopped_with
        course.others = self.facts["load"]["others_cores"] / (os.cpu_count() or 1)
        course.warm_at = self.began + plan.warm_up_s
        course.generator_cores = self.facts["capacity"]["generator_cores"]
        return course

    async def _capacity(self, load: Load, hostile: Hostile) -> float:
        """Right answers a second with as much in flight as it takes, beside attacks in their share."""
        plan = self.plan
        await load.full(IN_FLIGHT, min(1.0, plan.capacity_s / 2))
        began = time.monotonic()
        alone = await load.full(IN_FLIGHT, plan.capacity_s / 2)
        unharmed = sum(o.status == 200 for o in alone) / (time.monotonic() - began)
        own, before = time.process_time(), vitals(self.child.pid)
        found, attacks = await asyncio.gather(
            load.full(IN_FLIGHT, plan.capacity_s),
            # Their share of what is answered then, which is less than now; a little more than it is the honest side.
            paced(hostile.one, unharmed * plan.hostile / (1 - plan.hostile), plan.capacity_s, seed=plan.seed + 2),
        )
        own, after = time.process_time() - own, vitals(self.child.pid)
        took = after.at - before.at
        await asyncio.gather(*attacks)
        answered = sum(o.status == 200 for o in found)
        self.facts["capacity"] = {
            "answers_per_s": answered / took,
            "answers_per_s_without_attacks": unharmed,
            "attacks": len(attacks),
            "statuses": {str(k): v for k, v in Counter(o.status for o in found).items()},
            "in_flight": IN_FLIGHT,
            "p50_ms": 1e3 * percentile([o.seconds for o in found], 0.5),
            "generator_cores": own / took,
            "miner_cores": (after.cpu_s - before.cpu_s) / took,
            "granted": granted(before, after),
            "load_average": os.getloadavg()[0],
        }
        return max(1.0, answered / took)

    async def _under_load(self, load: Load, hostile: Hostile, capacity: float) -> None:
        plan = self.plan
        rate = plan.share * capacity
        watch = asyncio.ensure_future(self._watch())
        self.began = time.monotonic()
        own, before, busy = time.process_time(), vitals(self.child.pid), _machine_busy_s()
        honest, attacks, _ = await asyncio.gather(
            paced(load.one, rate, plan.seconds, seed=plan.seed),
            paced(hostile.one, rate * plan.hostile / (1 - plan.hostile), plan.seconds, seed=plan.seed + 1),
            self._take_the_chain_away(),
        )
        own, after, busy = time.process_time() - own, vitals(self.child.pid), _machine_busy_s() - busy
        watch.cancel()
        await asyncio.gather(*honest, *attacks)
        took, miner_s = after.at - before.at, after.cpu_s - before.cpu_s
        self.facts["load"] = {
            "honest_per_s": rate,
            "honest": len(honest),
            "attacks": len(attacks),
            "most_under_way": load.most_under_way,
            "generator_cores": own / took,
            "miner_cores": miner_s / took,
            "granted": granted(before, after),
            "others_cores": max(0.0, (busy - own - miner_s) / took),
            "cores": os.cpu_count(),
        }

    async def _take_the_chain_away(self) -> None:
        """Down at first; in the second half calls are not even refused any more."""
        plan, outage = self.plan, self._outage
        if not plan.away_s:
            return
        await asyncio.sleep(plan.away_at)
        outage.left = time.monotonic()
        await asyncio.to_thread(self.child.chain, "down")
        outage.away = time.monotonic()
        await asyncio.sleep(plan.away_s / 2)
        await asyncio.to_thread(self.child.chain, "hang")
        await asyncio.sleep(plan.away_s / 2)
        outage.back = time.monotonic()
        await asyncio.to_thread(self.child.chain, "up")

    def _may_be_stale(self) -> bool:
        outage, now = self._outage, time.monotonic()
        return bool(outage.left) and now > outage.left and (not outage.back or now < outage.known_by)

    async def _watch(self) -> None:
        while True:
            self._vitals.append(vitals(self.child.pid))
            await asyncio.sleep(self.plan.sample_s)

    async def _rest(self, load: Load, like: Vitals | None) -> Vitals:
        """The miner once every connection is closed; waits until it has noticed, and for `like` a while longer."""
        await load.close()
        end = time.monotonic() + self.plan.body_timeout_s + 5.0
        await asyncio.sleep(1.0)
        seen = vitals(self.child.pid)
        while time.monotonic() < end:
            await asyncio.sleep(0.5)
            last, seen = seen, vitals(self.child.pid)
            still = seen.files == last.files
            if still and (like is None or (seen.files <= like.files and seen.threads <= like.threads)):
                break
        return seen

    async def _stopped(self, load: Load, capacity: float) -> tuple[int, list[Any]]:
        """SIGTERM in the middle of a second of load."""
        before = len(load.outcomes)
        asking = asyncio.ensure_future(paced(load.one, self.plan.share * capacity, 1.0, seed=9))
        await asyncio.sleep(0.5)
        code = await asyncio.to_thread(self.child.stop)
        await asyncio.gather(*await asking)
        await load.close()
        return code, load.outcomes[before:]


def _machine_busy_s() -> float:
    """Processor seconds that the machine has spent on anything, all cores together."""
    fields = [int(x) for x in Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:]]
    return (sum(fields[:8]) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")


def _course(outcomes: Sequence[Outcome], began: float) -> list[dict[str, Any]]:
    """What happened when, for each ten seconds: requests due, those without an answer by reason, latencies."""
    spans: dict[int, list[Outcome]] = {}
    for outcome in outcomes:
        spans.setdefault(int((outcome.due - began) // 10), []).append(outcome)
    return [
        {
            "from_s": 10 * span,
            "due": len(found),
            "unanswered": dict(Counter(f"{o.status} {o.reason}" for o in found if o.status != 200)),
            "p50_ms": 1e3 * percentile([o.seconds for o in found], 0.5),
            "most_ms": 1e3 * max(o.seconds for o in found),
        }
        for span, found in sorted(spans.items())
    ]


def report(soak: Soak, course: Course, checks: Sequence[Check], took_s: float) -> dict[str, Any]:
    """Everything measured, as data."""
    seconds = [o.seconds for o in course.outcomes if o.status == 200]
    return {
        "command": "python scripts/soak.py",
        "plan": asdict(soak.plan),
        "machine": {"cpus": os.cpu_count(), "python": platform.python_version(), "system": platform.platform()},
        **soak.facts,
        "latency_ms": {f"p{p}": 1e3 * percentile(seconds, p / 100) for p in (50, 95, 99, 100)},
        "latency_counts_from": "when the request was due",
        "by_10_s": _course(course.outcomes, soak.began),
        "hostile": {attack: dict(got) for attack, got in sorted(course.tried.got.items())},
        "rss_mib": [round(v.rss_mib, 1) for v in course.vitals[:: max(1, len(course.vitals) // 60)]],
        "rss_median_mib": statistics.median(v.rss_mib for v in course.vitals) if course.vitals else None,
        "checks": as_data(checks),
        "took_s": took_s,
    }


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600.0, help="under load (default: 600)")
    parser.add_argument("--detector", choices=("trivial", "camo"), default="trivial", help="default: trivial")
    parser.add_argument("--share", type=float, default=0.7, help="of the capacity (default: 0.7)")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "soak.json", help="where the figures go")
    options = parser.parse_args(argv)
    plan = plan_for(options.seconds, detector=options.detector, share=options.share, seed=options.seed)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        soak = Soak(plan, Path(folder))
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            course = runner.run(soak.run())
        checks = judge(course)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.with_suffix(".log").write_bytes(soak.child.log.read_bytes())
    figures = report(soak, course, checks, time.monotonic() - began)
    options.out.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    load, capacity, latency = figures["load"], figures["capacity"], figures["latency_ms"]
    print(
        f"capacity {capacity['answers_per_s']:.0f}/s, {capacity['answers_per_s_without_attacks']:.0f}/s without attacks"
        f" (generator {capacity['generator_cores']:.2f} cores, miner"
        f" {capacity['miner_cores']:.2f}); load {load['honest_per_s']:.0f}/s for {plan.seconds:g} s, {load['honest']}"
        f" honest, {load['attacks']} attacks; generator {load['generator_cores']:.2f} cores, miner"
        f" {load['miner_cores']:.2f}, others {load['others_cores']:.2f} of {load['cores']};"
        f" p50 {latency['p50']:.0f} ms, p99 {latency['p99']:.0f} ms, most {latency['p100']:.0f} ms\n"
    )
    print(markdown(checks))
    print(f"\n{figures['took_s']:.0f} s; figures in {options.out}")
    return 1 if any(check.met is False for check in checks) else 0


if __name__ == "__main__":
    sys.exit(main())
