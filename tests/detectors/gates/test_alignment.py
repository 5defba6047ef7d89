from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from detectors.gates import alignment
from detectors.types import U8

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "alignment.json").read_text())


def smooth(height: int, width: int) -> U8:
    """The standard smooth image of the golden vectors."""
    y, x, c = np.mgrid[0:height, 0:width, 0:3].astype(np.float64)
    wave = 127.5 * (1 + 0.6 * np.sin(0.031 * x * (c + 1) + 0.017 * y) + 0.4 * np.cos(0.023 * y * (3 - c)))
    image: U8 = np.clip(np.floor(wave), 0, 255).astype(np.uint8)
    return image


@pytest.mark.parametrize("case", ["upright", "rotated"])
def test_the_matrix_is_the_originals(case: str) -> None:
    found = alignment.similarity(np.array(GOLDEN[case]["landmarks"]))
    expected = np.array(GOLDEN[case]["matrix"]).reshape(2, 3)
    assert np.abs(found - expected).max() <= 2e-5 * np.abs(expected).max()


@pytest.mark.parametrize("case", ["upright", "rotated"])
def test_the_aligned_crop_is_the_originals_within_one_level(case: str) -> None:
    crop = alignment.align(smooth(300, 400), np.array(GOLDEN[case]["landmarks"]))
    flat = crop.ravel().astype(float)
    probes = [flat[k * (flat.size - 1) // 15] for k in range(16)]
    assert np.abs(np.array(probes) - GOLDEN[case]["probe16"]).max() <= 1
    assert flat.mean() == pytest.approx(GOLDEN[case]["mean"], abs=0.05)
    assert flat.std() == pytest.approx(GOLDEN[case]["std"], abs=0.05)


def test_aligned_points_land_on_the_template() -> None:
    points = np.array(GOLDEN["rotated"]["landmarks"], dtype=float)
    matrix = alignment.similarity(points)
    target = alignment.template()
    landed = points @ matrix[:, :2].T + matrix[:, 2]
    assert np.linalg.norm(landed - target, axis=1).max() < 20  # a face is not the template, but near it
    exact = (target - 40.0) * 0.5
    matrix = alignment.similarity(exact)
    assert np.abs(exact @ matrix[:, :2].T + matrix[:, 2] - target).max() < 1e-9


def test_points_in_one_place_are_refused() -> None:
    with pytest.raises(ValueError, match="one place"):
        alignment.align(smooth(64, 64), np.full((5, 2), 10.0))


def test_a_wider_margin_shows_a_smaller_face() -> None:
    spread = [float(np.ptp(alignment.template(margin)[:, 0])) for margin in (1.0, 1.3, 2.0)]
    assert spread[0] > spread[1] > spread[2]
