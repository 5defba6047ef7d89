"""From ``configs/camo.yaml`` and the weights folder to a :class:`~detectors.camo.Camo` ready to serve."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import torch

from detectors import paths
from detectors.camo import Camo, Expert
from detectors.camo_config import CamoConfig, did_you_mean, load_config
from detectors.errors import ConfigError
from detectors.gates.base import Gate
from detectors.merge import Rule
from detectors.store import Store

__all__ = ["load"]

_GATES: Mapping[str, str] = {
    "content": "detectors.gates.content:ContentGate",
    "face": "detectors.gates.face:FaceGate",
}


def load(
    path: Path | None = None,
    *,
    device: str = "cpu",
    merge: str | None = None,
    threads: int | None = None,
    weights: Path | Store | None = None,
) -> Camo:
    """Builds the gating network.

    Args:
        path: the configuration; default ``configs/camo.yaml``.
        device: where the experts run.
        merge: overrides the configuration's ``merge``.
        threads: of torch, process-wide; None leaves them.
        weights: the weights folder, or a store that reads one in its own way; default ``weights/``.

    Raises:
        ConfigError: the configuration is wrong, or names weights, a gate or a gate's option that do not exist.
        WeightsError: weights are missing, altered or do not fit.
    """
    path = path or paths.configs() / "camo.yaml"
    config = load_config(path)
    if merge is not None:
        if merge not in get_args(Rule):
            raise ConfigError(f"merge: {did_you_mean(merge, get_args(Rule), 'merge')}")
        config = config.model_copy(update={"merge": merge})
    if threads is not None:
        if threads < 1:
            raise ConfigError(f"threads must be at least 1, not {threads}")
        torch.set_num_threads(threads)
    store = weights if isinstance(weights, Store) else Store(weights or paths.weights())
    gates = {name: _gate(name, options, store, path.name) for name, options in config.gates.items()}
    return Camo(config, _experts(config, store, device, path.name), gates)


def _experts(config: CamoConfig, store: Store, device: str, file: str) -> dict[str, Expert]:
    """Every expert's detector; experts that share weights share one."""
    active = tuple(store.pointer())
    detectors: dict[str, Expert] = {}
    for name, part in config.experts.items():
        key = part.weights
        if "@" not in key and key not in active:
            problem = did_you_mean(key, active, "weights") if active else f"no weights are active in {store.root}"
            raise ConfigError(f"{file}: experts.{name}.weights: {problem}")
        if key not in detectors:
            detectors[key] = store.load(key, device, max_frames=config.video.clip_frames)
    return {name: detectors[part.weights] for name, part in config.experts.items()}


def _gate(name: str, options: Mapping[str, Any], store: Store, file: str) -> Gate:
    """One gate; its ``kind`` says which class, where that is not its name (``people: {kind: content}``)."""
    kind, rest = options.get("kind", name), {key: value for key, value in options.items() if key != "kind"}
    if kind not in _GATES:
        raise ConfigError(f"{file}: gates.{name}: {did_you_mean(str(kind), tuple(_GATES), 'kind of gate')}")
    module, _, attribute = _GATES[kind].partition(":")
    build = getattr(importlib.import_module(module), attribute).load
    known = ("kind", *list(inspect.signature(build).parameters)[1:])  # the first one is the store
    for option in rest:
        if option not in known:
            raise ConfigError(f"{file}: gates.{name}: {did_you_mean(option, known, 'option')}")
    gate: Gate = build(store, **rest)
    return gate
