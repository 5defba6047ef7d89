"""The same attacks on our miner and on a real Axon of bittensor 10.5, side by side: ``make attacks``.

Both are real processes on loopback that know the same validators: ours is ``neurons.miner`` on a chain in memory with
the detector that answers a constant, the other an Axon with a list of hotkeys and a plain function, as its miners wrote
it. Every cell is what this run saw. Prints a Markdown table and writes the figures as JSON. Exit code 1 when our miner
shows a defect.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import uvloop

from scripts import attacks_http, attacks_identity, attacks_load
from scripts.attacks_peers import Duel, duel
from scripts.attacks_table import Attack, Seen, as_data, markdown, unexpected
from scripts.bench_peers import AXON_PYTHON, ROOT

__all__ = ["attacks", "main", "tried"]


def attacks(*, quick: bool = False) -> tuple[list[Attack], list[Attack]]:
    """(one after the other, all at once at the end because they only wait).

    Args:
        quick: a look in half a minute: fewer callers, shorter floods, less patience.
    """
    count, callers, limit_s, seconds, hold_s = (
        (64, 2_000, 15.0, 1.0, 12.0) if quick else (160, 20_000, 120.0, 4.0, attacks_http.HOLD_S)
    )
    return [
        *attacks_identity.ATTACKS,
        *attacks_http.ATTACKS,
        *(attacks_load.jitter(in_flight, count) for in_flight in attacks_load.JITTER),
        attacks_load.priority,
        attacks_load.busy,
        attacks_load.timeouts,
        attacks_load.flood(seconds),
        attacks_load.memory(callers, limit_s),
        *attacks_identity.AT_THE_END,
    ], list(attacks_http.slow(hold_s))


async def tried(
    sides: Sequence[Duel], one_by_one: Sequence[Attack], waiting: Sequence[Attack]
) -> dict[str, list[Seen]]:
    """The cells by title, a cell a side; first each side is given the time to serve honest requests."""
    for side in sides:
        for miner in (side.miner, side.second):
            await attacks_identity.until_served(miner)
    seen = {attack.title: [await attack.run(side) for side in sides] for attack in one_by_one}
    for side in sides:
        await attacks_identity.until_served(side.miner)
    cells = await asyncio.gather(*(attack.run(side) for attack in waiting for side in sides))
    for place, attack in enumerate(waiting):
        seen[attack.title] = list(cells[place * len(sides) : (place + 1) * len(sides)])
    last = Attack("none: an honest request after all that", attacks_identity.honest)
    seen[last.title] = [await last.run(side) for side in sides]
    return seen


def compared(names: Sequence[str], seen: Mapping[str, Sequence[Seen]]) -> dict[str, float]:
    """How many times better ours is under the flood, the figures that depend on the machine; empty without an Axon."""
    found: dict[str, float] = {}
    for cells in seen.values():
        figures = {name: cell.data for name, cell in zip(names, cells, strict=True) if "cpu_ms" in cell.data}
        if len(figures) == 2 and figures["ours"]["cpu_ms"] and figures["Axon"]["per_s"]:
            found["refusals_per_s"] = figures["ours"]["per_s"] / figures["Axon"]["per_s"]
            found["cpu_a_refusal"] = figures["Axon"]["cpu_ms"] / figures["ours"]["cpu_ms"]
    return found


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer callers, shorter floods, for a look")
    parser.add_argument("--ours-only", action="store_true", help="without the Axon and the second environment")
    parser.add_argument("--axon-python", type=Path, default=AXON_PYTHON, help="interpreter with bittensor 10.5")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "attacks.json", help="where the figures go")
    options = parser.parse_args(argv)
    began = time.monotonic()
    with duel(None if options.ours_only else options.axon_python) as sides:
        names = [side.name for side in sides]
        headings = [f"{side.name} {side.version}" for side in sides]
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            seen = runner.run(tried(sides, *attacks(quick=options.quick)))
    bad, times = unexpected(names, seen), compared(names, seen)
    figures: dict[str, Any] = {
        "command": "python scripts/attacks.py",
        "quick": options.quick,
        "machine": {"cpus": os.cpu_count(), "python": platform.python_version(), "system": platform.platform()},
        "load_average_at_end": os.getloadavg()[0],
        "took_s": round(time.monotonic() - began, 1),
        "versions": {side.name: side.version for side in sides},
        "ours_defects": bad,
        "times_better": times,
        "rows": as_data(names, seen),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(figures, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(markdown(list(seen), headings, seen))
    for what, ratio in times.items():
        print(f"\nflood, {what}: ours {ratio:.1f} times better")
    print(f"\n{figures['took_s']:.0f} s; figures in {options.out}")
    for title in bad:
        print(f"ours shows a defect: {title}", file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
