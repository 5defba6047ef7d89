"""The orthonormal Haar transform of images (Haar 1910; Mallat 1989), one level at a time."""

from __future__ import annotations

import numpy as np

from detectors.training.fakes.base import F32

__all__ = ["forward", "inverse", "shrunk"]


def forward(values: F32) -> tuple[F32, F32, F32, F32]:
    """``[2h, 2w, C]`` to four bands ``[h, w, C]``: mean, then across, down and diagonal detail."""
    a, b = values[0::2, 0::2], values[0::2, 1::2]
    c, d = values[1::2, 0::2], values[1::2, 1::2]
    half = np.float32(0.5)
    return half * (a + b + c + d), half * (a - b + c - d), half * (a + b - c - d), half * (a - b - c + d)


def inverse(low: F32, across: F32, down: F32, diagonal: F32) -> F32:
    """The inverse of :func:`forward`, exact up to rounding."""
    height, width = low.shape[:2]
    out = np.empty((2 * height, 2 * width, *low.shape[2:]), np.float32)
    out[0::2, 0::2] = (low + across + down + diagonal) / 2
    out[0::2, 1::2] = (low - across + down - diagonal) / 2
    out[1::2, 0::2] = (low + across - down - diagonal) / 2
    out[1::2, 1::2] = (low - across - down + diagonal) / 2
    return out


def shrunk(values: F32, threshold: float, levels: int) -> F32:
    """Soft-thresholds the details of `levels` levels (Donoho & Johnstone 1994).

    Args:
        values: ``float32 [H, W, C]``; both sides multiples of 2 to the power of `levels`.
        threshold: in the unit of `values`.
        levels: at least 1.
    """
    low, *details = forward(values)
    limit = np.float32(threshold)
    kept = [d - np.clip(d, -limit, limit) for d in details]
    if levels > 1:
        low = shrunk(low, threshold, levels - 1)
    return inverse(low, kept[0], kept[1], kept[2])
