"""One look at a stored file: its size, format, and one picture of it; decoding is bounded as everywhere."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from detectors import media
from detectors.errors import MediaError, MediaReason
from detectors.limits import LOCAL_LIMITS
from detectors.types import U8, Modality

__all__ = ["SUFFIXES", "Look", "look"]

SUFFIXES = {"JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "WEBP": ".webp", "BMP": ".bmp", "TIFF": ".tif", "GIF": ".gif"}
"""Of an image, by what its bytes are and not by what it was called."""

# Clips beyond a few frames are read by their key frames, which is all that one picture needs.
_VIDEO = replace(LOCAL_LIMITS, max_decoded_frames=8)


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """What a file shows at first sight.

    Attributes:
        width, height: pixels, after EXIF orientation or display rotation.
        format: as the decoder names it, e.g. ``JPEG`` or ``mov``.
        picture: ``uint8 [H, W, 3]``; of a video a frame from its middle.
    """

    width: int
    height: int
    format: str
    picture: U8


def look(path: Path, modality: Modality) -> Look:
    """Opens a file as what it is said to be.

    Raises:
        MediaError: it is not that, or damaged, or beyond ``LOCAL_LIMITS``.
    """
    if modality == "image":
        data = path.read_bytes() if path.stat().st_size <= LOCAL_LIMITS.max_bytes else b""
        if not data:
            raise MediaError(MediaReason.EMPTY, "no bytes, or too many")
        found = media.decode_image(data, limits=LOCAL_LIMITS)
        picture = found.pixels
    else:
        found = media.decode_container(path, limits=_VIDEO, max_frames=3)
        picture = found.pixels[len(found.pixels) // 2]
    return Look(picture.shape[1], picture.shape[0], found.origin, picture)
