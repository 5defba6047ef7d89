"""From a stranger's bytes to :class:`~detectors.types.Media`: the public face of the bounded decoders.

Whatever the bytes are, the outcome is pixels or a :class:`~detectors.errors.MediaError` with its reason.
"""

from __future__ import annotations

from pathlib import Path

from detectors.errors import MediaError, MediaReason
from detectors.images import decode_animation, decode_image, encode_jpeg, is_animated
from detectors.jpeg_frames import decode_jpeg_frames, encode_jpeg_frames, split_jpegs
from detectors.limits import DEFAULT_LIMITS, LOCAL_LIMITS, Limits
from detectors.types import Media
from detectors.video import container_format, decode_container

__all__ = [
    "DEFAULT_LIMITS",
    "LOCAL_LIMITS",
    "Limits",
    "decode",
    "decode_container",
    "decode_image",
    "decode_jpeg_frames",
    "encode_jpeg",
    "encode_jpeg_frames",
    "split_jpegs",
]


def decode(source: bytes | memoryview | Path, *, limits: Limits | None = None, max_frames: int | None = None) -> Media:
    """Decodes a file by what it contains, whatever it is called.

    Args:
        source: the bytes (limits default to `DEFAULT_LIMITS`) or a path of one's own (`LOCAL_LIMITS`).
        limits: the bounds.
        max_frames: of a container or animation, evenly spaced; default ``limits.container_frames``.

    Returns:
        An image for still pictures, a video for containers, animated GIF, APNG and WebP.

    Raises:
        MediaError: with the reason; a path that cannot be read is UNDECODABLE.
    """
    if limits is None:
        limits = LOCAL_LIMITS if isinstance(source, Path) else DEFAULT_LIMITS
    head = _head(source)
    if not head:
        raise MediaError(MediaReason.EMPTY, "there are no bytes")
    container = container_format(head)
    if container is not None and container != "gif":
        return decode_container(source, limits=limits, max_frames=max_frames)
    data = _bytes(source, limits)
    limits.check_bytes(len(data))
    if not _may_be_animated(head) or not is_animated(data, limits=limits):
        return decode_image(data, limits=limits)
    if container == "gif":
        return decode_container(data, limits=limits, max_frames=max_frames)
    return decode_animation(data, limits=limits, max_frames=max_frames)


def _may_be_animated(head: bytes) -> bool:
    return head.startswith((b"GIF8", b"\x89PNG")) or head[8:12] == b"WEBP"


def _head(source: bytes | memoryview | Path) -> bytes:
    if not isinstance(source, Path):
        return bytes(source[:16])
    try:
        with source.open("rb") as stream:
            return stream.read(16)
    except OSError as error:
        raise MediaError(MediaReason.UNDECODABLE, f"the file cannot be read: {error.strerror}") from error


def _bytes(source: bytes | memoryview | Path, limits: Limits) -> bytes | memoryview:
    """All of the bytes, but of a file never more than one beyond the limit."""
    if not isinstance(source, Path):
        return source
    try:
        with source.open("rb") as stream:
            return stream.read(limits.max_bytes + 1)
    except OSError as error:
        raise MediaError(MediaReason.UNDECODABLE, f"the file cannot be read: {error.strerror}") from error
