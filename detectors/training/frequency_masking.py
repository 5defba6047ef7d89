"""Frequency masking: an image without a random share of its Fourier coefficients.

After Doloriel & Cheung, "Frequency masking for universal deepfake detection", ICASSP 2024: a detector that cannot
rely on any one frequency learns traces that other generators share. Band edges are ours: by distance from DC, on the
shifted spectrum.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import fft

from detectors.features.spectrum import radius
from detectors.types import U8

__all__ = ["BANDS", "Band", "mask"]

Band = Literal["all", "low", "mid", "high"]

BANDS: dict[Band, tuple[float, float]] = {
    "all": (0.0, 1.0),
    "low": (0.0, 0.125),
    "mid": (0.125, 0.25),
    "high": (0.25, 1.0),
}
"""Distance from DC in cycles a pixel, from (exclusive) to (inclusive); Nyquist is 0.5, corners reach 0.71."""


def mask(image: U8, rng: np.random.Generator, *, band: Band = "all", ratio: float = 0.15) -> U8:
    """Zeroes a random share of the coefficients in a band, the same ones in all channels.

    The mean of the image always stays: brightness is no trace.

    Args:
        image: ``uint8 [H, W, 3]``.
        rng: draws the coefficients, once per call.
        band: where to draw them, see :data:`BANDS`.
        ratio: share of the band's coefficients, in [0, 1].

    Returns:
        ``uint8 [H, W, 3]``, rounded and clipped.

    Raises:
        ValueError: the ratio is outside [0, 1].
        KeyError: unknown band.
    """
    if not 0.0 <= ratio <= 1.0:
        raise ValueError(f"ratio must be in [0, 1], not {ratio}")
    height, width = image.shape[:2]
    candidates, mirrors = _coefficients(height, width, band)
    drawn = rng.permutation(len(candidates))[: round(ratio * len(candidates))]
    spectrum = np.asarray(fft.rfft2(image.astype(np.float32), axes=(0, 1)))
    flat = spectrum.reshape(-1, image.shape[2])
    flat[candidates[drawn]] = 0
    flat[mirrors[drawn]] = 0
    values = np.asarray(fft.irfft2(spectrum, s=(height, width), axes=(0, 1)))
    rounded: U8 = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return rounded


@lru_cache(maxsize=32)
def _coefficients(height: int, width: int, band: Band) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Flat positions in the half spectrum ``[H, W // 2 + 1]`` of the band's independent coefficients, and of their
    mirror images where these lie in the half spectrum too (else the position itself)."""
    low, high = BANDS[band]
    half = width // 2 + 1
    ky, kx = np.mgrid[0:height, 0:half]
    mirrored_y = -ky % height
    twice = (kx == 0) | (2 * kx == width)  # columns that hold both of a conjugate pair
    distance = radius(height, width)[:, :half]
    chosen = (distance > low) & (distance <= high) & ~(twice & (ky > mirrored_y))
    position = ky * half + kx
    mirror = np.where(twice, mirrored_y * half + kx, position)
    return position[chosen].astype(np.int64), mirror[chosen].astype(np.int64)
