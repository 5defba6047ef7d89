"""Clips for networks that judge several frames at once: one augmentation draw for all frames, JPEG for each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from detectors import augment, media
from detectors.datasets import Item
from detectors.training.fakes.clips import make_clip
from detectors.training.history import each
from detectors.training.recipe import Recipe
from detectors.training.samples import Pool, Sample, bounded, wire_view
from detectors.types import U8, Label

__all__ = ["ClipPool"]

_KEPT = 24  # frames of a video, evenly spaced over it
_STRIDE = 3  # at most: frame rates differ between sources, and must not tell them apart


class ClipPool(Pool):
    """Videos as clips; batches are ``uint8 [B, T, side, side, 3]``, views ``[T, 256, 256, 3]``.

    Args:
        items: of both classes; images are left out.
        recipe: see :class:`~detectors.training.samples.Pool`; a gate looks at single images and is refused.
        frames: T, at least 3 (a clip is made fake over time).

    Raises:
        ValueError: as for :class:`~detectors.training.samples.Pool`, or the recipe names a gate.
    """

    def __init__(self, items: Sequence[Item], recipe: Recipe, frames: int) -> None:
        if recipe.gate is not None:
            raise ValueError(f"clips have no gate; recipe {recipe.name} names {recipe.gate!r}")
        self._length = frames
        super().__init__(items, recipe)

    def _usable(self, items: list[Item]) -> list[Item]:
        return [item for item in items if item.modality == "video"]

    def _label_of(self, kind: str) -> Label:
        """What a maker's fakes are, found by making one."""
        probe = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
        return make_clip(probe, np.random.default_rng(0), kind).label

    def _frame(self, item: Item, rng: np.random.Generator) -> U8:
        """T frames in order, 1 to 3 kept ones apart; a shorter video runs back and forth."""
        key = str(item.path)
        if key not in self._frames:
            clip = media.decode_container(item.path, max_frames=_KEPT).frames
            self._frames[key] = [media.encode_jpeg(bounded(f), quality=95) for f in clip]
        stored = self._frames[key]
        stride = 1 + int(rng.integers(max(1, min(_STRIDE, (len(stored) - 1) // (self._length - 1)))))
        start = int(rng.integers(max(1, len(stored) - stride * (self._length - 1))))
        there_and_back = [*range(len(stored)), *range(len(stored) - 2, 0, -1)]
        index = [there_and_back[(start + stride * k) % len(there_and_back)] for k in range(self._length)]
        return np.stack([media.decode_image(stored[k]).pixels for k in index])

    def _made(self, frame: U8, rng: np.random.Generator, kind: str) -> Sample:
        made = make_clip(frame, rng, kind)
        return Sample(made.frames, made.label, "", made.kind)

    def _wired(self, frame: U8, drawn: augment.Draw) -> U8:
        return np.stack([wire_view(f, drawn, index=k) for k, f in enumerate(frame)])

    def _resized(self, view: U8) -> U8:
        return each(view, super()._resized)

    def _spectrum_masked(self, view: U8, seed: int) -> U8:
        mask = super()._spectrum_masked
        return each(view, lambda f: mask(f, seed))
