"""Draws heat maps over their pictures.

The colours are matplotlib's "inferno": they grow lighter evenly with the value, also in grey and for who does not see
all colours. Strength is opacity as well: where nothing speaks for fake the picture is seen as it is.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from detectors.types import U8

__all__ = ["overlay", "strip"]

F32 = npt.NDArray[np.float32]

_OPACITY = 0.8  # of a map's 1.0: what is below stays recognisable
_CHART = 48  # pixels: height of a strip's bars
_GAP = 4  # pixels between tiles
_GROUND, _LINE = 24, 110  # grey levels


def overlay(pixels: U8, heat: F32) -> U8:
    """One picture under its map.

    Args:
        pixels: ``uint8 [H, W, 3]`` RGB.
        heat: ``float32 [h, w]`` in [0, 1]; brought to the picture's size.

    Returns:
        ``uint8 [H, W, 3]`` RGB; equal to `pixels` where `heat` is 0.
    """
    height, width = pixels.shape[:2]
    if heat.shape != (height, width):
        heat = np.asarray(cv2.resize(heat, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
    opacity = (_OPACITY * heat)[..., None]
    mixed: U8 = np.rint(pixels * (1.0 - opacity) + _colours(heat) * opacity).astype(np.uint8)
    return mixed


def strip(frames: U8, maps: F32, scores: Sequence[float], *, side: int = 160) -> U8:
    """A video's frames side by side under their maps, and P(fake) of each as a bar below, with a line at 0.5.

    Args:
        frames: ``uint8 [T, H, W, 3]`` RGB.
        maps: ``float32 [T, h, w]`` in [0, 1].
        scores: T numbers in [0, 1].
        side: of the longer side of one frame, in pixels; smaller ones stay as they are.

    Returns:
        ``uint8 [h', w', 3]`` RGB.
    """
    scale = min(1.0, side / max(frames.shape[1:3]))
    size = (max(1, round(frames.shape[2] * scale)), max(1, round(frames.shape[1] * scale)))
    columns = []
    for frame, heat, score in zip(frames, maps, scores, strict=True):
        small = np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), np.uint8)
        columns.append(np.concatenate([overlay(small, heat), _bar(score, size[0])]))
        columns.append(np.full((size[1] + _CHART, _GAP, 3), _GROUND, np.uint8))
    return np.concatenate(columns[:-1], 1)


def _bar(score: float, width: int) -> U8:
    chart = np.full((_CHART, width, 3), _GROUND, np.uint8)
    inner = _CHART - _GAP  # below the gap to the frame
    margin = width // 4
    filled = round(score * inner)
    chart[_CHART - filled - 1 :, margin : width - margin] = _LINE  # a rim: the colour of a low score is near black
    chart[_CHART - filled :, margin + 1 : width - margin - 1] = _colours(np.full((1, 1), score, np.float32))[0, 0]
    chart[_CHART - inner // 2] = _LINE
    return chart


def _colours(heat: F32) -> U8:
    """``uint8 [h, w, 3]`` RGB."""
    levels = np.rint(heat.clip(0.0, 1.0) * 255.0).astype(np.uint8)
    return np.asarray(cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO), np.uint8)[..., ::-1]
