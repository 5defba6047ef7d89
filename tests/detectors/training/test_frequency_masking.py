"""Masking takes the share it says, where it says, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from detectors.training.frequency_masking import BANDS, Band, mask


def grey_noise(height: int, width: int) -> np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]:
    """Far from black and white, so that nothing is clipped."""
    return np.random.default_rng(1).normal(128, 12, (height, width, 3)).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("band", sorted(BANDS))
@pytest.mark.parametrize("size", [(64, 64), (63, 48)])
def test_the_share_of_the_band_is_emptied_and_the_rest_stays(band: Band, size: tuple[int, int]) -> None:
    image = grey_noise(*size)
    masked = mask(image, np.random.default_rng(0), band=band, ratio=0.3)
    before, after = (np.abs(np.fft.fft2(x.astype(float), axes=(0, 1))) for x in (image, masked))
    fy, fx = np.fft.fftfreq(size[0])[:, None], np.fft.fftfreq(size[1])[None]
    distance = np.sqrt(fy**2 + fx**2)
    inside = (distance > BANDS[band][0]) & (distance <= BANDS[band][1])
    rounding = 6 * np.sqrt(size[0] * size[1] / 12)  # what rounding to whole grey levels may put into a bin
    lost = (before > 3 * rounding).all(axis=2) & (after < rounding).all(axis=2)
    clear = (before > 3 * rounding).all(axis=2)
    assert lost[inside & clear].mean() == pytest.approx(0.3, abs=0.08)
    assert not lost[~inside].any()
    np.testing.assert_allclose(after[~inside], before[~inside], atol=rounding)
    np.testing.assert_allclose(masked.mean((0, 1)), image.mean((0, 1)), atol=0.1)


def test_all_of_it_leaves_the_mean_and_none_of_it_the_picture() -> None:
    image = grey_noise(32, 30)
    np.testing.assert_array_equal(mask(image, np.random.default_rng(0), ratio=0.0), image)
    flat = mask(image, np.random.default_rng(0), ratio=1.0)
    np.testing.assert_array_equal(flat, np.broadcast_to(np.rint(image.mean((0, 1))), image.shape))


def test_channels_lose_the_same() -> None:
    grey = np.repeat(grey_noise(40, 40)[..., :1], 3, axis=2)
    masked = mask(grey, np.random.default_rng(3))
    assert (masked == masked[..., :1]).all()
    assert (masked != grey).any()


def test_same_generator_same_bytes_and_the_input_stays() -> None:
    image = grey_noise(48, 48)
    kept = image.copy()
    one, two, other = (mask(image, np.random.default_rng(seed)) for seed in (5, 5, 6))
    np.testing.assert_array_equal(one, two)
    assert (one != other).any()
    np.testing.assert_array_equal(image, kept)


def test_bad_arguments() -> None:
    image = grey_noise(16, 16)
    with pytest.raises(ValueError, match="ratio"):
        mask(image, np.random.default_rng(0), ratio=1.2)
    with pytest.raises(KeyError):
        mask(image, np.random.default_rng(0), band="middle")  # type: ignore[arg-type]
