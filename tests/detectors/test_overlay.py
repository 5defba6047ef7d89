"""Drawing: nothing where nothing is, more where more is, and bars as high as their scores."""

from __future__ import annotations

import numpy as np
import pytest

from detectors.overlay import overlay, strip
from tests.detectors.fixtures_media import photo, video_frames


def test_where_the_map_is_zero_the_picture_is_untouched() -> None:
    pixels = photo(48, 64)
    heat = np.zeros((48, 64), np.float32)
    assert np.array_equal(overlay(pixels, heat), pixels)
    heat[:, 32:] = 0.9
    drawn = overlay(pixels, heat)
    assert drawn.dtype == np.uint8
    assert np.array_equal(drawn[:, :32], pixels[:, :32])
    assert np.abs(drawn[:, 32:].astype(int) - pixels[:, 32:]).mean() > 30


def test_stronger_is_lighter_on_black() -> None:
    black = np.zeros((8, 256, 3), np.uint8)
    heat = np.broadcast_to(np.linspace(0, 1, 256, dtype=np.float32), (8, 256)).copy()
    luma = overlay(black, heat)[4].astype(float) @ (0.2126, 0.7152, 0.0722)
    assert np.all(np.diff(luma) >= -1.0)
    assert luma[-1] > 180
    warm = overlay(black, np.full((8, 256), 0.6, np.float32))[0, 0]
    assert warm[0] > warm[1] > warm[2]  # RGB: orange, not blue


def test_a_coarse_map_is_brought_to_the_pictures_size() -> None:
    coarse = np.zeros((2, 2), np.float32)
    coarse[0, 0] = 1.0
    drawn = overlay(np.zeros((64, 64, 3), np.uint8), coarse)
    assert drawn.shape == (64, 64, 3)
    assert drawn[4, 4].sum() > 300 > drawn[60, 60].sum() == 0


@pytest.mark.parametrize(
    ("height", "width", "tile"), [(48, 64, (48, 64)), (480, 640, (120, 160)), (640, 320, (160, 80))]
)
def test_a_strip_has_a_tile_and_a_bar_for_each_frame(height: int, width: int, tile: tuple[int, int]) -> None:
    frames = video_frames(3, height, width)
    maps = np.zeros((3, 8, 8), np.float32)
    scores = (0.0, 0.5, 1.0)
    drawn = strip(frames, maps, scores)
    assert drawn.shape == (tile[0] + 48, 3 * tile[1] + 2 * 4, 3)
    for index, score in enumerate(scores):
        left = index * (tile[1] + 4)
        assert drawn[5, left + 5, 0] == pytest.approx(frames[index, 0, 0, 0], abs=1)
        column = drawn[tile[0] :, left + tile[1] // 2].astype(int)
        bar = np.ptp(column, axis=1) > 8  # coloured: neither ground nor line
        assert bar.sum() == pytest.approx(score * 44, abs=1)
        assert not bar[: 48 - round(score * 44) - 1].any()


def test_as_many_maps_as_frames() -> None:
    with pytest.raises(ValueError, match="zip"):
        strip(video_frames(3, 16, 16), np.zeros((2, 4, 4), np.float32), (0.1, 0.2, 0.3))
