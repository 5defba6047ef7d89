"""Twenty-line experts and gates for CAMO: they read their answer off the pixels."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from detectors.camo import Camo
from detectors.camo_config import CamoConfig
from detectors.card import Card
from detectors.errors import PredictionError
from detectors.gates.base import Gated
from detectors.merge import sigmoid
from detectors.types import U8, Media, Prediction

__all__ = ["CornerGate", "FakeExpert", "build", "config", "flat", "level"]


def level(pixels: U8) -> float:
    """Logit that a flat picture stands for: grey 128 is 0, ten levels are one."""
    return (float(pixels.mean()) - 128.0) / 10.0


def flat(grey: int, *, corner: int = 0, side: int = 16, frames: int = 0) -> Media:
    """A flat image (or video); its top left pixel is what `CornerGate` looks at and carries no other weight."""
    pixels = np.full((max(1, frames), side, side, 3), grey, np.uint8)
    pixels[:, 0, 0] = corner
    return Media(pixels if frames else pixels[0])


class FakeExpert:
    """Logit = level of the picture without its corner + `shift`; remembers what it was shown."""

    def __init__(self, name: str, shift: float = 0.0, *, clip: int = 1, delay: float = 0.0) -> None:
        self.card = Card(name=name, version="1.0.0", architecture="fake", frames=clip)
        self.shift, self.delay = shift, delay
        self.shown: list[int] = []
        self.broken_at: Callable[[U8], bool] = lambda image: False
        self.strict = False
        self.share = np.nan

    def tells(self, share: float) -> None:
        """From now on it tells semi-synthetic from synthetic, always the same."""
        self.card, self.share = dataclasses.replace(self.card, fake_index=1, semi_index=2), share

    def opinions(self, images: Sequence[U8]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        return self.logits(images), np.full(len(images), self.share)

    def logits(self, images: Sequence[U8]) -> npt.NDArray[np.float64]:
        self.shown.append(len(images))
        time.sleep(self.delay * len(images))
        if self.strict and any(map(self.broken_at, images)):
            raise PredictionError("the network's output is not finite")
        values = [np.nan if self.broken_at(image) else level(image[1:]) + self.shift for image in images]
        return np.array(values)

    def predict(self, batch: Sequence[Media], *, deadline: float | None = None) -> list[Prediction]:
        means = [float(self.logits(list(media.frames)).mean()) for media in batch]
        return [Prediction(Prediction.split(sigmoid(mean))) for mean in means]


class CornerGate:
    """Fires where the top left pixel is `key`; cuts the lower half out."""

    def __init__(self, name: str, key: int) -> None:
        self.name, self.key, self.looks = name, key, 0

    def __call__(self, image: U8) -> Gated | None:
        self.looks += 1
        return Gated(image[len(image) // 2 :], 1.0) if image[0, 0, 0] == self.key else None


def config(**changes: Any) -> CamoConfig:
    """Two gates, two general experts, one expert a gate."""
    raw: dict[str, Any] = {
        "gates": {"face": {}, "text": {}},
        "experts": {
            "general": {"weights": "general", "weight": 2.0, "budget_ms": 1},
            "second": {"weights": "second", "weight": 1.0, "budget_ms": 1},
            "face": {"weights": "face", "content": "face", "gate": "face", "weight": 3.0, "budget_ms": 1},
            "text": {"weights": "text", "content": "text", "weight": 1.0, "budget_ms": 1},
        },
    }
    return CamoConfig.model_validate(raw | changes)


SHIFTS = {"general": 0.0, "second": 1.0, "face": 2.0, "text": -1.0}


def build(settings: CamoConfig | None = None) -> tuple[Camo, dict[str, FakeExpert], dict[str, CornerGate]]:
    """A CAMO of fakes, and the fakes."""
    settings = settings or config()
    experts = {name: FakeExpert(name, SHIFTS.get(name, 0.0)) for name in settings.experts}
    gates = {"face": CornerGate("face", 1), "text": CornerGate("text", 2)}
    return Camo(settings, experts, gates), experts, gates
