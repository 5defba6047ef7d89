from __future__ import annotations

import csv
import hashlib
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from detectors import datasets, media
from detectors.errors import ConfigError
from detectors.hub import SOURCES, Source, describe, layout
from detectors.hub.prepare import prepare
from detectors.types import Label
from tests.detectors.hub import local

NAME = "bitmind/bm-real"


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Ten different images in two shards, with a README as the hub has it."""
    root = tmp_path / "bitmind--bm-real"
    images = [local.encoded(p, quality=90) for p in local.parts(10)]
    local.shard(root / "data/train-00000-of-00002.parquet", images[:6])
    local.shard(root / "data/train-00001-of-00002.parquet", images[6:])
    (root / "README.md").write_text(local.README, encoding="utf-8")
    (root / ".cache/huggingface").mkdir(parents=True)
    (root / ".cache/huggingface/left.parquet").write_bytes(b"a part of a download")
    return root


def rows(pool: Path) -> list[dict[str, str]]:
    with (pool / "manifest.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def tree(pool: Path) -> dict[str, bytes]:
    return {p.relative_to(pool).as_posix(): p.read_bytes() for p in sorted(pool.rglob("*")) if p.is_file()}


def test_shards_become_a_pool_of_the_bytes_as_they_were(shards: Path, tmp_path: Path) -> None:
    done = prepare(shards, tmp_path / "pool", describe(shards))
    assert (done.new, done.held, done.refused) == (10, 10, {})
    images = {hashlib.sha256(local.encoded(p, quality=90)).hexdigest()[:16] for p in local.parts(10)}
    found = rows(tmp_path / "pool")
    assert {row["sha256_16"] for row in found} == images
    for row in found:
        data = (tmp_path / "pool" / row["path"]).read_bytes()
        assert hashlib.sha256(data).hexdigest()[:16] == row["sha256_16"]
    assert {(r["label"], r["modality"], r["content"], r["generator"], r["source"], r["licence"]) for r in found} == {
        ("real", "image", "general", "camera", NAME, "cc-by-4.0")
    }
    assert {(r["width"], r["height"], r["original_format"], r["processing"]) for r in found} == {
        ("64", "64", "JPEG", "original")
    }


def test_the_one_loader_reads_a_hub_data_set_and_makes_its_pool_once(shards: Path) -> None:
    data = datasets.read(shards)
    assert len(data) == 10
    assert {(item.label, item.source) for item in data} == {(Label.REAL, NAME)}
    assert (data.origin, data.skipped) == (shards, ("README.md",))
    before = {path: path.stat().st_mtime_ns for path in (shards / ".pool").rglob("*.jpg")}
    assert datasets.read(shards).items == data.items
    assert {path: path.stat().st_mtime_ns for path in (shards / ".pool").rglob("*.jpg")} == before


def test_a_killed_run_goes_on_and_ends_in_the_same_bytes(shards: Path, tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    prepare(shards, whole, describe(shards))
    shutil.copytree(whole, broken)
    journal = next((broken / ".journal").glob("*.jsonl"))
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(lines[:4]) + lines[4][:20])  # killed in the middle of a line
    kept = {json.loads(line).get("path") for line in lines[:4]}
    for path in list((broken / "image").rglob("*.jpg")):
        if path.relative_to(broken).as_posix() not in kept:
            path.unlink()
    (broken / "manifest.csv").unlink()
    done = prepare(shards, broken, describe(shards))
    assert (done.new, done.held) == (7, 10)
    assert tree(broken) == tree(whole)
    assert prepare(shards, broken, describe(shards)).new == 0


def test_a_file_lost_from_the_pool_is_extracted_again(shards: Path, tmp_path: Path) -> None:
    pool = tmp_path / "pool"
    prepare(shards, pool, describe(shards))
    before = (pool / "manifest.csv").read_bytes()
    (pool / rows(pool)[3]["path"]).unlink()
    assert prepare(shards, pool, describe(shards)).new == 1
    assert (pool / "manifest.csv").read_bytes() == before


def test_near_duplicates_and_shared_prompts_are_one_group_across_data_sets(tmp_path: Path) -> None:
    a, b = tmp_path / "one--fakes", tmp_path / "bitmind--lfw"
    pictures = local.parts(6, 96)
    prompts = ["a cat", "a dog", "a cat", None]
    local.shard(a / "data/x.parquet", [local.encoded(p, "PNG") for p in pictures[:4]], prompt=prompts)
    local.shard(b / "data/x.parquet", [local.encoded(p, quality=70) for p in (pictures[1], *pictures[4:])])
    pool = tmp_path / "pool"
    prepare(a, pool, describe(a, label=Label.SYNTHETIC, modality="image", generator="sdxl"))
    prepare(b, pool, describe(b))
    items = {item.path.stem: item for item in datasets.read(pool)}

    def group(data: bytes) -> str:
        return items[hashlib.sha256(data).hexdigest()[:16]].group

    pngs = [group(local.encoded(p, "PNG")) for p in pictures[:4]]
    assert pngs[0] == pngs[2]  # the same prompt
    assert pngs[1] == group(local.encoded(pictures[1], quality=70))  # the same picture, real and fake
    assert len({*pngs, *(group(local.encoded(p, quality=70)) for p in pictures[4:])}) == 5
    assert {item.generator for item in items.values()} == {"sdxl", "camera"}


def test_what_is_no_image_is_left_out_and_counted(tmp_path: Path) -> None:
    root = tmp_path / "bitmind--dtd"
    good, other = (local.encoded(p) for p in local.parts(2))
    local.shard(root / "data/a.parquet", [good, b"", b"no image", good[: len(good) // 2], good, None, other])
    done = prepare(root, tmp_path / "pool", describe(root))
    assert done.held == 2
    assert done.refused == {"empty": 2, "the same bytes twice": 1, "truncated": 1, "undecodable": 1}


def test_a_shard_may_name_files_beside_it_but_none_outside(tmp_path: Path) -> None:
    root = tmp_path / "bitmind--AFHQ"
    first, second = (local.encoded(p) for p in local.parts(2))
    local.shard(root / "data/a.parquet", [None, None])
    (root / "0.jpg").write_bytes(first)
    (tmp_path / "outside.jpg").write_bytes(second)
    (root / "1.jpg").symlink_to(tmp_path / "outside.jpg")
    found = [e.stream.read() for e in layout.entries(root, "data/a.parquet", SOURCES["bitmind/AFHQ"])]
    assert found == [first, b""]


def test_plain_files_archives_and_videos(tmp_path: Path) -> None:
    root = tmp_path / "nkp37--OpenVid-1M"
    clips = [local.clip(p) for p in local.parts(4, 64)]
    local.zipped(
        root / "OpenVid_part0.zip",
        {
            "v/aBc-_12xyz9_0_0to97.mp4": clips[0],
            "v/aBc-_12xyz9_1_97to200.mp4": clips[1],
            "../../escape_0_0to9.mp4": clips[2],
            "__MACOSX/v/._aBc-_12xyz9_0_0to97.mp4": b"no video",
            "v/notes.txt": b"text",
        },
    )
    local.tarred(root / "more/extra.tar.gz", {"z.mp4": clips[3], "picture.jpg": local.encoded(local.parts(1)[0])})
    (root / "data.csv").write_text("video,caption\n")
    pool = tmp_path / "deep/pool"
    done = prepare(root, pool, describe(root))
    assert done.held == 4
    assert not list(tmp_path.rglob("escape*"))
    found = rows(pool)
    assert {(r["modality"], r["width"]) for r in found} == {("video", "64")}
    groups = {r["sha256_16"]: r["group"] for r in found}
    named = [groups[hashlib.sha256(c).hexdigest()[:16]] for c in clips]
    assert named[0] == named[1]  # two scenes of one video
    assert len(set(named)) == 3
    assert all(media.decode(item.path, max_frames=2).pixels.ndim == 4 for item in datasets.read(pool))


def test_plain_images_in_folders(tmp_path: Path) -> None:
    root = tmp_path / "bitmind/caltech-101"
    for k, picture in enumerate(local.parts(3)):
        (root / f"class-{k}").mkdir(parents=True)
        (root / f"class-{k}/image.jpg").write_bytes(local.encoded(picture, "PNG"))  # misnamed, as happens
    data = datasets.read(root)
    assert [item.path.suffix for item in data] == [".png"] * 3
    assert {item.source for item in data} == {"bitmind/caltech-101"}


@pytest.mark.parametrize(("rows", "page"), [(60, 2), (4, 1024)], ids=["one row group", "one page a row group"])
def test_a_shard_is_streamed_not_held(rows: int, page: int, tmp_path: Path) -> None:
    noise = np.random.default_rng(0)
    local.shard(tmp_path / "a.parquet", [noise.bytes(400_000) for _ in range(60)], rows=rows, page=page)  # 24 MB
    former = pa.default_memory_pool()
    watched = pa.proxy_memory_pool(former)
    pa.set_memory_pool(watched)
    try:
        count = sum(len(e.stream.read()) for e in layout.entries(tmp_path, "a.parquet", SOURCES[NAME]))
    finally:
        pa.set_memory_pool(former)
    assert count == 60 * 400_000
    assert watched.max_memory() < 12_000_000


def test_rows_already_extracted_are_not_read_again(shards: Path) -> None:
    container = "data/train-00000-of-00002.parquet"
    seen = {f"{container}#{row}" for row in (0, 1, 2, 3, 5)}
    assert [e.key for e in layout.entries(shards, container, SOURCES[NAME], seen)] == [f"{container}#4"]


def test_what_cannot_be_used_is_refused_in_one_line(shards: Path, tmp_path: Path) -> None:
    pool = tmp_path / "pool"
    with pytest.raises(ConfigError, match="no such folder"):
        prepare(tmp_path / "nowhere", pool, SOURCES[NAME])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="no parquet shard"):
        prepare(tmp_path / "empty", pool, SOURCES[NAME])
    (shards / "data/train-00001-of-00002.parquet").write_bytes(b"PAR1 cut off")
    with pytest.raises(ConfigError, match=r"train-00001-of-00002.parquet: not a readable part"):
        prepare(shards, pool, SOURCES[NAME])
    broken = tmp_path / "bitmind--dtd"
    broken.mkdir()
    (broken / "a.zip").write_bytes(b"PK no archive")
    with pytest.raises(ConfigError, match="not a readable part"):
        prepare(broken, tmp_path / "other", SOURCES["bitmind/dtd"])
    with pytest.raises(ConfigError, match=r"no column of videos; it has image"):
        list(layout.entries(shards, "data/train-00000-of-00002.parquet", SOURCES["nkp37/OpenVid-1M"]))


def test_a_pool_keeps_its_labels_and_foreign_manifests(shards: Path, tmp_path: Path) -> None:
    prepare(shards, tmp_path / "pool", describe(shards))
    with pytest.raises(ConfigError, match="as real images"):
        prepare(shards, tmp_path / "pool", describe(shards, label=Label.SYNTHETIC))
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign/manifest.csv").write_text("path\n")
    with pytest.raises(ConfigError, match="did not write"):
        prepare(shards, tmp_path / "foreign", describe(shards))
    assert (tmp_path / "foreign/manifest.csv").read_text() == "path\n"


def test_an_unfinished_download_is_refused(shards: Path) -> None:
    local.record(shards, NAME, complete=False)
    with pytest.raises(ConfigError, match="not complete"):
        datasets.read(shards)


def test_a_member_damaged_in_its_archive_costs_only_itself(tmp_path: Path) -> None:
    root = tmp_path / "bitmind--dtd"
    good, bad = (local.encoded(p) for p in local.parts(2))
    local.zipped(root / "a.zip", {"a.jpg": good, "b.jpg": bad})
    with zipfile.ZipFile(root / "a.zip") as archive:
        at = archive.getinfo("b.jpg").header_offset + 100
    data = bytearray((root / "a.zip").read_bytes())
    data[at] ^= 0xFF  # the checksum does not fit any more
    (root / "a.zip").write_bytes(data)
    done = prepare(root, tmp_path / "pool", describe(root))
    assert (done.held, done.refused) == (1, {"truncated": 1})


def test_names_come_from_paths_and_records(tmp_path: Path) -> None:
    cached = tmp_path / "datasets--bitmind--lfw/snapshots/0123"
    cached.mkdir(parents=True)
    assert describe(cached) == SOURCES["bitmind/lfw"]
    local.record(tmp_path / "x", "someone/faces")
    with pytest.raises(ConfigError, match="--label and --modality"):
        describe(tmp_path / "x")
    made = describe(tmp_path / "x", label=Label.REAL, modality="image")
    assert (made.name, made.generator) == ("someone/faces", "camera")
    with pytest.raises(ConfigError, match="which data set"):
        describe(tmp_path)
    with pytest.raises(ConfigError, match="OWNER/NAME"):
        describe(tmp_path, "lfw")


def test_the_table_is_consistent() -> None:
    assert len([s for s in SOURCES.values() if s.label is Label.REAL]) == 12
    for name, source in SOURCES.items():
        assert isinstance(source, Source)
        assert source.name == name
        assert source.generator
        assert (source.generator == "camera") == (source.label is Label.REAL)
