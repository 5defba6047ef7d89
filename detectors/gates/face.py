"""The face gate: where is the largest face, and which way up is it?

OpenCV's Viola-Jones cascade (Viola & Jones, CVPR 2001; the file ships inside opencv) proposes, a small network of ours
confirms and gives five points, and the face is aligned as SN34's CAMO does it. Without the network's weights the gate
still works: it then cuts the box out with the same margin.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch

from detectors.errors import WeightsError
from detectors.gates import alignment
from detectors.gates.base import Gated
from detectors.gates.network import GateNet
from detectors.store import Store
from detectors.types import U8

__all__ = ["BOX_FACTOR", "WEIGHTS", "FaceGate", "network_input", "widened"]

WEIGHTS = "face-points"  # name in the store

#: The network sees the cascade's box widened by this factor: chin and brow help to place the points.
BOX_FACTOR = 1.3

_SEARCH_SIDE = 256  # pixels of the short side the cascade searches; the wire's size
_LONGEST = 768  # pixels of the long side at search size
_PAD = 32  # pixels of repeated border: tightly cropped faces touch it and the cascade wants a margin
_SMALLEST = 48  # pixels at search size
_CANDIDATES = 3  # confirmed at most, largest first
_MARGIN = 1.3  # of the box crop, as of the alignment

F32 = npt.NDArray[np.float32]


class FaceGate:
    """Fires on the largest confirmed face; cuts it out as ``uint8 [256, 256, 3]``.

    Args:
        network: outputs (face logit, five (x, y) pairs in [-1, 1] of the widened box); None gives box crops.
        threshold: probability of a face from which the network confirms, in [0, 1].
        weights: ``NAME@VERSION`` of the network; empty without one.
    """

    name = "face"

    def __init__(self, network: GateNet | None, *, threshold: float = 0.5, weights: str = "") -> None:
        self._network = network.eval() if network is not None else None
        self._threshold = threshold
        self.weights = weights
        cascade = Path(cv2.__file__).parent / "data" / "haarcascade_frontalface_alt2.xml"
        self._cascade = cv2.CascadeClassifier(str(cascade))

    @classmethod
    def load(cls, store: Store, *, threshold: float = 0.5) -> FaceGate:
        """The gate with the store's active ``face-points``; box crops where none is active.

        Raises:
            WeightsError: the active weights are damaged.
        """
        if WEIGHTS not in store.pointer():
            return cls(None, threshold=threshold)
        found = store.load(WEIGHTS)
        network = found.network
        if not isinstance(network, GateNet):
            raise WeightsError(f"{WEIGHTS}: is a {type(network).__name__}, the face gate needs a GateNet")
        return cls(network, threshold=threshold, weights=found.card.key)

    def __call__(self, image: U8) -> Gated | None:
        """See :class:`~detectors.gates.base.Gate`; about 10 ms at 256 px on one core."""
        boxes = self.propose(image)
        network = self._network
        if network is None:
            return _box_crop(image, boxes[0], 1.0) if boxes else None
        for box in boxes[:_CANDIDATES]:
            score, points = _confirm(network, image, box)
            if score >= self._threshold:
                return _aligned(image, box, score, points)
        return None

    def propose(self, image: U8) -> list[tuple[float, float, float, float]]:
        """The cascade's boxes (left, top, right, bottom) in pixels of `image`, largest first; may lie outside it."""
        # The second bound keeps panoramas and strips from growing without limit.
        scale = min(_SEARCH_SIDE / min(image.shape[:2]), _LONGEST / max(image.shape[:2]))
        size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
        way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        grey = cv2.cvtColor(cv2.resize(image, size, interpolation=way), cv2.COLOR_RGB2GRAY)
        grey = cv2.copyMakeBorder(grey, _PAD, _PAD, _PAD, _PAD, cv2.BORDER_REPLICATE)
        found: Sequence[Any] = self._cascade.detectMultiScale(grey, 1.15, 3, minSize=(_SMALLEST, _SMALLEST))
        largest = sorted(found, key=lambda b: (-b[2], b[0], b[1]))  # then by place: the same order every time
        corners = [(x - _PAD, y - _PAD, x + w - _PAD, y + h - _PAD) for x, y, w, h in (map(float, b) for b in largest)]
        return [(left / scale, top / scale, right / scale, bottom / scale) for left, top, right, bottom in corners]


@torch.inference_mode()
def _confirm(network: GateNet, image: U8, box: tuple[float, float, float, float]) -> tuple[float, F32]:
    """Probability of a face and its five points ``float32 [5, 2]`` in pixels of the image."""
    wide = widened(box, BOX_FACTOR)
    out = network(network_input(image, wide, network.side))[0]
    points = out[1:].reshape(5, 2).numpy()
    centre = ((wide[0] + wide[2]) / 2, (wide[1] + wide[3]) / 2)
    return float(torch.sigmoid(out[0])), (points * (wide[2] - wide[0]) / 2 + centre).astype(np.float32)


def widened(box: tuple[float, float, float, float], factor: float) -> tuple[float, float, float, float]:
    """A square of `factor` times the box's width about the same centre."""
    half = (box[2] - box[0]) / 2 * factor
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return x - half, y - half, x + half, y + half


def network_input(image: U8, box: tuple[float, float, float, float], side: int) -> torch.Tensor:
    """The box of an image as the network sees it: ``float32 [1, 3, side, side]`` in [-1, 1], borders repeated."""
    left, top, right, bottom = (round(v) for v in box)
    height, width = image.shape[:2]
    inside = image[max(0, top) : max(1, min(height, bottom)), max(0, left) : max(1, min(width, right))]
    borders = (max(0, -top), max(0, bottom - height), max(0, -left), max(0, right - width))
    square = cv2.copyMakeBorder(inside, *borders, cv2.BORDER_REPLICATE) if any(borders) else inside
    small = cv2.resize(square, (side, side), interpolation=cv2.INTER_AREA)
    return torch.from_numpy(small.astype(np.float32) / 127.5 - 1.0).permute(2, 0, 1)[None]


def _clipped(image: U8, box: tuple[float, float, float, float]) -> tuple[int, int, int, int]:
    height, width = image.shape[:2]
    left, top = max(0, round(box[0])), max(0, round(box[1]))
    return left, top, min(width, round(box[2])), min(height, round(box[3]))


def _box_crop(image: U8, box: tuple[float, float, float, float], score: float) -> Gated:
    wide = widened(box, _MARGIN)
    scale = alignment.SIDE / (wide[2] - wide[0])
    matrix = np.array([[scale, 0.0, -wide[0] * scale], [0.0, scale, -wide[1] * scale]])
    return Gated(alignment.warped(image, matrix), score, _clipped(image, box), matrix=matrix)


def _aligned(image: U8, box: tuple[float, float, float, float], score: float, points: F32) -> Gated:
    try:
        matrix = alignment.similarity(points)
    except ValueError:  # points in one place: no alignment, but a face all the same
        return _box_crop(image, box, score)
    return Gated(alignment.warped(image, matrix), score, _clipped(image, box), points, matrix)
