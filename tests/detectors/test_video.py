"""Containers: what is kept of a clip, and what a stranger's file may not do."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from detectors.errors import MediaError, MediaReason
from detectors.limits import Limits
from detectors.media import decode_container, encode_jpeg
from detectors.sampling import EvenSampler, even_indices
from detectors.video import container_format
from tests.detectors.fixtures_media import encoded, movie, photo, video_frames

MP4 = movie(video_frames(12))


def refused(data: bytes | Path, limits: Limits | None = None) -> MediaError:
    with pytest.raises(MediaError) as caught:
        decode_container(data, limits=limits or Limits())
    return caught.value


@pytest.mark.parametrize(
    ("container", "codec", "pixel_format"),
    [
        ("mp4", "mpeg4", "yuv420p"),
        ("mov", "mjpeg", "yuvj420p"),
        ("webm", "libvpx", "yuv420p"),
        ("matroska", "ffv1", "bgr0"),
        ("avi", "mpeg4", "yuv420p"),
    ],
)
def test_every_container_gives_its_frames_in_order(container: str, codec: str, pixel_format: str) -> None:
    media = decode_container(movie(video_frames(12), container, codec, pixel_format=pixel_format))
    assert media.pixels.shape == (12, 48, 64, 3)
    assert media.rate == pytest.approx(25, rel=0.05)
    assert np.abs(media.pixels[:, 24, 32, 0].astype(int) - np.linspace(10, 210, 12)).max() <= 8


def test_lossless_video_is_bit_exact() -> None:
    scene = np.stack([photo(seed=i) for i in range(3)])
    media = decode_container(movie(scene, "matroska", "ffv1", pixel_format="bgr0"))
    np.testing.assert_array_equal(media.pixels, scene)


def test_an_animated_gif_is_a_video_on_white() -> None:
    frames = [Image.new("RGBA", (16, 16), (0, 0, 200, 0)) for _ in range(3)]
    for index, frame in enumerate(frames):
        frame.paste((200, 0, 0, 255), (index * 4, 0, index * 4 + 4, 16))
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=100, disposal=2)
    pixels = decode_container(data).pixels
    assert len(pixels) == 3
    assert (pixels[:, :, 12:] == 255).all()
    assert tuple(pixels[1, 8, 5]) == (200, 0, 0)


@pytest.mark.parametrize(("count", "kept"), [(3, 3), (16, 16), (17, 16), (33, 16), (100, 16)])
def test_long_clips_are_sampled_evenly(count: int, kept: int) -> None:
    media = decode_container(movie(video_frames(count)), max_frames=16)
    assert len(media.pixels) == kept
    level = media.pixels[:, 24, 32, 0].astype(float)
    steps = np.diff((level - 10) / 200 * (count - 1))  # in frames
    spacing = max(1.0, (count - 1) / (kept - 1))
    assert level[0] < 20
    assert level[-1] > 195
    assert np.abs(steps - spacing).max() < spacing + 1
    assert media.rate == pytest.approx(25 / spacing, rel=0.1)


@pytest.mark.parametrize("turn", [90, 180, -90])
def test_rotation_metadata_is_honoured(turn: int) -> None:
    upright = np.zeros((4, 32, 64, 3), np.uint8)
    upright[:, :16, :32] = 220  # bright corner, top left
    stored = np.ascontiguousarray(np.rot90(upright, -turn // 90, axes=(1, 2)))
    pixels = decode_container(movie(stored, rotation=turn)).pixels.astype(int)
    assert pixels.shape == upright.shape
    assert pixels[:, 4:12, 4:28].min() > 190
    assert pixels[:, 20:28, 36:60].max() < 40


def test_bounds_on_frames_and_bytes() -> None:
    frame_bytes = 48 * 64 * 3
    assert len(decode_container(MP4, limits=Limits(max_video_bytes=5 * frame_bytes)).pixels) == 5
    assert len(decode_container(MP4, limits=Limits(max_frames=3)).pixels) == 3
    assert len(decode_container(MP4, limits=Limits(max_decoded_frames=4)).pixels) <= 4
    assert len(decode_container(MP4, limits=Limits(max_seconds=1e-9)).pixels) == 1
    assert refused(MP4, Limits(max_pixels=48 * 64 - 1)).reason is MediaReason.TOO_LARGE
    assert refused(MP4, Limits(max_bytes=len(MP4) - 1)).reason is MediaReason.TOO_LARGE
    assert refused(MP4, Limits(min_side=49)).reason is MediaReason.TOO_SMALL


def test_very_long_clips_are_read_by_their_key_frames() -> None:
    clip = movie(video_frames(60), g="10", sc_threshold="1000000000")
    media = decode_container(clip, limits=Limits(max_decoded_frames=20))
    assert len(media.pixels) == 6  # one in ten, over all of the clip
    assert media.pixels[-1].mean() > 160


def test_a_path_is_read_as_a_stream(tmp_path: Path) -> None:
    path = tmp_path / "clip"
    path.write_bytes(MP4)
    np.testing.assert_array_equal(decode_container(path).pixels, decode_container(MP4).pixels)
    assert refused(tmp_path / "none").reason is MediaReason.UNDECODABLE
    path.write_bytes(b"")
    assert refused(path).reason is MediaReason.EMPTY


def _audio_only() -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, mode="w", format="matroska") as out:
        stream = out.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        out.mux(stream.encode(frame))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: b"", MediaReason.EMPTY),
        (lambda: b"no container", MediaReason.UNDECODABLE),
        (lambda: encode_jpeg(photo()), MediaReason.UNDECODABLE),
        (lambda: b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", MediaReason.UNDECODABLE),
        (lambda: b"ffconcat version 1.0\nfile /etc/passwd\n", MediaReason.UNDECODABLE),
        (lambda: MP4[:64], MediaReason.TRUNCATED),
        (lambda: MP4[: len(MP4) // 2], MediaReason.TRUNCATED),
        (lambda: movie(video_frames(4), "matroska")[:200], MediaReason.UNDECODABLE),
        (_audio_only, MediaReason.UNSUPPORTED),
        (lambda: movie(video_frames(4), "matroska", "mpeg2video")[:40], MediaReason.UNDECODABLE),
        (lambda: movie(video_frames(4), "avi", "flv"), MediaReason.UNSUPPORTED),
    ],
)
def test_bad_containers_say_what_is_wrong(make: Callable[[], bytes], reason: MediaReason) -> None:
    assert refused(make()).reason is reason


def test_damage_on_the_way_costs_the_rest_only() -> None:
    clip = movie(video_frames(40), "matroska")
    assert 1 <= len(decode_container(clip[: len(clip) * 3 // 4]).pixels) <= 32


def test_container_format_knows_what_it_reads() -> None:
    assert container_format(MP4[:16]) == "mov"
    assert container_format(b"RIFF\0\0\0\0WEBP") is None
    assert container_format(b"") is None


@given(st.integers(1, 300), st.integers(1, 40))
def test_the_sampler_is_even_bounded_and_ordered(length: int, count: int) -> None:
    sampler = EvenSampler[int](count)
    for item in range(length):
        if sampler.wants_next():
            sampler.offer(item)
        else:
            sampler.skip()
    taken = sampler.taken()
    assert sampler.seen == length
    assert len(taken) == min(length, count)
    assert taken == sorted(set(taken))
    if 1 < count < length:
        gaps = np.diff(taken)
        assert taken[0] == 0
        assert gaps.max() <= 2 * gaps.min() + 1
    assert even_indices(length, count) == sorted(set(even_indices(length, count)))
