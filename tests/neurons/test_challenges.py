"""The challenge stream: seeded, balanced, the same for real and fake, honest about files that cannot be used."""

from __future__ import annotations

import io
import logging
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from detectors.augment import LEVELS, Mix, apply
from detectors.datasets import Item, read
from detectors.errors import ConfigError
from detectors.media import decode_image, decode_jpeg_frames, split_jpegs
from detectors.types import Label
from neurons.challenges import FRAMES, Issued, MediaSet, Stream


def write_image(path: Path, seed: int, size: tuple[int, int] = (90, 120)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def write_video(path: Path, frames: int, size: tuple[int, int] = (48, 64)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        video = container.add_stream("ffv1", rate=25)
        assert isinstance(video, av.VideoStream)
        video.height, video.width, video.pix_fmt = *size, "yuv420p"
        for k in range(frames):
            pixels = np.full((*size, 3), 10 + 5 * k, dtype=np.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(video.encode(None))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("media")
    for k in range(6):
        write_image(root / f"real/large/{k}.png", k)
    write_image(root / "real/small/0.png", 100, (300, 200))
    write_image(root / "synthetic/flux/0.png", 200)
    write_image(root / "semisynthetic/swap/0.png", 300)
    write_video(root / "real/phone/0.mkv", 40)
    write_video(root / "real/camera/0.mkv", 12, (64, 48))
    write_video(root / "synthetic/mochi/0.mkv", 30)
    return root


@pytest.fixture(scope="module")
def media(folder: Path) -> MediaSet:
    return MediaSet.of(read(folder))


def identity(issued: Issued) -> tuple[object, ...]:
    return issued.index, issued.modality, issued.label, issued.item, issued.draw, issued.payload, issued.stitched


@pytest.mark.parametrize("mix", ["2.0", "2.2"])
def test_same_seed_same_bytes_in_any_order_and_thread(media: MediaSet, mix: Mix) -> None:
    in_order = [identity(c) for c in Stream(media, mix=mix, seed=3, count=8)]
    backwards = Stream(media, mix=mix, seed=3, count=8)
    assert [identity(backwards.challenge(k)) for k in reversed(range(8))][::-1] == in_order
    with ThreadPoolExecutor(2) as pool:
        shared = Stream(media, mix=mix, seed=3, count=8)
        assert [identity(c) for c in pool.map(shared.challenge, range(8))] == in_order
    assert [identity(c) for c in Stream(media, mix=mix, seed=4, count=8)] != in_order


def test_a_longer_stream_starts_with_the_shorter_one_and_items_may_come_in_any_order(media: MediaSet) -> None:
    short = [identity(c) for c in Stream(media, seed=1, count=4)]
    reordered = MediaSet(tuple(reversed(media.items)), "the same files")
    assert [identity(c) for _, c in zip(range(4), Stream(reordered, seed=1, count=9), strict=False)] == short


def test_an_image_is_its_draw_as_jpeg(media: MediaSet) -> None:
    for issued in Stream(media, seed=5, count=12, video_share=0):
        source = decode_image(issued.item.path.read_bytes()).pixels
        np.testing.assert_array_equal(issued.preview, apply(issued.draw, source))
        assert (issued.modality, issued.frames, issued.stitched) == ("image", 1, None)
        assert issued.label is issued.item.label
        assert issued.level == issued.draw.level
        with Image.open(issued.item.path) as original, Image.open(io.BytesIO(issued.payload)) as sent:
            assert original.size == issued.draw.size[::-1]
            assert (sent.format, sent.size, sent.mode) == ("JPEG", (256, 256), "RGB")
            assert isinstance(sent, JpegImageFile)
            assert sent.layer[0][1:3] == (2, 2)  # 4:2:0
            assert sent.quantization[0][:2] == [8, 6]  # Pillow's tables at quality 75, zig-zag resolved


def test_a_video_is_consecutive_frames_with_one_draw(media: MediaSet) -> None:
    for issued in Stream(media, seed=6, count=12, video_share=1):
        frames = decode_jpeg_frames(issued.payload).frames
        assert issued.modality == "video"
        assert len(frames) == issued.frames == len(split_jpegs(issued.payload))
        assert FRAMES["2.0"][0] <= issued.frames <= FRAMES["2.0"][1]
        assert abs(frames[0].astype(int) - issued.preview).mean() < 12
        if issued.level == 1:  # the frames are flat greys that tell their number
            steps = np.diff(frames.reshape(len(frames), -1).max(axis=1).astype(int))
            assert (abs(steps - 5) <= 3).all()


def test_short_videos_are_sent_whole(media: MediaSet) -> None:
    whole = [c for c in Stream(media, seed=2, count=16, video_share=1) if c.item.source == "camera"]
    assert whole
    assert {c.frames for c in whole} <= set(range(8, 13))
    assert 12 in {c.frames for c in whole}


def test_stitched_videos_of_2_2(media: MediaSet) -> None:
    every = list(Stream(media, mix="2.2", seed=8, count=30, video_share=1, frames=(8, 10)))
    stitched = [c for c in every if c.stitched is not None]
    assert 1 <= len(stitched) <= 14  # p 0.2 of 30, four standard errors
    for issued in stitched:
        assert issued.stitched is not None
        assert issued.stitched.label is issued.label
        assert 16 <= issued.frames <= 9 + 9
    assert {c.stitched.source for c in stitched if c.stitched and c.label is Label.REAL} <= {"phone", "camera"}
    assert all(c.stitched is None for c in Stream(media, seed=8, count=8, video_share=1))


def test_shares_of_labels_sources_levels_and_modalities(media: MediaSet) -> None:
    """Within four standard errors over 600 images; sources count alike however many files they hold."""
    n = 600
    drawn = list(Stream(media, mix="2.2", seed=0, count=n, video_share=0))
    labels = Counter(c.label for c in drawn)
    for label, share in ((Label.REAL, 0.5), (Label.SYNTHETIC, 0.4), (Label.SEMISYNTHETIC, 0.1)):
        assert labels[label] == pytest.approx(n * share, abs=4 * (n * share * (1 - share)) ** 0.5)
    sources = Counter(c.item.source for c in drawn if c.label is Label.REAL)
    assert sources["small"] == pytest.approx(labels[Label.REAL] / 2, abs=4 * (labels[Label.REAL] / 4) ** 0.5)
    levels = np.bincount([c.level for c in drawn], minlength=4) / n
    np.testing.assert_allclose(levels, LEVELS["2.2"], atol=4 * (0.1875 / n) ** 0.5)


def test_fakes_of_2_0_are_one_pool_by_source(media: MediaSet) -> None:
    drawn = Counter(c.label for c in Stream(media, seed=1, count=300, video_share=0))
    assert drawn[Label.REAL] == pytest.approx(150, abs=35)
    assert drawn[Label.SEMISYNTHETIC] == pytest.approx(75, abs=30)


def test_label_and_augmentation_are_independent(media: MediaSet) -> None:
    """The same index draws the same level whatever the label's files are: nothing but the folder depends on it."""
    swapped = MediaSet(
        tuple(
            Item(i.path, i.modality, Label.REAL if i.fake else Label.SYNTHETIC, "", "", i.source, i.group)
            for i in media.items
        ),
        "labels swapped",
    )
    pairs = zip(Stream(media, seed=4, count=20), Stream(swapped, seed=4, count=20), strict=True)
    for straight, crossed in pairs:
        assert (straight.level, straight.modality) == (crossed.level, crossed.modality)
        assert (straight.label is Label.REAL) == (crossed.label is Label.REAL)


def test_balanced_pairs(media: MediaSet) -> None:
    labels = [c.label is Label.REAL for c in Stream(media, seed=3, count=40, video_share=0, balanced=True)]
    assert all(labels[k] != labels[k + 1] for k in range(0, 40, 2))
    assert 4 <= sum(labels[::2]) <= 16  # which of the two comes first is random


def test_a_one_sided_modality_is_left_out(media: MediaSet) -> None:
    without_fake_videos = MediaSet(tuple(i for i in media.items if i.modality == "image" or not i.fake), "")
    s = Stream(without_fake_videos, seed=0, count=10)
    assert s.modalities == ("image",)
    assert {c.modality for c in s} == {"image"}
    videos = MediaSet(tuple(i for i in media.items if i.modality == "video"), "")
    assert {c.modality for c in Stream(videos, mix="2.2", count=4)} == {"video"}  # no semi-synthetic ones either
    assert Stream(media).modalities == ("image", "video")
    with pytest.raises(ConfigError, match="real and fake media of one modality; the media set holds real images"):
        Stream(MediaSet(tuple(i for i in media.items if not i.fake), ""))
    with pytest.raises(ConfigError, match="holds nothing"):
        Stream(MediaSet((), ""))


def test_unusable_files_are_skipped_counted_and_named(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken, short = tmp_path / "broken.png", tmp_path / "short.mkv"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n damaged")
    write_video(short, 5)
    bad = (
        Item(broken, "image", Label.REAL, "", "", "broken", "b"),
        Item(short, "video", Label.SYNTHETIC, "", "", "short", "s"),
    )
    media = MediaSet((*read(folder).items, *bad), "with two bad files")
    s = Stream(media, seed=1, count=40)
    with caplog.at_level(logging.WARNING, "neurons.challenges"):
        drawn = list(s)
    assert len(drawn) == 40
    assert not {c.item.source for c in drawn} & {"broken", "short"}
    assert set(s.skipped) == {str(broken), str(short)}
    assert "5 frames; at least 8" in s.skipped[str(short)]
    assert len(caplog.records) == 2  # once a file
    again = Stream(media, seed=1, count=40)
    assert identity(again.challenge(39)) == identity(drawn[39])
    for name, count in Counter(c.label is Label.REAL for c in drawn).items():
        assert count >= 10, name


def test_a_set_without_usable_files_is_an_error(folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"damaged")
    items = [Item(broken, "image", label, "", "", "broken", "b") for label in (Label.REAL, Label.SYNTHETIC)]
    with pytest.raises(ConfigError, match=r"50 images in a row could not be used; the last was broken\.png"):
        Stream(MediaSet(tuple(items), ""), count=1).challenge(0)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"seed": -1}, "seed"),
        ({"count": -1}, "count"),
        ({"video_share": 1.5}, "video_share"),
        ({"frames": (0, 5)}, "frames"),
        ({"frames": (9, 8)}, "frames"),
    ],
)
def test_arguments_are_checked(media: MediaSet, options: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Stream(media, **options)  # type: ignore[arg-type]


def test_there_is_no_challenge_beyond_the_count(media: MediaSet) -> None:
    s = Stream(media, count=2)
    assert len(s) == 2
    for index in (-1, 2):
        with pytest.raises(IndexError, match="2 challenges"):
            s.challenge(index)
