"""Five-point face alignment as SN34's CAMO does it: a similarity transform onto a template with a margin of 1.3."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
from skimage.transform import SimilarityTransform

from detectors.types import U8

__all__ = ["SIDE", "align", "similarity", "template", "warped"]

SIDE = 256  # pixels of the aligned crop

# ArcFace's five points (Deng et al., CVPR 2019) moved by 8 px from 112 x 96 to 112 x 112: eyes, nose, mouth corners.
_ARCFACE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)


def template(margin: float = 1.3) -> npt.NDArray[np.float64]:
    """Where the five points go in the 256 px crop; ``float64 [5, 2]`` (x, y).

    Args:
        margin: how much wider the crop is than the plain template, at least 1.
    """
    pad = SIDE * (margin - 1.0) / 2.0
    return (_ARCFACE * (SIDE / 112.0) + pad) * (SIDE / (SIDE + 2.0 * pad))


def similarity(points: npt.NDArray[np.floating], margin: float = 1.3) -> npt.NDArray[np.float64]:
    """The 2 x 3 matrix from image to crop, least squares with scale (Umeyama, PAMI 1991).

    Args:
        points: ``[5, 2]`` (x, y): left eye, right eye, nose, left and right mouth corner, as seen in the picture.
        margin: see :func:`template`.

    Raises:
        ValueError: the points coincide.
    """
    found = SimilarityTransform.from_estimate(np.asarray(points, np.float64), template(margin))
    if not found:
        raise ValueError("five points in one place give no alignment")
    matrix: npt.NDArray[np.float64] = np.asarray(found.params, np.float64)[:2]
    return matrix


def align(image: U8, points: npt.NDArray[np.floating], margin: float = 1.3) -> U8:
    """The aligned face, ``uint8 [256, 256, 3]``; what lies outside the image is black.

    Args:
        image: ``uint8 [H, W, 3]``.
        points: see :func:`similarity`.
        margin: see :func:`template`.

    Raises:
        ValueError: the points coincide.
    """
    return warped(image, similarity(points, margin))


def warped(image: U8, matrix: npt.NDArray[np.float64]) -> U8:
    """What a 2 x 3 matrix from image to crop cuts out, ``uint8 [256, 256, 3]``; black outside the image."""
    return np.asarray(cv2.warpAffine(image, matrix, (SIDE, SIDE)), np.uint8)
