"""Full-frame fakes by simple mechanisms: up-sampling, a patch latent, a periodic print, smoothing."""

from __future__ import annotations

import cv2
import numpy as np

from detectors.training.fakes.base import F32, Given, Made, blurred, rounded, whole
from detectors.types import U8

__all__ = ["denoised", "grid", "latent", "upsampled"]


def upsampled(image: U8, rng: np.random.Generator, given: Given) -> Made:
    """Decoder-style up-sampling: down by 2 to 4, up again in the ways that generators do it.

    The three ways are nearest + convolution (progressive GANs), zero insertion + convolution with uneven gain per
    phase (transposed convolution; the checkerboard of Odena et al., Distill 2016) and plain bicubic (diffusion U-Nets).
    """
    height, width = image.shape[:2]
    factor = int(rng.choice([2, 3, 4], p=[0.5, 0.25, 0.25]))
    low = cv2.resize(image, (max(width // factor, 8), max(height // factor, 8)), interpolation=cv2.INTER_AREA)
    way = int(rng.integers(3))
    kernel = (cv2.INTER_NEAREST, cv2.INTER_LINEAR, cv2.INTER_CUBIC)[way]
    up: F32 = cv2.resize(low, (width, height), interpolation=kernel).astype(np.float32)
    if way == 0:
        up = blurred(up, 0.35 * factor)
    elif way == 1:
        phases = 1.0 + rng.normal(0.0, 0.06, (factor, factor)).astype(np.float32)
        tiles = np.tile(phases / phases.mean(), (height // factor + 1, width // factor + 1))[:height, :width, None]
        up = (up * tiles).astype(np.float32)
    amount = float(rng.uniform(0.3, 1.2))  # decoders overshoot: they are trained to look sharp
    return whole(up + amount * (up - blurred(up, 0.6 * factor)), "upsampled")


def latent(image: U8, rng: np.random.Generator, given: Given) -> Made:
    """Round trip through a small linear auto-encoder of 8 x 8 patches fitted to the image itself (a PCA latent).

    Overlapping reconstructions are averaged, so what remains is what a low-rank latent loses: fine texture and the
    independence of neighbouring patches (the trace VAE round trips leave; AlignedForensics).
    """
    side, step = 8, 4
    height, width = image.shape[:2]
    source = cv2.copyMakeBorder(image, side, side, side, side, cv2.BORDER_REFLECT_101).astype(np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(source, (side, side), axis=(0, 1))[::step, ::step]
    rows, cols = windows.shape[:2]
    flat = np.ascontiguousarray(windows).reshape(rows * cols, -1)
    mean = flat.mean(axis=0)
    sample = flat[rng.permutation(len(flat))[:1024]] - mean
    kept = rng.normal(0.0, 1.0, (flat.shape[1], int(rng.integers(6, 20)))).astype(np.float32)
    for _ in range(3):  # subspace iteration: the leading components are all that is needed
        kept, _ = np.linalg.qr(sample.T @ (sample @ kept))
    code = (flat - mean) @ kept
    quantum = float(rng.uniform(2.0, 24.0))
    code = np.rint(code / quantum) * quantum
    patches = (code @ kept.T + mean).reshape(rows, cols, 3, side, side)
    total = np.zeros_like(source)
    count = np.zeros(source.shape[:2], np.float32)
    for y in range(side):
        for x in range(side):
            target = (slice(y, y + rows * step, step), slice(x, x + cols * step, step))
            total[target] += patches[..., y, x][: total[target].shape[0], : total[target].shape[1]]
            count[target] += 1.0
    return whole((total / np.maximum(count, 1.0)[..., None])[side : side + height, side : side + width], "latent")


def grid(image: U8, rng: np.random.Generator, given: Given) -> Made:
    """A periodic fingerprint as GAN spectra show it (Zhang et al., WIFS 2019): peaks at periods of 2 to 8 px."""
    height, width = image.shape[:2]
    values = image.astype(np.float32)
    period = int(rng.choice([2, 4, 8]))
    cell = cv2.GaussianBlur(rng.normal(0.0, 1.0, (period * 3, period * 3, 3)).astype(np.float32), (0, 0), 0.7)
    cell = cell[period : 2 * period, period : 2 * period]
    cell = (cell - cell.mean(axis=(0, 1))) / max(float(cell.std()), 1e-6)
    pattern = np.tile(cell, (height // period + 1, width // period + 1, 1))[:height, :width]
    texture = np.abs(values - cv2.GaussianBlur(values, (0, 0), 3.0)).mean(axis=2, keepdims=True)
    strength = float(rng.uniform(2.0, 7.0)) * (0.4 + np.minimum(texture / 16.0, 1.0))
    smooth = cv2.GaussianBlur(values, (0, 0), float(rng.uniform(0.6, 1.2)))
    return whole(smooth + strength * pattern, "grid")


def denoised(image: U8, rng: np.random.Generator, given: Given) -> Made:
    """Sensor noise and fine texture gone, edges kept and overshot: the waxy look of diffusion samples."""
    values: F32 = image.astype(np.float32)
    for _ in range(int(rng.integers(1, 4))):
        values = np.asarray(
            cv2.bilateralFilter(values, 7, float(rng.uniform(15, 45)), float(rng.uniform(2, 5))), np.float32
        )
    result = values + float(rng.uniform(0.3, 1.0)) * (values - blurred(values, float(rng.uniform(1, 2.5))))
    hsv = cv2.cvtColor(rounded(result), cv2.COLOR_RGB2HSV).astype(np.float32)
    hsv[..., 1] *= float(rng.uniform(0.95, 1.25))
    return whole(cv2.cvtColor(rounded(hsv), cv2.COLOR_HSV2RGB).astype(np.float32), "denoised")
