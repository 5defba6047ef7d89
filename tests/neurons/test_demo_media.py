from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import pytest

from detectors import datasets, media
from detectors.types import Label
from neurons import demo_media


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return demo_media.build(tmp_path_factory.mktemp("demo") / "media", 0)


def test_there_are_images_and_videos_of_every_kind(folder: Path) -> None:
    found = Counter((item.modality, item.label) for item in datasets.read(folder))
    assert found["image", Label.REAL] >= 48
    assert found["image", Label.SYNTHETIC] >= 60
    assert found["image", Label.SEMISYNTHETIC] >= 30
    assert found["video", Label.REAL] >= 10
    assert found["video", Label.SYNTHETIC] + found["video", Label.SEMISYNTHETIC] >= 10


def test_real_and_fake_files_do_not_differ_in_size_or_format(folder: Path) -> None:
    items = [i for i in datasets.read(folder) if i.modality == "image"]
    sizes = {
        real: [media.decode_image(i.path.read_bytes()).size for i in items if (i.label == Label.REAL) == real]
        for real in (True, False)
    }
    assert {i.path.suffix for i in items} == {".jpg"}
    assert set(sizes[False]) <= set(sizes[True])


def test_videos_decode_to_what_was_written(folder: Path) -> None:
    path = next((folder / "real").rglob("*.mp4"))
    clip = media.decode(path)
    assert clip.modality == "video"
    assert clip.size == (256, 256)
    assert clip.rate == pytest.approx(25.0)


def test_same_seed_same_images_and_a_second_call_replaces_the_first(folder: Path, tmp_path: Path) -> None:
    def digest(root: Path) -> dict[str, str]:
        return {p.relative_to(root).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in root.rglob("*.*")}

    other = demo_media.build(tmp_path, 1)
    assert digest(other) != digest(folder)
    assert digest(demo_media.build(tmp_path, 0)) == digest(folder)
