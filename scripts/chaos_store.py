"""A store to be broken: a copy of the shipped one with a second version, and what may be found in it after a kill."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import safetensors.torch
import torch

from detectors import camo, paths, registry
from detectors.card import Card
from detectors.errors import WeightsError
from detectors.pointer import HISTORY, LOCK
from detectors.store import Store
from detectors.types import Prediction
from neurons.commands import weights
from neurons.pipeline import Judge
from neurons.wire.base import Challenge
from scripts.chaos_writer import NAME, PRESET, VERSIONS

__all__ = ["Found", "House", "Writer"]

_ROOT = Path(__file__).resolve().parents[1]
_POINTER = "active.json"
_BESIDE = (LOCK, ".miners", ".orders")  # nothing that a start reads


@dataclass
class Found:
    """What a look into the folder showed.

    Attributes:
        problems: one sentence for each thing that must not be.
        temporary: left-over temporary files, which nothing reads.
        temporary_bytes: of them.
        cardless: weights whose card was not written yet; running the import again completes them.
        active: the version of :data:`NAME` that the pointer names.
    """

    problems: list[str] = field(default_factory=list)
    temporary: int = 0
    temporary_bytes: int = 0
    cardless: list[str] = field(default_factory=list)
    active: str = ""


class House:
    """``weights/`` and ``configs/`` in a folder of their own.

    Args:
        folder: does not exist yet.
    """

    def __init__(self, folder: Path) -> None:
        self.home = folder
        self.root = folder / "weights"
        shutil.copytree(paths.weights(), self.root, ignore=shutil.ignore_patterns(".*"))
        shutil.copytree(paths.configs(), folder / "configs")
        self.store = Store(self.root)
        self._second_version()
        self.checkpoint = folder / "checkpoint.safetensors"
        torch.manual_seed(0)
        network = registry.build(registry.published_cards()[PRESET])
        safetensors.torch.save_file({k: v.contiguous() for k, v in network.state_dict().items()}, self.checkpoint)
        whole = Store(folder / "whole")
        self._import(whole, "9.0")
        self._imported = whole.card(f"{PRESET}@9.0").sha256
        self.pointer = {k: v for k, v in self.store.pointer().items() if k != NAME}
        self._whole = {p.name: _sha256(p) for p in self.root.iterdir() if p.name != _POINTER}

    def _second_version(self) -> None:
        """The same network with a bent last layer: answers that cannot be mistaken for the first version's."""
        first = self.store.load(f"{NAME}@{VERSIONS[0]}")
        network = registry.build(first.card)
        state = dict(first.network.state_dict())
        last = [k for k, v in state.items() if v.is_floating_point() and v.ndim >= 1][-1]
        state[last] = state[last] + 0.5 * torch.sign(torch.arange(state[last].numel()) - 0.5).reshape(state[last].shape)
        network.load_state_dict(state)
        self.store.save(dataclasses.replace(first.card, version=VERSIONS[1], sha256="", golden={}), network)

    def _import(self, store: Store, version: str) -> None:
        weights.import_file(self.checkpoint, preset=PRESET, version=version, name=None, options=[], store=store.root)

    def answers(self, version: str, challenges: Sequence[Challenge]) -> list[tuple[float, float, float]]:
        """What the default detector says with that version of :data:`NAME`, computed here, one at a time."""
        self.store.activate(NAME, version)
        judge = Judge(camo.load(self.home / "configs" / "camo.yaml", weights=self.root))
        try:
            outcomes = [judge.judge([challenge], None)[0] for challenge in challenges]
        finally:
            judge.close()
        return [outcome.probabilities for outcome in outcomes if isinstance(outcome, Prediction)]

    def strike(self, writer: subprocess.Popen[bytes], then_s: float, longest_s: float = 3.0) -> None:
        """Blocks until a file is being written, and kills `writer` there, `then_s` seconds later."""
        end = time.monotonic() + longest_s
        before = set(os.listdir(self.root))  # noqa: PTH208 - asked a thousand times a second
        while time.monotonic() < end:
            if any(name.endswith(".tmp") for name in set(os.listdir(self.root)) - before):  # noqa: PTH208
                time.sleep(then_s)
                writer.kill()
                return
            time.sleep(0.0002)

    def look(self) -> Found:
        """Every file is the old or the new one, whole; anything else is a problem."""
        found = Found()
        for path in sorted(self.root.iterdir()):
            if path.name.startswith(".") and path.suffix == ".tmp":
                found.temporary += 1
                found.temporary_bytes += path.stat().st_size
            elif path.name == HISTORY:
                if not isinstance(json.loads(path.read_bytes() or b"0"), list):
                    found.problems.append(f"{path.name} is half-written")
            elif path.name in _BESIDE:
                continue
            elif path.name in self._whole:
                if _sha256(path) != self._whole[path.name]:
                    found.problems.append(f"{path.name} is another file than before")
            elif path.name.startswith(f"{PRESET}-9."):
                self._look_at_import(path, found)
            elif path.name != _POINTER:
                found.problems.append(f"{path.name} should not be there")
        found.problems += [f"{name} is gone" for name in self._whole if not (self.root / name).exists()]
        self._look_at_pointer(found)
        return found

    def _look_at_import(self, path: Path, found: Found) -> None:
        if path.suffix == ".json":
            try:
                if Card.load(path).sha256 != self._imported or not path.with_suffix(".safetensors").exists():
                    found.problems.append(f"{path.name} describes other weights than were imported")
            except WeightsError as error:
                found.problems.append(f"{path.name} is half-written: {error}")
        elif path.suffix == ".safetensors":
            if _sha256(path) != self._imported:
                found.problems.append(f"{path.name} is half-written")
            elif not path.with_suffix(".json").exists():
                found.cardless.append(path.stem.removeprefix(f"{PRESET}-"))
        else:
            found.problems.append(f"{path.name} should not be there")

    def _look_at_pointer(self, found: Found) -> None:
        try:
            pointer = self.store.pointer()
            self.store.cards()  # what `weights list` reads; a temporary file that confused it would raise
        except WeightsError as error:
            found.problems.append(str(error))
            return
        found.active = pointer.pop(NAME, "")
        if found.active not in VERSIONS or pointer != self.pointer:
            found.problems.append(f"{_POINTER} says {json.dumps({**pointer, NAME: found.active})}")

    def mend(self, found: Found) -> None:
        """Runs broken-off imports again, as an operator would, then forgets all imports; adds what went wrong."""
        for version in found.cardless:
            try:
                self._import(self.store, version)
                self.store.load(f"{PRESET}@{version}")
            except WeightsError as error:
                found.problems.append(f"the import of {version} cannot be run again: {error}")
        for path in self.root.glob(f"{PRESET}-9.*"):
            path.unlink()


class Writer:
    """``scripts/chaos_writer.py`` as a child.

    Args:
        kind: ``activate`` or ``import``.
        house: whose store it changes.
    """

    def __init__(self, kind: str, house: House) -> None:
        command = [sys.executable, str(_ROOT / "scripts" / "chaos_writer.py"), kind, str(house.root)]
        self.process = subprocess.Popen(
            [*command, str(house.checkpoint)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=_ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )

    def wait(self) -> None:
        """Blocks until it is about to write."""
        out = self.process.stdout
        if out is None or out.readline() != b"ready\n":
            raise RuntimeError("the writer did not start")

    def go(self) -> None:
        if self.process.stdin is not None:
            self.process.stdin.write(b"\n")
            self.process.stdin.flush()

    def kill(self) -> int:
        """SIGKILL; gives its exit code, -9 where it was still writing."""
        self.process.kill()
        code = self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()
        return code


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
