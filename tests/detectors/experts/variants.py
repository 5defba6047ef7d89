"""Options that make each architecture small enough for a test; one that is not listed is built as it is."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from detectors import registry
from detectors.card import Card
from detectors.experts.base import Architecture, NeuralDetector

_XCEPTION = {"widths": [8, 8, 16, 16, 16, 32], "middle": 1}
SMALL: dict[str, dict[str, Any]] = {
    "xception": _XCEPTION,
    "ucf": {**_XCEPTION, "inference_only": True},
    "efficientnet-lite": {"variant": "lite0"},
    "tall": {"image_size": 56, "embed_dim": 8, "depths": [2, 2], "num_heads": [1, 2], "window_sizes": [7, 7]},
}
_SIZES = {"tall": 56}


def small_card(name: str) -> Card:
    """The published card of an architecture, with the small variant's options and a small input."""
    card = registry.architecture(name).published
    preprocess = dataclasses.replace(card.preprocess, size=_SIZES.get(name, 96))
    return dataclasses.replace(card, version="test", options=SMALL.get(name, {}), preprocess=preprocess)


def small_network(name: str) -> Architecture:
    """Always the same weights, in eval mode."""
    torch.manual_seed(7)
    return registry.build(small_card(name)).eval()


def small_detector(name: str, **options: Any) -> NeuralDetector:
    return NeuralDetector(small_card(name), small_network(name), **options)
