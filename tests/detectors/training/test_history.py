from __future__ import annotations

import numpy as np
import pytest

from detectors.training.history import recoloured, worked
from neurons.demo_media import photographs

PHOTO = np.ascontiguousarray(dict(photographs())["coffee"][:240, :320])


def test_a_history_depends_on_the_generator_alone() -> None:
    for seed in range(6):
        one, two = (worked(PHOTO, np.random.default_rng(seed), 0.5) for _ in range(2))
        assert np.array_equal(one, two)
        assert min(one.shape[:2]) >= 150


def test_recolouring_keeps_the_shape_and_moves_the_tone() -> None:
    for seed in range(8):
        found = recoloured(PHOTO, np.random.default_rng(seed))
        assert found.shape == PHOTO.shape
        assert found.dtype == np.uint8
        means = np.abs(found.mean((0, 1)) - PHOTO.mean((0, 1)))
        assert means.max() > 1.0
        assert np.corrcoef(found.mean(2).ravel(), PHOTO.mean(2).ravel())[0, 1] > 0.9  # the picture is still the picture


def test_all_frames_of_a_clip_get_the_same_tone() -> None:
    clip = np.stack([PHOTO, PHOTO])
    found = recoloured(clip, np.random.default_rng(3))
    assert np.array_equal(found[0], found[1])


@pytest.mark.parametrize("seed", range(4))
def test_without_recolouring_nothing_is_drawn_for_it(seed: int) -> None:
    plain, asked = np.random.default_rng(seed), np.random.default_rng(seed)
    worked(PHOTO, plain)
    worked(PHOTO, asked, 0.0)
    assert plain.random() == asked.random()
