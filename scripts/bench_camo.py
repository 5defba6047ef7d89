"""The default CAMO behind the real server: challenge latency, cold start and ``--help``, from one run.

    make bench-camo

Starts the miner as a process, asks it over HTTP one challenge at a time, and prints what the project wants to reach
beside what it reaches. JSON goes to ``build/bench-camo.json``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from detectors import paths
from neurons.challenges import MediaSet, Stream
from neurons.demo_media import media_set
from neurons.keys import create_throwaway
from neurons.processes import MinerProcess
from neurons.simulation import Endpoint, Plan, simulate

VIDEO_FRAMES = 24


async def ask(endpoint: Endpoint, media: MediaSet, wallets: Path, *, share: float, count: int) -> list[float]:
    """Milliseconds from request to last byte of `count` challenges, one at a time; silence is an error."""
    key = create_throwaway(wallets, "validator")
    challenges = Stream(media, seed=5, count=count, video_share=share, frames=(VIDEO_FRAMES, VIDEO_FRAMES))
    taken = []
    async for exchange in simulate(Plan((endpoint,), seed=5), challenges, key=key):
        reply = exchange.replies[endpoint.name]
        if reply.failure:
            raise SystemExit(f"challenge {exchange.issued.index}: {reply.failure}")
        taken.append(reply.seconds * 1e3)
    return taken


def started(wallets: Path, logs: Path, threads: int) -> tuple[MinerProcess, Endpoint, float]:
    """A miner, its endpoint and the seconds until it served; it judges a picture and a clip before it says so."""
    begin = time.perf_counter()
    flags = ("--neuron.camo", str(paths.configs() / "camo.yaml"), "--neuron.threads", str(threads))
    miner = MinerProcess("camo", wallets=wallets, logs=logs, flags=flags)
    endpoint = miner.wait_until_serving(time.monotonic() + 120)
    return miner, endpoint, time.perf_counter() - begin


def help_seconds(runs: int) -> list[float]:
    found = []
    for _ in range(runs):
        begin = time.perf_counter()
        subprocess.run([sys.executable, "-m", "neurons.cli", "--help"], check=True, capture_output=True)
        found.append(time.perf_counter() - begin)
    return found


def quantiles(values: list[float]) -> dict[str, float]:
    return {f"p{round(100 * q)}": round(float(np.quantile(values, q)), 1) for q in (0.5, 0.9, 0.99)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--videos", type=int, default=60)
    parser.add_argument("--starts", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0, help="of the miner; 0 leaves them to torch")
    parser.add_argument("--data", type=Path, help="folder or manifest (the demo's media)")
    parser.add_argument("--out", type=Path, default=Path("build/bench-camo.json"))
    options = parser.parse_args()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        media = media_set(options.data, root, 0)
        cold = []
        for number in range(options.starts):
            miner, endpoint, seconds = started(root, options.out.parent, options.threads)
            cold.append(seconds)
            try:
                if number == 0:
                    image = asyncio.run(ask(endpoint, media, root, share=0.0, count=options.images))
                    video = asyncio.run(ask(endpoint, media, root, share=1.0, count=options.videos))
            finally:
                miner.stop()
    report = {
        "image_ms": quantiles(image),
        "video_24_frames_ms": quantiles(video),
        "cold_start_s": [round(v, 2) for v in cold],
        "help_s": [round(v, 2) for v in help_seconds(5)],
        "threads": options.threads,
    }
    options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    table = Table("row", "measured", "at least")
    table.add_row("image challenge, one at a time, p50 / p99 ms", f"{report['image_ms']}", "60 / 250")
    table.add_row("24-frame video challenge, p50 ms", f"{report['video_24_frames_ms']}", "500")
    table.add_row("cold start to first answer, s", f"{report['cold_start_s']}", "8")
    table.add_row("--help, s", f"{report['help_s']}", "0.5")
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
