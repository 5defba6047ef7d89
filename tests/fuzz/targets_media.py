"""The decoders of media: the JPEG walker, images, animations, JPEG frames, containers, and one's own clips."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from detectors.clips import clip_frames, clip_index
from detectors.errors import MediaError
from detectors.images import decode_image
from detectors.jpeg_frames import decode_jpeg_frames, split_jpegs
from detectors.jpeg_walk import MAX_SCANS, JpegError, walk
from detectors.limits import DEFAULT_LIMITS, LOCAL_LIMITS, Limits
from detectors.media import decode
from detectors.types import Media
from detectors.video import decode_container
from tests.fuzz import mutate_media, seeds_media
from tests.fuzz.engine import Outcome, Target
from tests.fuzz.mutate import mixed

__all__ = ["targets"]

# The service's own limits but for two: fewer pixels, so that more inputs fit into the time, and a video's time below
# the second that is allowed here; and TIFF, which only own files may be. `image-service` has them as they are.
QUICK = replace(
    DEFAULT_LIMITS,
    formats=LOCAL_LIMITS.formats,
    max_pixels=1_000_000,
    max_side=4096,
    max_seconds=0.5,
    max_video_bytes=32 << 20,
)


def _sound(media: Media, limits: Limits) -> Outcome:
    height, width = media.size
    limits.check_size(width, height)
    assert len(media.frames) <= limits.max_frames
    assert media.pixels.flags.c_contiguous
    assert media.rate is None or media.rate > 0
    return Outcome(True, f"{media.modality} {media.origin} {len(media.frames)}")


def _decoder(decoder: Callable[..., Media], limits: Limits) -> Callable[[bytes], Outcome]:
    def run(data: bytes) -> Outcome:
        try:
            media = decoder(data, limits=limits)
        except MediaError as error:
            assert len(error.detail) < 300
            assert error.detail.isprintable()
            # The cause tells two ways to one refusal apart: each is worth a seed.
            return Outcome(False, f"{error.reason} {type(error.__cause__).__name__}")
        return _sound(media, limits)

    return run


def _walk(data: bytes) -> Outcome:
    """The walker alone, and what it cuts: pieces in order, whole, each walked to its end again."""
    try:
        extent = walk(data)
    except JpegError as error:
        first = Outcome(False, str(error))
        assert error.scans <= MAX_SCANS + 1
    else:
        assert 4 <= extent.end <= len(data)
        assert data[extent.end - 1] == 0xD9
        first = Outcome(True, f"{min(extent.scans, 3)} scans")
    try:
        pieces = split_jpegs(data, max_frames=DEFAULT_LIMITS.max_frames)
    except MediaError as error:
        return first if not first.accepted else Outcome(True, f"then {error.reason}")
    assert first.accepted or not data[:1] or data[0] == 0
    assert all(walk(piece).end == len(piece) for piece in pieces)
    assert data.replace(b"\0", b"") == b"".join(bytes(p) for p in pieces).replace(b"\0", b"")
    return Outcome(True, f"{min(len(pieces), 3)} frames")


def _clips(data: bytes) -> Outcome:
    """One's own video by path: the index, and two frames from the middle."""
    folder = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else None
    with tempfile.NamedTemporaryFile(dir=folder, suffix=".mp4") as file:
        file.write(data)
        file.flush()
        try:
            index = clip_index(Path(file.name))
            assert index.frames >= 1
            shapes = {frame.shape for frame in clip_frames(index, index.frames // 2, 2)}
        except MediaError as error:
            return Outcome(False, f"{error.reason} {type(error.__cause__).__name__}")
    assert len(shapes) == 1
    return Outcome(True, "clip")


def targets() -> tuple[Target, ...]:
    """All of them; decoders allocate some 16 bytes a pixel at the worst (RGBA, the page under it, the RGB, a copy)."""
    still = mixed(mutate_media.jpeg, mutate_media.png, mutate_media.riff)
    container = mixed(mutate_media.boxes, mutate_media.riff)

    def any_media() -> tuple[bytes, ...]:
        return (*seeds_media.animations(), *seeds_media.images(), *seeds_media.videos()[:6])

    return (
        Target("jpeg-walk", seeds_media.jpeg_payloads, _walk, mixed(mutate_media.jpeg)),
        Target("jpeg-frames", seeds_media.jpeg_payloads, _decoder(decode_jpeg_frames, QUICK), mixed(mutate_media.jpeg)),
        Target("image", seeds_media.images, _decoder(decode_image, QUICK), still, share=2.0),
        Target("image-service", seeds_media.images, _decoder(decode_image, DEFAULT_LIMITS), still, megabytes=800),
        Target("any-media", any_media, _decoder(decode, QUICK), mixed(mutate_media.png, mutate_media.riff)),
        Target("container", seeds_media.videos, _decoder(decode_container, QUICK), container, share=2.0),
        Target("clips", seeds_media.videos, _clips, container),
    )
