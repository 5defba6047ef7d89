"""``weights import``: a published checkpoint comes in, keys strictly accounted for, and is stored as safetensors.

Never executes what a file holds: pickles are read with ``weights_only=True``, and a file that needs more is refused
with the recipe for converting it once, somewhere safe.
"""

from __future__ import annotations

import dataclasses
import hashlib
import pickle
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from detectors import registry
from detectors.card import Card
from detectors.errors import ConfigError, WeightsError
from detectors.experts.base import Architecture
from detectors.store import Store

__all__ = ["ImportReport", "KeysRefusedError", "import_weights", "read_checkpoint"]

_TORCH_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".tar", ".pkl")
_WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network", "params_ema", "params", "weights", "module")
_PREFIXES = ("module.", "model.", "backbone.", "net.", "network.", "_orig_mod.", "detector.")
_RECIPE = """
The file holds more than tensors (a pickled module or other objects), and reading it would run code from it.
Convert it once where that can do no harm (a container without network and keys), with the authors' code at hand:
    model = torch.load("FILE", weights_only=False, map_location="cpu")
    state = model.state_dict() if hasattr(model, "state_dict") else model["state_dict"]
    safetensors.torch.save_file({k: v.contiguous() for k, v in state.items()}, "FILE.safetensors")
and import FILE.safetensors."""


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What an import found.

    Attributes:
        source: name of the file, or what the caller calls it.
        source_sha256: of the file, hex.
        layout: how the tensors were reached, e.g. ``"['model'] without 'module.'"``; ``"state dict"`` for a raw one.
        loaded: tensors taken over.
        missing: keys that the network wants and the file lacks.
        unexpected: keys of the file that the network has no place for.
        mismatched: ``"KEY: file [..], network [..]"`` per tensor of another shape.
        ignored: keys left out because only training needs them (:attr:`Architecture.training_only`).
        defaulted: missing keys that the constructor's value fills (:attr:`Architecture.derived`).
        card: as stored; None where the import was refused.
    """

    source: str
    source_sha256: str
    layout: str
    loaded: int
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    mismatched: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    defaulted: tuple[str, ...] = ()
    card: Card | None = None

    @property
    def fits(self) -> bool:
        """Whether every key is accounted for."""
        return not (self.missing or self.unexpected or self.mismatched)

    def __str__(self) -> str:
        lines = [f"{self.source} (sha256 {self.source_sha256}), {self.layout}: {self.loaded} tensors fit"]
        for title in ("missing", "unexpected", "mismatched", "ignored", "defaulted"):
            keys = getattr(self, title)
            if keys:
                lines.append(f"  {title} ({len(keys)}):")
                lines += [f"    {key}" for key in keys]
        return "\n".join(lines)


class KeysRefusedError(WeightsError):
    """The file's keys or shapes are not the network's; `report` lists each."""

    def __init__(self, report: ImportReport, key: str) -> None:
        super().__init__(f"{report.source} does not fit {key}:\n{report}")
        self.report = report


def import_weights(
    path: Path,
    *,
    store: Store,
    version: str,
    preset: str | None = None,
    architecture: str | None = None,
    name: str | None = None,
    options: Mapping[str, Any] | None = None,
    dtype: torch.dtype = torch.float32,
    overwrite: bool = False,
    source: str | None = None,
) -> ImportReport:
    """Brings a checkpoint into a store. Does not activate it.

    Args:
        path: ``.safetensors`` or what ``torch.save`` wrote.
        store: where it goes.
        version: of the new weights.
        preset: key of :func:`detectors.registry.published_cards`; says architecture, preprocessing and licences.
        architecture: instead of a preset, an architecture with its authors' own conventions.
        name: of the new weights; the preset's or the architecture's unless given.
        options: constructor options that replace single ones of the preset, e.g. ``{"specific_task_number": 2}``.
        dtype: on disk, see :meth:`Store.save`.
        overwrite: see :meth:`Store.save`.
        source: what the card's origin calls the file, e.g. a repository with its revision; its name unless given.

    Returns:
        The report, with the stored card.

    Raises:
        ConfigError: neither or both of `preset` and `architecture`, or an unknown one.
        KeysRefusedError: a key is missing, unexpected or of another shape.
        WeightsError: the file is unreadable, unsafe, or the store refuses it.
    """
    card = _card(preset, architecture, version, name, options)
    data, tensors, wrapper = _open(path)
    network = registry.build(card)
    stripped, tensors = _fit_keys(type(network), tensors, set(network.state_dict()))
    layout = " without ".join(part for part in (wrapper, stripped and repr(stripped)) if part) or "state dict"
    report = _compare(network, tensors, ImportReport(source or path.name, hashlib.sha256(data).hexdigest(), layout, 0))
    if not report.fits:
        raise KeysRefusedError(report, card.key)
    taken = {k: v for k, v in tensors.items() if k not in report.ignored}
    network.load_state_dict(network.state_dict() | taken, strict=True)
    origin = f"{card.origin}; imported from {report.source}, sha256 {report.source_sha256}, {layout}"
    stored = store.save(dataclasses.replace(card, origin=origin), network, dtype=dtype, overwrite=overwrite)
    return dataclasses.replace(report, card=stored)


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], str]:
    """The tensors of a checkpoint file and how they were reached, e.g. ``"['model']"`` (empty for a raw state dict).

    Raises:
        WeightsError: missing, damaged, of an unknown kind, unsafe to read, or without a state dict.
    """
    _, tensors, wrapper = _open(path)
    return tensors, wrapper


def _card(
    preset: str | None, architecture: str | None, version: str, name: str | None, options: Mapping[str, Any] | None
) -> Card:
    if (preset is None) == (architecture is None):
        raise ConfigError("give either a preset or an architecture")
    if architecture is not None:
        card = registry.architecture(architecture).published
    else:
        presets = registry.published_cards()
        if preset not in presets:
            raise ConfigError(f"preset {preset!r} is unknown; known are {', '.join(sorted(presets))}")
        card = presets[preset]
    merged = {**card.options, **(options or {})}
    return dataclasses.replace(card, name=name or card.name, version=version, options=merged)


# What torch raises on damaged bytes (a KeyError also for a dtype it lacks), found by fuzzing.
_DAMAGE = (
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    OverflowError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)


def _open(path: Path) -> tuple[bytes, dict[str, Tensor], str]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{path.name}: {error}") from error
    if path.suffix == ".safetensors":
        try:
            return data, safetensors.torch.load(data), ""
        except (safetensors.SafetensorError, *_DAMAGE) as error:
            raise WeightsError(f"{path.name}: not a safetensors file that is read: {error}") from error
    if path.suffix not in _TORCH_SUFFIXES:
        known = ", ".join((".safetensors", *_TORCH_SUFFIXES))
        raise WeightsError(f"{path.name}: {path.suffix or 'no suffix'} is not a kind this reads; known are {known}")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(f"{path.name}: refused.{_RECIPE}\nWhat was found: {error}") from error
    except _DAMAGE as error:
        raise WeightsError(f"{path.name}: not a file that torch.save wrote: {error}") from error
    return data, *_unwrap(found, path.name)


def _unwrap(found: object, source: str) -> tuple[dict[str, Tensor], str]:
    """Goes down wrapper dicts to the first mapping that holds nothing but tensors."""
    steps = ""
    while isinstance(found, Mapping):
        if found and all(isinstance(v, Tensor) and isinstance(k, str) for k, v in found.items()):
            return dict(found), steps
        step = next((w for w in _WRAPPERS if isinstance(found.get(w), Mapping)), None)
        if step is None:
            keys = ", ".join(sorted(map(str, found))[:20])
            raise WeightsError(f"{source}: no state dict under any of {', '.join(_WRAPPERS)}; it has {keys}")
        found, steps = found[step], f"{steps}[{step!r}]"
    raise WeightsError(f"{source}: holds a {type(found).__name__}, not a state dict")


def _fit_keys(
    cls: type[Architecture], tensors: Mapping[str, Tensor], wanted: set[str]
) -> tuple[str, dict[str, Tensor]]:
    """Strips wrapper prefixes that every key carries, where more keys fit without than with them."""
    best, best_prefix = cls.official(tensors), ""
    current, prefix = dict(tensors), ""
    while step := next((p for p in _PREFIXES if current and all(k.startswith(p) for k in current)), None):
        current, prefix = {k.removeprefix(step): v for k, v in current.items()}, prefix + step
        mapped = cls.official(current)
        if len(wanted & set(mapped)) > len(wanted & set(best)):
            best, best_prefix = mapped, prefix
    return best_prefix, best


def _compare(network: Architecture, tensors: Mapping[str, Tensor], report: ImportReport) -> ImportReport:
    wanted = network.state_dict()
    extra, lacking = sorted(set(tensors) - set(wanted)), sorted(set(wanted) - set(tensors))
    both = [k for k in wanted if k in tensors]
    mismatched = [
        f"{k}: file {list(tensors[k].shape)}, network {list(wanted[k].shape)}"
        for k in both
        if tensors[k].shape != wanted[k].shape
    ]
    return dataclasses.replace(
        report,
        loaded=len(both) - len(mismatched),
        missing=_only(lacking, lambda k: not k.endswith(network.derived)),
        defaulted=_only(lacking, lambda k: k.endswith(network.derived)),
        unexpected=_only(extra, lambda k: not k.startswith(network.training_only)),
        ignored=_only(extra, lambda k: k.startswith(network.training_only)),
        mismatched=tuple(mismatched),
    )


def _only(keys: list[str], test: Callable[[str], bool]) -> tuple[str, ...]:
    return tuple(k for k in keys if test(k))
