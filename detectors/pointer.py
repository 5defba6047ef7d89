"""Which version of each name is active: ``active.json``, changed by one at a time, and what it said before.

``.history.json`` beside it holds the pointers before each change, newest last. It is written first, and what it says
twice is passed over: a process that is killed between the two files loses nothing and makes no rollback empty.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeGuard

from detectors.errors import WeightsError
from detectors.files import publish

__all__ = ["ACTIVE", "HISTORY", "LOCK", "Pointer"]

ACTIVE = "active.json"
"""Name of the pointer's file."""

HISTORY = ".history.json"
LOCK = ".lock"
_REMEMBERED = 50


class Pointer:
    """The pointer of one store.

    Args:
        root: the folder of weights.
        clock: seconds since the epoch, for the history.
    """

    def __init__(self, root: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._root = root
        self._clock = clock

    def read(self) -> dict[str, str]:
        """The active version by name; empty while nothing was activated.

        Raises:
            WeightsError: ``active.json`` is not an object of strings.
        """
        try:
            raw = json.loads((self._root / ACTIVE).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, RecursionError) as error:
            raise WeightsError(f"{ACTIVE}: not readable as JSON: {error}") from error
        if not _is_pointer(raw):
            raise WeightsError(f'{ACTIVE}: must be an object {{"NAME": "VERSION"}}')
        return raw

    def put(self, name: str, version: str) -> None:
        """Points `name` at `version`; the file is written anew also where it says so already.

        Raises:
            WeightsError: the pointer is damaged, or the folder cannot be written.
        """
        with self._alone():
            before = self.read()
            after = {**before, name: version}
            if before and after != before:
                known = self._history(forgiving=True)
                self._remember([*known, {"at": self._clock(), "before": before}])
            self._write(after)

    def back(self, check: Callable[[dict[str, str]], None]) -> dict[str, str]:
        """Puts the pointer of before the last change back, and forgets that change.

        Args:
            check: raises WeightsError where what would change cannot be active; nothing is written then.

        Returns:
            The pointer as it is now.

        Raises:
            WeightsError: nothing is remembered, `check` refuses, a file is damaged, or the folder cannot be written.
        """
        with self._alone():
            now, known = self.read(), self._history()
            while known and known[-1]["before"] == now:
                known.pop()
            if not known:
                raise WeightsError(f"nothing to roll back to: {HISTORY} remembers no other pointer than {ACTIVE} has")
            target: dict[str, str] = known.pop()["before"]
            check({name: version for name, version in target.items() if now.get(name) != version})
            self._write(target)
            self._remember(known)
            return target

    def _history(self, *, forgiving: bool = False) -> list[dict[str, Any]]:
        try:
            found = json.loads((self._root / HISTORY).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return []
        except (OSError, ValueError, RecursionError) as error:
            if forgiving:  # it is only a memory: it must not keep anybody from activating
                return []
            raise WeightsError(f"{HISTORY}: not readable as JSON: {error}") from error
        entries = found if isinstance(found, list) else []
        return [entry for entry in entries if isinstance(entry, dict) and _is_pointer(entry.get("before"))]

    def _remember(self, entries: list[dict[str, Any]]) -> None:
        self._publish(HISTORY, entries[-_REMEMBERED:])

    def _write(self, pointer: dict[str, str]) -> None:
        self._publish(ACTIVE, pointer)

    def _publish(self, name: str, content: Any) -> None:
        try:
            publish(self._root / name, (json.dumps(content, indent=2, sort_keys=True) + "\n").encode())
        except OSError as error:
            raise WeightsError(f"{name}: cannot be written: {error}") from error

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Keeps other processes (and threads) from changing the pointer between our look at it and our writing."""
        try:
            descriptor = os.open(self._root / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise WeightsError(f"{ACTIVE}: cannot be changed: {error}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)  # and with it the lock


def _is_pointer(raw: Any) -> TypeGuard[dict[str, str]]:
    return isinstance(raw, dict) and all(isinstance(version, str) for version in raw.values())
