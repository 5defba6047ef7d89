"""``detect --heatmap``: a picture of each file, under a name of its own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detectors import media
from neurons import cli
from neurons.demo_media import photographs
from tests.detectors.fixtures_media import encoded, movie, photo, video_frames


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("detect")
    (root / "other").mkdir()
    pixels = dict(photographs())["astronaut"]
    (root / "photo.jpg").write_bytes(media.encode_jpeg(pixels[:256, :320]))
    (root / "photo.png").write_bytes(encoded(photo(64, 80), "PNG"))
    (root / "other" / "photo.jpg").write_bytes(media.encode_jpeg(pixels[-200:, -160:]))
    (root / "photo-2.jpg").write_bytes(media.encode_jpeg(photo(64, 80)))
    (root / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 this is no picture")
    (root / "clip.mp4").write_bytes(movie(video_frames(12, 96, 128)))
    return root


def rows(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_every_file_gets_a_picture_of_its_own(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["photo.jpg", "photo.png", "other/photo.jpg", "photo-2.jpg", "photo.jpg"]
    out = tmp_path / "not" / "there"
    assert cli.run(["detect", "--json", "--heatmap", str(out), *(str(folder / name) for name in names)]) == 0
    found = [Path(str(row["heatmap"])) for row in rows(capsys)]
    wanted = ["photo", "photo-2", "photo-3", "photo-2-2", "photo-4"]
    assert [path.name for path in found] == [f"{name}.heatmap.png" for name in wanted]
    assert sorted(out.iterdir()) == sorted(found)
    for name, path in zip(names, found, strict=True):
        with Image.open(folder / name) as source, Image.open(path) as drawn:
            assert drawn.size == source.size
            assert drawn.mode == "RGB"
    assert found[0].read_bytes() == found[4].read_bytes()


def test_a_picture_is_drawn_over_where_it_speaks_for_fake(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["detect", "--json", "--heatmap", str(tmp_path), str(folder / "photo.jpg")]) == 0
    (row,) = rows(capsys)
    source = media.decode(folder / "photo.jpg").pixels
    with Image.open(str(row["heatmap"])) as drawn:
        change = np.abs(np.asarray(drawn).astype(int) - source).max(axis=-1)
    assert change.max() > 10
    assert change[:, :32].max() == 0  # outside the centre square that the experts are shown


def test_a_video_is_a_strip_and_text_names_the_file(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["detect", "--heatmap", str(tmp_path), str(folder / "clip.mp4")]) == 0
    target = tmp_path / "clip.heatmap.png"
    assert capsys.readouterr().out.strip().endswith(str(target))
    with Image.open(target) as drawn:
        assert drawn.size == (8 * 128 + 7 * 4, 96 + 48)


def test_exit_codes_stay(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = cli.run(
        ["detect", "--json", "--heatmap", str(tmp_path), str(folder / "broken.jpg"), str(folder / "photo.png")]
    )
    assert code == 3
    broken, good = rows(capsys)
    assert "heatmap" not in broken
    assert Path(str(good["heatmap"])).exists()
    assert [path.name for path in tmp_path.iterdir()] == ["photo.heatmap.png"]


def test_a_folder_that_cannot_be_made_is_bad_usage(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["detect", "--heatmap", str(folder / "photo.jpg"), str(folder / "photo.png")]) == 2
    assert "--heatmap" in capsys.readouterr().err
    assert cli.run(["detect", "--json", str(folder / "photo.png")]) == 0
    assert "heatmap" not in rows(capsys)[0]
