"""The two sides of ``make attacks``: our miner and a 10.5 Axon, each a child with the same validators known to it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

from bittensor import sp_core

from neurons import keys
from scripts import bench_peers
from scripts.attacks_wire import large_jpeg
from scripts.soak_child import Child

__all__ = ["NOBODY", "RICH", "STAKES", "STRANGER", "WORTHY", "Duel", "Miner", "OurMiner", "duel"]

RICH, WORTHY = keys.from_uri("//Alice"), keys.from_uri("//Bob")
STRANGER = keys.from_uri("//Eve")
NOBODY = sp_core.ss58_encode(bytes(32), 42)
"""The address of zeros, for which anybody can sign; subnets list it where a slot is nobody's, so it is in the list."""
STAKES: Mapping[str, float] = {RICH.ss58_address: 1000.0, WORTHY.ss58_address: 1.0, NOBODY: 1.0}

_JUDGE_S = 0.06  # what the Axon's function spends on a picture that takes ours about as long to decode
_OURS = ("--neuron.detector", "trivial", "--neuron.max_batch", "1", "--logging.level", "error")
# For floods: every request is to be looked at, none turned away by the rate of its address.
_NO_RATES = ("--axon.address_rate", "1e6", "--axon.address_burst", "1000000")


class Miner(Protocol):
    """A miner under attack; the same hotkey and port for as long as it lives, over restarts too."""

    @property
    def address(self) -> tuple[str, int]: ...

    @property
    def hotkey(self) -> str: ...

    @property
    def pid(self) -> int: ...

    def restart(self) -> None:
        """SIGKILL, and the same miner again."""
        ...

    def stop(self) -> None: ...


class OurMiner:
    """``neurons.miner`` itself, registered on a chain in memory, with the detector that answers a constant.

    Args:
        folder: for its wallet and log.
        flags: beside those of a miner.
    """

    def __init__(self, folder: Path, flags: Sequence[str] = ()) -> None:
        folder.mkdir()
        self._folder = folder
        self._flags = flags
        self._child = self._start(0)

    def _start(self, port: int) -> Child:
        validators = [f"{hotkey}={stake:g}" for hotkey, stake in STAKES.items()]
        child = Child(self._folder, validators, (*_OURS, *self._flags), port=port)
        try:
            child.wait_until_serving()
        except BaseException:
            child.kill()
            raise
        return child

    @property
    def address(self) -> tuple[str, int]:
        return self._child.address

    @property
    def hotkey(self) -> str:
        return self._child.hotkey

    @property
    def pid(self) -> int:
        return self._child.pid

    def restart(self) -> None:
        self._child.kill()
        self._child = self._start(self.address[1])

    def stop(self) -> None:
        self._child.stop()


class AxonMiner:
    """``attacks_axon.py`` in the second environment.

    Args:
        folder: for its wallet and as its home.
        python: that environment's interpreter.
    """

    def __init__(self, folder: Path, python: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._python = python
        self._peer = self._start(0)

    def _start(self, port: int) -> bench_peers.Peer:
        large = len(large_jpeg())  # of base64, so a third less of JPEG
        job = {"folder": str(self._folder), "port": port, "stakes": dict(STAKES), "large": large, "judge_s": _JUDGE_S}
        home = {"HOME": str(self._folder)}
        return bench_peers.start("axon", self._python, "attacks_axon.py", json.dumps(job), environment=home)

    @property
    def address(self) -> tuple[str, int]:
        return self._peer.address

    @property
    def hotkey(self) -> str:
        return self._peer.hotkey

    @property
    def pid(self) -> int:
        return self._peer.pid

    @property
    def version(self) -> str:
        return self._peer.version

    def restart(self) -> None:
        port = self.address[1]
        bench_peers.stop(self._peer, kill=True)
        self._peer = self._start(port)

    def stop(self) -> None:
        bench_peers.stop(self._peer)


@dataclass
class Duel:
    """One side: the miner that is attacked, and a second one of its kind with another hotkey.

    Attributes:
        name: of the side.
        version: of its software.
        miner: with the limits that it has by default.
        second: takes what was captured at the first, and floods: without limits of rate where it has any.
        captured: what an attack keeps for a later one.
    """

    name: str
    version: str
    miner: Miner
    second: Miner
    captured: dict[str, object] = field(default_factory=dict)


@contextmanager
def duel(axon_python: Path | None, *, ours: bool = True) -> Iterator[list[Duel]]:
    """The sides, started; ends all of their miners.

    Args:
        axon_python: the second environment's interpreter; None leaves the Axon's side out.
        ours: False leaves ours out.

    Raises:
        SystemExit: there is no such interpreter, or an Axon did not come up.
        ChildError: a miner of ours did not.
    """
    if axon_python is not None:
        bench_peers.require(axon_python)
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)

        def our(place: str, flags: Sequence[str] = ()) -> OurMiner:
            miner = OurMiner(folder / place, flags)
            stack.callback(miner.stop)
            return miner

        def axon(place: str, python: Path) -> AxonMiner:
            miner = AxonMiner(folder / place, python)
            stack.callback(miner.stop)
            return miner

        sides = []
        if ours:
            sides.append(Duel("ours", version("deepfake-miner"), our("ours"), our("second", _NO_RATES)))
        if axon_python is not None:
            first = axon("axon", axon_python)
            sides.append(Duel("Axon", first.version, first, axon("second-axon", axon_python)))
        yield sides
