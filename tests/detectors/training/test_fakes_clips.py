"""Fakes of videos: pure, true to their masks, and wrong over time in the way that each kind says."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from detectors.training.fakes import assumed_points
from detectors.training.fakes.clips import CLIP_KINDS, MadeClip, make_clip
from detectors.types import U8, Label
from neurons.demo_media import photographs

_FRAMES = 7


@pytest.fixture(scope="module")
def clip() -> U8:
    """A pan of three pixels a frame over a photograph, with sensor noise; ``[7, 96, 128, 3]``."""
    photo = dict(photographs())["chelsea"]
    rng = np.random.default_rng(0)
    frames = np.stack([photo[60:156, 100 + 3 * t : 228 + 3 * t] for t in range(_FRAMES)])
    return np.clip(frames + rng.normal(0, 2, frames.shape), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def still() -> U8:
    """One frame seven times: whatever moves in the fake was moved by the maker."""
    photo = dict(photographs())["coffee"]
    return np.repeat(np.ascontiguousarray(photo[60:188, 100:228])[None], _FRAMES, axis=0)


def _changes(frames: U8) -> npt.NDArray[np.float64]:
    """Mean absolute difference of neighbouring frames, ``[T - 1]``."""
    changes: npt.NDArray[np.float64] = np.abs(np.diff(frames.astype(float), axis=0)).mean(axis=(1, 2, 3))
    return changes


@pytest.mark.parametrize("kind", CLIP_KINDS)
def test_a_fake_clip_keeps_size_and_type_and_changes(kind: str, clip: U8) -> None:
    before = clip.copy()
    made = make_clip(clip, np.random.default_rng(1), kind)
    assert made.frames.shape == clip.shape
    assert made.frames.dtype == np.uint8
    assert made.kind == kind
    assert np.abs(made.frames.astype(int) - clip).mean() > 0.4
    assert np.array_equal(clip, before)


@pytest.mark.parametrize("kind", CLIP_KINDS)
def test_same_seed_same_clip_also_in_threads(kind: str, clip: U8) -> None:
    with ThreadPoolExecutor(3) as pool:
        made = list(pool.map(lambda _: make_clip(clip, np.random.default_rng(5), kind).frames, range(3)))
    assert all(np.array_equal(made[0], other) for other in made[1:])


@pytest.mark.parametrize("kind", CLIP_KINDS)
def test_labels_and_masks_are_true(kind: str, clip: U8) -> None:
    made = make_clip(clip, np.random.default_rng(3), kind)
    if made.mask is None:
        assert made.label is Label.SYNTHETIC
        assert (made.frames != clip).any(axis=(1, 2, 3)).sum() >= _FRAMES - 1  # an animation may start as its photo
        return
    assert made.label is Label.SEMISYNTHETIC
    assert made.mask.shape == clip.shape[:3]
    assert made.mask.dtype == np.float32
    outside = made.mask == 0.0
    assert 0.1 < outside.mean() < 0.95
    assert np.array_equal(made.frames[outside], clip[outside])


def test_interpolated_frames_alternate_with_true_ones_and_lie_between_them(clip: U8) -> None:
    for seed in range(4):
        made = make_clip(clip, np.random.default_rng(seed), "frame_interpolated")
        replaced = [t for t in range(_FRAMES) if (made.frames[t] != clip[t]).any()]
        assert len(replaced) >= 2
        assert all(b - a == 2 for a, b in pairwise(replaced))
        assert {0, _FRAMES - 1}.isdisjoint(replaced)
        for t in replaced:
            true, here = clip[t].astype(float), made.frames[t].astype(float)
            plain = (clip[t - 1].astype(float) + clip[t + 1]) / 2
            inner = np.s_[10:-10, 10:-10]  # the pan's borders are in one neighbour only
            assert np.abs(here - true)[inner].mean() < 0.8 * np.abs(plain - true)[inner].mean()


def test_interpolation_smooths_the_noise_of_every_other_frame(clip: U8) -> None:
    made = make_clip(clip, np.random.default_rng(0), "frame_interpolated")
    sharpness = [cv2.Laplacian(f[10:-10, 10:-10], cv2.CV_64F).var() for f in made.frames]
    replaced = [t for t in range(_FRAMES) if made.mask is not None and made.mask[t].any()]
    kept = [t for t in range(_FRAMES) if t not in replaced]
    assert max(sharpness[t] for t in replaced) < min(sharpness[t] for t in kept)


def test_a_warp_moves_a_still_a_little_in_every_frame(still: U8) -> None:
    for seed in range(3):
        made = make_clip(still, np.random.default_rng(seed), "warped")
        assert (_changes(made.frames) > 0.5).all()
        apart = np.abs(made.frames[0].astype(float) - made.frames[-1]).mean()
        assert apart < np.abs(still[0].astype(float) - still[0][::-1]).mean() / 2  # it is still the same picture


def test_a_swap_flickers_inside_its_region_only(still: U8) -> None:
    for seed in range(4):
        made = make_clip(still, np.random.default_rng(seed), "face_swapped", points=assumed_points(128, 128))
        assert made.mask is not None
        change = np.abs(np.diff(made.frames.astype(float), axis=0)).mean(axis=(0, 3))
        ever = made.mask.max(axis=0)
        assert change[ever == 0].max() == 0.0
        assert change[ever > 0.3].mean() > 0.3
        assert ever[:12].max() == 0.0  # the points are in the middle: the border stays


def test_a_remade_clip_has_one_draw_or_one_for_each_frame(still: U8) -> None:
    moved = [bool(_changes(_remade(still, seed).frames).max() > 0) for seed in range(12)]
    assert 2 <= sum(moved) <= 10


def _remade(frames: U8, seed: int) -> MadeClip:
    return make_clip(frames, np.random.default_rng(seed), "remade")


def test_an_animated_still_moves_steadily_and_forgets_the_clip(clip: U8) -> None:
    for seed in range(4):
        rng = np.random.default_rng(seed)
        frames = np.concatenate([clip[:1], np.random.default_rng(9).integers(0, 256, clip[1:].shape).astype(np.uint8)])
        made = make_clip(frames, rng, "still")
        step = _changes(made.frames)
        assert step.min() > 0.05
        assert step.max() < 4 * step.min() + 4  # no jump: noise and photograph are never mixed
    constant = make_clip(np.repeat(clip[:1], _FRAMES, axis=0), np.random.default_rng(0), "still")
    assert (_changes(constant.frames) > 0).all()


@pytest.mark.parametrize("shape", [(3, 32, 32), (4, 33, 50), (5, 61, 35)])
@pytest.mark.parametrize("kind", CLIP_KINDS)
def test_small_and_odd_clips_work(kind: str, shape: tuple[int, int, int]) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (*shape, 3)).astype(np.uint8)
    for seed in range(3):
        made = make_clip(frames, np.random.default_rng(seed), kind)
        assert made.frames.shape == frames.shape
        assert not np.array_equal(made.frames, frames)


@pytest.mark.parametrize("shape", [(2, 64, 64, 3), (5, 31, 64, 3), (64, 64, 3)])
def test_too_little_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="3 frames of 32"):
        make_clip(np.zeros(shape, np.uint8), np.random.default_rng(0))


def test_unknown_kind_and_odd_points_are_refused(clip: U8) -> None:
    with pytest.raises(KeyError):
        make_clip(clip, np.random.default_rng(0), "nonsense")
    with pytest.raises(ValueError, match=r"\(5, 2\)"):
        make_clip(clip, np.random.default_rng(0), points=np.zeros((2, 5)))


def test_no_kind_draws_every_kind_in_the_end(clip: U8) -> None:
    small = np.ascontiguousarray(clip[:3, :40, :40])
    assert {make_clip(small, np.random.default_rng(k)).kind for k in range(60)} == set(CLIP_KINDS)
