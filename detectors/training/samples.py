"""From items on disk to what a network is shown: the validators' pipeline, applied to real and fake alike.

A sample's way: decode, bring to a random working size, (make a fake,) augment as validators do, save as JPEG 75,
decode, (cut out by the gate,) crop natively. Real and fake share every step, so that size, quality and format tell
nothing.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from detectors import augment, media
from detectors.datasets import Item
from detectors.errors import MediaError, MediaReason
from detectors.gates.base import Gate
from detectors.training import fakes
from detectors.training.recipe import Recipe
from detectors.types import U8, Label

__all__ = ["Batch", "Pool", "wire_view"]

_FRAMES_A_VIDEO = 12  # kept per training video: neighbours add little and memory much
_TRACE = 0.5  # grey levels of mean difference below which a pair counts as the same picture
_TRIES = 60  # draws before a gate that will not fire is an error


def wire_view(frame: U8, drawn: augment.Draw) -> U8:
    """What arrives on the wire of one frame: augmented, saved as JPEG at quality 75, decoded; ``uint8 [256,256,3]``."""
    return media.decode_image(media.encode_jpeg(augment.apply(drawn, frame))).pixels


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """One step's samples, first half real, second half fake.

    Attributes:
        pixels: ``uint8 [B, side, side, 3]``.
        labels: ``uint8 [B]``, 1 for fake.
        paired: ``bool [B / 2]``: whether sample B/2 + k was made from sample k, under the same augmentation.
    """

    pixels: U8
    labels: npt.NDArray[np.uint8]
    paired: npt.NDArray[np.bool_]


class Pool:
    """Items in memory, drawn evenly over the sources of a class.

    Args:
        items: of both classes.
        recipe: says contents, gate, crop, makers and seed.
        gate: what `recipe.gate` names, or None.
    """

    def __init__(self, items: Sequence[Item], recipe: Recipe, gate: Gate | None = None) -> None:
        wanted = [i for i in items if not recipe.contents or i.content in recipe.contents]
        self.items = [i for i in wanted if i.source not in recipe.sources_left_out]
        self._recipe = recipe
        self._gate = gate
        self._lock = threading.Lock()  # a gate is called by one thread at a time
        self._frames: dict[str, list[bytes]] = {}
        self._real = _by_source(self.items, fake=False)
        self._fake = _by_source(self.items, fake=True)
        if not self._real:
            raise ValueError("the pool has no real item; reals are needed even to make fakes from")

    def batch(self, step: int) -> Batch:
        """The batch of one step; depends on (seed, step) alone."""
        half = self._recipe.batch // 2
        rng = np.random.default_rng([self._recipe.seed, step])
        seeds = rng.integers(0, 2**63, size=half)
        made = rng.random(half) < (self._recipe.made_share if self._fake else 1.0)
        reals: list[U8] = []
        others: list[U8] = []
        for seed, pair in zip(seeds.tolist(), made.tolist(), strict=True):
            real, fake = self._pair(seed) if pair else (self._single(seed, self._real), self._single(seed, self._fake))
            reals.append(real)
            others.append(fake)
        return Batch(np.stack(reals + others), np.repeat(np.array([0, 1], np.uint8), half), made)

    def view(self, item: Item, seed: int) -> U8 | None:
        """One validation view of an item, whole (256 px); None where the recipe's gate does not fire."""
        rng = np.random.default_rng([seed, 1])
        frame = self._frame(item, rng)
        level = augment.sample_level(rng, self._recipe.mix)
        seen = wire_view(frame, augment.draw(rng, level, (frame.shape[0], frame.shape[1])))
        return self._gated(seen)

    def made_view(self, item: Item, seed: int) -> tuple[U8, str] | None:
        """One validation view of a fake made from a real item, whole, and its kind; None where the gate is shut."""
        rng = np.random.default_rng([seed, 4])
        frame = self._frame(item, rng)
        made = fakes.make(frame, rng, self._recipe.kinds[int(rng.integers(len(self._recipe.kinds)))])
        level = augment.sample_level(rng, self._recipe.mix)
        seen = self._gated(wire_view(made.pixels, augment.draw(rng, level, (frame.shape[0], frame.shape[1]))))
        return None if seen is None else (seen, made.kind)

    def _pair(self, seed: int) -> tuple[U8, U8]:
        """A real and a fake made from it, same augmentation, same crop."""
        for attempt in range(_TRIES):
            rng = np.random.default_rng([seed, attempt, 2])
            frame = self._worked(self._frame(_pick(self._real, rng), rng), rng)
            kind = self._recipe.kinds[int(rng.integers(len(self._recipe.kinds)))]
            made = fakes.make(frame, rng, kind)
            level = augment.sample_level(rng, self._recipe.mix)
            drawn = augment.draw(rng, level, (frame.shape[0], frame.shape[1]))
            real, fake = self._gated(wire_view(frame, drawn)), self._gated(wire_view(made.pixels, drawn))
            if real is None or fake is None:
                continue
            corner = rng.integers(0, 256 - self._recipe.side + 1, size=2)
            real, fake = self._cropped(real, corner), self._cropped(fake, corner)
            if _differ(real, fake):
                return real, fake
        raise MediaGateError(self._recipe.gate)

    def _single(self, seed: int, sources: Mapping[str, list[Item]]) -> U8:
        for attempt in range(_TRIES):
            rng = np.random.default_rng([seed, attempt, 3])
            frame = self._worked(self._frame(_pick(sources, rng), rng), rng)
            level = augment.sample_level(rng, self._recipe.mix)
            seen = self._gated(wire_view(frame, augment.draw(rng, level, (frame.shape[0], frame.shape[1]))))
            if seen is not None:
                return self._cropped(seen, rng.integers(0, 256 - self._recipe.side + 1, size=2))
        raise MediaGateError(self._recipe.gate)

    def _worked(self, frame: U8, rng: np.random.Generator) -> U8:
        """A random working size and an earlier JPEG generation for half of the samples of either class."""
        if rng.random() < 0.6:
            short = float(rng.uniform(160, 420))
            scale = short / min(frame.shape[:2])
            way = cv2.INTER_AREA if scale < 1 else (cv2.INTER_LINEAR, cv2.INTER_CUBIC)[int(rng.integers(2))]
            height, width = (max(32, round(side * scale)) for side in frame.shape[:2])
            frame = np.asarray(cv2.resize(frame, (width, height), interpolation=way), np.uint8)
        if rng.random() < 0.5:
            frame = media.decode_image(media.encode_jpeg(frame, quality=int(rng.integers(60, 97)))).pixels
        return frame

    def _gated(self, seen: U8) -> U8 | None:
        if self._gate is None:
            return seen
        with self._lock:
            found = self._gate(seen)
        return None if found is None else found.pixels

    def _cropped(self, seen: U8, corner: np.ndarray[tuple[int], np.dtype[np.int64]]) -> U8:
        y, x = (int(v) for v in corner)
        return seen[y : y + self._recipe.side, x : x + self._recipe.side]

    def _frame(self, item: Item, rng: np.random.Generator) -> U8:
        """One frame of the item; what was read is kept in memory in its compressed form."""
        key = str(item.path)
        if key not in self._frames:
            if item.modality == "image":
                self._frames[key] = [item.path.read_bytes()]
            else:
                clip = media.decode_container(item.path, max_frames=_FRAMES_A_VIDEO).frames
                self._frames[key] = [media.encode_jpeg(_bounded(f), quality=95) for f in clip]
        stored = self._frames[key]
        return media.decode_image(stored[int(rng.integers(len(stored)))]).pixels


def _differ(real: U8, fake: U8) -> bool:
    """Whether the trace is in view at all: a crop may miss a made region, and then the pair would teach a lie."""
    return float(np.mean(cv2.absdiff(real, fake))) > _TRACE


class MediaGateError(MediaError):
    """The gate of a recipe fired on none of the drawn samples."""

    def __init__(self, gate: str | None) -> None:
        super().__init__(MediaReason.UNSUPPORTED, f"gate {gate!r} fired on none of {_TRIES} samples drawn")


def _bounded(frame: U8, short: int = 400) -> U8:
    scale = short / min(frame.shape[:2])
    if scale >= 1:
        return frame
    size = (max(1, round(frame.shape[1] * scale)), max(1, round(frame.shape[0] * scale)))
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), np.uint8)


def _by_source(items: Sequence[Item], *, fake: bool) -> dict[str, list[Item]]:
    found: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        if (item.label != Label.REAL) == fake:
            found[item.source].append(item)
    return dict(sorted(found.items()))


def _pick(sources: Mapping[str, list[Item]], rng: np.random.Generator) -> Item:
    """Evenly over sources, but a source of n items below 16 only n/16 as often: tiny ones are not drilled."""
    names = list(sources)
    weights = np.minimum([len(sources[n]) for n in names], 16).astype(np.float64)
    members = sources[names[int(rng.choice(len(names), p=weights / weights.sum()))]]
    return members[int(rng.integers(len(members)))]
