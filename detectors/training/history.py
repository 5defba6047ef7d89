"""What may have happened to a picture before a validator took it, drawn alike for real and fake.

A source is told by its working size, its JPEG generation and its tone long before it is told by what made it. Drawing
all three at random, for both classes, takes those cues away.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from detectors import media
from detectors.types import U8

__all__ = ["each", "recoloured", "worked"]


def each(frames: U8, change: Callable[[U8], U8]) -> U8:
    """`change` on an image ``[H, W, 3]``, or on every frame of ``[T, H, W, 3]``."""
    return change(frames) if frames.ndim == 3 else np.stack([change(f) for f in frames])


def worked(frame: U8, rng: np.random.Generator, recolour: float = 0.0) -> U8:
    """A random working size and an earlier JPEG generation, each for about half of the samples, and another tone.

    Args:
        frame: ``uint8 [H, W, 3]``, or ``[T, H, W, 3]`` with one draw for all frames.
        rng: source of every choice.
        recolour: probability of :func:`recoloured`; 0 draws nothing for it.
    """
    if rng.random() < 0.6:
        short = float(rng.uniform(160, 420))
        scale = short / min(frame.shape[-3:-1])
        way = cv2.INTER_AREA if scale < 1 else (cv2.INTER_LINEAR, cv2.INTER_CUBIC)[int(rng.integers(2))]
        height, width = (max(32, round(side * scale)) for side in frame.shape[-3:-1])
        frame = each(frame, lambda f: np.asarray(cv2.resize(f, (width, height), interpolation=way), np.uint8))
    if rng.random() < 0.5:
        quality = int(rng.integers(60, 97))
        frame = each(frame, lambda f: media.decode_image(media.encode_jpeg(f, quality=quality)).pixels)
    if recolour > 0 and rng.random() < recolour:
        frame = recoloured(frame, rng)
    return frame


def recoloured(frame: U8, rng: np.random.Generator) -> U8:
    """Another exposure, gamma, contrast, saturation and white balance, the same for all frames of a clip."""
    level = np.arange(256, dtype=np.float32) / 255.0
    gains = rng.uniform(0.85, 1.18, 3) if rng.random() < 0.3 else np.ones(3)
    exposure, gamma = float(rng.uniform(0.7, 1.35)), float(rng.uniform(0.7, 1.4))
    contrast = float(rng.uniform(0.7, 1.3)) if rng.random() < 0.3 else 1.0
    curves = np.clip(level[:, None] * (gains * exposure)[None], 0, 1) ** gamma
    curves = np.clip((curves - 0.5) * contrast + 0.5, 0, 1)
    table = np.ascontiguousarray(np.rint(curves * 255).astype(np.uint8)[None])  # [1, 256, 3]
    keep = float(rng.uniform(0.4, 1.4))
    grey = np.full((3, 3), (1.0 - keep) / 3.0, np.float32) + np.eye(3, dtype=np.float32) * keep
    return each(frame, lambda f: np.asarray(cv2.transform(np.asarray(cv2.LUT(f, table), np.uint8), grey), np.uint8))
