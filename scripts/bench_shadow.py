"""What a candidate in the shadow costs the answers: live latency with and without one, alternating in one run.

    python scripts/bench_shadow.py [--seconds 30] [--rate 8] [--hogs 0]

Default CAMO, the real judge and scheduler in this process, image challenges of 256 px at random times around a fixed
rate; the candidate is a copy of the active ``general`` weights in a store of its own. Latency is from submission to
answer. ``--hogs`` starts processes that burn CPU beside it, as other tenants of a machine do. JSON goes to
``build/bench-shadow.json``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from neurons.threads import sleep_while_waiting

sleep_while_waiting()  # as the miner does, before torch

from detectors import camo_load, paths  # noqa: E402
from detectors.media import encode_jpeg  # noqa: E402
from detectors.store import Store  # noqa: E402
from neurons.noticeboard import Noticeboard  # noqa: E402
from neurons.operations import ShadowPlan  # noqa: E402
from neurons.pipeline import Judge  # noqa: E402
from neurons.scheduler import Scheduler  # noqa: E402
from neurons.shadow import Shadow  # noqa: E402
from neurons.wire.base import Challenge  # noqa: E402

_NAME, _COPY = "general", "shadow-copy"
_ROUNDS = 12  # of each kind
_WARM = 20  # challenges that nobody counts


def copied_store(folder: Path) -> Path:
    """The shipped weights and, beside them, the active ``general`` once more under another version."""
    store = folder / "weights"
    shutil.copytree(paths.weights(), store)
    active = Store(store).active(_NAME)
    shutil.copy(store / f"{active.stem}.safetensors", store / f"{_NAME}-{_COPY}.safetensors")
    card = json.loads((store / f"{active.stem}.json").read_text(encoding="utf-8")) | {"version": _COPY}
    (store / f"{_NAME}-{_COPY}.json").write_text(json.dumps(card), encoding="utf-8")
    return store


def challenges() -> list[Challenge]:
    """Smooth pictures with noise, 256 px, JPEG."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(32):
        coarse = rng.integers(0, 256, (8, 8, 3)).repeat(32, 0).repeat(32, 1)
        pixels = np.clip(coarse + rng.normal(0, 12, coarse.shape), 0, 255).astype(np.uint8)
        found.append(Challenge("image", encode_jpeg(pixels), "image", "float"))
    return found


class Asker:
    """Asks a scheduler; knows how many answers are awaited, which is what the shadow steps aside for."""

    def __init__(self, scheduler: Scheduler, given: list[Challenge]) -> None:
        self._scheduler = scheduler
        self._given = given
        self.in_flight = 0

    async def one(self, challenge: Challenge) -> float:
        """Milliseconds to the answer."""
        began = time.perf_counter()
        self.in_flight += 1
        try:
            await self._scheduler.submit(challenge)
        finally:
            self.in_flight -= 1
        return (time.perf_counter() - began) * 1e3

    async def many(self, seconds: float, rate: float, seed: int) -> list[float]:
        """The same of challenges at random times (Poisson), `rate` a second, for `seconds`."""
        rng = np.random.default_rng(seed)
        end, waits = time.perf_counter() + seconds, []
        while time.perf_counter() < end:
            challenge = self._given[int(rng.integers(len(self._given)))]
            waits.append(asyncio.create_task(self.one(challenge)))
            await asyncio.sleep(rng.exponential(1 / rate))
        return list(await asyncio.gather(*waits))


def burn() -> None:
    """Another tenant."""
    while True:
        sum(range(10_000))


async def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, object]:
    """The figures of one run."""
    store = copied_store(folder)
    config = paths.configs() / "camo.yaml"
    detector = camo_load.load(config, weights=store)
    asker: Asker | None = None

    def busy() -> bool:
        return asker is not None and asker.in_flight > 0

    shadow = Shadow(
        detector,
        store=store,
        camo=config,
        device="cpu",
        busy=busy,
        noticeboard=Noticeboard(store),
        activate=Store(store).activate,
    )
    judge = Judge(detector, watchers=[shadow.judged])
    scheduler = Scheduler(judge)
    given = challenges()
    asker = Asker(scheduler, given)
    for challenge in given[:_WARM]:
        await asker.one(challenge)
    taken: dict[str, list[float]] = {"without": [], "with": [], "loading": []}
    seconds, judged, skipped = arguments.seconds / (2 * _ROUNDS), 0, 0
    for turn in range(_ROUNDS):
        taken["without"] += await asker.many(seconds, arguments.rate, turn)
        shadow.start(ShadowPlan(f"{_NAME}@{_COPY}", count=100_000))
        while (report := shadow.report()) is not None and report.state == "loading":
            taken["loading"] += await asker.many(0.1, arguments.rate, 100 + turn)
        taken["with"] += await asker.many(seconds, arguments.rate, turn)
        shadow.stop()
        report = shadow.report()
        judged, skipped = judged + (report.judged if report else 0), skipped + (report.skipped if report else 0)
    await scheduler.aclose()
    await asyncio.to_thread(shadow.close)
    judge.close()
    rows = {
        kind: {"count": len(ms), **{f"p{q}_ms": round(float(np.percentile(ms, q)), 1) for q in (50, 90, 99)}}
        for kind, ms in taken.items()
    }
    return {"latency": rows, "judged": judged, "skipped": skipped, "rate": arguments.rate, "hogs": arguments.hogs}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30.0, help="of both kinds together")
    parser.add_argument("--rate", type=float, default=8.0, help="challenges a second")
    parser.add_argument("--hogs", type=int, default=0, help="processes that burn CPU beside it")
    parser.add_argument("--out", type=Path, default=Path("build/bench-shadow.json"))
    arguments = parser.parse_args()
    hogs = [multiprocessing.get_context("spawn").Process(target=burn, daemon=True) for _ in range(arguments.hogs)]
    for hog in hogs:
        hog.start()
    try:
        with tempfile.TemporaryDirectory() as folder:
            found = asyncio.run(measure(arguments, Path(folder)))
    finally:
        for hog in hogs:
            hog.kill()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    table = Table("shadow", "challenges", "p50 ms", "p90 ms", "p99 ms")
    for kind, row in found["latency"].items():  # type: ignore[attr-defined]
        table.add_row(kind, *(str(value) for value in row.values()))
    console = Console()
    console.print(table)
    console.print(f"the shadow judged {found['judged']} and skipped {found['skipped']}")


if __name__ == "__main__":
    main()
