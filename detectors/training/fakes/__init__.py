"""Fakes made from reals, each with the traces of one way of faking.

They serve two ends: training pairs, in which the only difference between the real and the fake is the trace (the
"pairs before pools" lesson of the field: DDA; SBI, Shiohara & Yamasaki, CVPR 2022), and the demo's
challenges, which must work without a network. They imitate the *mechanisms* of generators, not their pictures.

Every maker is a pure function of (image, generator): same seed, same fake, in any thread. Videos are in
:mod:`detectors.training.fakes.clips`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from detectors.training.fakes.base import SMALLEST, Given, Made, Maker
from detectors.training.fakes.decoders import gan_upsampled, resampled_noise, reshaped
from detectors.training.fakes.faces import assumed_points, self_blended, wavelet_blended
from detectors.training.fakes.frames import denoised, grid, latent, upsampled
from detectors.training.fakes.regions import inpainted, pasted, spliced
from detectors.training.fakes.roundtrips import autoencoded, autofilled
from detectors.types import U8, Label

__all__ = ["KINDS", "LABELS", "NEED_WEIGHTS", "Made", "assumed_points", "make"]

_WHOLE: Mapping[str, Maker] = {
    "upsampled": upsampled,
    "latent": latent,
    "grid": grid,
    "denoised": denoised,
    "gan_upsampled": gan_upsampled,
    "resampled_noise": resampled_noise,
    "reshaped": reshaped,
    "autoencoded": autoencoded,
}

_PARTS: Mapping[str, Maker] = {
    "inpainted": inpainted,
    "pasted": pasted,
    "spliced": spliced,
    "self_blended": self_blended,
    "wavelet_blended": wavelet_blended,
    "autofilled": autofilled,
}

#: Every maker by name, in a fixed order.
KINDS: Mapping[str, Maker] = MappingProxyType({**_WHOLE, **_PARTS})

#: What each kind's fakes are.
LABELS: Mapping[str, Label] = MappingProxyType(
    {**dict.fromkeys(_WHOLE, Label.SYNTHETIC), **dict.fromkeys(_PARTS, Label.SEMISYNTHETIC)}
)

#: Kinds that raise a ConfigError unless the store has the auto-encoder.
NEED_WEIGHTS = frozenset({"autoencoded", "autofilled"})


def make(
    image: U8,
    rng: np.random.Generator,
    kind: str | None = None,
    *,
    points: npt.NDArray[np.floating] | None = None,
    donor: U8 | None = None,
) -> Made:
    """Makes one fake from one real.

    Args:
        image: ``uint8 [H, W, 3]`` RGB, both sides at least 32.
        rng: source of every choice.
        kind: key of :data:`KINDS`; None draws one uniformly.
        points: five points of a face in the picture, ``[5, 2]`` (x, y) in pixels; the face makers keep to it. For a
            picture of the FFHQ layout :func:`assumed_points` gives them.
        donor: a second picture, both sides at least 32, that ``spliced`` takes a region from.

    Raises:
        KeyError: unknown kind.
        ValueError: an image is smaller than 32 px, or the points are not five.
        ConfigError: the kind needs weights that the store does not have, see :data:`NEED_WEIGHTS`.
    """
    for picture in (image, donor):
        if picture is not None and min(picture.shape[:2]) < SMALLEST:
            height, width = picture.shape[:2]
            raise ValueError(f"a fake needs at least {SMALLEST} x {SMALLEST} pixels, got {width} x {height}")
    if points is not None and np.shape(points) != (5, 2):
        raise ValueError(f"a face has points of shape (5, 2), not {np.shape(points)}")
    chosen = kind if kind is not None else list(KINDS)[int(rng.integers(len(KINDS)))]
    return KINDS[chosen](image, rng, Given(points, donor))
