"""What every expert shares: :class:`Architecture` is the network, :class:`NeuralDetector` makes a Detector of it."""

from __future__ import annotations

import abc
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from detectors import preprocess
from detectors.card import Card
from detectors.errors import ConfigError, PredictionError, WeightsError
from detectors.merge import leading_share, sigmoid
from detectors.sampling import middle_indices
from detectors.types import U8, Media, Prediction

__all__ = ["Architecture", "NeuralDetector", "fake_logit"]

F64 = npt.NDArray[np.float64]

_FRAMES_OF_A_VIDEO = 16  # of a frame network, unless told otherwise


class Architecture(nn.Module, abc.ABC):
    """A network. The constructor's signature is its options; it does no I/O and touches no device.

    Attributes:
        published: the card a published checkpoint of the authors gets on import.
        presets: further cards by name, e.g. another party's preprocessing of the same network.
        training_only: prefixes of published keys that inference does not need; an import may leave them out when the
            network was built without them.
        derived: endings of keys that the constructor computes or that only training reads; a file may lack them.
        padding: how a clip shorter than the card's `frames` is filled (:func:`detectors.preprocess.pad_frames`).
    """

    published: ClassVar[Card]
    presets: ClassVar[Mapping[str, Card]] = {}
    training_only: ClassVar[tuple[str, ...]] = ()
    derived: ClassVar[tuple[str, ...]] = ("num_batches_tracked",)
    padding: preprocess.Padding = "repeat"

    @abc.abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Preprocessed ``[N, 3, H, W]`` (``[N, T, 3, H, W]`` for a clip network) to logits ``[N, K]``."""

    @classmethod
    def official(cls, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Maps the keys of a published state dict to this class's; the identity where they are the same."""
        return dict(state)


def fake_logit(logits: Tensor, fake_index: int, semi_index: int | None = None) -> Tensor:
    """The log-odds of "fake" that a head's logits imply.

    Args:
        logits: ``[N, K]``; K = 1 is a sigmoid head, otherwise softmax over K classes.
        fake_index: the class that means fake; 0 for a sigmoid head.
        semi_index: a second class that means fake, or None.

    Returns:
        ``[N]``: z for K = 1, else ``logsumexp(z_fakes) - logsumexp(z_others)``, which is the logit of the fake
        classes' softmax share.

    Raises:
        WeightsError: the head has no such output, or no other one.
    """
    indices = (fake_index,) if semi_index is None else (fake_index, semi_index)
    width = logits.shape[1] if logits.ndim == 2 else 0
    if not all(0 <= k < width for k in indices) or (semi_index is not None and len(set(indices)) == width):
        raise WeightsError(f"card: fake_index {indices} does not fit logits of shape {tuple(logits.shape)}")
    if width == 1:
        return logits[:, 0]
    others = [k for k in range(width) if k not in indices]
    said = logits[:, fake_index] if semi_index is None else torch.logsumexp(logits[:, list(indices)], dim=1)
    return said - torch.logsumexp(logits[:, others], dim=1)


class NeuralDetector:
    """A network and its card as a :class:`~detectors.types.Detector`.

    Args:
        card: says how pixels become input and what the output means.
        network: built for the card; moved to `device` and put into eval mode, its weights are left as they are.
        device: where the network runs; asking for one that is absent is an error, never a fall back.
        max_frames: most frames judged of a video; evenly spaced. None takes 16 for a frame network and every clip for
            a clip network (one whose card says ``frames > 1``).
        batch_size: most inputs in one forward pass.

    Raises:
        ConfigError: `max_frames` or `batch_size` is below 1.
    """

    def __init__(
        self,
        card: Card,
        network: Architecture,
        device: str | torch.device = "cpu",
        *,
        max_frames: int | None = None,
        batch_size: int = 16,
    ) -> None:
        if batch_size < 1 or (max_frames is not None and max_frames < 1):
            raise ConfigError("max_frames and batch_size must be at least 1")
        self._card = card
        self.device = torch.device(device)
        # channels last: NPR and MobileNetV2 answer a third faster on the CPU, the others no slower
        self.network = network.to(self.device).to(memory_format=torch.channels_last).eval()
        self.max_frames = max_frames
        self.batch_size = batch_size

    @property
    def card(self) -> Card:
        return self._card

    def logits(self, images: Sequence[U8]) -> F64:
        """Calibrated logits of P(fake) of single images.

        Args:
            images: ``uint8 [H, W, 3]`` RGB each, any sizes; may be empty.

        Returns:
            ``float64 [N]``; a clip network judges an image as a clip of it, padded as the card says.

        Raises:
            PredictionError: the network's output is not finite.
        """
        return self.opinions(images)[0]

    def opinions(self, images: Sequence[U8]) -> tuple[F64, F64]:
        """:meth:`logits`, and what of P(fake) is semi-synthetic.

        Returns:
            Logits ``float64 [N]`` and shares ``float64 [N]`` in [0, 1]; shares are NaN where the head does not tell
            the two kinds of fake apart (the card has no `semi_index`).

        Raises:
            PredictionError: as :meth:`logits`.
        """
        parts = [self._forward([i[None] for i in images[k : k + self.batch_size]]) for k in self._starts(len(images))]
        joined = np.concatenate(parts) if parts else np.empty((0, 2))
        return joined[:, 0], joined[:, 1]

    def predict(self, batch: Sequence[Media], *, deadline: float | None = None) -> list[Prediction]:
        """Judges images and videos; see :class:`~detectors.types.Detector`.

        A video's logit is the mean over its frames or clips. When the deadline passes, frames that are still open are
        left out (the answer is then marked partial), but every media has at least its first one judged.

        Raises:
            PredictionError: the network's output is not finite.
        """
        started = time.perf_counter()
        inputs = [[media.frames[span.start : span.stop] for span in self.spans(media)] for media in batch]
        # First input of every media, then the second of every media, ...: what a deadline cuts off is the tail.
        order = sorted((k, m) for m, found in enumerate(inputs) for k in range(len(found)))
        scores: list[list[tuple[float, float]]] = [[] for _ in batch]
        for k in self._starts(len(order)):
            late = deadline is not None and time.monotonic() >= deadline
            if late and all(scores):
                break
            chunk = order[k : k + self.batch_size]
            values = self._forward([inputs[m][i] for i, m in chunk])
            for (_, m), value in zip(chunk, values.tolist(), strict=True):
                scores[m].append((value[0], value[1]))
        elapsed = (time.perf_counter() - started) * 1e3
        return [self._prediction(s, len(s) < len(i), elapsed) for s, i in zip(scores, inputs, strict=True)]

    def _prediction(self, scores: Sequence[tuple[float, float]], partial: bool, milliseconds: float) -> Prediction:
        name = self._card.name
        p_fake = sigmoid(math.fsum(value for value, _ in scores) / len(scores))
        share = math.fsum(share for _, share in scores) / len(scores)
        return Prediction(
            probabilities=Prediction.split(p_fake, leading_share(p_fake, 0.0 if math.isnan(share) else share)),
            route=(name,),
            experts={name: p_fake},
            milliseconds=milliseconds,
            weights={name: self._card.key},
            partial=partial,
            detector=self._card.key,
        )

    def _starts(self, count: int) -> range:
        return range(0, count, self.batch_size)

    def spans(self, media: Media) -> list[range]:
        """Which frames of a media are judged together: single ones, or clips of at most the card's `frames`."""
        count, length = len(media.frames), self._card.frames
        if length == 1:
            return [range(i, i + 1) for i in middle_indices(count, self.max_frames or _FRAMES_OF_A_VIDEO)]
        clips = [range(s, min(s + length, count)) for s in range(0, count, length)]
        if self.max_frames is None:
            return clips
        return [clips[i] for i in middle_indices(len(clips), max(1, self.max_frames // length))]

    def _forward(self, inputs: Sequence[U8]) -> F64:
        """Calibrated fake logit and semi-synthetic share, ``[N, 2]``; inputs of one shape share a forward pass."""
        raw = np.full((len(inputs), 2), np.nan)
        if self.network.training:  # a trainer that shares the network left it so
            self.network.eval()
        fake, semi = self._card.fake_index, self._card.semi_index
        with torch.inference_mode():
            for members, x in self.tensors(inputs):
                z = self.network(x).double()
                raw[members, 0] = fake_logit(z, fake, semi).cpu().numpy()
                if semi is not None:
                    raw[members, 1] = torch.sigmoid(z[:, semi] - z[:, fake]).cpu().numpy()
        if not np.isfinite(raw if semi is not None else raw[:, 0]).all():
            raise PredictionError(f"{self._card.key}: the network's output is not finite")
        raw[:, 0] = self._card.calibration.logits(raw[:, 0])
        return raw

    def tensors(self, inputs: Sequence[U8]) -> Iterator[tuple[list[int], Tensor]]:
        """Preprocesses frames or clips, ``uint8 [t, H, W, 3]`` each.

        Returns:
            For each shape that occurs, the positions in `inputs` and what the network takes, on its device.
        """
        tensors = [self._tensor(found) for found in inputs]
        groups: dict[tuple[int, ...], list[int]] = {}
        for index, found in enumerate(tensors):
            groups.setdefault(tuple(found.shape), []).append(index)
        for members in groups.values():
            x = torch.stack([tensors[i] for i in members]).to(self.device)
            # channels last is a third faster in convolutions on a CPU, and what tensor cores want
            yield members, x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x

    def _tensor(self, frames: U8) -> Tensor:
        x = preprocess.tensor(list(frames), self._card.preprocess, self._card.residual)
        return x[0] if self._card.frames == 1 else preprocess.pad_frames(x, self._card.frames, self.network.padding)
