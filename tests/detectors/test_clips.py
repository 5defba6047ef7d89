"""Consecutive frames of local videos: numbered frames come back by their number, however the container seeks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from detectors.clips import clip_frames, clip_index
from detectors.errors import MediaError, MediaReason
from detectors.types import U8


def write_video(path: Path, frames: int, codec: str, pixel_format: str = "yuv420p", **options: str) -> Path:
    """Frame k is a flat grey of value 10 + 4k, so that a frame tells its number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 96, 64, pixel_format
        for k in range(frames):
            pixels = np.full((64, 96, 3), 10 + 4 * k, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def numbers(frames: list[U8]) -> list[int]:
    return [round((float(frame.mean()) - 10) / 4) for frame in frames]


@pytest.mark.parametrize(
    ("name", "codec", "options", "seeks"),
    [
        ("intra.mkv", "ffv1", {}, True),
        ("b-frames.mp4", "libx264", {"bf": "3", "g": "12", "qp": "4"}, True),
        ("old.avi", "mpeg4", {"g": "12", "qmin": "1", "qmax": "2"}, False),
    ],
)
def test_frames_by_number(tmp_path: Path, name: str, codec: str, options: dict[str, str], seeks: bool) -> None:
    index = clip_index(write_video(tmp_path / name, 50, codec, **options))
    assert index.frames == 50
    assert bool(index.times) is seeks
    for start in (0, 1, 11, 12, 13, 30, 47):
        frames = list(clip_frames(index, start, 3))
        assert numbers(frames) == [start, start + 1, start + 2]
        assert frames[0].shape == (64, 96, 3)
    counted = replace(index, times=())
    for a, b in zip(clip_frames(index, 20, 10), clip_frames(counted, 20, 10), strict=True):
        np.testing.assert_array_equal(a, b)


def test_fewer_frames_come_where_the_video_ends(tmp_path: Path) -> None:
    index = clip_index(write_video(tmp_path / "a.mkv", 12, "ffv1"))
    assert numbers(list(clip_frames(index, 10, 5))) == [10, 11]
    with pytest.raises(MediaError, match="ends before frame 12") as error:
        list(clip_frames(replace(index, times=()), 12, 1))
    assert error.value.reason is MediaReason.TRUNCATED


def test_what_is_no_video(tmp_path: Path) -> None:
    for name, data in (("a.mp4", b"not a video at all"), ("b.mp4", b"\0\0\0\x18ftypisom" + bytes(40)), ("c.mp4", b"")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(MediaError, match=name):
            clip_index(tmp_path / name)
    with pytest.raises(MediaError, match=r"none\.mp4"):
        clip_index(tmp_path / "none.mp4")
