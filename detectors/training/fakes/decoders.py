"""Full-frame fakes after the machinery of generators: GAN decoders, diffusion's noise and denoise, their spectra."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import scipy.fft

from detectors.training.fakes import haar
from detectors.training.fakes.base import F32, Given, Made, blurred, gaussian, resized, rounded, whole
from detectors.types import U8

__all__ = ["gan_upsampled", "resampled_noise", "reshaped"]

_Up = Callable[[F32], F32]

_REFLECT = cv2.BORDER_REFLECT_101


def gan_upsampled(image: U8, rng: np.random.Generator, given: Given) -> Made:
    """A Laplacian pyramid put together again by learned-looking doublings instead of the pyramid's own.

    One way of doubling and one set of kernels serve all levels, as the layers of a decoder resemble each other; part
    of each level's detail is lost, and what stays of it is doubled from below too.
    """
    levels = int(rng.integers(1, 4))
    multiple = 2**levels
    height, width = image.shape[:2]
    padded = cv2.copyMakeBorder(image, 0, -height % multiple, 0, -width % multiple, _REFLECT).astype(np.float32)
    pyramid: list[F32] = [padded]
    for _ in range(levels):
        pyramid.append(np.asarray(cv2.pyrDown(pyramid[-1]), np.float32))
    double = _doubling(rng)
    made = pyramid[-1]
    for level in range(levels - 1, -1, -1):
        exact = pyramid[level]
        detail = exact - np.asarray(cv2.pyrUp(pyramid[level + 1]), np.float32)
        reinvented = double(np.asarray(cv2.pyrDown(detail), np.float32))
        share = float(rng.uniform(0.1, 0.8) if level == 0 else rng.uniform(0.4, 1.0))
        made = double(made) + share * detail + float(rng.uniform(0.0, 1.2)) * (1.0 - share) * reinvented
    return whole(made[:height, :width], "gan_upsampled")


def _doubling(rng: np.random.Generator) -> _Up:
    """One of three ways to double the size of ``float32 [h, w, 3]``, with kernels drawn once."""
    makers = (_nearest_convolved, _transposed, _shuffled)
    return makers[int(rng.integers(len(makers)))](rng)


def _filtered(values: F32, kernels: F32) -> F32:
    """Each channel with its own kernel, ``[3, k, k]``."""
    planes = [cv2.filter2D(values[..., c], cv2.CV_32F, kernels[c], borderType=_REFLECT) for c in range(3)]
    return np.stack(planes, axis=-1).astype(np.float32, copy=False)


def _nearest_convolved(rng: np.random.Generator) -> _Up:
    """Nearest neighbour, then a random 3 x 3 convolution near a slight blur (progressive GANs, StyleGAN)."""
    base = np.outer([0.25, 0.5, 0.25], [0.25, 0.5, 0.25]).astype(np.float32)
    kernels = base + gaussian(rng, (3, 3, 3), float(rng.uniform(0.02, 0.07)))
    kernels /= kernels.sum(axis=(1, 2), keepdims=True)
    return lambda low: _filtered(np.repeat(np.repeat(low, 2, axis=0), 2, axis=1), kernels)


def _transposed(rng: np.random.Generator) -> _Up:
    """Zero insertion, then a kernel whose copies overlap unevenly (Odena et al., Distill 2016)."""
    side = int(rng.choice([3, 4, 5]))
    tent = {3: [0.5, 1.0, 0.5], 4: [0.25, 0.75, 0.75, 0.25], 5: [0.125, 0.5, 0.75, 0.5, 0.125]}[side]
    even = np.outer(tent, tent).astype(np.float32)  # every phase of it sums to 1: no checkerboard
    flat = np.full((side, side), 4.0 / side**2, np.float32)
    share = float(rng.uniform(0.02, 0.15))
    kernels = (1.0 - share) * even + share * flat + gaussian(rng, (3, side, side), float(rng.uniform(0.0, 0.02)))
    kernels *= 4.0 / kernels.sum(axis=(1, 2), keepdims=True)

    def double(low: F32) -> F32:
        spread = np.zeros((2 * low.shape[0], 2 * low.shape[1], 3), np.float32)
        spread[::2, ::2] = low
        return _filtered(spread, kernels)

    return double


def _shuffled(rng: np.random.Generator) -> _Up:
    """Sub-pixel convolution (Shi et al., CVPR 2016): each of four phases has a kernel and a gain of its own."""
    near, far = [0.25, 0.75, 0.0], [0.0, 0.75, 0.25]
    phases = []
    for rows in (near, far):
        for columns in (near, far):
            kernels = np.outer(rows, columns).astype(np.float32) + gaussian(rng, (3, 3, 3), 0.015)
            gain = 1.0 + float(rng.normal(0.0, 0.02))
            phases.append(gain * kernels / kernels.sum(axis=(1, 2), keepdims=True))

    def double(low: F32) -> F32:
        out = np.empty((2 * low.shape[0], 2 * low.shape[1], 3), np.float32)
        for k, kernels in enumerate(phases):
            out[k // 2 :: 2, k % 2 :: 2] = _filtered(low, kernels)
        return out

    return double


def resampled_noise(image: U8, rng: np.random.Generator, given: Given) -> Made:
    """Noise goes in at several scales and a denoiser takes it out again, once or twice.

    The crudest relative of partial diffusion (SDEdit, Meng et al., ICLR 2022): texture is replaced by what the
    denoiser believes in, and the noise that stays has the denoiser's spectrum.
    """
    by_means = rng.random() < 0.4
    rounds = 1 if by_means else int(rng.integers(1, 3))
    sigma = float(rng.uniform(5.0, 16.0))
    values = image.astype(np.float32)
    for _ in range(rounds):
        noisy = values + _pyramid_noise(rng, image.shape[:2], sigma)
        if by_means:
            values = _by_means(noisy, sigma)
        else:
            values = _by_wavelets(noisy, sigma * float(rng.uniform(0.8, 2.2)), rng, 3 - rounds)
        sigma *= 0.6
    amount = float(rng.uniform(0.0, 0.6))
    return whole(values + amount * (values - blurred(values, 1.2)), "resampled_noise")


def _pyramid_noise(rng: np.random.Generator, shape: tuple[int, int], sigma: float) -> F32:
    """White noise of `sigma`, part of it moved to scales two and four times as coarse; ``[H, W, 3]``."""
    weights = rng.dirichlet([8.0, 1.0, 0.5])
    total = gaussian(rng, (*shape, 3), sigma * float(np.sqrt(weights[0])))
    for factor, weight in zip((2, 4), weights[1:], strict=True):
        coarse = gaussian(rng, (-(-shape[0] // factor), -(-shape[1] // factor), 3), sigma * float(np.sqrt(weight)))
        total += resized(coarse, shape[0], shape[1], cv2.INTER_LINEAR)
    return total


def _by_means(noisy: F32, sigma: float) -> F32:
    """Non-local means (Buades et al., CVPR 2005) in a small window."""
    return cv2.fastNlMeansDenoising(rounded(noisy), None, 1.1 * sigma, 3, 7).astype(np.float32)


def _by_wavelets(noisy: F32, threshold: float, rng: np.random.Generator, shifts: int) -> F32:
    """Soft wavelet shrinkage, averaged over random shifts (Coifman & Donoho 1995): one alone leaves blocks."""
    height, width = noisy.shape[:2]
    total = np.zeros_like(noisy)
    for top, left in rng.integers(0, 8, (shifts, 2)).tolist():
        padded = cv2.copyMakeBorder(noisy, top, -(height + top) % 8, left, -(width + left) % 8, _REFLECT)
        total += haar.shrunk(np.asarray(padded, np.float32), threshold, 3)[top : top + height, left : left + width]
    return total / np.float32(shifts)


def reshaped(image: U8, rng: np.random.Generator, given: Given) -> Made:
    """The radial spectrum bent towards a power law, its high band damped or lifted.

    Photographs fall off roughly as a power of the frequency; generated pictures leave that law in the upper third,
    up or down (Durall et al., CVPR 2020; Dzanic et al., NeurIPS 2020).
    """
    height, width = image.shape[:2]
    border = 8  # the transform sees a torus; reflected borders keep its seam out of the picture
    rows, columns = (int(scipy.fft.next_fast_len(side + 2 * border, real=True)) for side in (height, width))
    bottom, right = rows - height - border, columns - width - border
    padded = cv2.copyMakeBorder(image, border, bottom, border, right, _REFLECT).astype(np.float32)
    spectrum = scipy.fft.rfft2(padded, axes=(1, 0))
    radius = np.hypot(np.fft.fftfreq(rows)[: rows // 2 + 1, None], np.fft.fftfreq(columns)[None])
    gain = _gain(np.abs(spectrum).mean(axis=2), radius, rng)
    bent = scipy.fft.irfft2(spectrum * gain[..., None], s=(columns, rows), axes=(1, 0))
    return whole(bent[border : border + height, border : border + width], "reshaped")


def _gain(amplitude: F32, radius: np.ndarray[tuple[int, ...], np.dtype[np.float64]], rng: np.random.Generator) -> F32:
    """What each frequency is multiplied by; 1 below an eighth of a cycle a pixel, else in [0.2, 3]."""
    bins = min(48, min(amplitude.shape) // 2)  # so that none is empty
    index = np.minimum((np.abs(radius) / 0.5 * bins).astype(int), bins - 1)
    sums = np.bincount(index.ravel(), amplitude.ravel(), bins)
    profile = np.log(np.maximum(sums / np.maximum(np.bincount(index.ravel(), minlength=bins), 1), 1e-3))
    at = (np.arange(bins) + 0.5) / bins * 0.5
    middle = (at > 0.04) & (at < 0.2)
    slope, level = np.polyfit(np.log(at[middle]), profile[middle], 1)
    law = level + slope * np.log(at) * float(rng.uniform(0.95, 1.1))
    towards = float(rng.uniform(0.0, 1.0)) * (law - profile)
    start = float(rng.uniform(0.15, 0.3))
    tilt = float(rng.choice([-1.0, 1.0])) * float(rng.uniform(0.4, 1.3)) * np.clip((at - start) / (0.5 - start), 0, 1)
    fades = np.clip((at - 0.125) / 0.05, 0.0, 1.0)
    gains = np.exp(np.clip((towards + tilt) * fades, np.log(0.2), np.log(3.0)))
    bent: F32 = np.interp(np.abs(radius), at, gains).astype(np.float32)
    return bent
