"""A network whose opinion is known: red is fake, place by place. And the media to show it."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from detectors.card import Card, Preprocess
from detectors.experts.base import Architecture, NeuralDetector
from detectors.experts.patches import class_activation
from detectors.types import U8

__all__ = ["PatchyReddish", "Reddish", "centre_of_mass", "reddish", "spotted", "tuned"]

CARD = Card(name="reddish", version="1.0.0", architecture="reddish", preprocess=Preprocess(size=64))


class Reddish(Architecture):
    """Logit = 20 * (mean redness) - 1, redness = red minus the mean of green and blue, over places of 8 x 8 pixels."""

    published: ClassVar[Card] = CARD

    def __init__(self) -> None:
        super().__init__()
        self.redness = nn.Conv2d(3, 1, 1, bias=False)
        self.places = nn.AvgPool2d(8)
        self.head = nn.Linear(1, 1)
        with torch.no_grad():
            self.redness.weight.copy_(torch.tensor([1.0, -0.5, -0.5]).view(1, 3, 1, 1))
            self.head.weight.fill_(20.0)
            self.head.bias.fill_(-1.0)

    def maps(self, x: Tensor) -> Tensor:
        found: Tensor = self.places(self.redness(x))
        return found

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.maps(x).mean((2, 3)))
        return logits


class PatchyReddish(Reddish):
    """The same network, which tells its patch scores."""

    def patch_logits(self, x: Tensor) -> Tensor:
        return class_activation(self.head, self.maps(x))


def tuned(detector: NeuralDetector, weight: float) -> NeuralDetector:
    """The detector, with another weight of redness."""
    network = detector.network
    assert isinstance(network, Reddish)
    with torch.no_grad():
        network.head.weight.fill_(weight)
    return detector


def reddish(*, patchy: bool = True, card: Card = CARD, max_frames: int | None = None) -> NeuralDetector:
    return NeuralDetector(card, PatchyReddish() if patchy else Reddish(), max_frames=max_frames)


def spotted(top: int, left: int, *, height: int = 64, width: int = 64, side: int = 16) -> U8:
    """Grey with a red square."""
    pixels = np.full((height, width, 3), 90, np.uint8)
    pixels[top : top + side, left : left + side] = (255, 0, 0)
    return pixels


def centre_of_mass(heat: np.ndarray) -> tuple[float, float]:
    """(row, column) of a map's mass, in pixels."""
    rows, columns = np.indices(heat.shape) + 0.5
    return float((rows * heat).sum() / heat.sum()), float((columns * heat).sum() / heat.sum())
