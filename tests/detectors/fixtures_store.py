"""A store of small networks and a ``camo.yaml`` over it, for what loads, swaps and refuses whole sets."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from detectors import camo_load
from detectors.camo import Camo
from detectors.card import Card, Preprocess
from detectors.curve import Curve
from detectors.experts.base import Architecture
from detectors.gates.network import GateNet
from detectors.store import Store

__all__ = ["CONFIG", "House", "network"]

CONFIG = """\
gates:
  content: {content: art, threshold: 0.0}
experts:
  one: {weights: one, budget_ms: 5}
  two: {weights: two, budget_ms: 5}
"""


def network(seed: int) -> Architecture:
    """A tenth of a megabyte that answers in a millisecond; the gates' network serves as an expert as well."""
    torch.manual_seed(seed)
    return GateNet(outputs=2, side=48, width=4)


def _gate() -> Architecture:
    torch.manual_seed(5)
    return GateNet(outputs=4, side=48, width=4)


class House:
    """``weights/`` and ``camo.yaml`` in a folder, with version 1 of everything active.

    Args:
        folder: where; made if need be.
    """

    def __init__(self, folder: Path) -> None:
        self.root = folder / "weights"
        self.store = Store(self.root)
        self.camo = folder / "camo.yaml"
        folder.mkdir(parents=True, exist_ok=True)
        self.camo.write_text(CONFIG)
        for name in ("one", "two"):
            self.save(name, "1")
            self.store.activate(name, "1")
        self.save("content", "1", _gate())
        self.store.activate("content", "1")

    def card(self, name: str, version: str) -> Card:
        outputs = 4 if name == "content" else 2
        options = {"outputs": outputs, "side": 48, "width": 4}
        preprocess = Preprocess(size=48, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
        return Card(name=name, version=version, architecture="gate", options=options, preprocess=preprocess)

    def save(self, name: str, version: str, built: Architecture | None = None, *, intercept: float = 0.0) -> Card:
        """Saves a version; its answers are those of the others of its name, moved by `intercept` in logit."""
        card = dataclasses.replace(self.card(name, version), calibration=Curve(1.0, intercept))
        return self.store.save(card, built or network(len(name) + ord(name[0])))

    def rewrite(self, key: str, **changes: object) -> None:
        """Changes a card on disk, as nobody should."""
        card = self.store.card(key)
        changed = dataclasses.replace(card, **changes)  # type: ignore[arg-type]
        (self.root / f"{card.stem}.json").write_text(changed.to_json())

    def weights(self, stem: str) -> Path:
        return self.root / f"{stem}.safetensors"

    def load(self) -> Camo:
        return camo_load.load(self.camo, weights=self.root)
