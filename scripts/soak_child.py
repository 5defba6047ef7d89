"""The miner under test as a child: started, told to lose its chain, watched through ``/proc``, stopped or killed."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from neurons import keys
from neurons.settings import ENV_PREFIX
from tests.neurons.fake_substrate import NETUID

__all__ = ["EMBARGO_S", "Child", "ChildError", "Vitals", "vitals"]

EMBARGO_S = 5.5
"""From the start of the process: what is signed later is surely no replay from before it (see ``neurons.miner.wires``,
which counts 4 s from the moment that its module is loaded)."""

ROOT = Path(__file__).resolve().parents[1]
_STOP_S = 30.0


class ChildError(Exception):
    """The child did not do what it was told; the message has the end of its log."""


@dataclass(frozen=True, slots=True)
class Vitals:
    """What ``/proc`` says of a process.

    Attributes:
        at: ``time.monotonic()`` seconds.
        rss_mib: resident memory.
        files: open file descriptors, sockets included.
        threads: of the process.
        children: processes that it started and that are not reaped.
        cpu_s: user and system time of all its threads.
        wait_s: time that its living threads were ready to run and had no processor.
    """

    at: float
    rss_mib: float
    files: int
    threads: int
    children: int
    cpu_s: float
    wait_s: float = 0.0


def vitals(pid: int) -> Vitals:
    """Raises ``OSError`` where there is no such process."""
    proc = Path(f"/proc/{pid}")
    fields = (proc / "stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    pages = int((proc / "statm").read_text(encoding="ascii").split()[1])
    children, waited_ns = 0, 0
    for task in (proc / "task").iterdir():
        try:
            children += len((task / "children").read_text(encoding="ascii").split())
            waited_ns += int((task / "schedstat").read_text(encoding="ascii").split()[1])
        except FileNotFoundError:  # the thread has ended meanwhile
            continue
    return Vitals(
        at=time.monotonic(),
        rss_mib=pages * os.sysconf("SC_PAGE_SIZE") / 2**20,
        files=len(os.listdir(proc / "fd")),  # noqa: PTH208 - one look, no objects
        threads=int(fields[17]),
        children=children,
        cpu_s=(int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"),
        wait_s=waited_ns / 1e9,
    )


class Child:
    """``scripts/soak_miner.py`` on a loopback port.

    Args:
        folder: for its wallet, settings and log; the log is appended to, so that restarts share it.
        validators: ss58 addresses that the subnet knows, with a permit.
        flags: of the miner, after those that are set here.
        home: folder of ``weights/`` and ``configs/``; None leaves the house's own.
        port: 0 takes a free one.
    """

    def __init__(
        self, folder: Path, validators: Sequence[str], flags: Sequence[str], *, home: Path | None = None, port: int = 0
    ) -> None:
        self.hotkey = keys.create_throwaway(folder, "miner").ss58_address
        self.log = folder / "miner.log"
        settings = folder / "miner.yaml"  # an operator's own file must not reach in here
        settings.write_text("{}\n", encoding="utf-8")
        command = [sys.executable, str(ROOT / "scripts" / "soak_miner.py"), ",".join(validators)]
        command += ["--config", str(settings), "--netuid", str(NETUID), "--axon.external_ip", "203.0.113.7"]
        command += ["--wallet.path", str(folder), "--wallet.name", "miner"]
        command += ["--axon.ip", "127.0.0.1", "--axon.port", str(port), *flags]
        environment = {k: v for k, v in os.environ.items() if not k.startswith(ENV_PREFIX)}
        environment["BTCLI_TOKEN_SYMBOLS_CACHE"] = str(folder / "symbols.json")
        if home is not None:
            environment[f"{ENV_PREFIX}HOME"] = str(home)
        self.started_ns = time.time_ns()
        with self.log.open("ab") as log:
            # A session of its own: whatever it leaves behind can be found, and Ctrl-C ends it through us.
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
                cwd=ROOT,
                start_new_session=True,
            )
        self.address = ("127.0.0.1", port)
        self._said: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self.process.pid

    def _read(self) -> None:
        out: IO[bytes] | None = self.process.stdout
        if out is not None:
            for line in out:
                self._said.put(line)
        self._said.put(b"")

    def _next(self, event: str, seconds: float) -> dict[str, Any]:
        try:
            said = json.loads(self._said.get(timeout=seconds))
        except (queue.Empty, ValueError):
            said = {}
        if not isinstance(said, dict) or said.get("event") != event:
            raise ChildError(f"the miner did not say {event!r} but {said!r}{self.tail()}")
        return said

    def wait_until_serving(self, seconds: float = 120.0) -> tuple[str, int]:
        """Blocks until it serves; gives its address. Raises :class:`ChildError`."""
        said = self._next("serving", seconds)
        self.address = (str(said["ip"]), int(said["port"]))
        return self.address

    def chain(self, state: str) -> None:
        """Makes the chain ``up``, ``down`` or ``hang``; returns when it is so."""
        stdin = self.process.stdin
        if stdin is None:
            raise ChildError("the miner has no standard input")
        stdin.write(f"{state}\n".encode())
        stdin.flush()
        if self._next("chain", 30.0)["state"] != state:
            raise ChildError(f"the chain is not {state!r}")

    def kill(self) -> None:
        """SIGKILL, as a machine that runs out of memory does it; reaps it."""
        self.process.kill()
        self._reap()

    def stop(self) -> int:
        """SIGTERM, then SIGKILL for a child that does not listen; gives its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
        return self._reap()

    def _reap(self) -> int:
        code = self.process.wait()
        self._reader.join(_STOP_S)
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()
        return code

    def left_behind(self) -> list[int]:
        """Processes that still live in its session; call it when it has ended."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                fields = (entry / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == self.pid:
                found.append(int(entry.name))
        return found

    def tail(self, lines: int = 8) -> str:
        """The end of its log, for messages."""
        text = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-lines:]
        return ":\n  " + "\n  ".join(text) if text else f"; its log {self.log} is empty"
