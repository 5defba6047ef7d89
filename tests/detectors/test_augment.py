"""Augmentation: equal to the validators' numbers, the drawn distribution, determinism under threads."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as reference

from detectors import augment
from detectors.augment import LEVELS, Draw, apply, apply_clip, draw, sample_level
from detectors.types import U8

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parents[1] / "golden/augment.json").read_text(encoding="utf-8"))


def noise_image(height: int, width: int) -> U8:
    image: U8 = np.random.RandomState(7).randint(0, 256, (height, width, 3)).astype(np.uint8)
    return image


def smooth_image(height: int, width: int) -> U8:
    y, x, c = np.mgrid[0:height, 0:width, 0:3].astype(np.float64)
    value = 127.5 * (1 + 0.6 * np.sin(0.031 * x * (c + 1) + 0.017 * y) + 0.4 * np.cos(0.023 * y * (3 - c)))
    image: U8 = np.clip(np.floor(value), 0, 255).astype(np.uint8)
    return image


IMAGES = {"noise": noise_image, "smooth": smooth_image}


def named(name: str) -> U8:
    kind, size = name.split("_")
    height, width = (int(v) for v in size.split("x"))
    return IMAGES[kind](height, width)


def assert_golden(out: npt.NDArray[np.uint8], record: dict[str, Any]) -> None:
    """uint8 results agree within ±1 at every recorded place, and the statistics with them."""
    assert list(out.shape) == record["shape"]
    flat = out.ravel().astype(np.float64)
    probes = flat[[k * (flat.size - 1) // 15 for k in range(16)]]
    np.testing.assert_allclose(flat[:16], record["first16"], atol=1)
    np.testing.assert_allclose(probes, record["probe16"], atol=1)
    assert flat.mean() == pytest.approx(record["mean"], abs=0.06)
    assert flat.std() == pytest.approx(record["std"], abs=0.06)


@pytest.mark.parametrize("name", sorted(GOLDEN["base"]))
def test_level_0_equals_the_validators(name: str) -> None:
    image = named("_".join(name.split("_")[1:3]))
    out = apply(draw(np.random.default_rng(0), 0, (image.shape[0], image.shape[1])), image)
    assert_golden(out.transpose(2, 0, 1), GOLDEN["base"][name])


@pytest.mark.parametrize("name", sorted(GOLDEN["distortions"]))
def test_distortions_equal_the_validators(name: str) -> None:
    """The records take the array as BGR; saturation ("CS") is informative there and happens to agree."""
    kind, level, *rest = name.split("_")
    distortion = {
        "CS": augment.saturation,
        "CC": augment.contrast,
        "JPEG": augment.down_up,
        "GB": augment.blur,
    }[kind]
    bgr = named("_".join(rest))
    out = distortion(np.ascontiguousarray(bgr[..., ::-1]), int(level.removeprefix("level")))[..., ::-1]
    assert_golden(out, GOLDEN["distortions"][name])


@pytest.mark.parametrize("size", [(300, 400), (257, 181), (128, 128)])
@pytest.mark.parametrize("seed", range(4))
def test_level_1_equals_torchvision(size: tuple[int, int], seed: int) -> None:
    """Rotation, crop, resize and flips in torchvision's float arithmetic, from the same drawn parameters."""
    image = smooth_image(*size)
    d = draw(np.random.default_rng(seed), 1, size)
    tensor = torch.from_numpy(image).permute(2, 0, 1).float() / 255
    tensor = reference.rotate(tensor, d.angle, interpolation=InterpolationMode.BILINEAR)
    tensor = reference.resized_crop(tensor, *d.crop, size=[256, 256], antialias=True)
    tensor = reference.horizontal_flip(tensor) if d.hflip else tensor
    tensor = reference.vertical_flip(tensor) if d.vflip else tensor
    difference = np.abs((tensor * 255).permute(1, 2, 0).numpy() - apply(d, image))
    assert difference.mean() < 1.0
    assert np.quantile(difference, 0.99) <= 2.0  # along the black corners a 1/32 pixel step shows


def test_rotation_is_counter_clockwise_and_fills_with_black() -> None:
    image = np.full((256, 256, 3), 200, dtype=np.uint8)
    image[:, 200:] = 50  # a dark band on the right
    out = apply(Draw(level=1, size=(256, 256), crop=(0, 0, 256, 256), angle=20.0), image)
    assert (out[0, 0] == 0).all()
    upper, lower = (int(np.argmax(out[row, 60:, 0] < 120)) for row in (90, 170))
    assert upper < lower  # counter-clockwise: the band leans to the left at the top


@given(
    seed=st.integers(0, 2**32),
    level=st.integers(0, 3),
    height=st.integers(1, 700),
    width=st.integers(1, 700),
)
def test_draw_stays_in_its_ranges(seed: int, level: int, height: int, width: int) -> None:
    d = draw(np.random.default_rng(seed), level, (height, width))
    top, left, rows, columns = d.crop
    assert rows == columns >= 1
    assert 0 <= top <= height - rows
    assert 0 <= left <= width - columns
    assert abs(d.angle) <= 20
    most = {0: 0, 1: 0, 2: 1, 3: 2}[level]
    assert all(0 <= v <= most for v in (d.saturation, d.contrast, d.down_up, d.noise, d.blur))
    if level < 3:
        assert (d.noise, d.blur) == (0, 0)
    if level == 0:
        assert (d.angle, d.hflip, d.vflip, rows) == (0, False, False, min(height, width))


@given(
    seed=st.integers(0, 2**32),
    level=st.integers(0, 3),
    size=st.tuples(st.integers(1, 400), st.integers(1, 400)),
    other=st.tuples(st.integers(1, 400), st.integers(1, 400)),
)
def test_fitted_draw_is_valid_for_its_size(
    seed: int, level: int, size: tuple[int, int], other: tuple[int, int]
) -> None:
    d = draw(np.random.default_rng(seed), level, size)
    fitted = d.fitted(other)
    top, left, rows, columns = fitted.crop
    assert fitted.size == other
    assert rows == columns >= 1
    assert 0 <= top <= other[0] - rows
    assert 0 <= left <= other[1] - columns
    assert replace(fitted, size=d.size, crop=d.crop) == d
    assert d.fitted(size) is d


def test_fitted_keeps_the_share_and_the_place() -> None:
    d = Draw(level=1, size=(100, 200), crop=(20, 100, 60, 60), angle=3.0)
    assert d.fitted((200, 400)).crop == (40, 200, 120, 120)


def test_drawn_distribution() -> None:
    """Means over 4,000 draws within four standard errors of what the levels promise."""
    rng = np.random.default_rng(5)
    draws = [draw(rng, 3, (400, 400)) for _ in range(4000)]
    area = np.array([d.crop[2] ** 2 / 160_000 for d in draws])
    assert area.mean() == pytest.approx(0.6, abs=4 * 0.8 / np.sqrt(12 * 4000))
    assert area.min() < 0.21
    assert area.max() > 0.99
    angle = np.array([d.angle for d in draws])
    assert angle.mean() == pytest.approx(0, abs=4 * 40 / np.sqrt(12 * 4000))
    assert np.ptp(angle) > 39
    for flips in ([d.hflip for d in draws], [d.vflip for d in draws]):
        assert np.mean(flips) == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(4000))
    for name in ("saturation", "contrast", "down_up", "noise", "blur"):
        shares = np.bincount([getattr(d, name) for d in draws], minlength=3) / 4000
        np.testing.assert_allclose(shares, 1 / 3, atol=4 * np.sqrt(2 / 9 / 4000))
    assert len({d.noise_seed for d in draws}) == 4000


@pytest.mark.parametrize("mix", ["2.0", "2.2"])
def test_levels_follow_the_mix(mix: augment.Mix) -> None:
    rng = np.random.default_rng(1)
    counts = np.bincount([sample_level(rng, mix) for _ in range(20_000)], minlength=4) / 20_000
    assert sum(LEVELS[mix]) == pytest.approx(1)
    np.testing.assert_allclose(counts, LEVELS[mix], atol=4 * np.sqrt(0.25 / 20_000))


def test_noise_has_the_stated_strength_in_ycbcr() -> None:
    grey = np.full((256, 256, 3), 128, dtype=np.uint8)
    for severity, variance in enumerate((0.001, 0.002, 0.005, 0.01), start=1):
        rgb = augment.noise(grey, severity, np.random.default_rng(severity)).astype(np.float64)
        luma = rgb @ np.array([0.299, 0.587, 0.114])
        assert rgb.mean() == pytest.approx(127.5, abs=0.5)  # a cast truncates
        assert luma.std() == pytest.approx(np.sqrt(variance) * 255 * 255 / 219, rel=0.03)
        assert np.corrcoef(rgb[..., 0].ravel(), rgb[..., 1].ravel())[0, 1] < 0.9  # coloured, not grey noise


def test_saturation_stays_in_range_on_every_corner_of_the_cube() -> None:
    corners = np.array(np.meshgrid([0, 255], [0, 255], [0, 255])).reshape(3, 1, 8).transpose(1, 2, 0).astype(np.uint8)
    for severity in range(1, 6):
        out = augment.saturation(np.ascontiguousarray(corners), severity).astype(int)
        luma = corners.astype(float) @ np.array([0.299, 0.587, 0.114])
        assert (np.abs(out @ np.array([0.299, 0.587, 0.114]) - luma) <= 1.6).all()  # brightness is kept
        if severity == 5:
            assert (np.ptp(out, axis=-1) <= 1).all()  # grey


def test_severity_0_is_the_identity() -> None:
    image = noise_image(64, 64)
    rng = np.random.default_rng(0)
    for out in (
        augment.saturation(image, 0),
        augment.contrast(image, 0),
        augment.down_up(image, 0),
        augment.noise(image, 0, rng),
        augment.blur(image, 0),
    ):
        np.testing.assert_array_equal(out, image)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), level=st.integers(0, 3), height=st.integers(1, 90), width=st.integers(1, 90))
def test_every_size_becomes_256(seed: int, level: int, height: int, width: int) -> None:
    image = noise_image(height, width)
    before = image.copy()
    out = apply(draw(np.random.default_rng(seed), level, (height, width)), image)
    assert out.shape == (256, 256, 3)
    assert out.dtype == np.uint8
    assert not np.shares_memory(out, image)
    np.testing.assert_array_equal(image, before)


def test_the_result_never_shares_memory_with_the_frame() -> None:
    image = noise_image(256, 256)
    out = apply(draw(np.random.default_rng(0), 0, (256, 256)), image)
    np.testing.assert_array_equal(out, image)
    assert not np.shares_memory(out, image)


def test_same_draw_same_bytes_in_any_thread() -> None:
    image = noise_image(300, 400)
    draws = [draw(np.random.default_rng([3, k]), k % 4, (300, 400)) for k in range(32)]
    one_by_one = [apply(d, image).tobytes() for d in draws]
    with ThreadPoolExecutor(4) as pool:
        threaded = list(pool.map(lambda d: apply(d, image).tobytes(), reversed(draws)))
    assert threaded[::-1] == one_by_one
    assert len(set(one_by_one)) > 20


def test_a_clip_shares_the_draw_but_not_the_noise_field() -> None:
    frames = np.repeat(smooth_image(120, 160)[None], 3, axis=0)
    still = apply_clip(draw(np.random.default_rng(2), 1, (120, 160)), frames)
    np.testing.assert_array_equal(still[0], still[2])
    noisy = Draw(level=3, size=(120, 160), crop=(0, 0, 120, 120), angle=5.0, noise=2, noise_seed=9)
    clip = apply_clip(noisy, frames)
    assert clip.shape == (3, 256, 256, 3)
    assert not np.array_equal(clip[0], clip[2])
    np.testing.assert_array_equal(clip[2], apply(noisy, frames[2], index=2))


def test_refusals() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="level must be"):
        draw(rng, 4, (10, 10))
    with pytest.raises(ValueError, match="no pixels"):
        draw(rng, 1, (0, 10))
    d = draw(rng, 1, (10, 10))
    with pytest.raises(ValueError, match="draw is for"):
        apply(d, noise_image(11, 10))
    with pytest.raises(ValueError, match="draw is for"):
        apply(d, noise_image(10, 10).astype(np.float32))
