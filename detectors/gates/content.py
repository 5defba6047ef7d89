"""The content gate: what kind of picture is this? One small network, one kind of content to fire on."""

from __future__ import annotations

import cv2
import numpy as np
import torch

from detectors.errors import ConfigError, WeightsError
from detectors.gates.base import Gated
from detectors.gates.network import GateNet
from detectors.store import Store
from detectors.types import U8

__all__ = ["CONTENTS", "WEIGHTS", "ContentGate", "thumbnail"]

WEIGHTS = "content"  # name in the store

#: The contents of the training manifest, in the order of the network's outputs.
CONTENTS = ("face", "people", "general", "art")


class ContentGate:
    """Fires when the picture is of one kind with enough probability; shows its experts the whole picture.

    Args:
        network: outputs one logit per entry of :data:`CONTENTS`.
        content: the kind to fire on.
        threshold: probability from which it fires, in [0, 1].
        weights: ``NAME@VERSION`` of the network.

    Raises:
        ConfigError: no such content.
    """

    name = "content"

    def __init__(self, network: GateNet, *, content: str = "people", threshold: float = 0.5, weights: str = "") -> None:
        if content not in CONTENTS:
            raise ConfigError(f"gates.content.content: {content!r} is unknown; known are {', '.join(CONTENTS)}")
        self._network = network.eval()
        self._index = CONTENTS.index(content)
        self._threshold = threshold
        self.weights = weights

    @classmethod
    def load(cls, store: Store, *, content: str = "people", threshold: float = 0.5) -> ContentGate:
        """The gate with the store's active ``content`` weights.

        Raises:
            ConfigError: no such content.
            WeightsError: none are active, or they are damaged.
        """
        found = store.load(WEIGHTS)
        network = found.network
        if not isinstance(network, GateNet):
            raise WeightsError(f"{WEIGHTS}: is a {type(network).__name__}, the content gate needs a GateNet")
        return cls(network, content=content, threshold=threshold, weights=found.card.key)

    def probabilities(self, image: U8) -> dict[str, float]:
        """Probability of each of :data:`CONTENTS`; they sum to 1. About 2 ms on one core."""
        with torch.inference_mode():
            found = torch.softmax(self._network(thumbnail(image, self._network.side))[0], dim=0)
        return dict(zip(CONTENTS, found.tolist(), strict=True))

    def __call__(self, image: U8) -> Gated | None:
        """See :class:`~detectors.gates.base.Gate`."""
        score = self.probabilities(image)[CONTENTS[self._index]]
        return Gated(image, score) if score >= self._threshold else None


def thumbnail(image: U8, side: int) -> torch.Tensor:
    """The whole picture squeezed to a square: ``float32 [1, 3, side, side]`` in [-1, 1]."""
    small = np.asarray(cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA), np.float32)
    return torch.from_numpy(small / 127.5 - 1.0).permute(2, 0, 1)[None]
