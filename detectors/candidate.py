"""A new set of weights or a new configuration, and what it must hold before it may answer anybody.

Nothing here touches what serves: the candidate is built from copies, beside it, and either comes out whole or is
refused with the check that it failed.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import torch

from detectors import camo_load
from detectors.camo import Camo
from detectors.camo_config import CamoConfig, load_config
from detectors.errors import ConfigError, DetectorError, WeightsError
from detectors.experts.base import NeuralDetector
from detectors.pointer import ACTIVE, Pointer
from detectors.store import Store, probe_images
from detectors.types import Media, Prediction

__all__ = ["Candidate", "Demands", "Stage", "SwapRefused", "fingerprint", "prepare", "sources"]

Stage = Literal["configuration", "memory", "weights", "golden", "latency", "output"]
"""The checks, in this order."""

_MIB = 2**20
_COPIES = 4  # of a weights file: its bytes, its tensors, the network; once more for half precision, which grows
_PROBE_BATCH = 8
_TRIES = 3  # to read files that somebody is changing
_T = TypeVar("_T")
_PINNED = re.compile(rb"([A-Za-z0-9][A-Za-z0-9._-]*)@([A-Za-z0-9][A-Za-z0-9._-]*)")


class SwapRefused(DetectorError):  # noqa: N818 - the verdict of a check
    """A candidate that must not serve.

    Args:
        stage: the check that it failed.
        reason: one sentence: which file, what was found, what was wanted.
    """

    def __init__(self, stage: Stage, reason: str) -> None:
        self.stage = stage
        self.reason = " ".join(reason.split())  # one line of a log, whatever torch has to say
        super().__init__(f"{stage}: {self.reason}")


@dataclass(frozen=True, slots=True)
class Demands:
    """What a candidate must hold.

    Attributes:
        budget_ms: most milliseconds for a batch of eight pictures.
        reserve_bytes: memory that must stay free while two sets are loaded.
    """

    budget_ms: float = 2000.0
    reserve_bytes: int = 512 * _MIB


@dataclass(frozen=True, slots=True)
class Candidate:
    """What passed every check.

    Attributes:
        camo: ready to serve; it has measured no costs yet.
        fingerprint: of the files that it was built from.
        probe_ms: milliseconds of the probe batch.
    """

    camo: Camo
    fingerprint: str
    probe_ms: float


def sources(camo: Path, store: Path) -> list[Path]:
    """The files that say what serves: the pointer, the configuration, and the card of every version they name.

    Files may be missing; what the configuration names is found without understanding it, so that a damaged one counts
    as well.
    """
    named: set[tuple[str, str]] = set()
    with contextlib.suppress(WeightsError):  # a damaged one names nothing; its bytes count all the same
        named.update(Pointer(store).read().items())
    named.update((name.decode(), version.decode()) for name, version in _PINNED.findall(_bytes(camo) or b""))
    cards = (store / f"{name}-{version}.json" for name, version in sorted(named))
    return [store / ACTIVE, camo, *(card for card in cards if card.parent == store)]


def fingerprint(camo: Path, store: Path) -> str:
    """Digest of the bytes of :func:`sources`; hex. The same wherever the same files are, whenever they were written."""
    digest = hashlib.sha256()
    names = ["pointer", "configuration"]
    for number, path in enumerate(sources(camo, store)):
        content = _bytes(path)
        name = names[number] if number < len(names) else path.name
        digest.update(json.dumps([name, None if content is None else len(content)]).encode())
        digest.update(content or b"")
    return digest.hexdigest()


def _bytes(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except (OSError, ValueError):  # ValueError: a name with a NUL in it
        return None


def prepare(
    camo: Path,
    store: Path,
    *,
    device: str = "cpu",
    demands: Demands | None = None,
    free_memory: Callable[[], int | None] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> Candidate:
    """Builds what the files ask for and checks all of it.

    Args:
        camo: the configuration.
        store: the folder of weights.
        device: where it will run.
        demands: see :class:`Demands`.
        free_memory: bytes that this process can still get; None where the system does not say.
        clock: seconds, for the latency. A thread that gives way to others counts the time it had itself.

    Raises:
        SwapRefused: a check failed; nothing of the candidate is left.
    """
    demands = demands or Demands()
    for attempt in range(_TRIES):
        wanted = fingerprint(camo, store)
        try:
            pinned = _Pinned(store)
            _check_memory(_configuration(camo, pinned), pinned, demands, free_memory())
            network = _load(camo, pinned, device)
        except SwapRefused:
            # Half of the old and half of the new may fit together worse than either.
            if fingerprint(camo, store) == wanted or attempt == _TRIES - 1:
                raise
        else:
            if fingerprint(camo, store) == wanted:
                break
    else:
        raise SwapRefused("configuration", f"{ACTIVE}, {camo.name} or a card changed again and again while being read")
    _check_golden(pinned.loaded)
    probe_ms = _probe(network, device, clock)
    if probe_ms > demands.budget_ms:
        took = f"a batch of {_PROBE_BATCH} pictures took {probe_ms:.0f} ms, {demands.budget_ms:.0f} ms are allowed"
        raise SwapRefused("latency", f"{took}; one picture: {_costs(network)}")
    # Another wrapper round the same networks: costs that were measured in the background are not those of serving.
    return Candidate(network.configured(network.config), wanted, probe_ms)


class _Pinned(Store):
    """A store whose pointer stays what it was, and that knows what was loaded from it."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        try:
            self._pointer = super().pointer()
        except WeightsError as error:
            raise SwapRefused("configuration", str(error)) from error
        self.loaded: list[NeuralDetector] = []

    def pointer(self) -> dict[str, str]:
        return dict(self._pointer)

    def load(
        self, key_or_name: str, device: str | torch.device = "cpu", *, max_frames: int | None = None
    ) -> NeuralDetector:
        detector = super().load(key_or_name, device, max_frames=max_frames)
        self.loaded.append(detector)
        return detector

    def size(self, key_or_name: str) -> int:
        """Bytes of a weights file; 0 where there is none."""
        name, _, version = key_or_name.partition("@")
        try:
            return (self.root / f"{name}-{version or self._pointer.get(name)}.safetensors").stat().st_size
        except OSError:
            return 0


def _configuration(camo: Path, store: _Pinned) -> CamoConfig:
    try:
        return load_config(camo)
    except ConfigError as error:
        raise SwapRefused("configuration", str(error)) from error


def _check_memory(config: CamoConfig, store: _Pinned, demands: Demands, free: int | None) -> None:
    """Of the experts; a gate is a megabyte, which the reserve has room for."""
    size = sum(store.size(key) for key in {part.weights for part in config.experts.values()})
    needed = _COPIES * size + demands.reserve_bytes
    if free is not None and free < needed:
        what = f"{_COPIES} x {size / _MIB:.0f} MiB of weights and {demands.reserve_bytes / _MIB:.0f} MiB that stay free"
        raise SwapRefused("memory", f"{what} are {needed / _MIB:.0f} MiB; {free / _MIB:.0f} MiB are free")


def _load(camo: Path, store: _Pinned, device: str) -> Camo:
    try:
        return camo_load.load(camo, device=device, weights=store)
    except ConfigError as error:
        raise SwapRefused("configuration", str(error)) from error
    except WeightsError as error:
        raise SwapRefused("weights", str(error)) from error
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise SwapRefused("memory", f"it ran out while loading: {_first_line(error)}") from error
    # A card names any options, and a constructor may raise anything over them.
    except Exception as error:
        raise SwapRefused("weights", f"{type(error).__name__}: {_first_line(error)}") from error


def _check_golden(loaded: Sequence[NeuralDetector]) -> None:
    """Of every network that answers or looks, the very ones that would serve."""
    for detector in loaded:
        problems = _answered(functools.partial(Store.drift, detector), "golden")
        if problems:
            raise SwapRefused("golden", "; ".join(problems))


def _probe(network: Camo, device: str, clock: Callable[[], float]) -> float:
    """Warms up, judges pictures and a clip, and measures a batch; milliseconds of that."""
    _answered(network.warm_up, "output")
    pictures = list(probe_images().values())
    batch = [Media(pictures[k % len(pictures)]) for k in range(_PROBE_BATCH)]
    clip = Media(np.stack([pictures[0]] * _PROBE_BATCH), rate=8.0)
    _check_answers(network, [*batch[:2], clip])
    _check_answers(network, batch)
    _wait_for(device)
    began = clock()
    _check_answers(network, batch)
    _wait_for(device)
    return (clock() - began) * 1e3


def _check_answers(network: Camo, batch: Sequence[Media]) -> None:
    """Every part computed finite numbers, and the answers are distributions (or the network raised)."""
    answers: list[Prediction] = _answered(lambda: network.predict(batch), "output")
    if len(answers) != len(batch):
        raise SwapRefused("output", f"{len(answers)} answers to {len(batch)} media")
    if network.faults:
        raise SwapRefused("output", f"no finite number from {', '.join(sorted(network.faults))}")


def _answered(ask: Callable[[], _T], stage: Stage) -> _T:
    """What `ask` says; whatever it raises refuses the candidate."""
    try:
        return ask()
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise SwapRefused("memory", f"it ran out while computing: {_first_line(error)}") from error
    except DetectorError as error:
        raise SwapRefused("output", str(error)) from error
    # A network that does not fit its input raises what it likes; none of it may reach those who are served.
    except Exception as error:
        raise SwapRefused(stage, f"{type(error).__name__}: {_first_line(error)}") from error


def _wait_for(device: str) -> None:
    """CUDA computes behind our back: time is over when it has finished."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def _costs(network: Camo) -> str:
    costs: Mapping[str, float] = network.costs
    return ", ".join(f"{name} {value:.0f} ms" for name, value in sorted(costs.items(), key=lambda item: -item[1]))


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0]
