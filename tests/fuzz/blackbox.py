"""The input at hand, in a file that outlives the process: a crash in native code leaves what brought it about."""

from __future__ import annotations

import mmap
import struct
import time
from pathlib import Path
from typing import NamedTuple

from tests.fuzz.engine import MAX_INPUT

__all__ = ["BlackBox", "Last"]

_HEAD = struct.Struct("<dI40s")


class Last(NamedTuple):
    """What was last begun: when (``time.monotonic`` seconds, one clock for all processes), by whom, and what."""

    started: float
    target: str
    data: bytes


class BlackBox:
    """A memory map of a file; one copy of the input a call, no system call.

    Args:
        path: made where it is not.
    """

    def __init__(self, path: Path) -> None:
        size = _HEAD.size + MAX_INPUT
        with path.open("a+b") as file:
            file.truncate(size)
            self._map = mmap.mmap(file.fileno(), size)

    def note(self, target: str, data: bytes) -> None:
        """Remembers the input that is about to be run."""
        data = data[:MAX_INPUT]
        self._map[_HEAD.size : _HEAD.size + len(data)] = data
        _HEAD.pack_into(self._map, 0, time.monotonic(), len(data), target.encode())

    def clear(self) -> None:
        """Nothing is being run."""
        _HEAD.pack_into(self._map, 0, 0.0, 0, b"")

    def last(self) -> Last | None:
        """What was noted last; None after :meth:`clear`."""
        started, size, target = _HEAD.unpack_from(self._map, 0)
        if not started:
            return None
        return Last(started, target.rstrip(b"\0").decode(), bytes(self._map[_HEAD.size : _HEAD.size + size]))

    def close(self) -> None:
        self._map.close()
