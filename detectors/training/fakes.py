"""Fakes made from reals, each with the traces of one way of faking.

They serve two ends: training pairs, in which the only difference between the real and the fake is the trace (the
"pairs before pools" lesson of the field: DDA; SBI, Shiohara & Yamasaki, CVPR 2022), and the demo's
challenges, which must work without a network. They imitate the *mechanisms* of generators, not their pictures.

Every maker is a pure function of (image, generator): same seed, same fake, in any thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from detectors.types import U8, Label

__all__ = ["KINDS", "Made", "make"]

F32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """A fake and where it is fake.

    Attributes:
        pixels: ``uint8 [H, W, 3]`` RGB, the size of the source.
        label: SYNTHETIC when every pixel was made, SEMISYNTHETIC when only those under `mask` were.
        mask: ``float32 [H, W]`` in [0, 1], 1 where the pixel is made; None when all are.
        kind: key of :data:`KINDS`.
    """

    pixels: U8
    label: Label
    mask: F32 | None
    kind: str


def make(image: U8, rng: np.random.Generator, kind: str | None = None) -> Made:
    """Makes one fake from one real.

    Args:
        image: ``uint8 [H, W, 3]`` RGB, both sides at least 32.
        rng: source of every choice.
        kind: key of :data:`KINDS`; None draws one uniformly.

    Raises:
        KeyError: unknown kind.
        ValueError: the image is smaller than 32 px.
    """
    if min(image.shape[:2]) < 32:
        raise ValueError(f"a fake needs at least 32 x 32 pixels, got {image.shape[1]} x {image.shape[0]}")
    chosen = kind if kind is not None else list(KINDS)[int(rng.integers(len(KINDS)))]
    return KINDS[chosen](image, rng)


def _u8(values: npt.NDArray[np.floating]) -> U8:
    rounded: U8 = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return rounded


def _blurred(values: npt.NDArray[Any], sigma: float) -> F32:
    result: F32 = cv2.GaussianBlur(values.astype(np.float32), (0, 0), sigma).astype(np.float32)
    return result


def _all(pixels: npt.NDArray[np.floating], kind: str) -> Made:
    return Made(_u8(pixels), Label.SYNTHETIC, None, kind)


def _upsampled(image: U8, rng: np.random.Generator) -> Made:
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
        up = _blurred(up, 0.35 * factor)
    elif way == 1:
        phases = 1.0 + rng.normal(0.0, 0.06, (factor, factor)).astype(np.float32)
        tiles = np.tile(phases / phases.mean(), (height // factor + 1, width // factor + 1))[:height, :width, None]
        up = (up * tiles).astype(np.float32)
    amount = float(rng.uniform(0.3, 1.2))  # decoders overshoot: they are trained to look sharp
    return _all(up + amount * (up - _blurred(up, 0.6 * factor)), "upsampled")


def _latent(image: U8, rng: np.random.Generator) -> Made:
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
    return _all((total / np.maximum(count, 1.0)[..., None])[side : side + height, side : side + width], "latent")


def _grid(image: U8, rng: np.random.Generator) -> Made:
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
    return _all(smooth + strength * pattern, "grid")


def _denoised(image: U8, rng: np.random.Generator) -> Made:
    """Sensor noise and fine texture gone, edges kept and overshot: the waxy look of diffusion samples."""
    values: F32 = image.astype(np.float32)
    for _ in range(int(rng.integers(1, 4))):
        values = np.asarray(
            cv2.bilateralFilter(values, 7, float(rng.uniform(15, 45)), float(rng.uniform(2, 5))), np.float32
        )
    result = values + float(rng.uniform(0.3, 1.0)) * (values - _blurred(values, float(rng.uniform(1, 2.5))))
    hsv = cv2.cvtColor(_u8(result), cv2.COLOR_RGB2HSV).astype(np.float32)
    hsv[..., 1] *= float(rng.uniform(0.95, 1.25))
    return _all(cv2.cvtColor(_u8(hsv), cv2.COLOR_HSV2RGB).astype(np.float32), "denoised")


def _blob(shape: tuple[int, int], rng: np.random.Generator, share: tuple[float, float]) -> F32:
    """A soft random region covering roughly `share` of the picture; ``float32 [H, W]`` in [0, 1]."""
    height, width = shape
    noise = cv2.resize(rng.normal(0, 1, (6, 6)).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    yy, xx = np.mgrid[0:height, 0:width].astype(np.float32)
    centre_y, centre_x = rng.uniform(0.25, 0.75, 2) * (height, width)
    distance = np.hypot((yy - centre_y) / height, (xx - centre_x) / width).astype(np.float32)
    field = noise - 6.0 * distance
    threshold = np.quantile(field, 1.0 - rng.uniform(*share))
    soft: F32 = np.clip(_blurred(field > threshold, float(rng.uniform(0.004, 0.02)) * max(height, width)), 0.0, 1.0)
    return soft


def _mixed(base: U8, over: npt.NDArray[np.floating], mask: F32, kind: str) -> Made:
    blended = base * (1.0 - mask[..., None]) + over * mask[..., None]
    return Made(_u8(blended), Label.SEMISYNTHETIC, mask, kind)


def _inpainted(image: U8, rng: np.random.Generator) -> Made:
    """A region filled in from its border (Telea 2004 or Navier-Stokes, Bertalmio et al. 2001), at working size."""
    mask = _blob(image.shape[:2], rng, (0.08, 0.3))
    height, width = image.shape[:2]
    scale = min(1.0, 160.0 / max(height, width))  # the fill is smooth; a larger working size only costs time
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    hole = (cv2.resize(mask, (small.shape[1], small.shape[0])) > 0.3).astype(np.uint8)
    flag = cv2.INPAINT_TELEA if rng.random() < 0.5 else cv2.INPAINT_NS
    filled = cv2.inpaint(small, hole, 3, flag)
    over = cv2.resize(filled, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.float32)
    return _mixed(image, over, mask, "inpainted")


def _pasted(image: U8, rng: np.random.Generator) -> Made:
    """A generated-looking region in a real picture: the region is re-made by one of the full-frame mechanisms."""
    mask = _blob(image.shape[:2], rng, (0.15, 0.45))
    maker = (_upsampled, _latent, _denoised)[int(rng.integers(3))]
    return _mixed(image, maker(image, rng).pixels.astype(np.float32), mask, "pasted")


def _self_blended(image: U8, rng: np.random.Generator) -> Made:
    """The image blended with a slightly moved and recoloured copy of itself under a convex mask (SBI, sec. 3)."""
    height, width = image.shape[:2]
    angle, zoom = float(rng.uniform(-4, 4)), float(rng.uniform(0.95, 1.06))
    matrix = np.asarray(cv2.getRotationMatrix2D((width / 2, height / 2), angle, zoom), np.float64)
    matrix[:, 2] += rng.uniform(-0.02, 0.02, 2) * (width, height)
    moved = cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    hsv = cv2.cvtColor(moved, cv2.COLOR_RGB2HSV).astype(np.float32)
    hsv[..., 1:] *= rng.uniform(0.85, 1.15, 2).astype(np.float32)
    recoloured = cv2.cvtColor(_u8(hsv), cv2.COLOR_HSV2RGB).astype(np.float32) + rng.uniform(-10, 10, 3)
    source = _blurred(recoloured, float(rng.uniform(0.5, 1.5)))
    corners = rng.uniform(0.18, 0.82, (10, 2)) * (width, height)
    hull = cv2.convexHull(corners.astype(np.float32)).astype(np.int32)
    hard = cv2.fillConvexPoly(np.zeros((height, width), np.float32), hull, 1.0)
    mask = _blurred(hard, float(rng.uniform(0.01, 0.03)) * max(height, width))
    ratio = float(rng.choice([0.5, 0.75, 1.0, 1.0]))
    return _mixed(image, source, (mask * ratio).astype(np.float32), "self_blended")


KINDS: Mapping[str, Callable[[U8, np.random.Generator], Made]] = MappingProxyType(
    {
        "upsampled": _upsampled,
        "latent": _latent,
        "grid": _grid,
        "denoised": _denoised,
        "inpainted": _inpainted,
        "pasted": _pasted,
        "self_blended": _self_blended,
    }
)
