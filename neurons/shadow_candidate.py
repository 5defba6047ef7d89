"""The candidate that stands in the shadow: loaded like what serves, and out of its way while it computes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from detectors import camo_load
from detectors.camo import Camo
from detectors.errors import ConfigError, WeightsError
from detectors.experts.base import NeuralDetector
from detectors.store import Store
from neurons.preflight_machine import free_memory

__all__ = ["Courtesy", "Ended", "check", "load"]

_POLL_S = 0.02  # between two looks whether live work is over; each takes the interpreter lock for a moment
_COPIES = 3  # of the weights while they load: the file, its tensors, the networks


class Ended(Exception):  # noqa: N818 - somebody stopped the plan; nothing is wrong
    """The plan was stopped or replaced."""


class Courtesy:
    """Call it between two pieces of shadow work: waits while live work is there.

    Args:
        busy: whether live work waits or runs.
        ended: set when the plan is over.
    """

    def __init__(self, busy: Callable[[], bool], ended: threading.Event) -> None:
        self._busy = busy
        self._ended = ended
        self.waited_s = 0.0
        """Seconds spent waiting, in all."""

    def __call__(self) -> None:
        """Returns once there is no live work; raises :class:`Ended` where the plan is over."""
        if self._ended.is_set():
            raise Ended
        if not self._busy():
            return
        began = time.perf_counter()
        while self._busy():
            if self._ended.wait(_POLL_S):
                raise Ended
        self.waited_s += time.perf_counter() - began


def check(store: Store, key: str) -> tuple[str, str]:
    """Name and version of a key that can stand in the shadow; reads no weights.

    Raises:
        WeightsError: it is no ``NAME@VERSION``, there is no such card, nothing of that name is active, or it is what
            is active.
    """
    name, at, version = key.partition("@")
    if not at:
        raise WeightsError(f"{key!r}: expected NAME@VERSION")
    store.card(key)
    if store.active(name).version == version:
        raise WeightsError(f"{key} is active already: there is nothing to compare it with")
    return name, version


def load(key: str, *, store: Path, camo: Path, device: str, pause: Callable[[], None], reserve_bytes: int = 0) -> Camo:
    """The configuration of what serves with the candidate in its place, checked as any load is.

    Args:
        key: ``NAME@VERSION``.
        store: the folder of weights; its pointer is left as it is.
        camo: the configuration.
        device: where it runs.
        pause: called between two networks that load and, later, before each layer that computes; may wait or raise.
        reserve_bytes: memory that must stay free beside it.

    Raises:
        WeightsError: see :func:`check`; or the weights are missing, altered, do not fit or are not finite; or there is
            too little memory.
        ConfigError: the configuration is wrong, or does not use the active version of NAME.
    """
    overlay = _Overlay(store, *check(Store(store), key), pause)
    free, needed = free_memory(), _COPIES * overlay.size() + reserve_bytes
    if free is not None and free < needed:
        raise WeightsError(f"{key}: {free / 2**20:.0f} MiB of memory are free, {needed / 2**20:.0f} would be needed")
    candidate = camo_load.load(camo, device=device, weights=overlay)
    if key not in overlay.loaded:
        name = key.partition("@")[0]
        raise ConfigError(f"{camo.name} does not use the active version of {name}: {key} would change no answer")
    return candidate


class _Overlay(Store):
    """A store whose pointer names another version of one name, and whose networks give way between layers."""

    def __init__(self, root: Path, name: str, version: str, pause: Callable[[], None]) -> None:
        super().__init__(root)
        self._candidate = {name: version}
        self._pause = pause
        self.loaded: set[str] = set()

    def pointer(self) -> dict[str, str]:
        return {**super().pointer(), **self._candidate}

    def load(
        self, key_or_name: str, device: str | torch.device = "cpu", *, max_frames: int | None = None
    ) -> NeuralDetector:
        self._pause()
        detector = super().load(key_or_name, device, max_frames=max_frames)
        self.loaded.add(detector.card.key)
        for module in detector.network.modules():
            module.register_forward_pre_hook(self._give_way)
        return detector

    def size(self) -> int:
        """Bytes of all weights that the pointer names; those that are missing are for the load to complain of."""
        files = [self.root / f"{name}-{version}.safetensors" for name, version in self.pointer().items()]
        return sum(file.stat().st_size for file in files if file.exists())

    def _give_way(self, *_: Any) -> None:
        self._pause()
