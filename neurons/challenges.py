"""The validator's challenges: which media, which augmentation, which bytes go out.

A :class:`Stream` is a pure function of (media, options, seed): challenge number `index` follows from the seed and the
index alone, so the same seed gives the same bytes whatever was drawn before, in whatever order, in any thread.

Every choice and every conversion is the same for real and fake: the label decides which folder is drawn from and
nothing else. Where one modality has only real or only fake media it is left out, since there the modality alone would
tell the label.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np

from detectors.augment import Draw, Mix, apply, draw, sample_level
from detectors.clips import ClipIndex, clip_frames, clip_index
from detectors.datasets import Dataset, Item
from detectors.errors import ConfigError, MediaError, MediaReason
from detectors.media import LOCAL_LIMITS, decode_image, encode_jpeg, encode_jpeg_frames
from detectors.types import U8, Label, Modality

__all__ = ["FRAMES", "Issued", "MediaSet", "Stream"]

FRAMES: Mapping[Mix, tuple[int, int]] = MappingProxyType({"2.0": (8, 24), "2.2": (8, 129)})
"""Fewest and most frames of one clip, by the validators' version."""

_STITCH: Mapping[Mix, float] = MappingProxyType({"2.0": 0.0, "2.2": 0.2})  # share of videos made of two clips
LABEL_PRIORS: Mapping[Mix, Mapping[Label, float]] = MappingProxyType(
    {
        "2.0": {Label.REAL: 0.5, Label.SYNTHETIC: 0.5},  # "fake" is one pool, see _pools
        "2.2": {Label.REAL: 0.5, Label.SYNTHETIC: 0.4, Label.SEMISYNTHETIC: 0.1},
    }
)
_ATTEMPTS = 50  # files tried for one challenge before the media set is called unusable
_MODALITIES: tuple[Modality, ...] = ("image", "video")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class MediaSet:
    """What challenges are drawn from.

    Attributes:
        items: labelled files.
        description: which set this is and what its figures are worth, for the report.
    """

    items: tuple[Item, ...]
    description: str

    @classmethod
    def of(cls, dataset: Dataset) -> MediaSet:
        """The set as its reader describes it."""
        return cls(dataset.items, dataset.description)


@dataclass(frozen=True, slots=True, eq=False)
class Issued:
    """One challenge, ready to be sent.

    Attributes:
        index: its number in the stream, from 0.
        modality: image or video.
        label: the truth, all three classes told apart whatever the profile pays for.
        item: the file it was made from; of a stitched video the first.
        level: augmentation level, 0 to 3.
        draw: all random parameters of the augmentation, for the first file's size.
        payload: a JPEG, or JPEG frames end to end (quality 75, 4:2:0), 256 x 256.
        frames: how many JPEGs that are; 1 for an image.
        preview: the first frame as it was augmented, before JPEG; RGB, ``uint8 [256, 256, 3]``.
        stitched: the second file of a video made of two clips, else None.
    """

    index: int
    modality: Modality
    label: Label
    item: Item
    level: int
    draw: Draw
    payload: bytes
    frames: int
    preview: U8
    stitched: Item | None = None


Pool = tuple[tuple[Item, ...], ...]  # items of one kind, by source


class Stream:
    """A seeded sequence of challenges; iterate over it, or ask for one by its number.

    Args:
        media: what to draw from.
        mix: version of the validators whose probabilities hold, ``2.0`` or ``2.2``.
        seed: not negative.
        count: how many challenges, not negative.
        video_share: probability of a video in [0, 1], while both modalities can be drawn.
        frames: fewest and most frames of a clip; default :data:`FRAMES`. Shorter videos are left out and counted,
            those in between are sent whole.
        balanced: every two challenges in a row are one real and one fake, in random order. Figures of short runs
            scatter less; real validators toss a coin each time, which is the default.

    Raises:
        ConfigError: an argument is out of range, or neither modality has both real and fake media.
    """

    def __init__(
        self,
        media: MediaSet,
        *,
        mix: Mix = "2.0",
        seed: int = 0,
        count: int = 60,
        video_share: float = 0.5,
        frames: tuple[int, int] | None = None,
        balanced: bool = False,
    ) -> None:
        fewest, most = FRAMES[mix] if frames is None else frames
        if seed < 0 or count < 0:
            raise ConfigError(f"seed and count must not be negative, not {seed} and {count}")
        if not 0.0 <= video_share <= 1.0:
            raise ConfigError(f"video_share must be in [0, 1], not {video_share}")
        if not 1 <= fewest <= most:
            raise ConfigError(f"frames must be (fewest, most) with 1 <= fewest <= most, not {(fewest, most)}")
        self.media = media
        self.mix: Mix = mix
        self.seed = seed
        self.count = count
        self.frames = (fewest, most)
        self.balanced = balanced
        self._pools = {modality: _pools(media.items, modality, mix) for modality in _MODALITIES}
        self.modalities = _usable(self._pools, video_share)
        self._video_share = video_share if len(self.modalities) == 2 else float(self.modalities[0] == "video")
        self._clips: dict[Path, ClipIndex] = {}
        self._skipped: dict[str, str] = {}
        self._lock = threading.Lock()

    @property
    def skipped(self) -> Mapping[str, str]:
        """Files that could not be used so far, by path, with the reason. Each was logged as a warning once."""
        with self._lock:
            return dict(self._skipped)

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Issued]:
        return (self.challenge(index) for index in range(self.count))

    def challenge(self, index: int) -> Issued:
        """Makes challenge number `index`; safe from any thread.

        A file that cannot be decoded is left out with a warning and counted in :attr:`skipped`; another one of the
        same label and modality is drawn, from the same generator, so the result stays a function of seed and index.

        Raises:
            IndexError: there is no such challenge.
            ConfigError: too many files in a row could not be used.
        """
        if not 0 <= index < self.count:
            raise IndexError(f"the stream has {self.count} challenges, there is no number {index}")
        rng = np.random.default_rng([self.seed, index])
        modality: Modality = "video" if rng.random() < self._video_share else "image"
        pool = self._pool(rng, modality, index)
        level = sample_level(rng, self.mix)
        last = ""
        for _ in range(_ATTEMPTS):
            item = _pick(rng, pool)
            try:
                if modality == "image":
                    return self._image(rng, index, item, level)
                return self._video(rng, index, item, level, pool)
            except _UnusableError as error:
                self._skip(error)
                last = str(error)
        raise ConfigError(f"challenge {index}: {_ATTEMPTS} {modality}s in a row could not be used; the last was {last}")

    def _pool(self, rng: np.random.Generator, modality: Modality, index: int) -> Pool:
        """The files of the drawn label."""
        pools = self._pools[modality]
        fake = bool(rng.random() >= 0.5)
        if self.balanced:
            first_is_fake = bool(np.random.default_rng([self.seed, index // 2, 1]).random() >= 0.5)
            fake = first_is_fake if index % 2 == 0 else not first_is_fake
        if not fake:
            return pools[Label.REAL]
        kinds = [label for label in pools if label is not Label.REAL]
        shares = np.array([LABEL_PRIORS[self.mix][label] for label in kinds])
        return pools[kinds[int(rng.choice(len(kinds), p=shares / shares.sum()))]]

    def _image(self, rng: np.random.Generator, index: int, item: Item, level: int) -> Issued:
        try:
            pixels = decode_image(item.path.read_bytes(), limits=LOCAL_LIMITS).pixels
        except (MediaError, OSError) as error:
            raise _UnusableError(item, str(error)) from error
        drawn = draw(rng, level, (pixels.shape[0], pixels.shape[1]))
        made = apply(drawn, pixels)
        return Issued(index, "image", item.label, item, level, drawn, encode_jpeg(made), 1, made)

    def _video(self, rng: np.random.Generator, index: int, item: Item, level: int, pool: Pool) -> Issued:
        fewest, most = self.frames
        second = None
        if most > fewest and rng.random() < _STITCH[self.mix]:
            made, drawn = self._clip(rng, item, int(rng.integers(fewest, most)), level)
            second = _pick(rng, pool)
            wanted = int(rng.integers(fewest, max(most - len(made), fewest + 1), endpoint=True))
            more, _ = self._clip(rng, second, wanted, level, drawn=drawn, at=len(made))
            made += more
        else:
            made, drawn = self._clip(rng, item, int(rng.integers(fewest, most, endpoint=True)), level)
        payload = encode_jpeg_frames(made)
        return Issued(index, "video", item.label, item, level, drawn, payload, len(made), made[0], second)

    def _clip(
        self, rng: np.random.Generator, item: Item, wanted: int, level: int, *, drawn: Draw | None = None, at: int = 0
    ) -> tuple[list[U8], Draw]:
        """Consecutive augmented frames from a random start, all with one draw, which is made where none is given."""
        made: list[U8] = []
        try:
            clip = self._index(item.path)
            if clip.frames < self.frames[0]:
                raise MediaError(MediaReason.FRAMES, f"{clip.frames} frames; at least {self.frames[0]} are sent")
            wanted = min(wanted, clip.frames)
            start = int(rng.integers(0, clip.frames - wanted, endpoint=True))
            for frame in clip_frames(clip, start, wanted):
                size = frame.shape[0], frame.shape[1]
                drawn = draw(rng, level, size) if drawn is None else drawn
                made.append(apply(drawn.fitted(size), frame, index=at + len(made)))
        except MediaError as error:
            raise _UnusableError(item, str(error)) from error
        if drawn is None or len(made) < min(self.frames[0], wanted):
            raise _UnusableError(item, f"only {len(made)} frames from number {start} on can be decoded")
        return made, drawn

    def _index(self, path: Path) -> ClipIndex:
        with self._lock:
            known = self._clips.get(path)
        if known is None:
            known = clip_index(path)
            with self._lock:
                self._clips[path] = known
        return known

    def _skip(self, unusable: _UnusableError) -> None:
        path = str(unusable.item.path)
        with self._lock:
            new = path not in self._skipped
            self._skipped[path] = unusable.reason
        if new:
            _log.warning("media file %s is left out: %s", unusable.item.path, unusable.reason)


class _UnusableError(Exception):
    """A file that no challenge can be made from."""

    def __init__(self, item: Item, reason: str) -> None:
        super().__init__(f"{item.path.name}: {reason}")
        self.item = item
        self.reason = reason


def _pools(items: Sequence[Item], modality: Modality, mix: Mix) -> dict[Label, Pool]:
    """Items of one modality by label and source, in an order that does not depend on the list's.

    Under 2.0 all fakes are one pool, kept under SYNTHETIC.
    """
    found: dict[Label, dict[str, list[Item]]] = {}
    for item in sorted((i for i in items if i.modality == modality), key=lambda i: str(i.path)):
        label = Label.SYNTHETIC if mix == "2.0" and item.fake else item.label
        found.setdefault(label, {}).setdefault(item.source, []).append(item)
    return {label: tuple(tuple(found[label][s]) for s in sorted(found[label])) for label in sorted(found)}


def _usable(pools: Mapping[Modality, Mapping[Label, Pool]], video_share: float) -> tuple[Modality, ...]:
    """The modalities that have both real and fake media and are wanted; one that is not there hands its share over."""
    both = tuple(m for m in _MODALITIES if Label.REAL in pools[m] and len(pools[m]) > 1)
    wanted = tuple(m for m in both if (video_share if m == "video" else 1 - video_share) > 0)
    if not both:
        held = ", ".join(f"{label.name.lower()} {m}s" for m in _MODALITIES for label in pools[m]) or "nothing"
        raise ConfigError(f"challenges need real and fake media of one modality; the media set holds {held}")
    return wanted or both


def _pick(rng: np.random.Generator, pool: Pool) -> Item:
    """A source, then one of its files, each uniformly: large collections do not drown small ones."""
    source = pool[int(rng.integers(len(pool)))]
    return source[int(rng.integers(len(source)))]
