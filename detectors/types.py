"""The nouns of the house: :class:`Media` goes in, :class:`Prediction` comes out, a :class:`Detector` is in between."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from detectors.errors import MediaError, MediaReason, PredictionError

if TYPE_CHECKING:
    from detectors.card import Card

__all__ = ["U8", "Detector", "Label", "Media", "Modality", "Prediction"]

U8 = npt.NDArray[np.uint8]
Modality = Literal["image", "video"]

_SUM_TOLERANCE = 1e-6  # what the strictest wire (Epistula v2, SN34 2.2) allows


class Label(IntEnum):
    """Class order of every probability vector in the house and on the wires (SN34 2.2)."""

    REAL = 0
    SYNTHETIC = 1
    SEMISYNTHETIC = 2


@dataclass(frozen=True, slots=True, eq=False)
class Media:
    """Decoded pixels.

    Attributes:
        pixels: RGB, ``uint8``; ``[H, W, 3]`` for an image, ``[T, H, W, 3]`` (T >= 1) for a video.
        rate: frames per second for a video where the container tells, else None.
        origin: the format the bytes had, e.g. ``"JPEG"``, ``"PNG"``, ``"jpeg-frames"``, ``"mov,mp4"``.

    Raises:
        MediaError: the array has another shape or dtype, or an empty axis.
    """

    pixels: U8
    rate: float | None = None
    origin: str = "array"

    def __post_init__(self) -> None:
        p = self.pixels
        if p.dtype != np.uint8 or p.ndim not in (3, 4) or p.shape[-1] != 3:
            raise MediaError(MediaReason.UNSUPPORTED, "pixels must be uint8 [H,W,3] or [T,H,W,3]")
        if 0 in p.shape:
            raise MediaError(MediaReason.EMPTY, "an axis of the pixels is empty")

    @property
    def modality(self) -> Modality:
        return "image" if self.pixels.ndim == 3 else "video"

    @property
    def frames(self) -> U8:
        """The pixels as ``[T, H, W, 3]``; an image is one frame. A view, never a copy."""
        return self.pixels[None] if self.pixels.ndim == 3 else self.pixels

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return int(self.pixels.shape[-3]), int(self.pixels.shape[-2])


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a detector says of one :class:`Media`.

    Attributes:
        probabilities: (real, synthetic, semi-synthetic), each finite and in [0, 1], sum 1 within 1e-6.
        route: names of what was run, in order, e.g. ``("general", "general-whole", "merge:learned")``.
        experts: each expert's own P(fake) in [0, 1] after its own calibration, by expert name.
        milliseconds: wall time spent on this answer.
        weights: version of each set of weights that took part, by expert name, as ``NAME@VERSION``.
        partial: True when an expert was left out because it would have been late (design decision 5).
        detector: ``NAME@VERSION`` of the detector as a whole; of CAMO the version says which weights and configuration.
        stages: milliseconds by stage of the batch that this was answered in: ``gate:NAME``, experts, ``merge``.
        heat_map: optional ``float32 [h, w]`` in [0, 1], larger where the image speaks for fake.

    Raises:
        PredictionError: the probabilities are not a distribution.
    """

    probabilities: tuple[float, float, float]
    route: tuple[str, ...] = ()
    experts: Mapping[str, float] = field(default_factory=dict)
    milliseconds: float = 0.0
    weights: Mapping[str, str] = field(default_factory=dict)
    partial: bool = False
    detector: str = ""
    stages: Mapping[str, float] = field(default_factory=dict, compare=False)
    heat_map: npt.NDArray[np.float32] | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        p = self.probabilities
        if not all(math.isfinite(v) and 0.0 <= v <= 1.0 for v in p):
            raise PredictionError(f"not three probabilities in [0, 1]: {p!r}")
        if abs(math.fsum(p) - 1.0) > _SUM_TOLERANCE:
            raise PredictionError(f"probabilities sum to {math.fsum(p):.9f}, not 1")

    @property
    def p_fake(self) -> float:
        """1 − P(real), the float that the two-class wires carry."""
        return 1.0 - self.probabilities[0]

    @property
    def label(self) -> Label:
        """The class of the answer: real while P(fake) <= 0.5 (``numpy.round`` rule), else the likelier fake class."""
        if self.p_fake <= 0.5:
            return Label.REAL
        return Label.SYNTHETIC if self.probabilities[1] >= self.probabilities[2] else Label.SEMISYNTHETIC

    @staticmethod
    def split(p_fake: float, semisynthetic_share: float = 0.0) -> tuple[float, float, float]:
        """Turns P(fake) and the share of it that is semi-synthetic into a distribution.

        Args:
            p_fake: in [0, 1].
            semisynthetic_share: in [0, 1]; 0 puts all of P(fake) on "synthetic".

        Raises:
            PredictionError: an argument is not finite or outside [0, 1].
        """
        for v in (p_fake, semisynthetic_share):
            if not (math.isfinite(v) and 0.0 <= v <= 1.0):
                raise PredictionError(f"not a probability: {v!r}")
        semi = p_fake * semisynthetic_share
        return 1.0 - p_fake, p_fake - semi, semi


@runtime_checkable
class Detector(Protocol):
    """Anything that judges media. CAMO, a single expert and a test's fake are all Detectors."""

    @property
    def card(self) -> Card: ...

    def predict(self, batch: Sequence[Media], *, deadline: float | None = None) -> list[Prediction]:
        """Judges a batch.

        Args:
            batch: any sizes, images and videos mixed; may be empty.
            deadline: ``time.monotonic()`` seconds by which the answer is wanted; what would be late is left out of
                the merge. None means no limit.

        Returns:
            One :class:`Prediction` per :class:`Media`, in order; the same for a batch as one by one.
        """
        ...
