"""Reading labelled media: the strict manifest, the folder, and the split that never tears a group apart."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.datasets import COLUMNS, Item, read, read_folder, read_manifest, split_by_group
from detectors.errors import ConfigError
from detectors.types import Label

ROW = {
    "path": "image/a.jpg",
    "modality": "image",
    "label": "real",
    "content": "face",
    "generator": "camera",
    "source": "street",
    "group": "street:1",
    "width": "",
    "height": "",
    "original_format": "JPEG",
    "processing": "native crop, JPEG Q90 4:2:0",
    "licence": "CC0-1.0",
    "sha256_16": "0123456789abcdef",
}


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def manifest(root: Path, *rows: dict[str, str], columns: tuple[str, ...] = COLUMNS) -> Path:
    touch(root / "image/a.jpg", root / "video/b.mp4")
    path = root / "manifest.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_manifest(tmp_path: Path) -> None:
    second = {**ROW, "path": "video/b.mp4", "modality": "video", "label": "semisynthetic", "source": "swap"}
    path = manifest(tmp_path, ROW, second)
    data = read_manifest(path)
    assert [item.label for item in data] == [Label.REAL, Label.SEMISYNTHETIC]
    assert [item.fake for item in data] == [False, True]
    assert data[0] == Item(
        path=tmp_path.resolve() / "image/a.jpg",
        modality="image",
        label=Label.REAL,
        content="face",
        generator="camera",
        source="street",
        group="1",  # the manifest puts the source before it, which would part what sources share
        processing="native crop, JPEG Q90 4:2:0",
        licence="CC0-1.0",
    )
    assert data[1].modality == "video"
    assert read(path).items == read(tmp_path).items == data.items
    assert data.description == "manifest.csv: 1 real images, 1 semisynthetic videos from 2 sources"


def test_column_order_is_free(tmp_path: Path) -> None:
    assert len(read_manifest(manifest(tmp_path, ROW, columns=tuple(reversed(COLUMNS))))) == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"label": "fake"}, "line 2: label 'fake' is none of real, synthetic, semisynthetic"),
        ({"label": "0"}, "label '0'"),
        ({"modality": "gif"}, "modality 'gif'"),
        ({"source": " "}, "source is empty"),
        ({"group": ""}, "group is empty"),
        ({"path": "image/none.jpg"}, "there is no file 'image/none.jpg'"),
        ({"path": "image"}, "there is no file 'image'"),
        ({"path": ""}, "is not relative"),
        ({"path": "/etc/passwd"}, "is not relative"),
        ({"path": "../outside.jpg"}, "leaves the manifest's folder"),
        ({"path": "image/../../outside.jpg"}, "leaves the manifest's folder"),
        ({"path": "link.jpg"}, "leaves the manifest's folder"),
    ],
)
def test_bad_rows_are_refused_by_line(tmp_path: Path, change: dict[str, str], said: str) -> None:
    root = tmp_path / "data"
    touch(tmp_path / "outside.jpg")
    path = manifest(root, {**ROW, **change})
    (root / "link.jpg").symlink_to(tmp_path / "outside.jpg")
    with pytest.raises(ConfigError, match="line 2") as error:
        read_manifest(path)
    assert said in str(error.value)


def test_wrong_columns_are_named(tmp_path: Path) -> None:
    path = manifest(tmp_path, ROW, columns=(*COLUMNS[:-1], "sha"))
    with pytest.raises(ConfigError, match=r"lacks \['sha256_16'\]; has unknown \['sha'\]"):
        read_manifest(path)
    path = manifest(tmp_path, ROW, columns=(*COLUMNS, "path"))
    with pytest.raises(ConfigError, match=r"repeats \['path'\]"):
        read_manifest(path)


def test_damaged_manifests(tmp_path: Path) -> None:
    path = manifest(tmp_path)
    with pytest.raises(ConfigError, match="no rows"):
        read_manifest(path)
    header = ",".join(COLUMNS)
    for text in (f"{header}\nimage/a.jpg,image\n", f"{header}\n{','.join(ROW.values())},more,and more\n"):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(ConfigError, match="13 fields"):
            read_manifest(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not a readable manifest"):
        read_manifest(path)
    with pytest.raises(ConfigError, match="no such manifest or folder"):
        read(tmp_path / "nowhere")


def test_folder(tmp_path: Path) -> None:
    touch(
        tmp_path / "real/web/deep/7.JPG",
        tmp_path / "real/8.png",
        tmp_path / "synthetic/flux/9.mp4",
        tmp_path / "synthetic/flux/notes.txt",
        tmp_path / "semisynthetic/inpainted/7.webp",
        tmp_path / "readme.md",
        tmp_path / "fake/10.jpg",
    )
    data = read(tmp_path)
    found = [(i.path.name, i.modality, i.label, i.source, i.group) for i in data]
    assert found == [
        ("8.png", "image", Label.REAL, "real", "8"),
        ("7.JPG", "image", Label.REAL, "web", "7"),
        ("7.webp", "image", Label.SEMISYNTHETIC, "inpainted", "7"),
        ("9.mp4", "video", Label.SYNTHETIC, "flux", "9"),
    ]
    assert data.skipped == ("fake/", "readme.md", "synthetic/flux/notes.txt")
    assert data.description.endswith("from 4 sources; 3 files of unknown type left out")


def test_folders_without_media_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="real/, synthetic/, semisynthetic/"):
        read_folder(tmp_path)
    touch(tmp_path / "real/a.txt")
    with pytest.raises(ConfigError, match="no image or video in real/"):
        read_folder(tmp_path)
    with pytest.raises(ConfigError, match="not a readable folder"):
        read_folder(tmp_path / "real/a.txt")


def items(groups: list[tuple[str, str]]) -> list[Item]:
    return [
        Item(Path(f"/{n}.jpg"), "image", Label.REAL, "", "", source, group) for n, (source, group) in enumerate(groups)
    ]


@given(
    groups=st.lists(st.tuples(st.sampled_from("abc"), st.text(max_size=3))),
    fraction=st.floats(0, 1),
    seed=st.integers(),
)
def test_split_keeps_groups_whole(groups: list[tuple[str, str]], fraction: float, seed: int) -> None:
    every = items(groups)
    first, second = split_by_group(every, fraction, seed)
    assert sorted(first + second, key=str) == sorted(every, key=str)
    assert not {i.group for i in first} & {i.group for i in second}
    alone = [split_by_group([item], fraction, seed)[1] for item in every]
    assert [item for found in alone for item in found] == second  # no file depends on the others


def test_split_share_and_seed() -> None:
    every = items([("a", str(n)) for n in range(4000)])
    held = split_by_group(every, 0.2, 1)[1]
    assert len(held) == pytest.approx(800, abs=4 * (4000 * 0.16) ** 0.5)
    assert held == split_by_group(every, 0.2, 1)[1]
    assert held != split_by_group(every, 0.2, 2)[1]
    assert split_by_group(every, 0, 1) == (every, [])
    assert split_by_group(every, 1, 1) == ([], every)
    with pytest.raises(ValueError, match="fraction"):
        split_by_group(every, 1.1, 1)
