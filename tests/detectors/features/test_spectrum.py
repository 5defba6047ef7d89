"""Spectra by numpy's and scipy's transforms, and what a known picture must give."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import fft

from detectors.features.spectrum import (
    FLOOR,
    band_index,
    band_power,
    dct_power,
    power,
    radial_power,
    without_bands,
    ycc,
)


def noise(*shape: int, deviation: float = 0.1) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).normal(0.5, deviation, shape).astype(np.float32))


@pytest.mark.parametrize("size", [(16, 16), (15, 20), (33, 17)])
def test_power_is_numpys_and_parseval_holds(size: tuple[int, int]) -> None:
    x = noise(2, 3, *size)
    plane = x[1, 2].numpy().astype(np.float64)
    wanted = np.abs(np.fft.fft2(plane - plane.mean())) ** 2 / plane.size
    np.testing.assert_allclose(power(x)[1, 2].numpy(), wanted, atol=1e-5)
    np.testing.assert_allclose(power(x).mean((-2, -1)), x.var((-2, -1), correction=0), rtol=1e-4)
    assert power(x).dtype == torch.float32


def test_white_noise_has_its_variance_in_every_band_of_any_image() -> None:
    for side in (64, 96):
        found = band_power(noise(8, side, side), 4, 2).mean(0)
        np.testing.assert_allclose(found, math.log(0.01 + FLOOR), atol=0.25)


def test_a_wave_lies_in_its_ring_and_direction() -> None:
    """Ten periods over 64 pixels: 0.156 cycles a pixel; of 8 rings up to 0.5 the third one."""
    y, x = np.mgrid[0:64, 0:64]
    for sector, phase in ((0, x), (2, y), (1, (x + y)), (3, (x - y))):
        wave = torch.from_numpy((0.5 + 0.2 * np.sin(2 * math.pi * 10 * phase / 64)).astype(np.float32))
        found = band_power(wave, 8, 4)
        ring = 2 if sector in (0, 2) else 3  # a diagonal wave is longer by the square root of two
        assert int(found.argmax()) == ring * 4 + sector
        others = torch.cat([found[: found.argmax()], found[found.argmax() + 1 :]])
        assert float(others.max()) < math.log(2 * FLOOR)
    flat = radial_power(torch.full((3, 40, 40), 0.7), 10)
    np.testing.assert_allclose(flat, math.log(FLOOR), atol=1e-5)


@pytest.mark.parametrize("size", [(8, 8), (9, 12), (16, 15)])
def test_bands_are_mirror_images_and_whole(size: tuple[int, int]) -> None:
    index = band_index(*size, 4, 6)
    mirrored = index[-np.arange(size[0])[:, None], -np.arange(size[1])[None]]
    np.testing.assert_array_equal(index, mirrored)
    assert index[0, 0] == -1
    assert (index.reshape(-1)[1:] >= 0).all()
    assert index.max() < 24


def test_block_dct_is_scipys() -> None:
    x = noise(2, 21, 18)
    plane = x[0].numpy()
    blocks = [plane[r : r + 8, c : c + 8] for r in (0, 8) for c in (0, 8)]
    squares = np.mean([fft.dctn(b.astype(np.float64), norm="ortho") ** 2 for b in blocks], axis=0)
    np.testing.assert_allclose(dct_power(x)[0].numpy(), np.log(squares + FLOOR), atol=1e-3)
    with pytest.raises(ValueError, match="does not fit"):
        dct_power(torch.zeros(7, 9))


def test_nearest_up_sampling_leaves_a_hole_that_the_spectrum_shows() -> None:
    """Doubled pixels: nothing at Nyquist, where the picture itself has as much as anywhere."""
    small = noise(32, 32)
    large = small.repeat_interleave(2, 0).repeat_interleave(2, 1)
    drop = radial_power(large, 8)[[0, 7]]
    assert float(drop[0] - drop[1]) > 2.5
    plain = radial_power(noise(64, 64), 8)
    assert abs(float(plain[0] - plain[7])) < 0.7


def test_luma_and_chroma_by_hand() -> None:
    rgb = torch.tensor([1.0, 0.5, 0.0]).view(3, 1, 1)
    np.testing.assert_allclose(ycc(rgb).flatten(), [0.5925, -0.334368, 0.290656], atol=1e-6)
    grey = torch.full((2, 3, 4, 4), 0.3)
    np.testing.assert_allclose(ycc(grey)[:, 1:], 0.0, atol=1e-6)


@pytest.mark.parametrize("size", [(32, 32), (31, 24)])
def test_hidden_bands_are_empty_and_the_others_untouched(size: tuple[int, int]) -> None:
    x = noise(2, 3, *size)
    hidden = torch.zeros(2, 8, dtype=torch.bool)
    hidden[0, [1, 6]] = True
    found = without_bands(x, hidden, 4, 2)
    np.testing.assert_allclose(found[1], x[1], atol=1e-6)
    np.testing.assert_allclose(found.mean((-2, -1)), x.mean((-2, -1)), atol=1e-6)
    before, after = band_power(x, 4, 2), band_power(found, 4, 2)
    kept = [k for k in range(8) if k not in (1, 6)]
    np.testing.assert_allclose(after[0][:, kept], before[0][:, kept], atol=1e-3)
    np.testing.assert_allclose(after[0][:, [1, 6]], math.log(FLOOR), atol=1e-3)
