"""Servers under test as children that say in one line of JSON when they serve, and what ``/proc`` says of them.

For ``make bench-serve`` and ``make attacks``.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from scripts.bench_load import Tally, drive

__all__ = [
    "AXON_PYTHON",
    "ROOT",
    "Peer",
    "cpu_seconds",
    "measured",
    "require",
    "resident_mib",
    "serving",
    "start",
    "stop",
]

ROOT = Path(__file__).resolve().parents[1]
AXON_PYTHON = ROOT / ".venv-conformance" / "bin" / "python"
"""The interpreter of the second environment, with bittensor 10.5."""

_STOP_S = 10.0


@dataclass
class Peer:
    """A server under test and what was measured of it, one entry a round."""

    name: str
    version: str
    address: tuple[str, int]
    hotkey: str
    process: subprocess.Popen[bytes] = field(repr=False)
    figures: dict[str, list[float]] = field(default_factory=dict)

    @property
    def pid(self) -> int:
        return self.process.pid

    def note(self, name: str, value: float) -> None:
        self.figures.setdefault(name, []).append(value)


def cpu_seconds(pid: int) -> float:
    """User and system time of all threads of a process, from ``/proc``; resolution 10 ms."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mib(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def require(python: Path) -> None:
    """Raises ``SystemExit`` where there is no such interpreter."""
    if not python.exists():
        raise SystemExit(f"{python} is missing: run `make setup setup-conformance` first")


def start(name: str, python: Path, script: str, *arguments: str, environment: Mapping[str, str] | None = None) -> Peer:
    """Starts a server in its own process; it lives until :func:`stop`, or until its standard input is closed.

    Raises:
        SystemExit: there is no such interpreter, or the server did not come up.
    """
    require(python)
    process = subprocess.Popen(
        [str(python), str(ROOT / "scripts" / script), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env=None if environment is None else {**os.environ, **environment},
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        _end(process)
        raise SystemExit(f"{script} did not start")
    ready = json.loads(line)
    return Peer(name, str(ready["version"]), (str(ready["ip"]), int(ready["port"])), str(ready["hotkey"]), process)


def stop(peer: Peer, *, kill: bool = False) -> None:
    """Ends a server by closing its standard input, or with SIGKILL at once, and reaps it."""
    if kill:
        peer.process.kill()
    _end(peer.process)


def _end(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdout.close()


@contextmanager
def serving(name: str, python: Path, script: str) -> Iterator[Peer]:
    """A server for as long as the block lasts; see :func:`start`."""
    peer = start(name, python, script)
    try:
        yield peer
    finally:
        stop(peer)


async def measured(
    address: tuple[str, int], pid: int, make: Callable[[], bytes], seconds: float, in_flight: int
) -> tuple[Tally, float]:
    """A round at full load and the server's processor milliseconds a request in it."""
    before = 0.0

    def started() -> None:
        nonlocal before
        before = cpu_seconds(pid)

    def ended() -> None:
        nonlocal before
        before = cpu_seconds(pid) - before

    tally = await drive(
        address, make, in_flight=in_flight, seconds=seconds, warm_up_s=0.4, started=started, ended=ended
    )
    return tally, 1e3 * before / max(1, tally.answers)
