"""From items on disk to what a network is shown: the validators' pipeline, applied to real and fake alike.

A sample's way: decode, bring to a random working size, (make a fake,) augment as validators do, save as JPEG 75,
decode, (cut out by the gate,) crop natively. Real and fake share every step, so that size, quality and format tell
nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from detectors import augment, media
from detectors.datasets import Item
from detectors.errors import MediaError, MediaReason
from detectors.gates.base import Gate
from detectors.training import fakes
from detectors.training.history import worked
from detectors.training.recipe import Recipe
from detectors.training.sources import Sources, contents_of, kept
from detectors.types import U8, Label

__all__ = ["Batch", "MediaGateError", "Pool", "Sample", "bounded", "wire_view"]

_FRAMES_A_VIDEO = 12  # kept per training video: neighbours add little and memory much
_TRACE = 0.5  # grey levels of mean difference below which a pair counts as the same picture
_TAKE_DONORS = frozenset({"spliced"})
_TRIES = 60  # draws before a gate that will not fire is an error


def wire_view(frame: U8, drawn: augment.Draw, *, index: int = 0) -> U8:
    """What arrives on the wire of one frame: augmented, saved as JPEG at quality 75, decoded; ``uint8 [256,256,3]``."""
    return media.decode_image(media.encode_jpeg(augment.apply(drawn, frame, index=index))).pixels


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """One step's samples (or a part of them), first half real, second half fake.

    Attributes:
        pixels: ``uint8 [B, side, side, 3]``; ``[B, T, side, side, 3]`` of clips.
        labels: ``uint8 [B]``, 1 for fake.
        paired: ``bool [B / 2]``: whether sample B/2 + k was made from sample k, under the same augmentation.
        classes: ``uint8 [B]``, values of :class:`~detectors.types.Label`.
        sources: ``int64 [B]``, index into the pool's `sources`; -1 for a made fake.
        kinds: B names of makers, empty for what was not made.
        groups: of the items; a made fake has its real's.
    """

    pixels: U8
    labels: npt.NDArray[np.uint8]
    paired: npt.NDArray[np.bool_]
    classes: npt.NDArray[np.uint8]
    sources: npt.NDArray[np.int64]
    kinds: tuple[str, ...]
    groups: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def pairs(self, first: int, last: int) -> Batch:
        """Samples k and B/2 + k for k from `first` to `last`, exclusive: a batch again."""
        half = len(self) // 2
        index = np.concatenate([np.arange(first, last), np.arange(half + first, half + last)])
        return Batch(
            self.pixels[index],
            self.labels[index],
            self.paired[first:last],
            self.classes[index],
            self.sources[index],
            tuple(self.kinds[i] for i in index),
            tuple(self.groups[i] for i in index),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One of a batch: its pixels, class, source (empty where made), maker (empty where not), group and content."""

    pixels: U8
    label: Label
    source: str = ""
    kind: str = ""
    group: str = ""
    content: str = ""


class Pool:
    """Items in memory, drawn evenly over the sources of a class.

    Args:
        items: of both classes.
        recipe: says contents, gate, crop, makers and seed.
        gate: what `recipe.gate` names, or None.

    Attributes:
        items: what the recipe leaves of them.
        sources: their sources' names, sorted.

    Raises:
        ValueError: no real item, or a `semi_share` that neither the items nor the makers can give.
    """

    def __init__(self, items: Sequence[Item], recipe: Recipe, gate: Gate | None = None) -> None:
        self.items = self._usable(kept(items, recipe.contents, recipe.sources_left_out))
        self.sources = tuple(sorted({i.source for i in self.items}))
        self.recipe = recipe
        self.gate = gate
        self._lock = threading.Lock()  # a gate is called by one thread at a time
        self._frames: dict[str, list[bytes]] = {}
        factors = recipe.source_weights
        self._real = Sources((i for i in self.items if not i.fake), factors)
        self._fake: dict[Label | None, Sources] = {None: Sources((i for i in self.items if i.fake), factors)}
        self._kinds: dict[Label | None, tuple[str, ...]] = {None: recipe.kinds}
        reals = [i for i in self.items if not i.fake]
        self._like = {name: Sources((i for i in reals if i.content == name), factors) for name in contents_of(reals)}
        if not self._real:
            raise ValueError("the pool has no real item; reals are needed even to make fakes from")
        if recipe.semi_share > 0:
            of = {kind: self._label_of(kind) for kind in recipe.kinds}
            for label in (Label.SYNTHETIC, Label.SEMISYNTHETIC):
                self._fake[label] = Sources((i for i in self.items if i.label is label), factors)
                self._kinds[label] = tuple(kind for kind in recipe.kinds if of[kind] is label)
                if not self._fake[label] and not self._kinds[label]:
                    raise ValueError(f"semi_share {recipe.semi_share}: no item and no maker gives {label.name.lower()}")

    def __getstate__(self) -> dict[str, Any]:
        """Without the lock and what was read, so that a pool travels to another process."""
        return self.__dict__ | {"_lock": None, "_frames": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state | {"_lock": threading.Lock()}

    def batch(self, step: int, part: slice = slice(None)) -> Batch:
        """The batch of one step; depends on (seed, step) alone.

        Args:
            step: from 0.
            part: which of the batch's pairs of samples to prepare, the others being another process's.
        """
        half = self.recipe.batch // 2
        rng = np.random.default_rng([self.recipe.seed, step])
        seeds = rng.integers(0, 2**63, size=half)
        made = rng.random(half) < (self.recipe.made_share if self._fake[None] else 1.0)
        semi = rng.random(half) < self.recipe.semi_share if self.recipe.semi_share > 0 else None
        reals: list[Sample] = []
        others: list[Sample] = []
        paired: list[bool] = []
        for k in range(half)[part]:
            want = None if semi is None else (Label.SYNTHETIC, Label.SEMISYNTHETIC)[int(semi[k])]
            pair = bool(made[k])
            if want is not None:  # what only one of the two ways gives comes that way
                pair = bool(self._kinds[want]) and (pair or self._fake[want].scarce)
            seed = int(seeds[k])
            real, fake = self._pair(seed, want) if pair else self._strangers(seed, want)
            reals.append(real)
            others.append(fake)
            paired.append(pair)
        return self._batch(reals + others, paired)

    def _batch(self, samples: Sequence[Sample], paired: Sequence[bool]) -> Batch:
        index = {name: k for k, name in enumerate(self.sources)}
        classes = np.array([s.label for s in samples], np.uint8)
        return Batch(
            np.stack([s.pixels for s in samples]),
            (classes > 0).astype(np.uint8),
            np.array(paired, bool),
            classes,
            np.array([index.get(s.source, -1) for s in samples], np.int64),
            tuple(s.kind for s in samples),
            tuple(s.group for s in samples),
        )

    def view(self, item: Item, seed: int) -> U8 | None:
        """One validation view of an item, whole (256 px); None where the recipe's gate does not fire."""
        rng = np.random.default_rng([seed, 1])
        frame = self._frame(item, rng)
        return self._gated(self._wired(frame, self._drawn(frame, rng)))

    def made_view(self, item: Item, seed: int) -> tuple[U8, str] | None:
        """One validation view of a fake made from a real item, whole, and its kind; None where the gate is shut."""
        rng = np.random.default_rng([seed, 4])
        frame = self._frame(item, rng)
        made = self._made(frame, rng, self.recipe.kinds[int(rng.integers(len(self.recipe.kinds)))])
        seen = self._gated(self._wired(made.pixels, self._drawn(frame, rng)))
        return None if seen is None else (seen, made.kind)

    def _pair(self, seed: int, want: Label | None) -> tuple[Sample, Sample]:
        """A real and a fake made from it, same augmentation, same crop."""
        kinds = self._kinds[want]
        for attempt in range(_TRIES):
            rng = np.random.default_rng([seed, attempt, 2])
            item = self._real.pick(rng)
            frame = self._worked(self._frame(item, rng), rng)
            kind = kinds[int(rng.integers(len(kinds)))]
            made = self._made(frame, rng, kind)
            drawn = self._drawn(frame, rng)
            real, fake = self._gated(self._wired(frame, drawn)), self._gated(self._wired(made.pixels, drawn))
            if real is None or fake is None:
                continue
            shown = self._shown([real, fake], rng)
            if _differ(*shown):
                real, fake = self._masked(shown, rng)
                return Sample(real, item.label, item.source, "", item.group), replace(
                    made, pixels=fake, group=item.group
                )
        raise MediaGateError(self.recipe.gate)

    def _strangers(self, seed: int, want: Label | None) -> tuple[Sample, Sample]:
        """A real and a fake that share nothing, or only their content, as often as the recipe says."""
        fake = self._single(seed, self._fake[want])
        if self.recipe.same_content > 0:
            rng = np.random.default_rng([seed, 5])
            like = self._like.get(fake.content)
            if like and rng.random() < self.recipe.same_content:
                return self._single(seed, like), fake
        return self._single(seed, self._real), fake

    def _single(self, seed: int, sources: Sources) -> Sample:
        for attempt in range(_TRIES):
            rng = np.random.default_rng([seed, attempt, 3])
            item = sources.pick(rng)
            frame = self._worked(self._frame(item, rng), rng)
            seen = self._gated(self._wired(frame, self._drawn(frame, rng)))
            if seen is not None:
                (shown,) = self._masked(self._shown([seen], rng), rng)
                return Sample(shown, item.label, item.source, "", item.group, item.content)
        raise MediaGateError(self.recipe.gate)

    def _shown(self, seen: Sequence[U8], rng: np.random.Generator) -> list[U8]:
        """What the network is shown of wire views: the same crop of each, or the whole of each."""
        side = self.recipe.side
        y, x = (int(v) for v in rng.integers(0, 256 - side + 1, size=2))
        if self.recipe.view == "whole" or (self.recipe.view == "both" and rng.random() < 0.5):
            return [self._resized(view) for view in seen]
        return [view[..., y : y + side, x : x + side, :] for view in seen]

    def _masked(self, shown: Sequence[U8], rng: np.random.Generator) -> list[U8]:
        """Loses the same bands of each spectrum, as often as the recipe says."""
        if self.recipe.frequency_masking == 0 or rng.random() >= self.recipe.frequency_masking:
            return list(shown)
        seed = int(rng.integers(2**63))
        return [self._spectrum_masked(view, seed) for view in shown]

    def _spectrum_masked(self, view: U8, seed: int) -> U8:
        from detectors.training import frequency_masking  # noqa: PLC0415 - few recipes need it

        return frequency_masking.mask(np.ascontiguousarray(view), np.random.default_rng(seed))

    def _usable(self, items: list[Item]) -> list[Item]:
        """All of them: a frame of a video is an image."""
        return items

    def _label_of(self, kind: str) -> Label:
        return fakes.LABELS[kind]

    def _made(self, frame: U8, rng: np.random.Generator, kind: str) -> Sample:
        """A fake of the frame, before it is sent."""
        donor = self._frame(self._real.pick(rng), rng) if kind in _TAKE_DONORS else None
        made = fakes.make(frame, rng, kind, donor=donor)
        return Sample(made.pixels, made.label, "", made.kind)

    def _drawn(self, frame: U8, rng: np.random.Generator) -> augment.Draw:
        """The validators' augmentation of one challenge."""
        level = augment.sample_level(rng, self.recipe.mix)
        return augment.draw(rng, level, (frame.shape[-3], frame.shape[-2]))

    def _wired(self, frame: U8, drawn: augment.Draw) -> U8:
        return wire_view(frame, drawn)

    def _resized(self, view: U8) -> U8:
        """The whole view at the recipe's side, by the filter that cards name by default."""
        side = self.recipe.side
        if view.shape[:2] == (side, side):
            return view
        return np.asarray(Image.fromarray(view).resize((side, side), Image.Resampling.BILINEAR))

    def _worked(self, frame: U8, rng: np.random.Generator) -> U8:
        return worked(frame, rng, self.recipe.recolour)

    def _gated(self, seen: U8) -> U8 | None:
        if self.gate is None:
            return seen
        with self._lock:
            found = self.gate(seen)
        return None if found is None else found.pixels

    def _frame(self, item: Item, rng: np.random.Generator) -> U8:
        """One frame of the item; what was read is kept in memory in its compressed form."""
        key = str(item.path)
        if key not in self._frames:
            if item.modality == "image":
                self._frames[key] = [item.path.read_bytes()]
            else:
                clip = media.decode_container(item.path, max_frames=_FRAMES_A_VIDEO).frames
                self._frames[key] = [media.encode_jpeg(bounded(f), quality=95) for f in clip]
        stored = self._frames[key]
        return media.decode_image(stored[int(rng.integers(len(stored)))]).pixels


def _differ(real: U8, fake: U8) -> bool:
    """Whether the trace is in view at all: a crop may miss a made region, and then the pair would teach a lie."""
    return float(np.mean(np.abs(real.astype(np.int16) - fake))) > _TRACE


class MediaGateError(MediaError):
    """The gate of a recipe fired on none of the drawn samples."""

    def __init__(self, gate: str | None) -> None:
        super().__init__(MediaReason.UNSUPPORTED, f"gate {gate!r} fired on none of {_TRIES} samples drawn")


def bounded(frame: U8, short: int = 400) -> U8:
    """The frame with a short side of at most `short` pixels, as it is kept in memory."""
    scale = short / min(frame.shape[:2])
    if scale >= 1:
        return frame
    size = (max(1, round(frame.shape[1] * scale)), max(1, round(frame.shape[0] * scale)))
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), np.uint8)
