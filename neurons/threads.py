"""Threads of the miner's process: how OpenMP's wait (asleep), which one infers, and how another gives way."""

from __future__ import annotations

import contextlib
import os
import sys
import threading

__all__ = ["THREAD", "sleep_while_waiting", "step_back"]

THREAD = "judge"
"""Name of the scheduler's inference thread."""

_LOWEST = 19  # of the kernel's priorities


def sleep_while_waiting() -> None:
    """Makes idle OpenMP threads of this process sleep instead of spin; call it before torch is imported.

    On busy cores spinning threads take the time that the working ones need; figures in docs/experiments.md, from
    ``scripts/bench_openmp.py``. An operator's own OMP_WAIT_POLICY is left alone.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def step_back() -> None:
    """Puts the calling thread last in the kernel's line (Linux) and gives it one torch thread.

    Other threads keep theirs, those that start later among them: torch's number of threads is each thread's own, but
    the one it was last set to is what a new thread begins with.
    """
    import torch  # noqa: PLC0415 - this module is for those, too, who start without it

    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # a sandbox may forbid even that; the courtesy does most of it
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LOWEST)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    restore = threading.Thread(target=torch.set_num_threads, args=(before,))
    restore.start()
    restore.join()
