"""Miners as child processes, for the demo: started offline on free loopback ports, always reaped."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from detectors.errors import DetectorError
from neurons.keys import create_throwaway
from neurons.settings import ENV_PREFIX
from neurons.simulation import Endpoint

__all__ = ["MinerFailed", "MinerProcess", "miners"]

_HOME = f"{ENV_PREFIX}HOME"  # where weights and configs are; everything else in the environment would change the demo
_KILL_S = 15.0


class MinerFailed(DetectorError):  # noqa: N818 - says what happened
    """A child that did not come up, with the end of its log: mostly weights that are missing or do not load."""


class MinerProcess:
    """``python neurons/miner.py --offline`` as a child.

    Args:
        name: of the endpoint, the wallet and the log file.
        wallets: folder for its throw-away hotkey.
        logs: folder that gets ``miner-NAME.log``.
        flags: further flags of the miner.
    """

    def __init__(self, name: str, *, wallets: Path, logs: Path, flags: Sequence[str] = ()) -> None:
        self.name = name
        self.log = logs / f"miner-{name}.log"
        self._hotkey = create_throwaway(wallets, name).ss58_address
        settings = wallets / "miner.yaml"  # an operator's own configs/miner.yaml must not reach into the demo
        settings.write_text("offline: true\n", encoding="utf-8")
        script = Path(__file__).with_name("miner.py")
        command = [sys.executable, str(script), "--config", str(settings), "--wallet.path", str(wallets)]
        command += ["--wallet.name", name, "--axon.ip", "127.0.0.1", "--axon.port", "0", *flags]
        environment = {k: v for k, v in os.environ.items() if not k.startswith(ENV_PREFIX) or k == _HOME}
        with self.log.open("wb") as log:
            # A session of its own: Ctrl-C in the terminal reaches the demo alone, which then ends its children.
            self.process = subprocess.Popen(  # noqa: S603 - our own interpreter and script
                command,
                stdout=subprocess.PIPE,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,
            )
        self._first: list[bytes] = []
        self._reader = threading.Thread(target=self._read, name=f"stdout-{name}", daemon=True)
        self._reader_ready = threading.Event()
        self._reader.start()

    def _read(self) -> None:
        """Keeps the first line and drains the rest, so that the child never blocks on a full pipe."""
        out: IO[bytes] | None = self.process.stdout
        if out is not None:
            self._first.append(out.readline())
            self._reader_ready.set()
            while out.read(65536):
                pass

    def wait_until_serving(self, deadline: float) -> Endpoint:
        """Blocks until the child says where it serves.

        Args:
            deadline: ``time.monotonic()`` seconds.

        Raises:
            MinerFailed: it ended, said something else, or was not ready in time.
        """
        if not self._reader_ready.wait(max(0.0, deadline - time.monotonic())):
            raise MinerFailed(f"miner {self.name!r} was not ready in time{self._tail()}")
        try:
            said = json.loads(self._first[0])
            return Endpoint(self.name, f"http://{said['ip']}:{said['port']}", said["hotkey"])
        except (ValueError, KeyError, TypeError) as error:
            raise MinerFailed(f"miner {self.name!r} did not start{self._tail()}") from error

    def _tail(self) -> str:
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-8:]
        return ":\n  " + "\n  ".join(lines) if lines else f"; its log {self.log} is empty"

    def stop(self) -> int:
        """SIGTERM, then SIGKILL for a child that does not listen; gives its exit code."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            code = self.process.wait(_KILL_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        self._reader.join(_KILL_S)
        if self.process.stdout is not None:
            self.process.stdout.close()
        return code


@contextlib.contextmanager
def miners(
    flags: Mapping[str, Sequence[str]], *, wallets: Path, logs: Path, start_s: float = 90.0
) -> Iterator[Callable[[], list[Endpoint]]]:
    """Runs one child per name for as long as the block lasts; all start at once, all are reaped whatever happens.

    Gives a function that waits until all of them serve, so that other work can be done while they start.

    Args:
        flags: further flags by name.
        wallets: folder for throw-away hotkeys.
        logs: folder for their logs.
        start_s: seconds that function waits at most; it raises :class:`MinerFailed` for a child that does not come up.
    """
    with contextlib.ExitStack() as stack:
        children = []
        for name, more in flags.items():
            child = MinerProcess(name, wallets=wallets, logs=logs, flags=more)
            stack.callback(child.stop)
            children.append(child)

        def ready() -> list[Endpoint]:
            deadline = time.monotonic() + start_s
            return [child.wait_until_serving(deadline) for child in children]

        yield ready
