"""What every maker shares: the result, what a caller may know of the picture, masks and blending."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from detectors.types import U8, Label

__all__ = [
    "F32",
    "SMALLEST",
    "Given",
    "Made",
    "Maker",
    "blended",
    "blob",
    "blurred",
    "field",
    "gaussian",
    "resized",
    "rounded",
    "whole",
]

F32 = npt.NDArray[np.float32]

SMALLEST = 32  # pixels of either side


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """A fake and where it is fake.

    Attributes:
        pixels: ``uint8 [H, W, 3]`` RGB, the size of the source.
        label: SYNTHETIC when every pixel was made, SEMISYNTHETIC when only those under `mask` were.
        mask: ``float32 [H, W]`` in [0, 1], larger where more of the pixel is made and 0 exactly where it is the
            source's; None when all are made.
        kind: key of :data:`detectors.training.fakes.KINDS`.
    """

    pixels: U8
    label: Label
    mask: F32 | None
    kind: str


@dataclass(frozen=True, slots=True, eq=False)
class Given:
    """What is known of a picture beside its pixels; makers that have no use for it ignore it.

    Attributes:
        points: ``[5, 2]`` (x, y) in pixels of a face: eyes, nose, mouth corners, left to right in the picture.
        donor: ``uint8 [h, w, 3]`` RGB, a second picture to take a region from, both sides at least 32.
    """

    points: npt.NDArray[np.floating] | None = None
    donor: U8 | None = None


Maker = Callable[[U8, np.random.Generator, Given], Made]


def rounded(values: npt.NDArray[np.floating]) -> U8:
    """To the nearest of 0..255."""
    pixels: U8 = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return pixels


def blurred(values: npt.NDArray[Any], sigma: float) -> F32:
    """A Gaussian blur of `sigma` pixels, in float32."""
    result: F32 = cv2.GaussianBlur(values.astype(np.float32), (0, 0), sigma).astype(np.float32, copy=False)
    return result


def resized(values: npt.NDArray[Any], height: int, width: int, way: int | None = None) -> F32:
    """To height x width in float32; by area when it shrinks and bicubic when it grows, unless told otherwise."""
    shrinks = height * width < values.shape[0] * values.shape[1]
    chosen = way if way is not None else (cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
    result: F32 = cv2.resize(values.astype(np.float32), (width, height), interpolation=chosen).astype(np.float32)
    return result


def gaussian(rng: np.random.Generator, shape: tuple[int, ...], sigma: float = 1.0) -> F32:
    """Independent normal values of standard deviation `sigma`."""
    return rng.standard_normal(shape, dtype=np.float32) * np.float32(sigma)


def field(rng: np.random.Generator, shape: tuple[int, int], cells: int = 6) -> F32:
    """A smooth random field ``float32 [H, W]`` of about unit spread, `cells` waves to a side."""
    small = gaussian(rng, (cells, cells))
    grown: F32 = cv2.resize(small, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC).astype(np.float32)
    return grown


def blob(rng: np.random.Generator, shape: tuple[int, int], share: tuple[float, float]) -> F32:
    """A soft random region covering roughly `share` of the picture; ``float32 [H, W]`` in [0, 1]."""
    height, width = shape
    yy, xx = np.mgrid[0:height, 0:width].astype(np.float32)
    noise = field(rng, shape)
    centre_y, centre_x = rng.uniform(0.25, 0.75, 2) * (height, width)
    distance = np.hypot((yy - centre_y) / height, (xx - centre_x) / width).astype(np.float32)
    ranked = noise - 6.0 * distance
    threshold = np.quantile(ranked, 1.0 - rng.uniform(*share))
    soft: F32 = np.clip(blurred(ranked > threshold, float(rng.uniform(0.004, 0.02)) * max(height, width)), 0.0, 1.0)
    return soft


def whole(values: npt.NDArray[np.floating], kind: str) -> Made:
    """A fake all of whose pixels were made."""
    return Made(rounded(values), Label.SYNTHETIC, None, kind)


def blended(base: U8, over: npt.NDArray[np.floating], mask: F32, kind: str) -> Made:
    """A fake that is `over` where the mask is 1 and `base` where it is 0."""
    alpha = mask[..., None]
    return Made(rounded(base * (1.0 - alpha) + over * alpha), Label.SEMISYNTHETIC, mask, kind)
