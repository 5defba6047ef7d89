"""Fakes of images: pure, true to their labels and masks, and still there on the wire."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from detectors import media, paths, registry
from detectors.errors import ConfigError
from detectors.store import Store
from detectors.training import fakes
from detectors.training.autoencoder import WEIGHTS, AutoEncoder
from detectors.training.fakes import decoders, roundtrips
from detectors.training.points import FFHQ_POINTS
from detectors.types import U8, Label
from neurons.demo_media import photographs


@pytest.fixture(scope="module")
def photos() -> dict[str, U8]:
    return dict(photographs())


@pytest.fixture(scope="module")
def photo(photos: dict[str, U8]) -> U8:
    return np.ascontiguousarray(photos["chelsea"][:200, :260])


@pytest.fixture(scope="module", autouse=True)
def weights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A store with an auto-encoder of the right shape, so that the tests of the makers hang on no shipped file."""
    root = tmp_path_factory.mktemp("home")
    name, version = roundtrips.KEY.split("@")
    card = replace(AutoEncoder.published, name=name, version=version, options={"width": 8})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "_GATES", {**registry._GATES, WEIGHTS: "detectors.training.autoencoder:AutoEncoder"})
        torch.manual_seed(0)
        Store(root / "weights").save(card, AutoEncoder(width=8))
        patch.setenv("DEEPFAKE_MINER_HOME", str(root))
        yield root


@pytest.mark.parametrize("kind", fakes.KINDS)
def test_a_fake_keeps_size_and_type_and_is_what_the_table_says(kind: str, photo: U8) -> None:
    before = photo.copy()
    made = fakes.make(photo, np.random.default_rng(1), kind)
    assert made.pixels.shape == photo.shape
    assert made.pixels.dtype == np.uint8
    assert made.kind == kind
    assert made.label is fakes.LABELS[kind]
    assert np.array_equal(photo, before)  # the source is left alone


@pytest.mark.parametrize("kind", fakes.KINDS)
def test_the_trace_survives_the_wire(kind: str, photos: dict[str, U8]) -> None:
    """A fake whose 256 px JPEG is the real's teaches that real is fake."""
    changes = []
    for seed, name in enumerate(("chelsea", "coffee", "astronaut", "china", "rocket")):
        view = np.asarray(cv2.resize(photos[name][:300, :300], (256, 256), interpolation=cv2.INTER_AREA), np.uint8)
        made = fakes.make(view, np.random.default_rng(seed), kind)
        wires = [media.decode_image(media.encode_jpeg(p, quality=75)).pixels.astype(int) for p in (view, made.pixels)]
        changes.append(float(np.abs(wires[0] - wires[1]).mean()))
    assert min(changes) > 0.1
    assert np.median(changes) > 0.6


@pytest.mark.parametrize("kind", [k for k in fakes.KINDS if k not in fakes.NEED_WEIGHTS])
def test_a_fake_still_shows_the_same_picture(kind: str, photo: U8) -> None:
    made = fakes.make(photo, np.random.default_rng(2), kind)
    before, after = (p[::8, ::8].astype(float).ravel() for p in (photo, made.pixels))
    assert np.corrcoef(before, after)[0, 1] > 0.8


@pytest.mark.parametrize("kind", fakes.KINDS)
def test_same_seed_same_fake_also_in_threads(kind: str, photo: U8) -> None:
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: fakes.make(photo, np.random.default_rng(5), kind).pixels, range(4)))
    assert all(np.array_equal(made[0], other) for other in made[1:])
    assert not np.array_equal(made[0], fakes.make(photo, np.random.default_rng(6), kind).pixels)


@pytest.mark.parametrize("kind", fakes.KINDS)
def test_what_the_mask_leaves_out_is_untouched(kind: str, photo: U8) -> None:
    for seed in range(3, 6):
        made = fakes.make(photo, np.random.default_rng(seed), kind)
        if made.label == Label.SYNTHETIC:
            assert made.mask is None
            return
        assert made.mask is not None
        assert made.mask.shape == photo.shape[:2]
        assert made.mask.dtype == np.float32
        assert 0.0 <= made.mask.min() <= made.mask.max() <= 1.0
        outside = made.mask == 0.0
        assert 0.2 < outside.mean() < 0.99
        assert np.array_equal(made.pixels[outside], photo[outside])
        changed = np.abs(made.pixels.astype(int) - photo).max(axis=2) > 0
        assert changed[made.mask > 0.4].mean() > 0.5


@pytest.mark.parametrize("shape", [(32, 32), (33, 100), (101, 35)])
def test_small_and_odd_sizes_work(shape: tuple[int, int], photo: U8) -> None:
    part = np.ascontiguousarray(photo[: shape[0], : shape[1]])
    for kind in fakes.KINDS:
        for seed in range(4):
            assert fakes.make(part, np.random.default_rng(seed), kind).pixels.shape == part.shape


@pytest.mark.parametrize("kind", fakes.KINDS)
@pytest.mark.parametrize("value", [0, 128, 255])
def test_a_blank_picture_is_no_accident(kind: str, value: int) -> None:
    made = fakes.make(np.full((64, 64, 3), value, np.uint8), np.random.default_rng(4), kind)
    assert made.label is fakes.LABELS[kind]


def test_too_small_is_refused(photo: U8) -> None:
    with pytest.raises(ValueError, match="32"):
        fakes.make(photo[:31], np.random.default_rng(0))
    with pytest.raises(ValueError, match="32"):
        fakes.make(photo, np.random.default_rng(0), "spliced", donor=photo[:31])


def test_unknown_kind_and_odd_points_are_refused(photo: U8) -> None:
    with pytest.raises(KeyError):
        fakes.make(photo, np.random.default_rng(0), "nonsense")
    with pytest.raises(ValueError, match=r"\(5, 2\)"):
        fakes.make(photo, np.random.default_rng(0), "self_blended", points=np.zeros((4, 2)))


def test_no_kind_draws_every_kind_in_the_end(photo: U8) -> None:
    part = np.ascontiguousarray(photo[:48, :48])
    assert {fakes.make(part, np.random.default_rng(k)).kind for k in range(120)} == set(fakes.KINDS)


def test_the_assumed_points_are_those_of_the_face_gate() -> None:
    assert np.array_equal(fakes.assumed_points(1, 1), FFHQ_POINTS)


@pytest.mark.parametrize("kind", ["self_blended", "wavelet_blended"])
def test_face_makers_keep_to_the_face(kind: str, photo: U8) -> None:
    """Points in one corner: the mask lies there, whatever the draw."""
    points = fakes.assumed_points(80, 80) + np.array([10.0, 15.0])
    for seed in range(8):
        mask = fakes.make(photo, np.random.default_rng(seed), kind, points=points).mask
        assert mask is not None
        yy, xx = np.nonzero(mask > 0.1)
        assert len(yy) > 60
        assert yy.max() < 115
        assert xx.max() < 110
        assert np.hypot(yy.mean() - 62, xx.mean() - 50) < 30


def test_a_donor_gives_the_region_its_content(photo: U8) -> None:
    """A striped donor in a flat picture: the region is striped, its mean colour the picture's."""
    flat = np.full((96, 96, 3), (90, 120, 150), np.uint8)
    stripes = np.tile(np.repeat(np.array([20, 230], np.uint8), 4), 12)[None, :, None].repeat(96, 0).repeat(3, 2)
    made = fakes.make(flat, np.random.default_rng(3), "spliced", donor=np.ascontiguousarray(stripes))
    assert made.mask is not None
    inside = made.mask > 0.9
    assert made.pixels[inside].astype(float).std(axis=0).max() > 20
    other = fakes.make(flat, np.random.default_rng(3), "spliced")
    assert np.abs(other.pixels.astype(int) - flat).max() <= 3  # without a donor there is nothing but flat to copy


def test_the_spectrum_is_bent_above_and_kept_below(photo: U8) -> None:
    def band(image: U8, low: float, high: float) -> float:
        power = np.abs(np.fft.fft2(image[..., 1].astype(float)))
        radius = np.hypot(np.fft.fftfreq(image.shape[0])[:, None], np.fft.fftfreq(image.shape[1])[None])
        return float(power[(radius > low) & (radius <= high)].mean())

    for seed in range(6):
        made = fakes.make(photo, np.random.default_rng(seed), "reshaped").pixels
        assert band(made, 0.02, 0.1) == pytest.approx(band(photo, 0.02, 0.1), rel=0.1)
        assert abs(np.log(band(made, 0.35, 0.5) / band(photo, 0.35, 0.5))) > 0.05


@pytest.mark.parametrize("doubling", ["_nearest_convolved", "_transposed", "_shuffled"])
def test_doublings_keep_a_flat_picture_nearly_flat(doubling: str) -> None:
    """Kernels that are not normalised would brighten or darken the picture: a cue that no generator leaves."""
    make: Callable[[np.random.Generator], Callable[..., np.ndarray]] = getattr(decoders, doubling)
    for seed in range(5):
        out = make(np.random.default_rng(seed))(np.full((12, 12, 3), 100.0, np.float32))
        assert out.shape == (24, 24, 3)
        assert out[4:-4, 4:-4].mean() == pytest.approx(100.0, abs=6.0)


@pytest.mark.parametrize("kind", sorted(fakes.NEED_WEIGHTS))
def test_missing_weights_are_named(kind: str, photo: U8, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPFAKE_MINER_HOME", str(tmp_path))
    assert paths.weights() == tmp_path / "weights"
    with pytest.raises(ConfigError, match=r"autoencoder@1\.0\.0.*autoencoder\.yaml"):
        fakes.make(photo, np.random.default_rng(0), kind)
