"""The one small network that the gates use: a plain convolutional trunk with a coarse spatial head."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from detectors.card import Card, Preprocess
from detectors.experts.base import Architecture

__all__ = ["GateNet"]


class GateNet(Architecture):
    """``[N, 3, side, side]`` in [-1, 1] to ``[N, outputs]``, four strided stages and a 3 x 3 spatial head.

    What an output means is the gate's affair; the card's `fake_index` is without meaning here, and the golden scores
    of such a card only serve to notice silent change.

    Args:
        outputs: size of the head.
        side: input side in pixels, at least 32.
        width: channels of the first stage; doubled three times.
    """

    published: ClassVar[Card] = Card(
        name="gate",
        version="published",
        architecture="gate",
        preprocess=Preprocess(size=48, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
        licence_code="Apache-2.0",
        licence_weights="Apache-2.0",
    )

    def __init__(self, outputs: int = 2, side: int = 48, width: int = 16) -> None:
        super().__init__()
        self.side = side
        stages: list[nn.Module] = []
        channels = 3
        for k in range(4):
            wide = width * 2**k
            stages += [
                nn.Conv2d(channels, wide, 3, stride=1 if k == 3 else 2, padding=1, bias=False),
                nn.BatchNorm2d(wide),
                nn.ReLU(inplace=True),
                nn.Conv2d(wide, wide, 3, padding=1, groups=wide, bias=False),
                nn.Conv2d(wide, wide, 1, bias=False),
                nn.BatchNorm2d(wide),
                nn.ReLU(inplace=True),
            ]
            channels = wide
        self.trunk = nn.Sequential(*stages)
        self.pool = nn.AdaptiveAvgPool2d(3)
        self.head = nn.Sequential(nn.Linear(channels * 9, 96), nn.ReLU(inplace=True), nn.Linear(96, outputs))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(torch.flatten(self.pool(self.trunk(x)), 1))
        return out
