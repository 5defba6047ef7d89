"""Files that appear whole or not at all: a reader sees the old one or the new one, also after a crash."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from pathlib import Path

__all__ = ["publish"]

_ABANDONED_S = 3600.0  # a temporary file this old has no writer any more: writing one takes seconds


def publish(path: Path, data: bytes) -> None:
    """Writes a file through a temporary one beside it, fsync and ``os.replace``; raises OSError."""
    _sweep(path.parent)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _sweep(folder: Path) -> None:
    """Deletes what writers left behind that were killed: tens of megabytes each, which nothing would ever read."""
    for left in (*folder.glob(".*.json.*.tmp"), *folder.glob(".*.safetensors.*.tmp")):
        with contextlib.suppress(OSError):  # another writer sweeps as well
            if time.time() - left.stat().st_mtime > _ABANDONED_S:
                left.unlink()
