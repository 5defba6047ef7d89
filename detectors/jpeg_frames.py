"""The SN34 video payload: JPEG frames put end to end, with neither a count nor lengths between them."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence

import numpy as np

from detectors.errors import MediaError, MediaReason
from detectors.images import decode_image, encode_jpeg
from detectors.jpeg_walk import MAX_SCANS, JpegError, walk
from detectors.limits import DEFAULT_LIMITS, Limits
from detectors.types import U8, Media

__all__ = ["decode_jpeg_frames", "encode_jpeg_frames", "split_jpegs"]

_PADDING = re.compile(rb"\x00*")


def split_jpegs(data: bytes | memoryview, *, max_frames: int | None = None) -> list[memoryview]:
    """Cuts concatenated JPEGs apart by walking their segments; no copy, linear time.

    Zero bytes between and after the frames are padding and skipped. Any other byte outside a frame is refused: to
    drop it silently could drop frames.

    Args:
        data: the frames, end to end.
        max_frames: refuse as soon as there are more.

    Raises:
        MediaError: EMPTY; FRAMES when there are more than `max_frames`; TRUNCATED when the last frame lacks its end;
            UNDECODABLE when bytes outside a frame are not padding or a frame is damaged; UNSUPPORTED for an absurd
            number of scans.
    """
    view = memoryview(data)
    if not view:
        raise MediaError(MediaReason.EMPTY, "there are no bytes")
    frames: list[memoryview] = []
    at = _after_padding(view, 0)
    while at < len(view):
        if max_frames is not None and len(frames) == max_frames:
            raise MediaError(MediaReason.FRAMES, f"more than {max_frames} frames")
        try:
            extent = walk(view, at)
        except JpegError as error:
            raise _refusal(error, len(frames)) from error
        frames.append(view[at : extent.end])
        at = _after_padding(view, extent.end)
    if not frames:
        raise MediaError(MediaReason.FRAMES, "there is no frame")
    return frames


def decode_jpeg_frames(data: bytes | memoryview, *, limits: Limits = DEFAULT_LIMITS) -> Media:
    """Decodes concatenated JPEG frames, all of one size.

    Args:
        data: the frames, base85 and zlib already taken off.
        limits: the number of frames and all their pixels together are checked before the second frame is decoded.

    Returns:
        `Media` with pixels ``uint8 [T, H, W, 3]``, 1 <= T <= ``limits.max_frames``; the wire carries no rate.

    Raises:
        MediaError: as `split_jpegs` and `decode_image`; FRAMES when sizes differ; TOO_LARGE for the whole video,
            in bytes of pixels or in time.
    """
    limits.check_bytes(len(data))
    parts = split_jpegs(data, max_frames=limits.max_frames)
    first = _frame(parts[0], 0, limits)
    if first.nbytes * len(parts) > limits.max_video_bytes:
        raise MediaError(
            MediaReason.TOO_LARGE,
            f"{len(parts)} frames of {first.shape[1]}x{first.shape[0]} pixels; "
            f"at most {limits.max_video_bytes} bytes of pixels are decoded",
        )
    frames = np.empty((len(parts), *first.shape), np.uint8)
    frames[0] = first
    end = time.monotonic() + limits.max_seconds
    for index, part in enumerate(parts[1:], start=1):
        if time.monotonic() > end:
            raise MediaError(MediaReason.TOO_LARGE, f"decoding takes more than {limits.max_seconds:g} seconds")
        frame = _frame(part, index, limits)
        if frame.shape != first.shape:
            raise MediaError(MediaReason.FRAMES, f"frame {index} differs in size from frame 0")
        frames[index] = frame
    return Media(frames, origin="jpeg-frames")


def encode_jpeg_frames(frames: U8 | Sequence[U8], quality: int = 75) -> bytes:
    """The validator's side: RGB ``uint8 [T, H, W, 3]`` to JPEGs end to end (before zlib and base85)."""
    return b"".join(encode_jpeg(frame, quality) for frame in frames)


def _frame(part: memoryview, index: int, limits: Limits) -> U8:
    try:
        media = decode_image(part, limits=limits)
    except MediaError as error:
        raise MediaError(error.reason, f"frame {index}: {error.detail}") from error
    return media.pixels


def _after_padding(view: memoryview, at: int) -> int:
    run = _PADDING.match(view, at)
    return run.end() if run is not None else at


def _refusal(error: JpegError, index: int) -> MediaError:
    if error.scans > MAX_SCANS:
        return MediaError(MediaReason.UNSUPPORTED, f"frame {index}: more than {MAX_SCANS} scans")
    if error.truncated:
        return MediaError(MediaReason.TRUNCATED, f"frame {index} ends early")
    return MediaError(MediaReason.UNDECODABLE, f"frame {index} is not a JPEG: {error}")
