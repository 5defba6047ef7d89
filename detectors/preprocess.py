"""From ``uint8`` RGB pixels to a network's input, as a card's :class:`~detectors.card.Preprocess` says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import cv2
import numpy as np
import torch
from PIL import Image

from detectors.card import Preprocess
from detectors.errors import ConfigError
from detectors.types import U8

__all__ = ["FRONT_ENDS", "Padding", "clahe", "geometry", "pad_frames", "tensor", "window"]

Padding = Literal["repeat", "zero"]

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
_NATIVE_MINIMUM = 32  # five halvings, what every trunk here can still take


def clahe(image: U8) -> U8:
    """Contrast-limited equalisation of each channel (clip limit 1.0, 8 x 8 tiles), BitMind's UCF training recipe.

    Args:
        image: ``uint8 [H, W, 3]``; both sides at least 8.
    """
    equaliser = cv2.createCLAHE(clipLimit=1.0, tileGridSize=(8, 8))
    planes = [equaliser.apply(np.ascontiguousarray(image[..., c])) for c in range(3)]
    return np.stack(planes, axis=-1).astype(np.uint8, copy=False)


#: What a card's ``residual`` may name: front ends on pixels, run after the geometry and before the scaling.
FRONT_ENDS: Mapping[str, Callable[[U8], U8]] = {"clahe": clahe}


def geometry(image: U8, preprocess: Preprocess) -> U8:
    """Brings one image to the network's size; pixels stay ``uint8`` RGB.

    Args:
        image: ``uint8 [H, W, 3]``, any size from 1 x 1.
        preprocess: `size`, `mode` and `interpolation` are used.

    Returns:
        ``uint8 [size, size, 3]``; in mode ``native`` the image itself, reflected up to 32 pixels a side if smaller.
    """
    size = preprocess.size
    if preprocess.mode == "native":
        return _reflect_to(image, _NATIVE_MINIMUM)
    if preprocess.mode == "centre_crop":
        return _centre(_reflect_to(image, size), size)
    if preprocess.mode == "centre_square":
        image = _centre(image, min(image.shape[:2]))
    if image.shape[:2] == (size, size):
        return image
    resized = Image.fromarray(image).resize((size, size), _FILTERS[preprocess.interpolation])
    return np.asarray(resized)


def window(height: int, width: int, preprocess: Preprocess) -> tuple[int, int, int, int]:
    """Which part of an image :func:`geometry` shows the network.

    Returns:
        (top, left, height, width) in pixels of the image; beyond its borders where it is reflected.
    """
    size = preprocess.size
    if preprocess.mode == "resize":
        return 0, 0, height, width
    if preprocess.mode == "native":
        tall, wide = max(height, _NATIVE_MINIMUM), max(width, _NATIVE_MINIMUM)
    else:
        tall = wide = size if preprocess.mode == "centre_crop" else min(height, width)
    return _offset(height, tall), _offset(width, wide), tall, wide


def tensor(images: Sequence[U8], preprocess: Preprocess, front_end: str = "") -> torch.Tensor:
    """Preprocesses images of one network.

    Args:
        images: ``uint8 [H, W, 3]`` each; sizes may differ unless the mode is ``native``.
        preprocess: the card's.
        front_end: the card's `residual`, a key of :data:`FRONT_ENDS`, or empty.

    Returns:
        ``float32 [N, 3, S, S]`` on the CPU (``[N, 3, H, W]`` in mode ``native``).

    Raises:
        ConfigError: `front_end` is not known.
    """
    if front_end and front_end not in FRONT_ENDS:
        raise ConfigError(f"card: residual {front_end!r} is unknown; known are {sorted(FRONT_ENDS)}")
    pixels = [geometry(image, preprocess) for image in images]
    if front_end:
        pixels = [FRONT_ENDS[front_end](p) for p in pixels]
    x = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float()
    if preprocess.channels == "BGR":
        x = x.flip(1)
    if preprocess.scale == "unit":
        x = x / 255.0
    if any(preprocess.mean) or any(s != 1.0 for s in preprocess.std):
        mean = torch.tensor(preprocess.mean, dtype=torch.float32).view(1, 3, 1, 1)
        std = torch.tensor(preprocess.std, dtype=torch.float32).view(1, 3, 1, 1)
        x = (x - mean) / std
    return x.contiguous()


def pad_frames(frames: torch.Tensor, multiple: int, padding: Padding = "repeat") -> torch.Tensor:
    """Lengthens a clip to a multiple of the clip length.

    Args:
        frames: ``[T, ...]`` with T >= 1.
        multiple: of what T becomes a multiple, >= 1.
        padding: ``repeat`` appends the last frame again; ``zero`` appends zeros (BitMind's rule).

    Returns:
        ``[ceil(T / multiple) * multiple, ...]``; `frames` itself where nothing is missing.
    """
    missing = -len(frames) % multiple
    if missing == 0:
        return frames
    tail = frames[-1:].expand(missing, *frames.shape[1:])
    return torch.cat([frames, tail if padding == "repeat" else torch.zeros_like(tail)])


def _centre(image: U8, side: int) -> U8:
    """Cuts side x side from the middle, offsets rounded half to even as torchvision's CenterCrop does."""
    top, left = (_offset(n, side) for n in image.shape[:2])
    return image[top : top + side, left : left + side]


def _offset(length: int, part: int) -> int:
    """Where a part in the middle begins; negative where it is longer, by what is then reflected before it."""
    return round((length - part) / 2.0) if part <= length else -((part - length) // 2)


def _reflect_to(image: U8, side: int) -> U8:
    """Reflects an image that is smaller than side x side up to it, evenly on both ends."""
    missing = [max(side - n, 0) for n in image.shape[:2]]
    if not any(missing):
        return image
    pads = [(m // 2, m - m // 2) for m in missing]
    return np.pad(image, [*pads, (0, 0)], mode="reflect")
