"""What a miner's exit code says; the text for process managers is at the top of :mod:`neurons.miner`."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["Exit"]


class Exit(IntEnum):
    """The codes."""

    STOPPED = 0
    BUG = 1
    USAGE = 2
    WEIGHTS = 4
    CHAIN = 5
    BIND = 6
    REGISTRATION = 7
    DIED = 8
