"""What waiting OpenMP threads cost on a busy machine: NPR on one 256 px image, with threads that spin and that sleep.

    .venv/bin/python scripts/bench_openmp.py

Runs each way in a process of its own, in turns, while a second process keeps one core busy (``--load 0`` for none).
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import subprocess
import sys
import time

RUNS = 40
WAYS = {"2 threads, as they come": (2, None), "2 threads, PASSIVE": (2, "PASSIVE"), "1 thread": (1, None)}


def measure(threads: int) -> None:
    """Prints median and 90th percentile of 40 inferences in milliseconds."""
    import numpy as np  # noqa: PLC0415 - the parent must not import torch
    import torch  # noqa: PLC0415

    from detectors.experts.npr import NPR  # noqa: PLC0415

    torch.set_num_threads(threads)
    network = NPR().eval().to(memory_format=torch.channels_last)
    x = torch.randn(1, 3, 256, 256).contiguous(memory_format=torch.channels_last)
    taken = []
    with torch.inference_mode():
        for _ in range(RUNS):
            started = time.perf_counter()
            network(x)
            taken.append((time.perf_counter() - started) * 1e3)
    print(f"median {np.median(taken):.0f} ms, 90th percentile {np.quantile(taken, 0.9):.0f} ms")


def busy() -> None:
    while True:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--load", type=int, default=1, help="cores kept busy meanwhile")
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    if options.measure is not None:
        measure(options.measure)
        return
    load = [multiprocessing.Process(target=busy, daemon=True) for _ in range(options.load)]
    for process in load:
        process.start()
    try:
        for _ in range(options.rounds):
            for name, (threads, policy) in WAYS.items():
                environment = {k: v for k, v in os.environ.items() if not k.startswith("OMP_")}
                environment |= {"OMP_WAIT_POLICY": policy} if policy else {}
                command = [sys.executable, __file__, "--measure", str(threads)]
                done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
                print(f"{name}: {done.stdout.strip()}", flush=True)
    finally:
        for process in load:
            process.kill()


if __name__ == "__main__":
    main()
