"""Small JSON files by which the miners that follow a store and the commands of its operator tell each other things.

``STORE/.miners/PID.TOPIC.json`` says what the process PID last had to say on a topic; ``STORE/.orders/TOPIC.json`` what
an operator wants. Files appear whole. A miner whose store cannot be written says nothing and serves all the same.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detectors.files import publish

__all__ = ["Notice", "Noticeboard"]

_MINERS, _ORDERS = ".miners", ".orders"


@dataclass(frozen=True, slots=True)
class Notice:
    """What a process said.

    Attributes:
        pid: of a process that lives.
        said: the object it posted.
    """

    pid: int
    said: Mapping[str, Any]


class Noticeboard:
    """The board of one store.

    Args:
        store: the folder of weights.
    """

    def __init__(self, store: Path) -> None:
        self._store = store

    def post(self, topic: str, said: Mapping[str, Any]) -> bool:
        """Says something in this process' name, in place of what it said on the topic before; False: it could not."""
        return self._write(self._store / _MINERS / f"{os.getpid()}.{topic}.json", said)

    def withdraw(self) -> None:
        """Takes everything down that this process said."""
        for path in (self._store / _MINERS).glob(f"{os.getpid()}.*.json"):
            with contextlib.suppress(OSError):
                path.unlink()

    def notices(self, topic: str) -> list[Notice]:
        """What living processes said on a topic; what dead ones left is taken down."""
        found = []
        for path in sorted((self._store / _MINERS).glob(f"*.{topic}.json")):
            pid = int(path.name.partition(".")[0]) if path.name.partition(".")[0].isdigit() else 0
            if not _lives(pid):
                with contextlib.suppress(OSError):
                    path.unlink()
                continue
            said = _read(path)
            if said is not None:
                found.append(Notice(pid, said))
        return found

    def order(self, topic: str, wanted: Mapping[str, Any]) -> bool:
        """Says what the operator wants; False: the store cannot be written."""
        return self._write(self._store / _ORDERS / f"{topic}.json", wanted)

    def ordered(self, topic: str) -> Mapping[str, Any] | None:
        """The last order on a topic; None where there is none that can be read."""
        return _read(self._store / _ORDERS / f"{topic}.json")

    @staticmethod
    def _write(path: Path, content: Mapping[str, Any]) -> bool:
        try:
            path.parent.mkdir(exist_ok=True)
            publish(path, (json.dumps(content, sort_keys=True) + "\n").encode())
        except OSError:
            return False
        return True


def _read(path: Path) -> Mapping[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def _lives(pid: int) -> bool:
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's, but alive
        return True
    return True
