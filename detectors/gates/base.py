"""A gate answers "is this content here, and where?"; what it cuts out is what its experts see."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from detectors.types import U8

__all__ = ["Gate", "Gated"]


@dataclass(frozen=True, slots=True, eq=False)
class Gated:
    """What a gate that fired found.

    Attributes:
        pixels: ``uint8 [h, w, 3]`` RGB, the cut-out or aligned view that the gate's experts are shown.
        score: confidence in [0, 1].
        box: (left, top, right, bottom) in pixels of the whole image, or None when the gate speaks of all of it.
        points: ``float32 [K, 2]`` (x, y) landmarks in pixels of the whole image, or None.
        matrix: ``float64 [2, 3]`` from the centres of the whole image's pixels to those of the view, as
            ``cv2.warpAffine`` takes it; None where the view is the box or, without one, the whole image.
    """

    pixels: U8
    score: float
    box: tuple[int, int, int, int] | None = None
    points: npt.NDArray[np.float32] | None = None
    matrix: npt.NDArray[np.float64] | None = None


class Gate(Protocol):
    """One kind of content. Deterministic, safe to call from one thread at a time."""

    @property
    def name(self) -> str: ...

    def __call__(self, image: U8) -> Gated | None:
        """Looks at one RGB image ``uint8 [H, W, 3]``; None when it does not fire."""
        ...
