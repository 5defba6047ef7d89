from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from detectors.training.clip_samples import ClipPool
from detectors.training.fakes.clips import CLIP_KINDS
from detectors.training.recipe import Recipe
from detectors.types import U8
from tests.detectors.training.pool_of_photos import write_pool, write_videos

RECIPE = Recipe(name="t", version="1", architecture="tall", media="video", side=64, batch=6, made_share=0.5, seed=4)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    write_pool(folder, groups=1)
    write_videos(folder, groups=3)
    return folder


@pytest.fixture(scope="module")
def pool(root: Path) -> ClipPool:
    return ClipPool(write_videos(root, groups=3), RECIPE, 4)


def alike(a: U8, b: U8) -> float:
    return float(np.corrcoef(a[::4, ::4].astype(float).ravel(), b[::4, ::4].astype(float).ravel())[0, 1])


def test_clips_are_drawn_from_the_videos_alone(pool: ClipPool) -> None:
    assert RECIPE.kinds == tuple(CLIP_KINDS)
    assert {item.modality for item in pool.items} == {"video"}
    batch = pool.batch(0)
    assert batch.pixels.shape == (6, 4, 64, 64, 3)
    assert set(batch.kinds) <= {"", *CLIP_KINDS}
    assert pool.view(pool.items[0], 3) is not None


def test_one_draw_holds_for_all_frames_and_for_both_of_a_pair(pool: ClipPool) -> None:
    changes = {"made_share": 1.0, "kinds": ("remade",), "batch": 8}
    clips = ClipPool(pool.items, RECIPE.model_copy(update=changes), 4).batch(2).pixels
    for real, fake in zip(clips[:4], clips[4:], strict=True):
        assert min(alike(real[0], frame) for frame in real) > 0.2  # the window moves a little, no frame is turned
        assert min(alike(a, b) for a, b in zip(real, fake, strict=True)) > 0.5
        assert not np.array_equal(real, fake)
        assert not np.array_equal(real[0], real[1])


def test_a_clip_depends_on_seed_and_step_alone(pool: ClipPool) -> None:
    again = ClipPool(pool.items, RECIPE, 4)
    pool.batch(5)
    assert np.array_equal(pool.batch(1).pixels, again.batch(1).pixels)


def test_a_video_of_fewer_frames_runs_back_and_forth(pool: ClipPool) -> None:
    view = ClipPool(pool.items, RECIPE.model_copy(update={"mix": "2.2"}), 12).view(pool.items[0], 0)
    assert view is not None
    assert view.shape == (12, 256, 256, 3)
    assert not np.array_equal(view[7], view[8])


def test_semi_synthetic_clips_can_be_asked_for(pool: ClipPool) -> None:
    changes = {"semi_share": 1.0, "made_share": 0.0}
    batch = ClipPool(pool.items, RECIPE.model_copy(update=changes), 4).batch(0)
    assert batch.classes[3:].tolist() == [2, 2, 2]


def test_gates_are_refused(pool: ClipPool) -> None:
    with pytest.raises(ValueError, match="no gate"):
        ClipPool(pool.items, RECIPE.model_copy(update={"gate": "face"}), 4)
