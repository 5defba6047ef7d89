"""Spectra of images: power by distance and direction of frequency, and by block-DCT coefficient.

All in ``float32`` and natural logarithms. Power is normalised so that white noise of variance v has v everywhere, for
any size of the image; :data:`FLOOR`, the variance of 8-bit rounding, is added before the logarithm, so that what lies
below it does not count.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

__all__ = ["FLOOR", "band_index", "band_power", "dct_power", "power", "radial_power", "radius", "without_bands", "ycc"]

FLOOR = (1 / 255) ** 2 / 12
"""Variance of rounding to 256 levels of a range of 1."""

_YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))  # JFIF, without offsets


def ycc(x: Tensor) -> Tensor:
    """RGB ``[..., 3, H, W]`` to luma and the two chroma differences of JFIF; the same range, chroma around 0."""
    out: Tensor = torch.einsum("ck,...khw->...chw", torch.tensor(_YCC, dtype=x.dtype, device=x.device), x)
    return out


def power(x: Tensor) -> Tensor:
    """``|FFT|^2 / (H W)`` of each plane ``[..., H, W]`` in [0, 1], its mean left out; same shape, DC at (0, 0)."""
    x = x.float()
    found = torch.fft.fft2(x - x.mean((-2, -1), keepdim=True))
    out: Tensor = (found.real**2 + found.imag**2) / (x.shape[-2] * x.shape[-1])
    return out


@lru_cache(maxsize=32)
def radius(height: int, width: int) -> npt.NDArray[np.float32]:
    """Distance of each FFT bin from DC in cycles a pixel, ``float32 [H, W]``: 0.5 is Nyquist, corners reach 0.71."""
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None]
    return np.sqrt(fy**2 + fx**2).astype(np.float32)


@lru_cache(maxsize=32)
def band_index(height: int, width: int, rings: int, sectors: int = 1) -> npt.NDArray[np.int64]:
    """Which band each FFT bin belongs to, ``int64 [H, W]``: ring * sectors + sector, -1 for DC.

    Rings are equally wide up to Nyquist and the corners belong to the last one; sectors are equal angles of half a
    turn from the horizontal frequency axis on. A bin and its mirror image share a band, so that an image without a
    band stays real.

    Args:
        height, width: of the image, in pixels.
        rings, sectors: at least 1.
    """
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None]
    flip = np.where((fx < 0) | ((fx == 0) & (fy < 0)), -1.0, 1.0)
    angle = np.mod(np.arctan2(fy * flip, fx * flip), math.pi) / math.pi
    ring = np.minimum((radius(height, width) * (2 * rings)).astype(np.int64), rings - 1)
    index = ring * sectors + np.minimum((angle * sectors).astype(np.int64), sectors - 1)
    mirrored = index[-np.arange(height)[:, None], -np.arange(width)[None]]
    index = np.minimum(index, mirrored)  # rows and columns at Nyquist are their own mirror in one axis only
    index[0, 0] = -1
    index.flags.writeable = False
    return np.asarray(index, np.int64)


def band_power(x: Tensor, rings: int, sectors: int = 1) -> Tensor:
    """Logarithm of the mean power in each band of :func:`band_index`.

    Args:
        x: ``[..., H, W]`` in [0, 1].
        rings, sectors: as there; rings of small images may be empty, their power is 0.

    Returns:
        ``float32 [..., rings * sectors]``, at least ``log(FLOOR)``.
    """
    index = torch.from_numpy(band_index(x.shape[-2], x.shape[-1], rings, sectors).reshape(-1).copy()).to(x.device)
    bins = power(x).flatten(-2)[..., index >= 0]
    index = index[index >= 0]
    count = torch.zeros(rings * sectors, device=x.device).index_add_(0, index, torch.ones_like(index).float())
    sums = torch.zeros((*bins.shape[:-1], rings * sectors), device=x.device).index_add_(-1, index, bins)
    return torch.log(sums / count.clamp(min=1) + FLOOR)


def radial_power(x: Tensor, rings: int = 64) -> Tensor:
    """The radial log-power spectrum (Durall et al., CVPR 2020): ``[..., H, W]`` to ``[..., rings]``."""
    return band_power(x, rings)


def dct_power(x: Tensor, side: int = 8) -> Tensor:
    """Logarithm of the mean power of each coefficient of the orthonormal block DCT-II, blocks from the top left.

    The traces of JPEG and of up-sampling (Frank et al., ICML 2020, who take the whole image as one block).

    Args:
        x: ``[..., H, W]`` in [0, 1], both at least `side`; what does not fill a block is cut off.
        side: of a block, in pixels.

    Returns:
        ``float32 [..., side, side]``, vertical frequency first; (0, 0) is the blocks' mean power, not their variance.

    Raises:
        ValueError: the image is smaller than a block.
    """
    if min(x.shape[-2:]) < side:
        raise ValueError(f"a block of {side} x {side} does not fit into {x.shape[-2]} x {x.shape[-1]}")
    k = torch.arange(side, dtype=torch.float64)
    basis = torch.cos(math.pi * (2 * k + 1) * k[:, None] / (2 * side)) * math.sqrt(2 / side)
    basis[0] /= math.sqrt(2)
    basis = basis.float().to(x.device)
    blocks = x.float().unfold(-2, side, side).unfold(-2, side, side)  # [..., rows, columns, side, side]
    coefficients = basis @ blocks @ basis.T
    return torch.log(coefficients.square().mean((-4, -3)) + FLOOR)


def without_bands(x: Tensor, hidden: Tensor, rings: int, sectors: int = 1) -> Tensor:
    """The images with whole bands of their spectrum set to zero; their mean stays.

    Args:
        x: ``[N, C, H, W]``, of any range.
        hidden: ``bool [N, rings * sectors]``, which bands each image loses, in all channels alike.
        rings, sectors: as :func:`band_index`.

    Returns:
        ``float32 [N, C, H, W]``; not clipped.
    """
    index = torch.from_numpy(band_index(x.shape[-2], x.shape[-1], rings, sectors).copy()).to(x.device)
    keep = ~hidden[:, index.clamp(min=0)] | (index < 0)
    out: Tensor = torch.fft.ifft2(torch.fft.fft2(x.float()) * keep[:, None]).real
    return out
