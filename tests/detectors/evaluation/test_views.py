"""Views: the validators' own pixels, the same whatever else is evaluated."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest

from detectors import augment, media
from detectors.datasets import Dataset, Item
from detectors.evaluation.views import GRID, Level, Unusable, View, Views, key_of
from tests.detectors.evaluation.made_scores import write_files


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_files(tmp_path_factory.mktemp("pool"))


def item_of(pool: Dataset, name: str) -> Item:
    return next(i for i in pool if key_of(i, pool.origin) == name)


def view(pool: Dataset, name: str, level: Level, number: int = 0, seed: int = 0) -> View:
    found = Views(pool.origin, level, seed).view(item_of(pool, name), number)
    assert isinstance(found, View)
    return found


IMAGE, CLIP = "real/one/one0.jpg", "real/clips/clip.mp4"


def test_level_0_is_the_validators_and_comes_back_from_jpeg(pool: Dataset) -> None:
    found = view(pool, IMAGE, "0")
    frame = media.decode(item_of(pool, IMAGE).path).pixels
    drawn = augment.draw(np.random.default_rng(0), 0, (frame.shape[0], frame.shape[1]))
    wire = media.encode_jpeg(augment.apply(drawn, frame))
    assert found.payload == wire
    np.testing.assert_array_equal(found.media.pixels, media.decode_image(wire).pixels)
    assert found.seen.level == 0


@pytest.mark.parametrize("level", ["1", "3", "mix-2.0", "mix-2.2"])
@pytest.mark.parametrize("name", [IMAGE, CLIP])
def test_a_view_follows_from_seed_item_and_number_alone(pool: Dataset, level: Level, name: str) -> None:
    once = view(pool, name, level)
    np.testing.assert_array_equal(once.media.pixels, view(pool, name, level).media.pixels)
    others = [view(pool, name, level, number=n, seed=s) for n, s in ((1, 0), (2, 0), (0, 1), (0, 2))]
    assert any(o.media.pixels.tobytes() != once.media.pixels.tobytes() for o in others)
    assert others[0].seen.key == f"{name}#1"


def test_a_view_does_not_depend_on_where_the_data_lies(pool: Dataset, tmp_path: Path) -> None:
    moved = write_files(tmp_path)
    assert view(pool, IMAGE, "3").payload == view(moved, IMAGE, "3").payload


def test_levels_1_to_3_share_their_crop(pool: Dataset) -> None:
    one, two = (view(pool, IMAGE, level).media.pixels.astype(float) for level in ("1", "2"))
    unlike = view(pool, IMAGE, "1", number=5).media.pixels.astype(float)
    assert np.corrcoef(one.ravel(), two.ravel())[0, 1] > 0.9
    assert np.corrcoef(one.ravel(), unlike.ravel())[0, 1] < 0.9


def test_the_levels_of_a_mix_are_drawn_as_the_validators_draw_them(pool: Dataset) -> None:
    levels = [view(pool, IMAGE, "mix-2.0", number=n).seen.level for n in range(120)]
    shares = np.bincount(levels, minlength=4) / 120
    np.testing.assert_allclose(shares, augment.LEVELS["2.0"], atol=0.13)


def test_all_frames_of_a_video_share_one_draw(pool: Dataset) -> None:
    """Frames are flat and differ in grey only: the black corners of the rotation must lie where they lay."""
    found = next(v for n in range(40) if (v := view(pool, CLIP, "1", number=n)).media.pixels.min() < 3)
    frames = found.media.frames.astype(int)
    assert len(frames) >= 8
    assert frames.shape[1:] == (256, 256, 3)
    lit = [(f > 5).all(axis=-1) for f in frames if f.max() > 60]
    overlaps = [(a == b).mean() for a, b in itertools.pairwise(lit)]
    assert min(overlaps) > 0.98
    assert np.ptp(found.media.frames.reshape(len(frames), -1).max(axis=1)) > 10  # and time goes on


def test_level_none_is_the_file_itself(pool: Dataset) -> None:
    found = view(pool, IMAGE, "none")
    np.testing.assert_array_equal(found.media.pixels, media.decode(item_of(pool, IMAGE).path).pixels)
    assert found.payload == item_of(pool, IMAGE).path.read_bytes()
    assert found.seen.level == -1
    assert view(pool, CLIP, "none").media.frames.shape == (12, 48, 64, 3)


def test_short_videos_are_taken_whole(pool: Dataset) -> None:
    found = Views(pool.origin, "0", 0, (50, 60)).view(item_of(pool, CLIP))
    assert isinstance(found, View)
    assert len(found.media.frames) == 12


@pytest.mark.parametrize("level", ["1", "none"])
@pytest.mark.parametrize("name", ["real/one/broken.jpg", "synthetic/clips/broken.mp4"])
def test_what_cannot_be_decoded_is_named(pool: Dataset, name: str, level: Level) -> None:
    found = Views(pool.origin, level).view(item_of(pool, name))
    assert isinstance(found, Unusable)
    assert found.key == name
    assert found.detail
    (cell,) = Views(pool.origin, level).grid(item_of(pool, name))
    assert isinstance(cell, Unusable)


def test_a_file_that_is_gone_is_unusable(pool: Dataset) -> None:
    gone = dataclasses.replace(item_of(pool, IMAGE), path=pool.origin / "real/one/gone.jpg")
    assert isinstance(Views(pool.origin, "0").view(gone), Unusable)


def test_the_grid_has_every_cell_and_each_distortion_does_something(pool: Dataset) -> None:
    cells = {c.cell: c for c in Views(pool.origin).grid(item_of(pool, IMAGE)) if isinstance(c, View)}
    assert list(cells) == [cell.name for cell in GRID]
    assert len(cells) == 24
    names = {(c.scale, c.quality, c.blur, c.noise): c.name for c in GRID}
    plain = cells[names[1.0, 95, 0.0, 0.0]].media.pixels.astype(float)

    def detail(*key: float) -> float:
        pixels = cells[names[key[0], int(key[1]), key[2], key[3]]].media.pixels.astype(float)
        return float(np.abs(np.diff(pixels, axis=0)).mean())

    base = detail(1.0, 95, 0.0, 0.0)
    assert detail(1.0, 95, 0.0, 8.0) > base + 2
    assert detail(1.0, 95, 1.5, 8.0) > detail(1.0, 95, 1.5, 0.0) + 2  # noise comes after the blur
    noise = cells[names[1.0, 95, 0.0, 8.0]].media.pixels - plain
    assert 5 < noise.std() < 9
    assert len(cells[names[1.0, 50, 0.0, 0.0]].payload) < len(cells[names[1.0, 95, 0.0, 0.0]].payload)
    halved = cells[names[0.5, 95, 0.0, 0.0]].media.pixels
    assert 0 < np.abs(halved - plain).mean() < 10
