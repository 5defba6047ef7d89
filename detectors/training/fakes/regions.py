"""Semi-synthetic fakes: a region of a real picture filled in, made again, or taken from elsewhere."""

from __future__ import annotations

import cv2
import numpy as np

from detectors.training.fakes.base import F32, SMALLEST, Given, Made, Maker, blended, blob, blurred, resized
from detectors.training.fakes.decoders import gan_upsampled, resampled_noise, reshaped
from detectors.training.fakes.frames import denoised, grid, latent, upsampled
from detectors.types import U8

__all__ = ["inpainted", "pasted", "spliced"]

_REMAKERS: tuple[Maker, ...] = (upsampled, latent, denoised, grid, gan_upsampled, resampled_noise, reshaped)

_OFFSETS = 24  # places tried for a patch


def inpainted(image: U8, rng: np.random.Generator, given: Given) -> Made:
    """A region filled in from its border (Telea 2004; Navier-Stokes, Bertalmio et al. 2001) or by a patch from
    elsewhere in the picture.
    """
    mask = blob(rng, (image.shape[0], image.shape[1]), (0.08, 0.3))
    way = int(rng.integers(4))
    over = _patched(image, mask, rng) if way >= 2 else _diffused(image, mask, (cv2.INPAINT_TELEA, cv2.INPAINT_NS)[way])
    return blended(image, over, mask, "inpainted")


def _diffused(image: U8, mask: F32, way: int) -> F32:
    height, width = image.shape[:2]
    scale = min(1.0, 160.0 / max(height, width))  # the fill is smooth; a larger working size only costs time
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    hole = (cv2.resize(mask, (small.shape[1], small.shape[0])) > 0.3).astype(np.uint8)
    return resized(cv2.inpaint(small, hole, 3, way), height, width, cv2.INTER_CUBIC)


def _patched(image: U8, mask: F32, rng: np.random.Generator) -> F32:
    """The picture shifted so that its rim about the hole fits best, its tones bent to fit the rim the rest of the way.

    Exemplar filling (Criminisi et al., TIP 2004) with one exemplar: what object removal by cloning leaves.
    """
    height, width = image.shape[:2]
    scale = min(1.0, 64.0 / max(height, width))
    size = (max(8, round(width * scale)), max(8, round(height * scale)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    inside = cv2.resize(mask, size) > 0.05
    rim = (cv2.dilate(inside.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0) & ~inside
    rim = rim if rim.any() else ~inside
    reach = rng.uniform(0.12, 0.45, (_OFFSETS, 2)) * rng.choice([-1.0, 1.0], (_OFFSETS, 2))
    offsets = np.rint(reach * (size[1], size[0])).astype(int)
    costs = []
    for dy, dx in offsets.tolist():
        overlap = float(np.mean(_shifted(inside.astype(np.float32), dy, dx)[inside])) if inside.any() else 0.0
        costs.append(float(np.abs(_shifted(small, dy, dx)[rim] - small[rim]).mean()) + 60.0 * overlap)
    dy, dx = offsets[int(np.argmin(costs))].tolist()
    source = _shifted(image.astype(np.float32), round(dy / size[1] * height), round(dx / size[0] * width))
    weight = rim.astype(np.float32)[..., None]
    off = (small - _shifted(small, dy, dx)) * weight
    sigma = 0.12 * max(size)
    tone = blurred(off, sigma) / np.maximum(cv2.GaussianBlur(weight, (0, 0), sigma), 1e-3)[..., None]
    return source + resized(tone, height, width, cv2.INTER_LINEAR)


def _shifted(values: F32, dy: int, dx: int) -> F32:
    """``out[y, x] = values[y + dy, x + dx]``, reflected at the borders."""
    matrix = np.array([[1.0, 0.0, -dx], [0.0, 1.0, -dy]])
    size = (values.shape[1], values.shape[0])
    out = cv2.warpAffine(values, matrix, size, flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(out, np.float32)


def pasted(image: U8, rng: np.random.Generator, given: Given) -> Made:
    """A generated-looking region in a real picture: the region is made again by a full-frame maker.

    The makers are those that need no weights; ``autofilled`` is the one that does.
    """
    mask = blob(rng, (image.shape[0], image.shape[1]), (0.15, 0.45))
    maker = _REMAKERS[int(rng.integers(len(_REMAKERS)))]
    rows, columns = _around(mask)
    over = image.astype(np.float32)
    over[rows, columns] = maker(np.ascontiguousarray(image[rows, columns]), rng, given).pixels
    return blended(image, over, mask, "pasted")


def _around(mask: F32) -> tuple[slice, slice]:
    """The box that holds the region, a margin about it for what filters see, and at least 32 px a side."""
    found = []
    for axis in (1, 0):
        side = mask.shape[1 - axis]
        where = np.flatnonzero(mask.max(axis=axis) > 0)
        first, last = max(0, int(where[0]) - 8), min(side, int(where[-1]) + 9)
        first = max(0, min(first, side - SMALLEST))
        found.append(slice(first, max(last, first + SMALLEST)))
    return found[0], found[1]


def spliced(image: U8, rng: np.random.Generator, given: Given) -> Made:
    """An object-like region of the donor in the picture, its colours matched to the place (Reinhard et al. 2001).

    Without a donor it comes from the picture itself, mirrored and moved (copy-move).
    """
    height, width = image.shape[:2]
    donor = _fitted(given.donor if given.donor is not None else _elsewhere(image, rng), height, width, rng)
    mask = _object(donor, rng)
    lab, there = (cv2.cvtColor(v, cv2.COLOR_RGB2LAB).astype(np.float32) for v in (donor, image))
    inside = mask > 0.5
    inside = inside if inside.any() else np.ones_like(inside)
    mean, spread = lab[inside].mean(axis=0), lab[inside].std(axis=0) + 1.0
    wanted, wide = there[inside].mean(axis=0), there[inside].std(axis=0) + 1.0
    strength = rng.uniform(0.2, 1.0)
    fitted = (lab - mean) * np.clip(wide / spread, 0.6, 1.6) ** strength + mean + strength * (wanted - mean)
    over = cv2.cvtColor(np.clip(np.rint(fitted), 0, 255).astype(np.uint8), cv2.COLOR_LAB2RGB).astype(np.float32)
    return blended(image, over, mask, "spliced")


def _elsewhere(image: U8, rng: np.random.Generator) -> U8:
    """A mirrored part of the picture, two thirds to nine tenths of its sides: what lies at a place is another's."""
    share = float(rng.uniform(0.66, 0.9))
    height, width = (max(SMALLEST // 2, round(share * side)) for side in image.shape[:2])
    y, x = (int(rng.integers(side - part + 1)) for side, part in zip(image.shape[:2], (height, width), strict=True))
    return np.ascontiguousarray(image[y : y + height, x : x + width][:, ::-1])


def _fitted(donor: U8, height: int, width: int, rng: np.random.Generator) -> U8:
    """A part of the donor scaled to height x width, without stretching it."""
    least = max(height / donor.shape[0], width / donor.shape[1])
    scale = least * float(rng.uniform(1.0, 1.3))
    size = (max(width, round(donor.shape[1] * scale)), max(height, round(donor.shape[0] * scale)))
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    grown = np.asarray(cv2.resize(donor, size, interpolation=way), np.uint8)
    y, x = (int(rng.integers(have - want + 1)) for have, want in zip(grown.shape[:2], (height, width), strict=True))
    return np.ascontiguousarray(grown[y : y + height, x : x + width])


def _object(image: U8, rng: np.random.Generator) -> F32:
    """A region that follows edges: what within a blob has the colour of its middle, holes closed, rim softened."""
    height, width = image.shape[:2]
    region = blob(rng, (height, width), (0.1, 0.35))
    lab = cv2.cvtColor(cv2.GaussianBlur(image, (0, 0), 2.0), cv2.COLOR_RGB2LAB).astype(np.float32)
    y, x = np.unravel_index(int(blurred(region, 0.05 * max(height, width)).argmax()), region.shape)
    distance = np.linalg.norm(lab - lab[y, x], axis=2)
    inside = region > 0.5
    near = np.quantile(distance[inside], 0.75) if inside.any() else 0.0
    side = max(3, round(0.04 * max(height, width))) | 1
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    alike = (inside & (distance <= near)).astype(np.uint8)
    closed = cv2.morphologyEx(cv2.morphologyEx(alike, cv2.MORPH_CLOSE, disc), cv2.MORPH_OPEN, disc)
    chosen = closed > 0 if closed.mean() > 0.03 else inside
    return np.clip(blurred(chosen, float(rng.uniform(0.6, 2.0))), 0.0, 1.0).astype(np.float32)
