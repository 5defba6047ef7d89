"""Fakes of videos made from real ones: what is wrong is wrong over time.

Every maker is a pure function of (frames, generator), as those of images are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import cv2
import numpy as np
import numpy.typing as npt

from detectors.training.fakes.base import F32, SMALLEST, Given, Made, Maker, field, gaussian, rounded
from detectors.training.fakes.decoders import gan_upsampled, resampled_noise, reshaped
from detectors.training.fakes.faces import blend_mask, changed, moved
from detectors.training.fakes.frames import denoised, grid, upsampled
from detectors.types import U8, Label

__all__ = ["CLIP_KINDS", "MadeClip", "make_clip"]

_Points = npt.NDArray[np.floating] | None

_REMAKERS: tuple[Maker, ...] = (upsampled, grid, denoised, gan_upsampled, resampled_noise, reshaped)
_FLOW_SIDE = 192  # pixels of the short side at which flow is computed
_FEWEST = 3  # frames


@dataclass(frozen=True, slots=True, eq=False)
class MadeClip:
    """A fake video and where it is fake.

    Attributes:
        frames: ``uint8 [T, H, W, 3]`` RGB, the size of the source.
        label: SYNTHETIC when every pixel was made, SEMISYNTHETIC when only those under `mask` were.
        mask: ``float32 [T, H, W]`` in [0, 1], 0 exactly where the pixel is the source's; None when all are made.
        kind: key of :data:`CLIP_KINDS`.
    """

    frames: U8
    label: Label
    mask: F32 | None
    kind: str


def make_clip(frames: U8, rng: np.random.Generator, kind: str | None = None, *, points: _Points = None) -> MadeClip:
    """Makes one fake video from one real video.

    Args:
        frames: ``uint8 [T, H, W, 3]`` RGB, at least 3 frames, both sides at least 32.
        rng: source of every choice.
        kind: key of :data:`CLIP_KINDS`; None draws one uniformly.
        points: five points of a face, ``[5, 2]`` (x, y) in pixels, that holds for all frames; see
            :func:`detectors.training.fakes.make`.

    Raises:
        KeyError: unknown kind.
        ValueError: too few frames, too small ones, or points that are not five.
    """
    if frames.ndim != 4 or len(frames) < _FEWEST or min(frames.shape[1:3]) < SMALLEST:
        raise ValueError(f"a clip needs {_FEWEST} frames of {SMALLEST} x {SMALLEST} pixels, got {frames.shape}")
    if points is not None and np.shape(points) != (5, 2):
        raise ValueError(f"a face has points of shape (5, 2), not {np.shape(points)}")
    chosen = kind if kind is not None else list(CLIP_KINDS)[int(rng.integers(len(CLIP_KINDS)))]
    return CLIP_KINDS[chosen](frames, rng, points)


def _frame_interpolated(frames: U8, rng: np.random.Generator, points: _Points) -> MadeClip:
    """Every other frame replaced by what motion between its neighbours makes of them; the others are the source's."""
    out = frames.copy()
    mask = np.zeros(frames.shape[:3], np.float32)
    first = 1 + int(rng.integers(2)) if len(frames) > 3 else 1
    for t in range(first, len(frames) - 1, 2):
        out[t] = _between(frames[t - 1], frames[t + 1])
        mask[t] = 1.0
    return MadeClip(out, Label.SEMISYNTHETIC, mask, "frame_interpolated")


def _between(before: U8, after: U8) -> U8:
    """The frame in the middle: both neighbours moved half way along the flow (DIS, Kroeger et al., ECCV 2016)."""
    height, width = before.shape[:2]
    scale = min(1.0, _FLOW_SIDE / min(height, width))
    size = (max(16, round(width * scale)), max(16, round(height * scale)))
    grey = [
        cv2.resize(cv2.cvtColor(f, cv2.COLOR_RGB2GRAY), size, interpolation=cv2.INTER_AREA) for f in (before, after)
    ]
    finder = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)  # holds state: one for each call
    yy, xx = np.mgrid[0:height, 0:width].astype(np.float32)
    halves = []
    for source, pair in ((before, grey), (after, grey[::-1])):
        flow = np.asarray(finder.calc(pair[0], pair[1], np.zeros((size[1], size[0], 2), np.float32)), np.float32)
        grown = cv2.resize(flow, (width, height)) * np.array([width / size[0], height / size[1]], np.float32)
        halves.append(cv2.remap(source, xx - 0.5 * grown[..., 0], yy - 0.5 * grown[..., 1], cv2.INTER_LINEAR))
    return np.asarray(cv2.addWeighted(halves[0], 0.5, halves[1], 0.5, 0.0), np.uint8)


def _warped(frames: U8, rng: np.random.Generator, points: _Points) -> MadeClip:
    """Every frame bent by a field that drifts slowly and jumps a little from frame to frame: shapes that breathe."""
    count, height, width = frames.shape[:3]
    cells = int(rng.integers(3, 7))
    reach = float(rng.uniform(0.008, 0.025)) * max(height, width)
    jitter = float(rng.uniform(0.1, 0.5))
    kept = float(rng.uniform(0.8, 0.95))
    yy, xx = np.mgrid[0:height, 0:width].astype(np.float32)
    slow = gaussian(rng, (2, cells, cells))
    out = np.empty_like(frames)
    for t in range(count):
        slow = np.float32(kept) * slow + gaussian(rng, slow.shape, float(np.sqrt(1.0 - kept**2)))
        coarse = np.float32(reach) * (slow + gaussian(rng, slow.shape, jitter))
        across, down = (cv2.resize(c, (width, height), interpolation=cv2.INTER_CUBIC) for c in coarse)
        out[t] = cv2.remap(frames[t], xx + across, yy + down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    return MadeClip(out, Label.SYNTHETIC, None, "warped")


def _face_swapped(frames: U8, rng: np.random.Generator, points: _Points) -> MadeClip:
    """One region blended with a changed copy of each frame, its place, share and colours flickering over time.

    Swaps are made frame by frame: the change is the same, how well it sits is not. Without points the region is a
    face-like ellipse somewhere near the middle.
    """
    count, height, width = frames.shape[:3]
    place = _somewhere(rng, height, width) if points is None else np.asarray(points, np.float64)
    mask = blend_mask(rng, (height, width), place)
    choices = int(rng.integers(2**63))  # one change of the copy for the whole clip
    sway, flicker, tint = float(rng.uniform(0.2, 1.2)), float(rng.uniform(0.05, 0.2)), float(rng.uniform(1.0, 5.0))
    out = np.empty_like(frames)
    masks = np.empty(frames.shape[:3], np.float32)
    for t in range(count):
        same = np.random.default_rng(choices)
        copy = changed(moved(frames[t], same), same) + gaussian(rng, (3,), tint)
        matrix = np.array([[1.0, 0.0, rng.normal(0.0, sway)], [0.0, 1.0, rng.normal(0.0, sway)]])
        here = np.asarray(cv2.warpAffine(mask, matrix, (width, height)), np.float32)
        masks[t] = np.clip(here * (1.0 - abs(float(rng.normal(0.0, flicker)))), 0.0, 1.0)
        alpha = masks[t][..., None]
        out[t] = rounded(frames[t] * (1.0 - alpha) + copy * alpha)
    return MadeClip(out, Label.SEMISYNTHETIC, masks, "face_swapped")


def _somewhere(rng: np.random.Generator, height: int, width: int) -> npt.NDArray[np.float64]:
    """Five points of a made-up upright face of a fifth to a half of the short side."""
    side = float(rng.uniform(0.5, 1.2)) * min(height, width)
    middle = rng.uniform(0.35, 0.65, 2) * (width, height)
    shape = np.array([[-0.12, -0.13], [0.12, -0.13], [0.0, 0.0], [-0.11, 0.13], [0.11, 0.13]])
    return middle + shape * side


def _remade(frames: U8, rng: np.random.Generator, points: _Points) -> MadeClip:
    """Each frame through a full-frame image maker, with one draw for all (a trace that stands still) or one for each
    (a trace that flickers).
    """
    maker = _REMAKERS[int(rng.integers(len(_REMAKERS)))]
    same = rng.random() < 0.5
    seeds = rng.integers(2**63, size=len(frames))
    made: list[Made] = [
        maker(frame, np.random.default_rng(int(seeds[0] if same else seed)), Given())
        for frame, seed in zip(frames, seeds, strict=True)
    ]
    return MadeClip(np.stack([m.pixels for m in made]), Label.SYNTHETIC, None, "remade")


def _still(frames: U8, rng: np.random.Generator, points: _Points) -> MadeClip:
    """One frame moved by a steady zoom, pan and turn, with a slow warp for life: an animated photograph."""
    count, height, width = frames.shape[:3]
    photo = frames[int(rng.integers(count))]
    time = np.linspace(0.0, 1.0, count)
    zoom = float(rng.uniform(1.02, 1.1)) + float(rng.uniform(0.08, 0.3)) * (time if rng.random() < 0.5 else 1.0 - time)
    angle = float(rng.uniform(-3.0, 3.0)) + float(rng.uniform(-4.0, 4.0)) * time
    room = 0.5 * (1.0 - 1.0 / zoom)  # shares of a side that the zoom leaves to pan in
    start, end = rng.uniform(-1.0, 1.0, (2, 2))
    path = start + time[:, None] * (end - start)
    bends = [float(rng.uniform(0.0, 0.006)) * max(height, width) * field(rng, (height, width), 4) for _ in range(2)]
    phase = np.sin(float(rng.uniform(0.5, 2.0)) * np.pi * time)
    yy, xx = np.mgrid[0:height, 0:width].astype(np.float32)
    middle_y, middle_x = (height - 1) / 2, (width - 1) / 2
    out = np.empty_like(frames)
    for t in range(count):
        cos, sin = np.cos(np.deg2rad(angle[t])) / zoom[t], np.sin(np.deg2rad(angle[t])) / zoom[t]
        x = middle_x + cos * (xx - middle_x) - sin * (yy - middle_y) + path[t, 0] * room[t] * width
        y = middle_y + sin * (xx - middle_x) + cos * (yy - middle_y) + path[t, 1] * room[t] * height
        across, down = (np.asarray(v + phase[t] * b, np.float32) for v, b in zip((x, y), bends, strict=True))
        out[t] = cv2.remap(photo, across, down, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)
    return MadeClip(out, Label.SYNTHETIC, None, "still")


#: Every maker of clips by name, in a fixed order.
CLIP_KINDS: Mapping[str, Callable[[U8, np.random.Generator, _Points], MadeClip]] = MappingProxyType(
    {
        "frame_interpolated": _frame_interpolated,
        "warped": _warped,
        "face_swapped": _face_swapped,
        "remade": _remade,
        "still": _still,
    }
)
