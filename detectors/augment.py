"""The validators' augmentation of challenges, levels 0 to 3 (SN34 validator 2.0 and 2.2).

Used twice: by training, so that weights are made for what arrives on the wire, and by the simulation. One challenge
is one :class:`Draw`: every random parameter is in it, so the same draw and the same frame give the same bytes, in any
thread and any order.

    level 0   centre crop to the short side, resize to 256 x 256
    level 1   rotation within ±20° (bilinear, black corners), square crop of 0.2 to 1.0 of the area, resize to
              256 x 256, horizontal and vertical flip with probability 0.5 each
    level 2   level 1, then saturation, contrast, "JPEG", each at severity 0 or 1
    level 3   level 1, then saturation, contrast, "JPEG", coloured noise, blur, each at severity 0, 1 or 2

The five distortions and their five severities are those of DeeperForensics-1.0 (Jiang et al., CVPR 2020, appendix);
what it calls "JPEG" is a resize down and up, without a codec. The challenge is saved as JPEG afterwards, which is not
part of this module.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from detectors.types import U8

__all__ = [
    "LEVELS",
    "SIDE",
    "Draw",
    "Mix",
    "apply",
    "apply_clip",
    "blur",
    "contrast",
    "down_up",
    "draw",
    "noise",
    "sample_level",
    "saturation",
]

Mix = Literal["2.0", "2.2"]

SIDE = 256  # pixels, the side of every challenge

LEVELS: Mapping[Mix, tuple[float, float, float, float]] = MappingProxyType(
    {"2.0": (0.25, 0.45, 0.15, 0.15), "2.2": (0.25, 0.25, 0.25, 0.25)}
)
"""Probability of the levels 0 to 3, by the validators' version."""

_MAX_ANGLE = 20.0  # degrees
_SCALE = (0.2, 1.0)  # share of the area a random crop keeps
_CROP_TRIES = 10  # as torchvision.transforms.RandomResizedCrop

# By severity 1 to 5.
_SATURATION = (0.4, 0.3, 0.2, 0.1, 0.0)
_CONTRAST = (0.85, 0.725, 0.6, 0.475, 0.35)
_DOWN = (2, 3, 4, 5, 6)
_VARIANCE = (0.001, 0.002, 0.005, 0.01, 0.05)
_KERNEL = (7, 9, 13, 17, 21)

# OpenCV's rounded BT.601 coefficients; rows are (Y, Cb, Cr) from RGB and RGB from (Y, Cb, Cr).
_LUMA = np.array([0.299, 0.587, 0.114])
_TO_YCC = np.stack([_LUMA, 0.564 * (np.array([0, 0, 1]) - _LUMA), 0.713 * (np.array([1, 0, 0]) - _LUMA)])
_TO_RGB = np.array([[1, 0, 1.403], [1, -0.344, -0.714], [1, 1.773, 0]])
_STUDIO = np.array([255 / 219, 255 / 224, 255 / 224])  # the noise is added in studio range and spread back
_FLOOR = -0.5 + 1e-3  # turns OpenCV's rounding into the truncation of a cast to uint8


@dataclass(frozen=True, slots=True)
class Draw:
    """All random parameters of one challenge.

    Attributes:
        level: 0 to 3.
        size: (height, width) in pixels of the frames this draw is for.
        crop: (top, left, height, width) in pixels, cut after the rotation; always square.
        angle: degrees, counter-clockwise, in [-20, 20]; 0 at level 0.
        hflip, vflip: mirrored left-right, upside down; both after the crop.
        saturation, contrast, down_up, noise, blur: severity of each distortion, 0 (off) to 5; levels 0 and 1 have
            none, level 2 goes to 1 and level 3 to 2. The order here is the order of application.
        noise_seed: seed of the noise field.
    """

    level: int
    size: tuple[int, int]
    crop: tuple[int, int, int, int]
    angle: float = 0.0
    hflip: bool = False
    vflip: bool = False
    saturation: int = 0
    contrast: int = 0
    down_up: int = 0
    noise: int = 0
    blur: int = 0
    noise_seed: int = 0

    def fitted(self, size: tuple[int, int]) -> Draw:
        """The same draw for frames of another size: the crop keeps its share of the short side and its place.

        A video stitched from two clips needs it, since one draw holds for all of its frames.
        """
        if size == self.size:
            return self
        if self.level == 0:
            return replace(self, size=size, crop=_centre(size))
        top, left, height, _ = self.crop
        side = max(1, min(round(height * min(size) / min(self.size)), *size))
        place = []
        for offset, old, new in zip((top, left), self.size, size, strict=True):
            free = old - height
            place.append(round(offset / free * (new - side)) if free else (new - side) // 2)
        return replace(self, size=size, crop=(place[0], place[1], side, side))


def sample_level(rng: np.random.Generator, mix: Mix) -> int:
    """One augmentation level, 0 to 3, with the probabilities of :data:`LEVELS`."""
    return int(np.searchsorted(np.cumsum(LEVELS[mix]), rng.random(), side="right").clip(0, 3))


def draw(rng: np.random.Generator, level: int, size: tuple[int, int]) -> Draw:
    """Draws every random parameter of one challenge.

    Args:
        rng: advanced by a number of steps that depends on the level and the size.
        level: 0 to 3.
        size: (height, width) of the frames, in pixels, both at least 1.

    Raises:
        ValueError: no such level, or an empty size.
    """
    if level not in range(4):
        raise ValueError(f"augmentation level must be 0, 1, 2 or 3, not {level!r}")
    if min(size) < 1:
        raise ValueError(f"frames of size {size} have no pixels")
    if level == 0:
        return Draw(level=0, size=size, crop=_centre(size))
    angle = float(rng.uniform(-_MAX_ANGLE, _MAX_ANGLE))
    crop = _random_crop(rng, size)
    hflip, vflip = (bool(v) for v in rng.random(2) < 0.5)
    geometric = Draw(level=level, size=size, crop=crop, angle=angle, hflip=hflip, vflip=vflip)
    if level == 1:
        return geometric
    severities = [int(v) for v in rng.integers(0, level, size=3, endpoint=False)]
    mild = replace(geometric, saturation=severities[0], contrast=severities[1], down_up=severities[2])
    if level == 2:
        return mild
    severe = [int(v) for v in rng.integers(0, level, size=2)]
    return replace(mild, noise=severe[0], blur=severe[1], noise_seed=int(rng.integers(0, 2**63)))


def apply(draw: Draw, frame: U8, *, index: int = 0) -> U8:
    """Makes the challenge's pixels of one frame.

    Args:
        draw: from :func:`draw` or :meth:`Draw.fitted`, for frames of this size.
        frame: RGB, ``uint8 [H, W, 3]``.
        index: number of the frame in its video. The severity of the noise is one for the whole video, the noise
            field differs from frame to frame, as sensor noise does.

    Returns:
        A new array, RGB, ``uint8 [256, 256, 3]``.

    Raises:
        ValueError: the frame has another size than the draw is for.
    """
    if frame.shape[:2] != draw.size or frame.shape[2:] != (3,) or frame.dtype != np.uint8:
        raise ValueError(f"the draw is for uint8 frames {(*draw.size, 3)}, not {frame.dtype} {frame.shape}")
    square = _rotated_crop(frame, draw.angle, draw.crop) if draw.angle else _crop(frame, draw.crop)
    out = _resize(square)
    if draw.hflip or draw.vflip:
        out = np.ascontiguousarray(out[:: -1 if draw.vflip else 1, :: -1 if draw.hflip else 1])
    out = saturation(out, draw.saturation)
    out = contrast(out, draw.contrast)
    out = down_up(out, draw.down_up)
    out = noise(out, draw.noise, np.random.default_rng([draw.noise_seed, index])) if draw.noise else out
    return blur(out, draw.blur)


def apply_clip(draw: Draw, frames: U8) -> U8:
    """:func:`apply` on every frame of ``[T, H, W, 3]``, all with the one draw; ``[T, 256, 256, 3]``."""
    return np.stack([apply(draw, frame, index=index) for index, frame in enumerate(frames)])


def saturation(frame: U8, severity: int) -> U8:
    """Pulls the colours towards grey: the chroma of YCbCr times 0.4, 0.3, 0.2, 0.1 or 0.

    The validators run formulas meant for [0, 1] on 0..255 and cast to ``uint8``. A value that leaves the range there
    becomes whatever the platform makes of it; here it is clipped, which nearly no pixel needs as the result lies
    between the pixel and its grey. Everything else agrees within ±1.

    Args:
        frame: RGB, ``uint8 [H, W, 3]``.
        severity: 0 (unchanged) to 5 (grey).
    """
    if severity == 0:
        return frame
    factor = _SATURATION[severity - 1]
    matrix = _TO_RGB @ np.diag([1.0, factor, factor]) @ _TO_YCC
    return _u8(cv2.transform(frame, np.column_stack([matrix, np.full(3, _FLOOR)])))


def contrast(frame: U8, severity: int) -> U8:
    """Multiplies by 0.85, 0.725, 0.6, 0.475 or 0.35 and truncates; severity 0 leaves the frame alone."""
    if severity == 0:
        return frame
    table = (np.arange(256, dtype=np.float32) * np.float32(_CONTRAST[severity - 1])).astype(np.uint8)
    return _u8(cv2.LUT(frame, table))


def down_up(frame: U8, severity: int) -> U8:
    """DeeperForensics' "JPEG": bilinear resize down by 2, 3, 4, 5 or 6 without antialiasing, and back up.

    Frames are at least 6 pixels wide and high; severity 0 leaves the frame alone.
    """
    if severity == 0:
        return frame
    height, width = frame.shape[:2]
    factor = _DOWN[severity - 1]
    small = cv2.resize(frame, (width // factor, height // factor), interpolation=cv2.INTER_LINEAR)
    return _u8(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR))


def noise(frame: U8, severity: int, rng: np.random.Generator) -> U8:
    """Adds coloured Gaussian noise: variance 0.001, 0.002, 0.005, 0.01 or 0.05 on each of Y, Cb, Cr in [0, 1].

    The three planes are of studio range (219 and 224 steps of 255), so the luma noise of severity 1 has a standard
    deviation of 9.4 grey levels. Added directly in RGB, which is the same since the conversion is linear.

    Args:
        frame: RGB, ``uint8 [H, W, 3]``.
        severity: 0 (unchanged) to 5.
        rng: source of the noise field; untouched at severity 0.
    """
    if severity == 0:
        return frame
    planes = rng.standard_normal(frame.shape, dtype=np.float32)
    scale = 255.0 * math.sqrt(_VARIANCE[severity - 1]) * _STUDIO
    coloured = cv2.transform(planes, np.column_stack([_TO_RGB * scale, np.full(3, _FLOOR)]))
    return _u8(cv2.add(frame, coloured, dtype=cv2.CV_8U))


def blur(frame: U8, severity: int) -> U8:
    """Gaussian blur, kernel 7, 9, 13, 17 or 21 pixels, sigma a sixth of it; severity 0 leaves the frame alone."""
    if severity == 0:
        return frame
    kernel = _KERNEL[severity - 1]
    return _u8(cv2.GaussianBlur(frame, (kernel, kernel), kernel / 6))


def _centre(size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The centred square of the short side."""
    height, width = size
    side = min(size)
    return round((height - side) / 2), round((width - side) / 2), side, side


def _random_crop(rng: np.random.Generator, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """A square of U(0.2, 1) of the area, drawn again while it does not fit, the centred square after ten tries.

    The rule of torchvision's RandomResizedCrop for ratio 1. It makes small crops likelier in oblong frames.
    """
    height, width = size
    for _ in range(_CROP_TRIES):
        side = max(1, round(math.sqrt(height * width * rng.uniform(*_SCALE))))
        if side <= min(size):
            top = int(rng.integers(0, height - side, endpoint=True))
            left = int(rng.integers(0, width - side, endpoint=True))
            return top, left, side, side
    return _centre(size)


def _crop(frame: U8, crop: tuple[int, int, int, int]) -> U8:
    top, left, height, width = crop
    return np.ascontiguousarray(frame[top : top + height, left : left + width])


def _rotated_crop(frame: U8, angle: float, crop: tuple[int, int, int, int]) -> U8:
    """Rotates about the frame's centre, keeping its size, and cuts the crop; computes no pixel outside it."""
    top, left, height, width = crop
    rows, columns = frame.shape[:2]
    matrix = cv2.getRotationMatrix2D(((columns - 1) / 2, (rows - 1) / 2), angle, 1.0)
    matrix[:, 2] -= (left, top)
    return _u8(cv2.warpAffine(np.ascontiguousarray(frame), matrix, (width, height), flags=cv2.INTER_LINEAR))


def _resize(square: U8) -> U8:
    """PIL's bilinear filter, which antialiases when it shrinks, to 256 x 256."""
    if square.shape[:2] == (SIDE, SIDE):
        return square.copy()
    return np.array(Image.fromarray(square).resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def _u8(array: npt.NDArray[np.generic]) -> U8:
    """Names the dtype that OpenCV's annotations leave open."""
    return array if array.dtype == np.uint8 else array.astype(np.uint8)  # type: ignore[return-value]
