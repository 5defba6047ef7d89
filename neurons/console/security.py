"""Who may use the console: its token on disk, sessions in memory, and what is refused whoever asks.

The console can change what a miner answers, and browsers send requests for whoever wrote the page they show. So nothing
rests on the address alone: a token opens a session, a session needs its own secret in every form, requests of other
sites and of names that are not ours (DNS rebinding) are refused before anything else is looked at.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from detectors.errors import ConfigError
from neurons.limits import Buckets, Rate, address_key

__all__ = ["Door", "Session", "Sessions", "Told", "load_token"]

_LEAST_TOKEN = 20  # characters; what we make has 43
_LIFETIME_S: Final = 12 * 3600.0
_MOST_SESSIONS = 16
_MOST_TOLD = 5
_ATTEMPTS = Rate(0.2, 5)  # logins of one address: five at once, then one in five seconds
_ADDRESSES = 1024


def load_token(path: Path) -> str:
    """The console's token, made where there is none yet: 256 random bits, readable by the owner alone.

    Args:
        path: of the file; its folder is made with mode 0700 where it is missing. ``~`` is the home folder.

    Raises:
        ConfigError: the file can be read by others, belongs to somebody else, holds no token, or cannot be made.
    """
    path = path.expanduser()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists() and not path.is_symlink():
            _create(path)
        return _read(path)
    except OSError as error:
        raise ConfigError(f"console.token_file: {path}: {error.strerror or error}") from error


def _create(path: Path) -> None:
    """Whole or not at all, and never over another process' token."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mkstemp makes it 0600
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_urlsafe(32) + "\n")
        os.link(temporary, path)
    except FileExistsError:  # another process was quicker: its token counts
        pass
    finally:
        Path(temporary).unlink(missing_ok=True)


def _read(path: Path) -> str:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, encoding="ascii", errors="replace") as file:
        about = os.fstat(file.fileno())
        if not stat.S_ISREG(about.st_mode):
            raise ConfigError(f"console.token_file: {path} is not a regular file")
        if about.st_uid != os.geteuid():
            raise ConfigError(f"console.token_file: {path} belongs to another user")
        if about.st_mode & 0o077:
            raise ConfigError(f"console.token_file: others can read {path}; run: chmod 600 {path}")
        token = file.read(4096).strip()
    if len(token) < _LEAST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigError(f"console.token_file: {path} holds no token; delete it and a new one is made")
    return token


@dataclass(frozen=True, slots=True)
class Told:
    """A message that the next page shows once.

    Attributes:
        good: whether what was asked for was done.
        text: for people.
    """

    good: bool
    text: str


@dataclass(slots=True)
class Session:
    """One signed-in browser.

    Attributes:
        csrf: secret that every form of this session carries.
        ends: monotonic seconds.
        told: messages that wait for the next page.
    """

    csrf: str
    ends: float
    told: list[Told] = field(default_factory=list)

    def tell(self, good: bool, text: str) -> None:
        """Leaves a message for the next page."""
        self.told = [*self.told[-(_MOST_TOLD - 1) :], Told(good, text)]

    def take(self) -> list[Told]:
        """The messages, which are then forgotten."""
        told, self.told = self.told, []
        return told

    def holds(self, csrf: str) -> bool:
        """Whether a form came from a page of this session."""
        return hmac.compare_digest(csrf.encode(), self.csrf.encode())


class Sessions:
    """The signed-in browsers; bounded, in memory. Any thread.

    Args:
        most: sessions at once; beyond it the oldest ends.
        lifetime_s: of one, whatever it does.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        most: int = _MOST_SESSIONS,
        lifetime_s: float = _LIFETIME_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.lifetime_s: Final = lifetime_s
        self._most = most
        self._clock = clock
        self._open: OrderedDict[bytes, Session] = OrderedDict()  # by hash: looking one up tells nothing by its time
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Sessions in memory."""
        return len(self._open)

    def begin(self) -> tuple[str, Session]:
        """A new session and the id that only its browser knows."""
        name = secrets.token_urlsafe(32)
        session = Session(secrets.token_urlsafe(32), self._clock() + self.lifetime_s)
        with self._lock:
            self._open[_digest(name)] = session
            while len(self._open) > self._most:
                self._open.popitem(last=False)
        return name, session

    def find(self, name: str | None) -> Session | None:
        """The session with that id, unless it has ended."""
        if not name:
            return None
        with self._lock:
            session = self._open.get(_digest(name))
            if session is not None and self._clock() >= session.ends:
                del self._open[_digest(name)]
                return None
            return session

    def end(self, name: str | None) -> None:
        """Forgets a session."""
        if name:
            with self._lock:
                self._open.pop(_digest(name), None)


class Door:
    """Turns the token into a session.

    Args:
        token: the right one.
        sessions: where the new one goes.
        clock: monotonic seconds.
    """

    def __init__(self, token: str, sessions: Sessions, clock: Callable[[], float] = time.monotonic) -> None:
        self._token = _digest(token)
        self._sessions = sessions
        self._attempts = Buckets(_ATTEMPTS, capacity=_ADDRESSES, known=1, clock=clock)

    def knock(self, token: str, address: str) -> str | float | None:
        """One attempt to sign in.

        Returns:
            The id of a new session; or seconds to wait, where this address tried too often; or None for a wrong token.
        """
        wait = self._attempts.take(address_key(address))
        if wait:
            return wait
        if not hmac.compare_digest(_digest(token.strip()), self._token):
            return None
        return self._sessions.begin()[0]


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode(errors="replace")).digest()
