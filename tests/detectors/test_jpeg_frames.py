"""SN34's video payload: JPEGs end to end, found by their segments."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from detectors.errors import MediaError, MediaReason
from detectors.limits import Limits
from detectors.media import decode_image, decode_jpeg_frames, encode_jpeg, encode_jpeg_frames, split_jpegs
from tests.detectors.fixtures_media import encoded, photo, video_frames, with_segment

JPEG = encode_jpeg(photo())


def refused(data: bytes, **limits: Any) -> MediaError:
    with pytest.raises(MediaError) as caught:
        decode_jpeg_frames(data, limits=Limits(**limits))
    return caught.value


def restarts(pixels: Image.Image) -> bytes:
    return encoded(pixels, "JPEG", restart_marker_blocks=1)


KINDS = {
    "baseline": JPEG,
    "progressive": encoded(photo(), "JPEG", progressive=True),
    "restart markers": restarts(Image.fromarray(photo())),
    "grey": encoded(photo()[..., 0], "JPEG"),
    "full chroma": encoded(photo(), "JPEG", subsampling="4:4:4", quality=100),
    "thumbnail in EXIF": with_segment(JPEG, 0xE1, b"Exif\0\0" + encode_jpeg(photo(16, 16))),
    "end of image in a comment": with_segment(JPEG, 0xFE, b"\xff\xd9\xff\xd8\xff\xd9"),
    "fill bytes": JPEG[:2] + b"\xff\xff\xff" + JPEG[2:-2] + b"\xff\xff" + JPEG[-2:],
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_jpeg_is_one_frame(name: str) -> None:
    data = KINDS[name]
    assert [bytes(part) for part in split_jpegs(JPEG + data + JPEG)] == [JPEG, data, JPEG]
    frames = decode_jpeg_frames(data + data)
    np.testing.assert_array_equal(frames.pixels, np.stack([decode_image(data).pixels] * 2))


def test_the_kinds_are_what_they_claim() -> None:
    assert KINDS["progressive"].count(b"\xff\xda") > 5
    assert b"\xff\xd3" in KINDS["restart markers"]
    assert KINDS["thumbnail in EXIF"].count(b"\xff\xd9") == 2


@pytest.mark.parametrize("count", [1, 24, 144])
def test_round_trip(count: int) -> None:
    frames = video_frames(count, 16, 16)
    decoded = decode_jpeg_frames(encode_jpeg_frames(frames))
    assert decoded.pixels.shape == frames.shape
    assert (decoded.modality, decoded.origin, decoded.rate) == ("video", "jpeg-frames", None)
    assert np.abs(decoded.pixels.astype(int) - frames).max() <= 1


def test_too_many_frames_are_refused_at_once() -> None:
    tiny = encode_jpeg(photo(16, 16))
    assert refused(tiny * 145).reason is MediaReason.FRAMES
    started = time.perf_counter()
    assert refused(tiny * 10_000).reason is MediaReason.FRAMES
    assert time.perf_counter() - started < 0.5


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", MediaReason.EMPTY),
        (b"\0\0\0\0", MediaReason.FRAMES),
        (b"hello", MediaReason.UNDECODABLE),
        (JPEG + b"hello", MediaReason.UNDECODABLE),
        (b"hello" + JPEG, MediaReason.UNDECODABLE),
        (JPEG + b"\xff", MediaReason.TRUNCATED),
        (JPEG + JPEG[:-1], MediaReason.TRUNCATED),
        (JPEG + JPEG[:-2], MediaReason.TRUNCATED),
        (JPEG + JPEG[:300], MediaReason.TRUNCATED),
        (JPEG + JPEG[:3], MediaReason.TRUNCATED),
        (b"\xff\xd8\xff\xd8\xff\xd9", MediaReason.UNDECODABLE),
        (b"\xff\xd8\xff\xe0\x00\x01" + JPEG, MediaReason.UNDECODABLE),
        (b"\xff\xd8\xff\xd9", MediaReason.UNDECODABLE),
        (encode_jpeg(photo(1, 1)), MediaReason.TOO_SMALL),
    ],
)
def test_bad_sequences_say_what_is_wrong(data: bytes, reason: MediaReason) -> None:
    assert refused(data).reason is reason


def test_zero_padding_is_skipped() -> None:
    padded = b"\0\0" + JPEG + b"\0" * 7 + JPEG + b"\0" * 1000
    assert len(decode_jpeg_frames(padded).pixels) == 2


def test_frames_of_different_sizes_are_refused() -> None:
    error = refused(JPEG + encode_jpeg(photo(48, 72)))
    assert error.reason is MediaReason.FRAMES
    assert "frame 1" in error.detail


def test_the_whole_video_is_bounded() -> None:
    frame_bytes = 48 * 64 * 3
    assert refused(JPEG * 4, max_video_bytes=4 * frame_bytes - 1).reason is MediaReason.TOO_LARGE
    assert len(decode_jpeg_frames(JPEG * 4, limits=Limits(max_video_bytes=4 * frame_bytes)).pixels) == 4
    assert refused(JPEG * 4, max_bytes=len(JPEG)).reason is MediaReason.TOO_LARGE
    slow = refused(JPEG * 4, max_seconds=1e-9)
    assert slow.reason is MediaReason.TOO_LARGE
    assert "seconds" in slow.detail


@pytest.mark.parametrize(
    "body",
    [
        b"\xff" * (8 << 20),
        JPEG[2:-2] + b"\xff\x00" * (4 << 20),
        b"\xff\x01" * (4 << 20),
        b"\xff\xfe\x00\x02" * (2 << 20),
        JPEG[2:-2] + b"\xff\xda\x00\x02" * (2 << 20),
    ],
    ids=["fill", "stuffed", "bare markers", "comments", "scans"],
)
def test_hostile_bytes_take_linear_time(body: bytes) -> None:
    started = time.perf_counter()
    with pytest.raises(MediaError):
        split_jpegs(b"\xff\xd8" + body)
    assert time.perf_counter() - started < 1.0


@given(st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=6))
def test_splitting_undoes_joining(names: list[str]) -> None:
    parts = [KINDS[name] for name in names]
    assert [bytes(part) for part in split_jpegs(b"".join(parts))] == parts


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_mutated_sequences_raise_media_errors_only(draw: st.DataObject) -> None:
    data = bytearray(JPEG * 3)
    for at, value in draw.draw(
        st.lists(st.tuples(st.integers(0, len(data) - 1), st.integers(0, 255)), min_size=1, max_size=6)
    ):
        data[at] = value
    try:
        assert decode_jpeg_frames(bytes(data)).pixels.ndim == 4
    except MediaError as error:
        assert error.detail  # noqa: PT017 - either outcome is right
