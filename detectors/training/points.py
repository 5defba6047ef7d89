"""Training the face gate's network: is this box a face, and where are its five points?

There are no annotated landmarks at hand, and none are needed: pictures of the FFHQ layout (Karras et al., CVPR 2019)
are aligned by eyes and mouth, so the five points are known up to the person. A random similarity transform of such a
picture with the same transform of the points is a labelled example. Negatives are boxes that the cascade proposes, or
random ones, in pictures without people.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from detectors import augment, datasets, media
from detectors.card import Card
from detectors.datasets import Item
from detectors.errors import ConfigError
from detectors.gates.face import BOX_FACTOR, WEIGHTS, FaceGate, network_input, widened
from detectors.gates.network import GateNet
from detectors.store import Store
from detectors.training.small import descend
from detectors.types import U8

__all__ = ["ALIGNED", "FFHQ_POINTS", "train_points"]

#: Sources of the training pool that have the FFHQ layout.
ALIGNED = ("ffhq-128", "stylegan2-128", "stylegan2-512")

#: Mean five points of the FFHQ layout, as shares of the side (x, y): eyes, nose, mouth corners.
FFHQ_POINTS = np.array([[0.3769, 0.4687], [0.6229, 0.4691], [0.5012, 0.6133], [0.3931, 0.7254], [0.6115, 0.7249]])

#: The cascade's usual box on that layout, as shares: (left, top, right, bottom), median over the pool.
_USUAL_BOX = (0.167, 0.211, 0.832, 0.873)

F32 = npt.NDArray[np.float32]


def train_points(
    data: Path, store: Store, *, version: str, steps: int = 3000, seed: int = 0, report: Callable[[str], None] = print
) -> Card:
    """Trains, measures on held-out groups, saves ``face-points`` and returns its card.

    Args:
        data: manifest or folder that holds the sources of :data:`ALIGNED` and real pictures of content "general".
        store: where it goes; not activated.
        version: of the weights.
        steps: of 64 boxes each; 3000 take about five minutes on one core.
        seed: of everything.
        report: called with a line now and then.

    Raises:
        ConfigError: the data lack one of them, in training or held out.
    """
    training, held = datasets.split_by_group(datasets.read(data), 0.15, seed)
    torch.manual_seed(seed)
    network = GateNet(outputs=11, side=48, width=16)
    faces, others = _pictures(training, ALIGNED), _backgrounds(training)
    if not (faces and others and _pictures(held, ALIGNED) and _backgrounds(held)):
        raise ConfigError(f"{data}: needs several groups each of {', '.join(ALIGNED)} and of content general")

    def loss_of(step: int) -> torch.Tensor:
        x, face, points = _batch(faces, others, np.random.default_rng([seed, step]), network.side)
        out = network(x)
        confirmed = nn.functional.binary_cross_entropy_with_logits(out[:, 0], face)
        placed = nn.functional.smooth_l1_loss(out[:, 1:][face > 0], points[face > 0], beta=0.1)
        return confirmed + 4.0 * placed

    descend(network, loss_of, steps=steps, decay=1e-3, report=report)
    card = replace(
        GateNet.published,
        name=WEIGHTS,
        version=version,
        options={"outputs": 11, "side": 48, "width": 16},
        provenance=f"boxes cut from {', '.join(ALIGNED)} (faces) and real pictures of content general (negatives)",
        origin=f"detectors.training.points, seed {seed}, {steps} steps of 64",
        metrics=_measured(network, held, seed),
        command="deepfake-miner train configs/train/face-points.yaml",
    )
    return store.save(card, network)


def _pictures(items: Sequence[Item], sources: Sequence[str]) -> list[bytes]:
    return [i.path.read_bytes() for i in items if i.source in sources and i.modality == "image"]


def _backgrounds(items: Sequence[Item]) -> list[bytes]:
    """Pictures without people, of either label: what is a face does not depend on who made the picture."""
    return [i.path.read_bytes() for i in items if i.content == "general" and i.modality == "image"]


def _batch(
    faces: Sequence[bytes], others: Sequence[bytes], rng: np.random.Generator, side: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """64 boxes ``[64, 3, side, side]``, face or not ``[64]``, points ``[64, 10]`` in [-1, 1] of the box."""
    boxes, face, points = [], [], []
    for k in range(64):
        if k % 2 == 0:
            box, found = _face_box(media.decode_image(faces[int(rng.integers(len(faces)))]).pixels, rng, side)
            points.append(found.reshape(-1))
        else:
            box = _other_box(media.decode_image(others[int(rng.integers(len(others)))]).pixels, rng, side)
            points.append(np.zeros(10, np.float32))
        boxes.append(box)
        face.append(1.0 - k % 2)
    return torch.cat(boxes), torch.tensor(face), torch.from_numpy(np.stack(points))


def _degraded(image: U8, rng: np.random.Generator) -> U8:
    """The distortions of the wire, at random."""
    image = augment.contrast(augment.saturation(image, int(rng.integers(3))), int(rng.integers(3)))
    if rng.random() < 0.3:
        image = augment.down_up(image, int(rng.integers(3)))
    return augment.noise(image, int(rng.integers(3)), rng) if rng.random() < 0.3 else image


def _face_box(image: U8, rng: np.random.Generator, side: int) -> tuple[torch.Tensor, F32]:
    """A randomly turned, scaled and shifted face, as the cascade might have boxed it, and its points in the box."""
    image = _degraded(np.asarray(cv2.resize(image, (192, 192), interpolation=cv2.INTER_AREA), np.uint8), rng)
    matrix = np.asarray(cv2.getRotationMatrix2D((96, 96), float(rng.uniform(-28, 28)), 1.0), np.float64)
    turned = np.asarray(cv2.warpAffine(image, matrix, (192, 192), borderMode=cv2.BORDER_REPLICATE), np.uint8)
    points = FFHQ_POINTS * 192 @ matrix[:, :2].T + matrix[:, 2]
    if rng.random() < 0.5:
        turned = np.ascontiguousarray(turned[:, ::-1])
        points = (points * (-1, 1) + (191, 0))[[1, 0, 2, 4, 3]]
    middle = np.array([(_USUAL_BOX[0] + _USUAL_BOX[2]) / 2, (_USUAL_BOX[1] + _USUAL_BOX[3]) / 2]) * 192
    middle = middle + rng.normal(0.0, 0.045, 2) * 192
    half = (_USUAL_BOX[2] - _USUAL_BOX[0]) / 2 * 192 * float(np.exp(rng.normal(0.0, 0.13)))
    box = widened((middle[0] - half, middle[1] - half, middle[0] + half, middle[1] + half), BOX_FACTOR)
    inside = (points - ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)) / ((box[2] - box[0]) / 2)
    return network_input(turned, box, side), inside.astype(np.float32)


def _other_box(image: U8, rng: np.random.Generator, side: int) -> torch.Tensor:
    short = min(image.shape[:2])
    half = short * float(rng.uniform(0.08, 0.5))
    x, y = rng.uniform(0.1, 0.9, 2) * (image.shape[1], image.shape[0])
    return network_input(_degraded(image, rng), widened((x - half, y - half, x + half, y + half), 1.0), side)


def _measured(network: GateNet, held: Sequence[Item], seed: int) -> dict[str, float]:
    """Share of confirmed faces, of confirmed backgrounds, and the mean point error in inter-ocular distances."""
    rng = np.random.default_rng([seed, 10**6])
    faces, others = _pictures(held, ALIGNED), _backgrounds(held)
    errors, confirmed, wrongly = [], [], []
    with torch.inference_mode():
        for data in faces:
            box, points = _face_box(media.decode_image(data).pixels, rng, network.side)
            out = network(box)[0]
            confirmed.append(float(out[0]) > 0)
            distance = np.linalg.norm(out[1:].reshape(5, 2).numpy() - points, axis=1).mean()
            errors.append(float(distance / np.linalg.norm(points[0] - points[1])))
        for data in others:
            box = _other_box(media.decode_image(data).pixels, rng, network.side)
            wrongly.append(float(network(box)[0, 0]) > 0)
    gate = FaceGate(network)
    fires = [gate(media.decode_image(data).pixels) is not None for data in faces]
    fires_wrongly = [gate(media.decode_image(data).pixels) is not None for data in others]
    return {
        "faces_confirmed": round(float(np.mean(confirmed)), 4),
        "backgrounds_confirmed": round(float(np.mean(wrongly)), 4),
        "point_error_interocular": round(float(np.median(errors)), 4),
        "gate_fires_faces": round(float(np.mean(fires)), 4),
        "gate_fires_backgrounds": round(float(np.mean(fires_wrongly)), 4),
    }
