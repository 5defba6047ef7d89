"""How OpenMP's threads wait: asleep. The miner shares its cores with its own server."""

from __future__ import annotations

import os

__all__ = ["sleep_while_waiting"]


def sleep_while_waiting() -> None:
    """Makes idle OpenMP threads of this process sleep instead of spin; call it before torch is imported.

    On two busy cores spinning threads take the time that the working ones need: NPR on one image, 90th percentile of
    40, 128 ms asleep against 1 to 2 s spinning (docs/log.md). An operator's own OMP_WAIT_POLICY is left alone.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
