"""``deepfake-miner weights``: the store from the command line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from detectors import paths
from detectors.errors import ConfigError
from detectors.importing import import_weights
from detectors.store import Store
from detectors.yaml_file import parse_yaml

__all__ = ["activate", "import_file", "listing", "problems"]


def _store(root: Path | None) -> Store:
    return Store(root if root is not None else paths.weights())


def listing(root: Path | None) -> Iterator[str]:
    """One line a version; raises WeightsError for a damaged card."""
    store = _store(root)
    pointer = store.pointer()
    for card in store.cards():
        mark = "*" if pointer.get(card.name) == card.version else " "
        auc = card.metrics.get("pool", {}).get("auc")
        figure = f", AUC on held-out groups {auc:.3f}" if isinstance(auc, float) else ""
        yield f"{mark} {card.key}  {card.architecture}{figure}  {card.licence_weights}"


def problems(root: Path | None) -> list[str]:
    """What is wrong with the store, one sentence each."""
    return _store(root).verify()


def activate(key: str, root: Path | None) -> str:
    """Points NAME at VERSION; raises ConfigError for another form and WeightsError for missing or altered weights."""
    name, at, version = key.partition("@")
    if not at:
        raise ConfigError(f"{key!r}: expected NAME@VERSION")
    return f"active: {_store(root).activate(name, version).key}"


def import_file(
    file: Path, *, preset: str, version: str, name: str | None, options: Sequence[str], store: Path | None
) -> str:
    """Imports a checkpoint; the report as text. Raises WeightsError with the report where keys do not fit."""
    report = import_weights(
        file, store=_store(store), version=version, preset=preset, name=name, options=_options(options)
    )
    stored = report.card.key if report.card else ""
    return f"{report}\nstored as {stored}; `deepfake-miner weights activate {stored}` points the name at it"


def _options(pairs: Sequence[str]) -> dict[str, Any] | None:
    """KEY=VALUE pairs, values read as YAML scalars."""
    found: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise ConfigError(f"--option {pair!r}: expected KEY=VALUE")
        found[key] = parse_yaml(value)
    return found or None
