"""Threads of the miner's process: how OpenMP's wait (asleep), and the name of the one that infers."""

from __future__ import annotations

import os

__all__ = ["THREAD", "sleep_while_waiting"]

THREAD = "judge"
"""Name of the scheduler's inference thread."""


def sleep_while_waiting() -> None:
    """Makes idle OpenMP threads of this process sleep instead of spin; call it before torch is imported.

    On busy cores spinning threads take the time that the working ones need; figures in docs/log.md, from
    ``scripts/bench_openmp.py``. An operator's own OMP_WAIT_POLICY is left alone.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
