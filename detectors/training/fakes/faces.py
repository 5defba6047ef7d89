"""Semi-synthetic fakes of faces, after self-blended images (SBI: Shiohara & Yamasaki, CVPR 2022) and FSBI.

A face swap is known by its seam and by statistics that differ inside and outside of it. Both come from blending a
picture with a moved and changed copy of itself; no second person is needed. Unlike SBI only the copy is changed, never
the picture it is blended into, so that what the mask leaves out stays true.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from detectors.training.fakes import haar
from detectors.training.fakes.base import F32, Given, Made, blended, blurred, field, resized, rounded
from detectors.types import U8

__all__ = ["assumed_points", "blend_mask", "changed", "moved", "self_blended", "wavelet_blended"]

# Mean five points of the FFHQ layout (Karras et al., CVPR 2019) as shares of the side, as in detectors.training.points.
_FFHQ = np.array([[0.3769, 0.4687], [0.6229, 0.4691], [0.5012, 0.6133], [0.3931, 0.7254], [0.6115, 0.7249]])


def assumed_points(height: int, width: int) -> npt.NDArray[np.float64]:
    """Where the five points of a face are in a picture of the FFHQ layout; ``float64 [5, 2]`` (x, y) in pixels."""
    return _FFHQ * (width, height)


def self_blended(image: U8, rng: np.random.Generator, given: Given) -> Made:
    """The picture blended with a changed copy of itself, in the face where its points are known (SBI, sec. 3)."""
    mask = blend_mask(rng, (image.shape[0], image.shape[1]), given.points)
    return blended(image, changed(moved(image, rng), rng), mask, "self_blended")


def wavelet_blended(image: U8, rng: np.random.Generator, given: Given) -> Made:
    """As :func:`self_blended`, but each wavelet band of the copy enters with a share of its own (after FSBI, 2024).

    The copy's mean and details come apart, as they do where a swap is made at a low resolution or its colours are
    blended separately from its texture.
    """
    height, width = image.shape[:2]
    mask = blend_mask(rng, (height, width), given.points)
    copy = changed(moved(image, rng), rng)
    border = (0, -height % 4, 0, -width % 4, cv2.BORDER_REFLECT_101)
    ours, theirs = (np.asarray(cv2.copyMakeBorder(v, *border), np.float32) for v in (image.astype(np.float32), copy))
    shares = rng.uniform(0.0, 1.0, 7).astype(np.float32)
    shares[int(rng.integers(7))] = 1.0  # at least one band is the copy's
    return blended(image, _merged(ours, theirs, shares, 2)[:height, :width], mask, "wavelet_blended")


def _merged(ours: F32, theirs: F32, shares: F32, levels: int) -> F32:
    """Band by band from ours to theirs, three shares a level from the finest on and one for what is left."""
    (our_low, *our_fine), (their_low, *their_fine) = haar.forward(ours), haar.forward(theirs)
    fine = [a + s * (b - a) for a, b, s in zip(our_fine, their_fine, shares[:3], strict=True)]
    low = our_low + shares[3] * (their_low - our_low)
    if levels > 1:
        low = _merged(our_low, their_low, shares[3:], levels - 1)
    return haar.inverse(low, fine[0], fine[1], fine[2])


def moved(image: U8, rng: np.random.Generator) -> U8:
    """A copy that is turned, scaled and shifted by a little."""
    height, width = image.shape[:2]
    angle, zoom = float(rng.uniform(-4, 4)), float(rng.uniform(0.95, 1.06))
    matrix = np.asarray(cv2.getRotationMatrix2D((width / 2, height / 2), angle, zoom), np.float64)
    matrix[:, 2] += rng.uniform(-0.03, 0.03, 2) * (width, height)
    way = cv2.INTER_LINEAR if rng.random() < 0.5 else cv2.INTER_CUBIC
    return np.asarray(cv2.warpAffine(image, matrix, (width, height), flags=way, borderMode=cv2.BORDER_REFLECT_101))


def changed(image: U8, rng: np.random.Generator) -> F32:
    """Other colours, contrast and sharpness: hue, saturation and value, a shift of each channel, then blur,
    sharpening or a lower resolution; ``float32 [H, W, 3]``, about 0..255.
    """
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV).astype(np.float32)
    hsv[..., 0] = (hsv[..., 0] + float(rng.uniform(-4, 4))) % 180.0
    hsv[..., 1:] *= rng.uniform(0.8, 1.2, 2).astype(np.float32)
    hsv[..., 0] = np.minimum(hsv[..., 0], 179.0)
    values = cv2.cvtColor(rounded(hsv), cv2.COLOR_HSV2RGB).astype(np.float32)
    values += rng.uniform(-12, 12, 3).astype(np.float32)
    pivot = values.mean(axis=(0, 1))
    values = np.asarray(pivot + (values - pivot) * np.float32(rng.uniform(0.85, 1.15)), np.float32)
    height, width = values.shape[:2]
    way = int(rng.integers(3))
    if way == 0:
        return blurred(values, float(rng.uniform(0.5, 1.5)))
    if way == 1:
        amount = np.float32(rng.uniform(0.4, 1.5))
        return values + amount * (values - blurred(values, float(rng.uniform(0.8, 2.0))))
    factor = float(rng.uniform(1.5, 4.0))
    low = resized(values, max(8, round(height / factor)), max(8, round(width / factor)))
    return resized(low, height, width, cv2.INTER_LINEAR if rng.random() < 0.5 else cv2.INTER_CUBIC)


def blend_mask(rng: np.random.Generator, shape: tuple[int, int], points: npt.NDArray[np.floating] | None = None) -> F32:
    """Where the copy goes: an ellipse or a convex region, bent, softened and at times half transparent.

    Args:
        rng: source of every choice.
        shape: (height, width) in pixels.
        points: five points of a face, which the region then covers in whole or in part; None puts it anywhere.

    Returns:
        ``float32 [H, W]`` in [0, 1].
    """
    height, width = shape
    if points is None:
        corners = rng.uniform(0.18, 0.82, (10, 2)) * (width, height)
        size = 0.4 * max(height, width)
    else:
        outline, size = _face_outline(rng, np.asarray(points, np.float64))
        keep = np.sort(rng.permutation(len(outline))[: int(rng.integers(7, len(outline) + 1))])
        corners = outline[keep] + rng.normal(0.0, 0.02 * size, (len(keep), 2))
    hull = cv2.convexHull(corners.astype(np.float32)).astype(np.int32)
    hard = np.asarray(cv2.fillConvexPoly(np.zeros(shape, np.float32), hull, 1.0), np.float32)
    soft = blurred(_bent(rng, hard, 0.05 * size), float(rng.uniform(0.015, 0.06)) * size + 0.5)
    soft = np.where(soft < 1.0 / 512.0, 0.0, soft)  # a pixel this transparent is the picture's own
    ratio = float(rng.choice([0.5, 0.75, 1.0, 1.0]))
    mask: F32 = np.clip(soft * ratio, 0.0, 1.0).astype(np.float32)
    return mask


def _face_outline(rng: np.random.Generator, points: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], float]:
    """An ellipse about the whole face, the eyes, the mouth or one half; ``[24, 2]`` and the face's size in pixels."""
    eyes, mouth = points[:2].mean(axis=0), points[3:].mean(axis=0)
    down, across = mouth - eyes, points[1] - points[0]
    size = float(max(np.hypot(*down), np.hypot(*across), 4.0)) * 2.0
    part = int(rng.choice(4, p=[0.55, 0.15, 0.15, 0.15]))
    centre, tall, wide = (
        (eyes + 0.5 * down, 1.15, 0.95),
        (eyes, 0.45, 0.95),
        (mouth, 0.45, 0.6),
        (eyes + 0.5 * down + float(rng.choice([-0.5, 0.5])) * across, 1.1, 0.55),
    )[part]
    tall, wide = tall * float(rng.uniform(0.85, 1.15)), wide * float(rng.uniform(0.85, 1.15))
    angles = np.linspace(0.0, 2.0 * np.pi, 24, endpoint=False)
    return centre + np.outer(np.sin(angles) * tall, down) + np.outer(np.cos(angles) * wide, across), size


def _bent(rng: np.random.Generator, mask: F32, reach: float) -> F32:
    """Elastic deformation of a mask by a smooth field of about `reach` pixels (Simard et al., ICDAR 2003)."""
    height, width = mask.shape
    yy, xx = np.mgrid[0:height, 0:width].astype(np.float32)
    across, down = (np.float32(reach) * field(rng, (height, width), 5) for _ in range(2))
    bent: F32 = np.asarray(cv2.remap(mask, xx + across, yy + down, cv2.INTER_LINEAR), np.float32)
    return bent
