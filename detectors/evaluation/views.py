"""The views that are scored: what a validator would send of a file, or the file as it is.

A view is a pure function of (key of the item, number of the view, level, seed): which other items are evaluated, in
which order and in how many threads, changes nothing. The same item shows the same clip under the same crop at levels
1, 2 and 3, so that levels can be compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import cv2
import numpy as np

from detectors import augment
from detectors.clips import clip_frames, clip_index
from detectors.datasets import Item
from detectors.errors import MediaError, MediaReason
from detectors.evaluation.scores import NO_LEVEL, Seen, digest
from detectors.limits import LOCAL_LIMITS
from detectors.media import (
    decode_container,
    decode_image,
    decode_jpeg_frames,
    encode_jpeg,
    encode_jpeg_frames,
)
from detectors.types import U8, Media

__all__ = ["GRID", "LEVELS", "MIXES", "Cell", "Level", "Unusable", "View", "Views", "key_of"]

Level = Literal["0", "1", "2", "3", "mix-2.0", "mix-2.2", "none"]
LEVELS: tuple[Level, ...] = ("0", "1", "2", "3", "mix-2.0", "mix-2.2", "none")
MIXES: Mapping[str, augment.Mix] = MappingProxyType({"mix-2.0": "2.0", "mix-2.2": "2.2"})

_LEVEL, _DRAW, _CLIP, _GRID = range(4)  # separate random streams of one view
_PLAIN_FRAMES = 24  # of a video that is taken as it is, evenly spaced
_GRID_FRAMES = 8  # of a video in the robustness grid, evenly spaced


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of the robustness grid.

    Attributes:
        scale: the 256 px view is brought to this share of its side and back.
        quality: of the JPEG at the end.
        blur: sigma in pixels, 0 for none.
        noise: standard deviation in grey levels, 0 for none; each channel for itself.
    """

    scale: float
    quality: int
    blur: float
    noise: float

    @property
    def name(self) -> str:
        return f"scale {self.scale:g}, quality {self.quality}, blur {self.blur:g}, noise {self.noise:g}"


GRID: tuple[Cell, ...] = tuple(
    Cell(scale, quality, blur, noise)
    for scale in (1.0, 0.5)
    for quality in (95, 75, 50)
    for blur in (0.0, 1.5)
    for noise in (0.0, 8.0)
)
"""Every combination; applied to level 0 in the order scale, blur, noise, JPEG."""


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """One thing to judge.

    Attributes:
        seen: what it is.
        media: its pixels.
        payload: the bytes of the image, or of the video's first frame as JPEG, for probes of the format.
        cell: of the robustness grid; empty outside it.
    """

    seen: Seen
    media: Media
    payload: bytes
    cell: str = ""


@dataclass(frozen=True, slots=True)
class Unusable:
    """A file that no view can be made of.

    Attributes:
        key: of the item.
        reason: of the :class:`~detectors.errors.MediaError`.
        detail: one sentence.
    """

    key: str
    reason: str
    detail: str


def key_of(item: Item, root: Path) -> str:
    """The item's path below the data's folder; where it lies elsewhere, its source and file name."""
    return (
        item.path.relative_to(root).as_posix() if item.path.is_relative_to(root) else f"{item.source}/{item.path.name}"
    )


@dataclass(frozen=True, slots=True)
class Views:
    """Makes views of items.

    Attributes:
        root: folder of the data; keys are paths below it.
        level: which augmentation, see :data:`LEVELS`.
        seed: not negative.
        frames: fewest and most consecutive frames of a clip; a shorter video is taken whole.
    """

    root: Path
    level: Level = "mix-2.0"
    seed: int = 0
    frames: tuple[int, int] = (8, 24)

    def view(self, item: Item, number: int = 0) -> View | Unusable:
        """View `number` of an item, from 0."""
        key = key_of(item, self.root)
        try:
            return self._view(item, f"{key}#{number}")
        except (MediaError, OSError) as error:
            return _unusable(key, error)

    def grid(self, item: Item, cells: Sequence[Cell] = GRID) -> Iterator[View | Unusable]:
        """The item's view in every cell of the grid; decodes the file once."""
        key = key_of(item, self.root)
        try:
            plain = _plain(item, _GRID_FRAMES)[0].frames
            drawn = augment.draw(np.random.default_rng(0), 0, (plain.shape[1], plain.shape[2]))
            frames = augment.apply_clip(drawn, plain)
            for cell in cells:
                made = [_distorted(f, cell, self._rng(key, _GRID, k)) for k, f in enumerate(frames)]
                media, payload = _sent(item, made, cell.quality)
                yield View(_seen(item, f"{key}#0", 0), media, payload, cell.name)
        except (MediaError, OSError) as error:
            yield _unusable(key, error)

    def _view(self, item: Item, key: str) -> View:
        if self.level == "none":
            media, payload = _plain(item, _PLAIN_FRAMES)
            return View(_seen(item, key, NO_LEVEL), media, payload)
        mix = MIXES.get(self.level)
        level = int(self.level) if mix is None else augment.sample_level(self._rng(key, _LEVEL), mix)
        rng = self._rng(key, _DRAW)
        made: list[U8] = []
        drawn: augment.Draw | None = None
        frames = _image(item) if item.modality == "image" else self._clip(item, self._rng(key, _CLIP))
        for index, frame in enumerate(frames):
            size = (frame.shape[0], frame.shape[1])
            drawn = augment.draw(rng, level, size) if drawn is None else drawn  # one for all frames of a video
            made.append(augment.apply(drawn.fitted(size), frame, index=index))
        media, payload = _sent(item, made)
        return View(_seen(item, key, level), media, payload)

    def _rng(self, key: str, stream: int, index: int = 0) -> np.random.Generator:
        return np.random.default_rng([self.seed, digest(key) % 2**64, stream, index])

    def _clip(self, item: Item, rng: np.random.Generator) -> Iterator[U8]:
        """Consecutive frames from a random start, as many as the validators' stream would draw."""
        clip = clip_index(item.path)
        fewest, most = self.frames
        wanted = min(int(rng.integers(fewest, most, endpoint=True)), clip.frames)
        return clip_frames(clip, int(rng.integers(0, clip.frames - wanted, endpoint=True)), wanted)


def _seen(item: Item, key: str, level: int) -> Seen:
    content, generator = item.content or "unknown", item.generator or "unknown"
    return Seen(key, item.modality, item.label, content, generator, item.source, item.group, level)


def _unusable(key: str, error: MediaError | OSError) -> Unusable:
    if isinstance(error, MediaError):
        return Unusable(key, error.reason.value, error.detail)
    return Unusable(key, MediaReason.UNDECODABLE.value, f"the file cannot be read: {error.strerror}")


def _image(item: Item) -> Iterable[U8]:
    return (decode_image(item.path.read_bytes(), limits=LOCAL_LIMITS).pixels,)


def _plain(item: Item, frames: int) -> tuple[Media, bytes]:
    """The pixels as they are, and the bytes of the first picture."""
    if item.modality == "image":
        data = item.path.read_bytes()
        return decode_image(data, limits=LOCAL_LIMITS), data
    media = decode_container(item.path, limits=LOCAL_LIMITS, max_frames=frames)
    return media, encode_jpeg(media.frames[0])


def _sent(item: Item, made: Sequence[U8], quality: int = 75) -> tuple[Media, bytes]:
    """What arrives of augmented frames, and the first one's bytes."""
    if item.modality == "image":
        payload = encode_jpeg(made[0], quality=quality)
        return decode_image(payload), payload
    return decode_jpeg_frames(encode_jpeg_frames(made, quality=quality)), encode_jpeg(made[0], quality=quality)


def _distorted(frame: U8, cell: Cell, rng: np.random.Generator) -> U8:
    """Scale, blur and noise of a cell; ``uint8 [H, W, 3]``."""
    out = frame
    if cell.scale != 1:
        height, width = frame.shape[:2]
        small = (max(1, round(width * cell.scale)), max(1, round(height * cell.scale)))
        there = cv2.INTER_AREA if cell.scale < 1 else cv2.INTER_LINEAR
        back = cv2.INTER_LINEAR if cell.scale < 1 else cv2.INTER_AREA
        out = np.asarray(cv2.resize(cv2.resize(out, small, interpolation=there), (width, height), interpolation=back))
    if cell.blur:
        out = np.asarray(cv2.GaussianBlur(out, (0, 0), cell.blur))
    if cell.noise:
        out = np.clip(np.rint(out + rng.normal(0.0, cell.noise, out.shape)), 0, 255)
    return out.astype(np.uint8)
