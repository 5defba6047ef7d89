from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from detectors import media
from detectors.errors import MediaError
from detectors.training.format_probe import FAMILIES, LEAK, NAMES, features, fit_probe, jpeg_quality, probe_views
from detectors.training.recipe import Recipe
from detectors.training.samples import Pool
from detectors.types import U8
from tests.detectors.training.pool_of_photos import write_pool


def encoded(pixels: U8, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def named(data: bytes | U8) -> dict[str, float]:
    return dict(zip(NAMES, features(data).tolist(), strict=True))


@dataclass(frozen=True)
class Shown:
    pixels: U8
    labels: npt.NDArray[np.uint8]
    paired: npt.NDArray[np.bool_]


def shown(seed: int, *, darker: int = 0, half: int = 8, side: int = 16) -> Shown:
    """Noise of random brightness; the fakes are darker by so many grey levels."""
    rng = np.random.default_rng(seed)
    level = rng.integers(60, 180, (2 * half, 1, 1, 1)) - np.repeat([0, darker], half)[:, None, None, None]
    pixels = np.clip(level + rng.integers(-20, 20, (2 * half, side, side, 3)), 0, 255).astype(np.uint8)
    return Shown(pixels, np.repeat(np.array([0, 1], np.uint8), half), np.zeros(half, bool))


PHOTO = np.random.default_rng(1).integers(0, 256, (40, 60, 3), dtype=np.uint8)


def test_features_of_a_jpeg() -> None:
    data = encoded(PHOTO, "JPEG", quality=90, subsampling="4:4:4")
    found = named(data)
    assert (found["width"], found["height"], found["aspect"]) == (60, 40, 1.5)
    assert found["jpeg_quality"] == pytest.approx(90, abs=0.5)
    assert found["subsampling"] == 0
    assert found["luma_table_mean"] < found["chroma_table_mean"]
    assert found["bytes_per_pixel"] == len(data) / 2400
    assert (found["is_jpeg"], found["is_png"]) == (1, 0)
    assert found["red_mean"] == pytest.approx(media.decode_image(data).pixels[..., 0].mean())
    assert list(found) == [name for names in FAMILIES.values() for name in names]


def test_features_of_what_is_no_jpeg() -> None:
    found = named(encoded(PHOTO, "PNG"))
    assert (found["is_png"], found["is_jpeg"]) == (1, 0)
    assert found["jpeg_quality"] == found["subsampling"] == -1
    assert found["blue_std"] == pytest.approx(PHOTO[..., 2].std())
    assert np.isfinite(features(encoded(PHOTO[..., :1].repeat(3, axis=2), "WEBP"))).all()
    assert named(encoded(PHOTO[..., 0], "JPEG"))["chroma_table_mean"] > 0  # grey: one table stands for both
    with pytest.raises(MediaError):
        features(b"no image")


@pytest.mark.parametrize("quality", [20, 50, 75, 95, 100])
def test_the_quality_is_libjpegs(quality: int) -> None:
    assert named(encoded(PHOTO, "JPEG", quality=quality))["jpeg_quality"] == pytest.approx(quality, abs=2)
    assert jpeg_quality(3688) == 50


def test_a_training_view_is_measured_as_it_arrived() -> None:
    view = media.decode_image(media.encode_jpeg(PHOTO)).pixels
    found, stored = named(view), named(media.encode_jpeg(view, quality=75))
    assert found["jpeg_quality"] == pytest.approx(75, abs=0.5)
    assert found["subsampling"] == 2
    assert found["bytes_per_pixel"] == stored["bytes_per_pixel"]


def test_a_leak_is_found_named_and_placed() -> None:
    report = probe_views([shown(step, darker=70) for step in range(20)])
    assert report.leaks
    assert report.low > LEAK
    assert (report.n, report.reals, report.fakes) == (320, 160, 160)
    assert report.drivers[0][0].endswith("_mean")
    assert report.families["colour"] > 0.8
    assert report.families["size"] == 0.5
    assert {"width", "jpeg_quality"}.isdisjoint(name for name, _ in report.drivers)  # constant in a view
    assert "leaks" in str(report)
    assert report.as_dict()["leaks"] is True


def test_no_leak_is_not_made_up() -> None:
    report = probe_views([shown(step) for step in range(24)])
    assert not report.leaks
    assert report.low < 0.5 < report.high + 0.05
    assert report == probe_views([shown(step) for step in range(24)])


def test_files_of_unequal_history_are_told_apart() -> None:
    rng = np.random.default_rng(0)
    rows, labels = [], []
    for k in range(60):
        pixels = rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)
        rows.append(features(encoded(pixels, "JPEG", quality=95 if k % 2 else 80)))
        labels.append(k % 2)
    report = fit_probe(rows, labels, range(60))
    assert report.auc > 0.95
    assert report.families["compression"] > 0.95
    assert report.families["size"] == 0.5


def test_groups_keep_the_probe_from_remembering() -> None:
    """Each group has colours of its own and a label by chance: only who has met the group can tell."""
    rng = np.random.default_rng(2)
    batches, groups = [], []
    looks = [(rng.integers(20, 230, 3), rng.integers(0, 2)) for _ in range(40)]
    for _ in range(12):
        chosen = [
            *rng.choice([k for k in range(40) if not looks[k][1]], 8),
            *rng.choice([k for k in range(40) if looks[k][1]], 8),
        ]
        pixels = np.stack([np.broadcast_to(looks[k][0], (16, 16, 3)) for k in chosen]).astype(np.uint8)
        batches.append(Shown(pixels, np.repeat(np.array([0, 1], np.uint8), 8), np.zeros(8, bool)))
        groups.append([f"group {k}" for k in chosen])
    assert probe_views(batches).auc > 0.9
    assert probe_views(batches, groups).auc < 0.75


def test_pairs_share_a_fold() -> None:
    """Fakes that look exactly as their reals: unpaired, each would betray the other's label by its opposite."""
    batches = []
    for step in range(12):
        reals = shown(step).pixels[:8]
        batches.append(
            Shown(np.concatenate([reals, reals]), np.repeat(np.array([0, 1], np.uint8), 8), np.ones(8, bool))
        )
    apart = [Shown(b.pixels, b.labels, np.zeros(8, bool)) for b in batches]
    assert probe_views(batches).auc == pytest.approx(0.5, abs=0.02)
    assert abs(probe_views(apart).auc - 0.5) > 0.02


def test_the_probe_takes_the_trainers_batches(tmp_path: Path) -> None:
    recipe = Recipe(name="t", version="1", architecture="npr", side=64, batch=16, made_share=0.5, seed=4)
    pool = Pool(write_pool(tmp_path), recipe)
    report = probe_views(pool.batch(step) for step in range(6))
    assert report.n == 96
    assert report.families["size"] == 0.5
    assert 0 <= report.low <= report.auc <= report.high <= 1


def test_too_little_is_refused() -> None:
    rows = np.zeros((6, len(NAMES)))
    with pytest.raises(ValueError, match="needs 5 groups"):
        fit_probe(rows, [0, 0, 0, 1, 1, 1], range(6))
    with pytest.raises(ValueError, match="do not match"):
        fit_probe(rows, [0, 1], range(2))
    with pytest.raises(ValueError, match="do not match"):
        probe_views([shown(0)], [["a"]])
