"""Weights on disk: ``NAME-VERSION.safetensors`` + ``NAME-VERSION.json`` (the card) + ``active.json`` (the pointer).

A published version never changes; what begins with a dot is no weights. Files appear whole or not at all (temporary
file, fsync, ``os.replace``), and a network owns a copy of its weights: replacing a file under a running miner disturbs
nothing.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from detectors import registry
from detectors.card import Card
from detectors.errors import DetectorError, WeightsError
from detectors.experts.base import Architecture, NeuralDetector
from detectors.files import publish
from detectors.pointer import ACTIVE, Pointer
from detectors.types import U8, Media

__all__ = ["GOLDEN_TOLERANCE", "Store", "probe_images"]

#: Largest |difference| of a P(fake) on a probe from the card's: other kernels and devices stay well below it.
GOLDEN_TOLERANCE = 2e-3

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def probe_images() -> dict[str, U8]:
    """The fixed inputs of :attr:`Card.golden`: ``uint8 [240, 320, 3]`` noise and a smooth pattern, by name."""
    noise = np.random.RandomState(7).randint(0, 256, (240, 320, 3)).astype(np.uint8)
    y, x, c = np.mgrid[0:240, 0:320, 0:3].astype(np.float64)
    wave = 127.5 * (1 + 0.6 * np.sin(0.031 * x * (c + 1) + 0.017 * y) + 0.4 * np.cos(0.023 * y * (3 - c)))
    return {"noise": noise, "smooth": np.clip(np.floor(wave), 0, 255).astype(np.uint8)}


class Store:
    """A folder of weights.

    Args:
        root: the folder; made on the first write.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def cards(self) -> list[Card]:
        """Every card in the folder, by name and version.

        Raises:
            WeightsError: a card is damaged, or its file is not called after it.
        """
        found = []
        for path in self._card_files():
            card = Card.load(path)
            if path.stem != card.stem:
                raise WeightsError(f"{path.name}: holds the card of {card.key}, which belongs in {card.stem}.json")
            found.append(card)
        return found

    def pointer(self) -> dict[str, str]:
        """The active version by name; empty while nothing was activated.

        Raises:
            WeightsError: ``active.json`` is not an object of strings.
        """
        return Pointer(self.root).read()

    def active(self, name: str) -> Card:
        """The card that the pointer names.

        Raises:
            WeightsError: nothing of that name is active, or its card is missing.
        """
        pointer = self.pointer()
        if name not in pointer:
            raise WeightsError(f"no active weights called {name!r}; active are {sorted(pointer)}")
        return self.card(f"{name}@{pointer[name]}")

    def card(self, key_or_name: str) -> Card:
        """The card of ``NAME@VERSION``, or of the active version of ``NAME``.

        Raises:
            WeightsError: there is none.
        """
        name, at, version = key_or_name.partition("@")
        if not at:
            return self.active(name)
        _check_names(name, version)
        return Card.load(self.root / f"{name}-{version}.json")

    def load(
        self, key_or_name: str, device: str | torch.device = "cpu", *, max_frames: int | None = None
    ) -> NeuralDetector:
        """A detector with its own copy of the weights, computed in float32 whatever the file's precision.

        Args:
            key_or_name: ``NAME@VERSION``, or ``NAME`` for the active version.
            device: where it runs.
            max_frames: see :class:`NeuralDetector`.

        Raises:
            WeightsError: file or card missing, another hash than the card's, keys or shapes that do not fit, or a
                value that is not finite.
            ConfigError: the card names an unknown architecture or option.
        """
        card = self.card(key_or_name)
        network = registry.build(card)
        _fill(network, self._read(card), card.key)
        return NeuralDetector(card, network, device, max_frames=max_frames)

    def save(
        self, card: Card, network: Architecture, *, dtype: torch.dtype = torch.float32, overwrite: bool = False
    ) -> Card:
        """Writes weights and card; does not activate them.

        The hash and the golden scores are taken from the bytes as written, so the card also holds for half precision.

        Args:
            card: `sha256` and `golden` are filled in.
            network: of the card's architecture and options.
            dtype: of floating-point tensors on disk: float32, float16 or bfloat16.
            overwrite: replaces a version that exists with other content.

        Returns:
            The card as written.

        Raises:
            WeightsError: the network does not fit the card, a value is not finite (also after rounding to `dtype`), or
                the version exists with other content.
        """
        _check_names(card.name, card.version)
        if dtype not in (torch.float32, torch.float16, torch.bfloat16):
            raise WeightsError(f"{card.key}: weights are stored as float32, float16 or bfloat16, not {dtype}")
        data = safetensors.torch.save({k: _portable(v, dtype) for k, v in network.state_dict().items()})
        digest = hashlib.sha256(data).hexdigest()
        copy = registry.build(card)
        _fill(copy, _parse(data, card.key), card.key)
        golden = _golden(NeuralDetector(card, copy))
        written = dataclasses.replace(card, sha256=digest, golden=golden)
        target = self.root / f"{card.stem}.json"
        if target.exists() and not overwrite and Card.load(target).sha256 != digest:
            raise WeightsError(
                f"{card.key} exists with other weights: a published version never changes; take a new one"
            )
        self.root.mkdir(parents=True, exist_ok=True)
        publish(self.root / f"{card.stem}.safetensors", data)
        publish(target, written.to_json().encode())
        return written

    def activate(self, name: str, version: str) -> Card:
        """Points `name` at a version that is there and intact; what was active before is remembered.

        Raises:
            WeightsError: the version is missing or altered, or the folder cannot be written.
        """
        card = self._intact(name, version)
        Pointer(self.root).put(name, version)
        return card

    def rollback(self) -> dict[str, str]:
        """Undoes the last activation that is remembered; again, the one before it.

        Returns:
            The pointer as it is now.

        Raises:
            WeightsError: nothing is remembered, what was active is missing or altered by now, or the folder cannot be
                written. The pointer stays as it is then.
        """

        def check(changing: dict[str, str]) -> None:
            for name, version in changing.items():
                try:
                    self._intact(name, version)
                except WeightsError as error:
                    raise WeightsError(f"cannot roll back to {name}@{version}: {error}") from error

        return Pointer(self.root).back(check)

    def verify(self) -> list[str]:
        """Checks the whole folder: hashes, keys, finiteness, golden scores, the pointer, stray weights files.

        Returns:
            One sentence per problem; empty when all is well.
        """
        problems = []
        stems = set()
        for path in self._card_files():
            stems.add(path.stem)
            try:
                problems += self._verify(path)
            except DetectorError as error:
                problems.append(str(error))
        strays = [p.name for p in self._files("safetensors") if p.stem not in stems]
        problems += [f"{name}: weights without a card" for name in strays]
        try:
            pointed = self.pointer().items()
        except WeightsError as error:
            return [*problems, str(error)]
        missing = [f"{n}@{v}" for n, v in pointed if f"{n}-{v}" not in stems]
        return problems + [f"{ACTIVE}: {key} is not there" for key in missing]

    def _verify(self, path: Path) -> list[str]:
        card = Card.load(path)
        if path.stem != card.stem:
            return [f"{path.name}: holds the card of {card.key}, which belongs in {card.stem}.json"]
        if not card.sha256:
            return []
        return self.drift(self.load(card.key))

    @staticmethod
    def drift(detector: NeuralDetector) -> list[str]:
        """Where a detector does not say what its card's golden scores say; one sentence each, empty when all is well.

        Raises:
            PredictionError: the network's output is not finite.
        """
        card, golden = detector.card, _golden(detector)
        if set(golden) != set(card.golden):
            return [f"{card.key}: golden scores for {sorted(card.golden)}, expected {sorted(golden)}"]
        return [
            f"{card.key}: P(fake) on probe {probe!r} is {value:.6f}, the card says {card.golden[probe]:.6f}"
            for probe, value in golden.items()
            if abs(value - card.golden[probe]) > GOLDEN_TOLERANCE
        ]

    def _files(self, suffix: str) -> Iterator[Path]:
        return (path for path in sorted(self.root.glob(f"*.{suffix}")) if not path.name.startswith("."))

    def _card_files(self) -> Iterator[Path]:
        return (path for path in self._files("json") if path.name != ACTIVE)

    def _intact(self, name: str, version: str) -> Card:
        card = self.card(f"{name}@{version}")
        if card.sha256:
            self._read(card)
        return card

    def _read(self, card: Card) -> dict[str, Tensor]:
        """The tensors of the card's file, hashed and parsed from one read: never a live memory map."""
        path = self.root / f"{card.stem}.safetensors"
        try:
            data = path.read_bytes()
        except OSError as error:
            raise WeightsError(f"{path.name}: {error}") from error
        digest = hashlib.sha256(data).hexdigest()
        if digest != card.sha256:
            raise WeightsError(f"{path.name}: sha256 is {digest}, the card says {card.sha256}")
        return _parse(data, card.key)


def _parse(data: bytes, key: str) -> dict[str, Tensor]:
    try:
        tensors: dict[str, Tensor] = safetensors.torch.load(data)
    except (safetensors.SafetensorError, KeyError, ValueError, RuntimeError) as error:  # KeyError: a dtype torch lacks
        raise WeightsError(f"{key}: not a safetensors file that is read: {error}") from error
    return tensors


def _fill(network: Architecture, tensors: Mapping[str, Tensor], key: str) -> None:
    """Copies tensors into a network; keys, shapes and finiteness are strict, precision is the network's."""
    try:
        for name, value in tensors.items():
            if value.is_floating_point() and not bool(torch.isfinite(value).all()):
                raise WeightsError(f"{key}: {name} holds a value that is not finite")
        network.load_state_dict(dict(tensors), strict=True)
    except RuntimeError as error:
        raise WeightsError(f"{key}: weights do not fit the architecture and options of the card: {error}") from error


def _portable(value: Tensor, dtype: torch.dtype) -> Tensor:
    value = value.detach().cpu()
    # clone: tensors that share memory (expanded buffers, tied weights) are stored each for itself
    return (value.to(dtype) if value.is_floating_point() else value).clone(memory_format=torch.contiguous_format)


def _golden(detector: NeuralDetector) -> dict[str, float]:
    probes = probe_images()
    scores = detector.predict([Media(image) for image in probes.values()])
    return {probe: round(score.p_fake, 6) for probe, score in zip(probes, scores, strict=True)}


def _check_names(name: str, version: str) -> None:
    for value in (name, version):
        if not _NAME.fullmatch(value):
            raise WeightsError(f"{value!r} is no name or version: letters, digits, dot, dash and underscore only")
