"""Service overhead beside a real Axon of bittensor 10.5, both measured in one run: ``make bench-serve``.

One load generator (``bench_load``) drives both servers with signed Dendrite requests in turns, A B A B, so that
whatever else the machine does falls on both. Figures are medians over the rounds with their least and greatest value.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import uvloop
from rich.console import Console
from rich.table import Table

from neurons import keys
from scripts.bench_load import Requests, drive
from scripts.bench_peers import AXON_PYTHON, ROOT, Peer, measured, resident_mib, serving

IMAGE_BYTES = 60_000
IN_FLIGHT = 64
JITTER_S, JITTER_IN_FLIGHT = 0.060, 32
TARGET_RATIO, TARGET_CPU_MS = 10.0, 0.6


@dataclass(frozen=True)
class Plan:
    """How long everything takes; `seconds` per round and server."""

    rounds: int
    seconds: float
    flood_seconds: float
    honest: int

    @property
    def text(self) -> str:
        return (
            f"{self.rounds} rounds of {self.seconds:g} s, flood {self.flood_seconds:g} s, {self.honest} honest requests"
        )


FULL = Plan(rounds=5, seconds=4.0, flood_seconds=2.0, honest=640)
QUICK = Plan(rounds=2, seconds=1.5, flood_seconds=1.0, honest=160)


def percentile(values: Sequence[float], share: float) -> float:
    """Of unsorted values, nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


async def throughput(peer: Peer, key: keys.Hotkey, image: bytes, seconds: float) -> None:
    tally, cpu = await measured(peer.address, peer.pid, Requests(key, peer.hotkey, image).make, seconds, IN_FLIGHT)
    good = tally.statuses[200]
    peer.note("req_s", good / tally.seconds)
    peer.note("p50_ms", 1e3 * percentile(tally.latencies, 0.50))
    peer.note("p99_ms", 1e3 * percentile(tally.latencies, 0.99))
    peer.note("cpu_ms", cpu)
    peer.note("not_ok", sum(tally.statuses.values()) - good)
    peer.note("rss_mib", resident_mib(peer.pid))


async def flood(peer: Peer, key: keys.Hotkey, image: bytes, seconds: float) -> None:
    make = Requests(key, peer.hotkey, image, forged=True).make
    tally, cpu = await measured(peer.address, peer.pid, make, seconds, IN_FLIGHT)
    peer.note("flood_s", tally.statuses[401] / tally.seconds)
    peer.note("flood_cpu_ms", cpu)
    peer.note("flood_let_in", tally.statuses[200])


async def honest(peer: Peer, key: keys.Hotkey, image: bytes, count: int) -> None:
    requests = Requests(key, peer.hotkey, image, one_uuid=True)
    tally = await drive(peer.address, requests.make, in_flight=JITTER_IN_FLIGHT, count=count, jitter_s=JITTER_S)
    peer.note("honest_sent", count)
    peer.note("honest_refused", count - tally.statuses[200])


async def measure(peers: Sequence[Peer], plan: Plan) -> None:
    key = keys.from_uri("//Alice")
    image = os.urandom(IMAGE_BYTES)  # as incompressible as a JPEG; nobody decodes it here
    for _ in range(plan.rounds):
        for peer in peers:
            await throughput(peer, key, image, plan.seconds)
    for _ in range(max(1, plan.rounds // 2)):
        for peer in peers:
            await flood(peer, key, image, plan.flood_seconds)
    for peer in peers:
        await honest(peer, key, image, plan.honest)


def spread(values: Sequence[float], digits: int) -> str:
    return f"{statistics.median(values):.{digits}f}  ({min(values):.{digits}f}–{max(values):.{digits}f})"


ROWS = (
    ("requests answered, 1/s", "req_s", 0, True),
    ("latency p50, ms", "p50_ms", 1, False),
    ("latency p99, ms", "p99_ms", 1, False),
    ("server CPU a request, ms", "cpu_ms", 3, False),
    ("requests not answered", "not_ok", 0, None),
    ("server memory at the end of a round, MiB", "rss_mib", 0, False),
    ("forged signatures refused, 1/s", "flood_s", 0, True),
    ("server CPU a forged request, ms", "flood_cpu_ms", 3, False),
    ("forged requests let in", "flood_let_in", 0, None),
)


def ratio(ours: Peer, axon: Peer, name: str, larger_is_better: bool) -> float:
    """How many times better ours is: the median of the rounds' own ratios, as the rounds alternate."""
    pairs = zip(ours.figures[name], axon.figures[name], strict=True)
    return statistics.median(a / b if larger_is_better else b / a for a, b in pairs)


def table(ours: Peer, axon: Peer, plan: Plan) -> Table:
    shown = Table(title=f"service overhead, {IN_FLIGHT} in flight, {IMAGE_BYTES // 1000} KB image ({plan.text})")
    for name in ("", f"ours {ours.version}", f"Axon {axon.version}", "times better"):
        shown.add_column(name, justify="left" if not name else "right")
    for label, name, digits, larger in ROWS:
        times = "" if larger is None else f"{ratio(ours, axon, name, larger):.1f}"
        shown.add_row(label, spread(ours.figures[name], digits), spread(axon.figures[name], digits), times)
    refused = [f"{p.figures['honest_refused'][0]:.0f} of {p.figures['honest_sent'][0]:.0f}" for p in (ours, axon)]
    shown.add_row(f"honest requests refused, 0–60 ms jitter, {JITTER_IN_FLIGHT} in flight", *refused, "")
    return shown


def report(ours: Peer, axon: Peer, plan: Plan, took_s: float) -> dict[str, object]:
    """Everything measured, as data."""
    times = ratio(ours, axon, "req_s", True)
    cpu = statistics.median(ours.figures["cpu_ms"])
    return {
        "command": "python scripts/bench_serve.py",
        "plan": asdict(plan),
        "image_bytes": IMAGE_BYTES,
        "in_flight": IN_FLIGHT,
        "machine": {"cpus": os.cpu_count(), "python": platform.python_version(), "system": platform.platform()},
        "load_average_at_end": os.getloadavg()[0],
        "took_s": took_s,
        "ours": {"version": ours.version, "rounds": ours.figures},
        "axon": {"version": axon.version, "rounds": axon.figures},
        "ratio_req_s": times,
        "targets": {
            "ratio_req_s": {"wanted": TARGET_RATIO, "got": times, "met": times >= TARGET_RATIO},
            "cpu_ms": {"wanted": TARGET_CPU_MS, "got": cpu, "met": cpu <= TARGET_CPU_MS},
            "honest_refused": {"wanted": 0, "got": ours.figures["honest_refused"][0]},
        },
    }


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a third of the time, for a look")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "bench-serve.json", help="where the figures go")
    options = parser.parse_args(argv)
    plan = QUICK if options.quick else FULL
    began = time.monotonic()
    with ExitStack() as stack:
        ours = stack.enter_context(serving("ours", Path(sys.executable), "bench_ours.py"))
        axon = stack.enter_context(serving("axon", AXON_PYTHON, "bench_axon.py"))
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(measure((ours, axon), plan))
    figures = report(ours, axon, plan, time.monotonic() - began)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(table(ours, axon, plan))
    for name, target in figures["targets"].items():  # type: ignore[attr-defined]
        console.print(f"{name}: wanted {target['wanted']}, got {target['got']:.3g}")
    console.print(f"{figures['took_s']:.0f} s; figures in {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
