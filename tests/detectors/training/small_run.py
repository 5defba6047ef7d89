"""A network and a pool small enough to train in seconds, also from other processes (``python -m`` this module)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from detectors import datasets
from detectors.card import Card, Preprocess
from detectors.experts.base import Architecture
from detectors.training.loop import fit
from detectors.training.recipe import Recipe
from detectors.training.samples import Pool

RECIPE = Recipe(
    name="t",
    version="1",
    architecture="npr",
    side=32,
    batch=8,
    steps=12,
    warmup=2,
    made_share=0.5,
    pair_weight=1.0,
    save_every=4,
    kinds=("grid", "pasted"),
    seed=4,
)
VIEW = Preprocess(scale="byte", mean=(127.0,) * 3, std=(128.0,) * 3)


class Small(Architecture):
    """Two convolutions, a norm where asked for, dropout, a head."""

    published: ClassVar[Card] = Card(name="small", version="published", architecture="small", preprocess=VIEW)

    def __init__(self, num_classes: int = 1, *, norm: bool = False, dropout: float = 0.3, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.trunk = nn.Sequential(
            nn.Conv2d(3, 8, 5, stride=2),
            nn.BatchNorm2d(8) if norm else nn.Identity(),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3, stride=2),
            nn.ReLU(),
        )
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(16, num_classes)

    def features(self, x: Tensor) -> Tensor:
        pooled: Tensor = self.trunk(x).mean((2, 3))
        return pooled

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.dropout(self.features(x)))
        return logits


def main(data: Path, run: Path) -> None:
    """Trains :data:`RECIPE` on the pool at `data`, prints each step, leaves the network in `run`."""
    torch.set_num_threads(1)
    network = Small(dropout=0.0)
    for progress in fit(network, Pool(datasets.read(data), RECIPE), RECIPE, VIEW, run, log_every=1):
        sys.stdout.write(f"{progress.step}\n")
        sys.stdout.flush()
    torch.save(network.state_dict(), run / "network.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
