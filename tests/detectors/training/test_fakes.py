from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from detectors.training import fakes
from detectors.types import U8, Label
from neurons.demo_media import photographs


@pytest.fixture(scope="module")
def photo() -> U8:
    return np.ascontiguousarray(dict(photographs())["chelsea"][:200, :260])


@pytest.mark.parametrize("kind", fakes.KINDS)
def test_a_fake_keeps_the_size_and_differs_from_its_source(kind: str, photo: U8) -> None:
    made = fakes.make(photo, np.random.default_rng(1), kind)
    assert made.pixels.shape == photo.shape
    assert made.pixels.dtype == np.uint8
    assert made.kind == kind
    assert np.abs(made.pixels.astype(int) - photo).mean() > 0.3


@pytest.mark.parametrize("kind", fakes.KINDS)
def test_a_fake_still_shows_the_same_picture(kind: str, photo: U8) -> None:
    made = fakes.make(photo, np.random.default_rng(2), kind)
    before, after = (p[::8, ::8].astype(float).ravel() for p in (photo, made.pixels))
    assert np.corrcoef(before, after)[0, 1] > 0.85


@pytest.mark.parametrize("kind", fakes.KINDS)
def test_same_seed_same_fake_also_in_threads(kind: str, photo: U8) -> None:
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: fakes.make(photo, np.random.default_rng(5), kind).pixels, range(4)))
    assert all(np.array_equal(made[0], other) for other in made[1:])


@pytest.mark.parametrize("kind", fakes.KINDS)
def test_what_the_mask_leaves_out_is_untouched(kind: str, photo: U8) -> None:
    made = fakes.make(photo, np.random.default_rng(3), kind)
    if made.label == Label.SYNTHETIC:
        assert made.mask is None
        return
    assert made.mask is not None
    assert made.mask.shape == photo.shape[:2]
    assert 0.0 <= made.mask.min() <= made.mask.max() <= 1.0
    outside = made.mask == 0.0
    assert outside.any()
    assert np.array_equal(made.pixels[outside], photo[outside])


@pytest.mark.parametrize("shape", [(32, 32), (33, 100), (101, 35)])
def test_small_and_odd_sizes_work(shape: tuple[int, int], photo: U8) -> None:
    part = np.ascontiguousarray(photo[: shape[0], : shape[1]])
    for kind in fakes.KINDS:
        assert fakes.make(part, np.random.default_rng(0), kind).pixels.shape == part.shape


def test_too_small_is_refused(photo: U8) -> None:
    with pytest.raises(ValueError, match="32"):
        fakes.make(photo[:31], np.random.default_rng(0))


def test_unknown_kind_is_refused(photo: U8) -> None:
    with pytest.raises(KeyError):
        fakes.make(photo, np.random.default_rng(0), "nonsense")


def test_no_kind_draws_every_kind_in_the_end(photo: U8) -> None:
    part = np.ascontiguousarray(photo[:48, :48])
    assert {fakes.make(part, np.random.default_rng(k)).kind for k in range(60)} == set(fakes.KINDS)
