"""The nouns refuse what they cannot mean."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.errors import MediaError, MediaReason, PredictionError
from detectors.types import U8, Label, Media, Prediction

UNIT = st.floats(0, 1)


def test_media_tells_images_from_videos() -> None:
    image = Media(np.zeros((4, 6, 3), np.uint8))
    video = Media(np.zeros((5, 4, 6, 3), np.uint8), rate=25.0)
    assert (image.modality, image.size, image.frames.shape) == ("image", (4, 6), (1, 4, 6, 3))
    assert (video.modality, video.size, video.frames.shape) == ("video", (4, 6), (5, 4, 6, 3))
    assert np.shares_memory(image.frames, image.pixels)


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((4, 6, 3), np.float32), MediaReason.UNSUPPORTED),
        (np.zeros((4, 6), np.uint8), MediaReason.UNSUPPORTED),
        (np.zeros((4, 6, 4), np.uint8), MediaReason.UNSUPPORTED),
        (np.zeros((1, 1, 4, 6, 3), np.uint8), MediaReason.UNSUPPORTED),
        (np.zeros((0, 4, 6, 3), np.uint8), MediaReason.EMPTY),
        (np.zeros((4, 0, 3), np.uint8), MediaReason.EMPTY),
    ],
)
def test_media_refuses_other_arrays(array: U8, reason: MediaReason) -> None:
    with pytest.raises(MediaError) as caught:
        Media(array)
    assert caught.value.reason is reason


@given(UNIT, UNIT)
def test_split_is_a_distribution(p_fake: float, share: float) -> None:
    prediction = Prediction(Prediction.split(p_fake, share))
    assert abs(math.fsum(prediction.probabilities) - 1.0) < 1e-6
    assert prediction.p_fake == pytest.approx(p_fake, abs=1e-15)


@pytest.mark.parametrize(
    ("probabilities", "label"),
    [
        ((0.5, 0.5, 0.0), Label.REAL),  # numpy.round(0.5) is 0
        ((0.49, 0.51, 0.0), Label.SYNTHETIC),
        ((0.1, 0.3, 0.6), Label.SEMISYNTHETIC),
        ((0.2, 0.4, 0.4), Label.SYNTHETIC),
        ((1.0, 0.0, 0.0), Label.REAL),
    ],
)
def test_label(probabilities: tuple[float, float, float], label: Label) -> None:
    assert Prediction(probabilities).label is label


@pytest.mark.parametrize(
    "bad", [(math.nan, 0.5, 0.5), (0.5, 0.6, 0.0), (-0.1, 1.1, 0.0), (math.inf, 0.0, 0.0), (0.5, 0.5 + 2e-6, 0.0)]
)
def test_predictions_refuse_what_is_no_distribution(bad: tuple[float, float, float]) -> None:
    with pytest.raises(PredictionError):
        Prediction(bad)


@pytest.mark.parametrize("bad", [math.nan, -0.1, 1.1, math.inf])
def test_split_refuses_what_is_no_probability(bad: float) -> None:
    with pytest.raises(PredictionError):
        Prediction.split(bad)
    with pytest.raises(PredictionError):
        Prediction.split(0.5, bad)
