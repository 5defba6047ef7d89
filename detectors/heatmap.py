"""Heat maps: where in a picture or video is what the answer says of it?

Every expert that answered gives its evidence by place (:mod:`detectors.evidence`), in logits. Maps are put back where
their pixels came from, weighted as the merge weighed their experts, calibrated as the merge is, and cut off below zero:
only what speaks for fake is left. The largest value over all frames is then scaled to P(fake), so that a map is no
brighter than the answer: a picture with P(fake) 0.01 does not glow. Where no place alone speaks for fake the map is
even. Where no expert looked, outside a crop, it is 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from detectors import merge, preprocess
from detectors.camo import Camo
from detectors.curve import Curve
from detectors.errors import PredictionError
from detectors.evidence import Evidence, evidence
from detectors.experts.base import NeuralDetector
from detectors.gates.base import Gated
from detectors.sampling import middle_indices
from detectors.types import U8, Detector, Media, Prediction

__all__ = ["HeatMap", "fitted", "flat_map", "heat_map"]

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

_FRAMES = 8  # of a video whose detector does not tell which it saw


@dataclass(frozen=True, slots=True, eq=False)
class HeatMap:
    """What :func:`heat_map` gives.

    Attributes:
        maps: ``float32 [T, h, w]`` in [0, 1], larger where the picture speaks for fake; the largest value is P(fake).
            T is 1 for an image.
        frames: T indices of the media's frames.
        scores: T times P(fake) of a frame alone, by the experts that saw it; of an image P(fake).
        experts: whose evidence it is, by name, with weights that sum to 1; none for an even map of P(fake).
        left_out: why an expert that answered has no part, by name.
        prediction: the answer that is explained.
    """

    maps: F32
    frames: tuple[int, ...]
    scores: tuple[float, ...]
    experts: Mapping[str, float]
    left_out: Mapping[str, str]
    prediction: Prediction


@dataclass(frozen=True, slots=True, eq=False)
class _View:
    """What an expert was shown: a frame or clip, and where its pixels lie."""

    frames: Sequence[int]
    pixels: U8  # [t, H, W, 3]
    matrix: F64  # 3 x 3, from the picture's pixels to the view's; a pixel spans [i, i + 1)


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """One expert's part in an answer."""

    expert: NeuralDetector
    views: Sequence[_View]
    curves: Sequence[Curve]  # from its logit to the one that is merged


@dataclass(slots=True, eq=False)
class _Parts:
    """Everybody's part."""

    weights: dict[str, float] = field(default_factory=dict)
    parts: dict[str, _Part] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    curve: Curve = field(default_factory=Curve)  # of the merged logit


def heat_map(
    detector: Detector, media: Media, *, size: tuple[int, int] | None = None, prediction: Prediction | None = None
) -> HeatMap:
    """Explains what a detector says of one media.

    Args:
        detector: CAMO or a single network; also one that is swapped while it serves and has a ``current`` one. Of any
            other the map is even.
        media: an image or a video; of a video the frames that the experts see are explained.
        size: (h, w) of the maps; the media's own by default.
        prediction: what this detector said of this media. Asked for where it is not given, or was said by another one.

    Raises:
        PredictionError: the detector has no answer.
    """
    now: Detector = getattr(detector, "current", detector)
    if prediction is None or prediction.detector != now.card.key:
        prediction = now.predict([media])[0]
    if isinstance(now, Camo):
        found = _of_camo(now, media, prediction)
    elif isinstance(now, NeuralDetector):
        found = _of_network(now, media)
    else:
        found = _Parts()
    evidences: dict[str, list[Evidence]] = {}
    for name, part in found.parts.items():
        try:
            evidences[name] = evidence(part.expert, [view.pixels for view in part.views])
        except PredictionError as error:
            found.left_out[name] = str(error)
    if not evidences:
        return _even(media, prediction, size or media.size, found.left_out)
    weights = merge.shares({name: found.weights[name] for name in evidences})
    frames = sorted({i for name in evidences for view in found.parts[name].views for i in view.frames})
    merged, scores = _merged(found, evidences, frames, whole=media.size, size=size or media.size)
    return HeatMap(
        maps=_scaled(merged, prediction.p_fake),
        frames=tuple(frames),
        scores=(prediction.p_fake,) if media.modality == "image" else scores,
        experts=weights,
        left_out=found.left_out,
        prediction=prediction,
    )


def flat_map(p_fake: float, size: tuple[int, int]) -> F32:
    """``float32 [h, w]``: P(fake) everywhere, nothing being known of places."""
    return np.full(size, p_fake, np.float32)


def fitted(size: tuple[int, int], side: int) -> tuple[int, int]:
    """(h, w) scaled down so that the longer side is at most `side`; at least 1."""
    scale = min(1.0, side / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _even(media: Media, prediction: Prediction, size: tuple[int, int], left_out: Mapping[str, str]) -> HeatMap:
    frames = tuple(middle_indices(len(media.frames), _FRAMES))
    maps = np.stack([flat_map(prediction.p_fake, size)] * len(frames))
    return HeatMap(maps, frames, (prediction.p_fake,) * len(frames), {}, left_out, prediction)


# Who was shown what


def _of_network(detector: NeuralDetector, media: Media) -> _Parts:
    name, curves = detector.card.name, (detector.card.calibration,)
    return _Parts({name: 1.0}, {name: _Part(detector, _whole(media, detector.spans(media)), curves)})


def _of_camo(camo: Camo, media: Media, prediction: Prediction) -> _Parts:
    """The experts that answered, as :meth:`Camo.predict` merged them."""
    config, modality = camo.config, media.modality
    answered = [name for name in config.experts if name in prediction.experts]
    found = _Parts()
    if config.merge == "max":
        loudest = max(answered, key=lambda name: prediction.experts[name])
        weights = {name: float(name == loudest) for name in answered}
    else:
        weights = merge.shares({name: config.experts[name].weight_in(modality) for name in answered})
        fired = {step.removeprefix("gate:") for step in prediction.route if step.startswith("gate:")}
        found.curve = config.curve(modality, fired)
    for name, weight in weights.items():
        expert = camo.experts[name]
        if weight == 0.0:
            found.left_out[name] = "it does not count in this answer"
        elif not isinstance(expert, NeuralDetector):
            found.left_out[name] = "it is no network that can be looked into"
        elif views := _views(camo, name, expert, media):
            found.weights[name] = weight
            found.parts[name] = _Part(expert, views, (expert.card.calibration, config.experts[name].curve(modality)))
        else:
            found.left_out[name] = "its gate does not tell where its view lies"
    return found


def _views(camo: Camo, name: str, expert: NeuralDetector, media: Media) -> list[_View]:
    """What an expert of CAMO was shown; nothing where that cannot be put back."""
    gate = camo.config.experts[name].gate
    if expert.card.frames > 1:
        return _whole(media, expert.spans(media))
    if gate is None:
        return _whole(media, [range(i, i + 1) for i in camo.looked_at(media)])
    found = camo.found(gate, media)
    placed = {index: _placed(gated, media.size) for index, gated in found.items()}
    return [
        _View((index,), found[index].pixels[None], matrix) for index, matrix in placed.items() if matrix is not None
    ]


def _whole(media: Media, spans: Sequence[range]) -> list[_View]:
    return [_View(span, media.frames[span.start : span.stop], np.eye(3)) for span in spans]


# Where the pixels of a view lie; matrices act on (x, y, 1), a pixel spans [i, i + 1)


def _placed(gated: Gated, size: tuple[int, int]) -> F64 | None:
    """From the whole picture to a gate's view; None where the gate does not tell."""
    height, width = gated.pixels.shape[:2]
    if gated.matrix is not None:
        half = np.array([[1.0, 0.0, 0.5], [0.0, 1.0, 0.5], [0.0, 0.0, 1.0]])  # from a pixel's index to its centre
        whole: F64 = half @ np.vstack([gated.matrix, [0.0, 0.0, 1.0]]) @ np.linalg.inv(half)
        return whole
    if gated.box is not None:
        left, top, right, bottom = gated.box
        return _between((top, left, bottom - top, right - left), (0, 0, height, width))
    return np.eye(3) if (height, width) == size else None


def _between(part: Sequence[float], other: Sequence[float]) -> F64:
    """What takes one (top, left, height, width) to another."""
    (top, left, height, width), (up, before, tall, wide) = part, other
    x, y = wide / width, tall / height
    return np.array([[x, 0.0, before - x * left], [0.0, y, up - y * top], [0.0, 0.0, 1.0]])


_SQUARE = (-1.0, -1.0, 2.0, 2.0)  # torch's coordinates of a whole map


def _put_back(
    places: F64, view: _View, expert: NeuralDetector, whole: tuple[int, int], size: tuple[int, int]
) -> tuple[F32, F32]:
    """A map ``[h', w']`` of the network's square as ``[h, w]`` over the whole picture, and 1 where it lies, else 0."""
    height, width = view.pixels.shape[1:3]
    seen = preprocess.window(height, width, expert.card.preprocess)
    matrix = _between(seen, _SQUARE) @ view.matrix @ _between(_SQUARE, (0, 0, *whole))
    theta = torch.from_numpy(matrix[None, :2]).float()
    grid = F.affine_grid(theta, [1, 1, *size], align_corners=False)
    source = torch.from_numpy(places).float()[None, None]
    found = F.grid_sample(source, grid, mode="bilinear", padding_mode="border", align_corners=False)
    inside = (grid[0].abs() <= 1.0 + 1e-6).all(-1)
    return found[0, 0].numpy(), inside.float().numpy()


# From evidence to a map


def _merged(
    found: _Parts,
    evidences: Mapping[str, Sequence[Evidence]],
    frames: Sequence[int],
    *,
    whole: tuple[int, int],
    size: tuple[int, int],
) -> tuple[F32, tuple[float, ...]]:
    """Calibrated logits ``[T, h, w]`` by place, NaN where nobody looked, and P(fake) by frame.

    As in the merge, whoever did not see a place or frame has no part in it, and the others' weights make up for that.
    """
    total, weight = np.zeros((2, len(frames), *size), np.float32)
    logits, counted = np.zeros((2, len(frames)))
    at = {frame: t for t, frame in enumerate(frames)}
    for name, own in evidences.items():
        part, share = found.parts[name], found.weights[name]
        for view, said in zip(part.views, own, strict=True):
            for frame, places in zip(view.frames, _calibrated(said.maps, part.curves), strict=True):
                sampled, inside = _put_back(places, view, part.expert, whole, size)
                total[at[frame]] += share * sampled * inside
                weight[at[frame]] += share * inside
                logits[at[frame]] += share * float(_calibrated(said.logit, part.curves))
                counted[at[frame]] += share
    mean = np.divide(total, weight, out=np.full_like(total, np.nan), where=weight > 0)
    scores = tuple(merge.sigmoid(float(z)) for z in found.curve.logits(logits / counted))
    return found.curve.logits(mean).astype(np.float32), scores


def _calibrated(values: npt.ArrayLike, curves: Sequence[Curve]) -> F64:
    found = np.asarray(values, np.float64)
    for curve in curves:
        found = curve.logits(found)
    return found


def _scaled(merged: F32, p_fake: float) -> F32:
    """What speaks for fake, its largest value made P(fake); even where nothing does."""
    seen = ~np.isnan(merged)
    if not seen.any():  # a crop thinner than a pixel of the map
        return np.full_like(merged, p_fake)
    strength = np.maximum(np.nan_to_num(merged), 0.0)
    top = float(strength.max())
    if top == 0.0:
        return np.where(seen, np.float32(p_fake), np.float32(0.0))
    return (strength / np.float32(top) * np.float32(p_fake)).clip(0.0, 1.0)
