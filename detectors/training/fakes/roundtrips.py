"""Fakes by round trips through the auto-encoder of :mod:`detectors.training.autoencoder`, whole or in a region."""

from __future__ import annotations

import threading
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from detectors import paths
from detectors.errors import ConfigError, WeightsError
from detectors.training.fakes.base import F32, Given, Made, blended, blob, gaussian, resized, whole
from detectors.types import U8

if TYPE_CHECKING:
    from detectors.training.autoencoder import AutoEncoder

__all__ = ["KEY", "autoencoded", "autofilled"]

#: The weights both makers use. Pinned: another version would make other fakes of the same seed.
KEY = "autoencoder@1.0.0"

_LARGEST = 288  # pixels of a side's geometric mean that goes through the network; more costs time only

_loading = threading.Lock()


def autoencoded(image: U8, rng: np.random.Generator, given: Given) -> Made:
    """The whole picture through the auto-encoder at a random scale.

    Its latent is left alone, disturbed, rescaled, or quantised with a code book drawn from the picture's own latents
    (the VQ first stage of Esser et al., CVPR 2021), and part of the lost detail may be given back, as stronger
    auto-encoders would keep it.

    Raises:
        ConfigError: the store has no such weights.
    """
    scale = float(rng.uniform(0.7, 1.0)) if rng.random() < 0.5 else 1.0
    again = _round_trip(image, rng, scale)
    if rng.random() < 0.5:
        again += float(rng.uniform(0.1, 0.6)) * (image.astype(np.float32) - again)
    return whole(again, "autoencoded")


def autofilled(image: U8, rng: np.random.Generator, given: Given) -> Made:
    """A region of the picture that the auto-encoder paints: from what stood there, or from a guess off the border.

    Latent in-painters (Rombach et al., CVPR 2022, sec. 4.5) paint the hole in the latent and paste the decoded region
    into the untouched picture; the seam and the decoder's texture are what they leave.

    Raises:
        ConfigError: the store has no such weights.
    """
    mask = blob(rng, (image.shape[0], image.shape[1]), (0.1, 0.4))
    source = _guessed(image, mask) if rng.random() < 0.5 else image
    return blended(image, _round_trip(source, rng, 1.0), mask, "autofilled")


def _guessed(image: U8, mask: F32) -> U8:
    """The hole filled smoothly from its border, at a quarter of the size."""
    height, width = image.shape[:2]
    size = (max(8, width // 4), max(8, height // 4))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    hole = (cv2.resize(mask, size) > 0.1).astype(np.uint8)
    filled = cv2.resize(cv2.inpaint(small, hole, 3, cv2.INPAINT_TELEA), (width, height), interpolation=cv2.INTER_CUBIC)
    alpha = mask[..., None]
    return np.asarray(np.rint(image * (1.0 - alpha) + filled * alpha), np.uint8)


def _round_trip(image: U8, rng: np.random.Generator, scale: float) -> F32:
    import torch  # noqa: PLC0415 - the other makers do without

    from detectors.training.autoencoder import pixels_of, tensor_of  # noqa: PLC0415 - imports torch

    network = _network(paths.weights())
    height, width = image.shape[:2]
    bounded = min(scale, _LARGEST / float(np.sqrt(height * width)))
    size = (max(16, round(height * bounded)), max(16, round(width * bounded)))
    small = image
    if size != (height, width):
        small = np.asarray(cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_AREA), np.uint8)
    with torch.inference_mode():
        code = network.encode(tensor_of(small))[0].numpy()
        decoded = network.decode(torch.from_numpy(_altered(code, rng)))
        again = pixels_of(decoded, size[0], size[1])
    return again.astype(np.float32) if again.shape == image.shape else resized(again, height, width, cv2.INTER_CUBIC)


def _altered(code: F32, rng: np.random.Generator) -> F32:
    """What a generator's latents suffer, in the unit of their spread; ``float32 [1, 4, h, w]``."""
    spread = code.std(axis=(0, 2, 3), keepdims=True)
    way = int(rng.integers(4))
    if way == 1:
        code = code + gaussian(rng, code.shape, float(rng.uniform(0.02, 0.2))) * spread
    if way == 2:
        code = code * np.float32(rng.uniform(0.9, 1.1))
    if way == 3:
        vectors = np.ascontiguousarray(code[0].reshape(code.shape[1], -1).T)
        book = vectors[rng.permutation(len(vectors))[: int(rng.integers(96, 384))]]
        distance = (book**2).sum(axis=1)[None] - 2.0 * vectors @ book.T  # the vector's own square changes no order
        code = np.ascontiguousarray(book[distance.argmin(axis=1)].T).reshape(code.shape)
    return code


def _network(root: Path) -> AutoEncoder:
    with _loading:  # several threads asking at once would read the file several times
        return _loaded(root)


@lru_cache(maxsize=2)
def _loaded(root: Path) -> AutoEncoder:
    from detectors.store import Store  # noqa: PLC0415 - imports torch
    from detectors.training.autoencoder import AutoEncoder  # noqa: PLC0415

    try:
        network = Store(root).load(KEY).network
    except WeightsError as error:
        raise ConfigError(
            f"{error}; the makers autoencoded and autofilled need {KEY}: train it by 'deepfake-miner train "
            "configs/train/autoencoder.yaml', or leave both out of the recipe's kinds"
        ) from error
    if not isinstance(network, AutoEncoder):
        raise ConfigError(f"{KEY} is a {type(network).__name__}, the makers need an AutoEncoder")
    return network
