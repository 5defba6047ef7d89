"""Still and animated images: bounded decoding to RGB with Pillow, and the validators' JPEG encoding.

What is deliberately left alone: ICC profiles are ignored (detectors are trained on the stored values, and a profile
is metadata that a caller can change without touching a pixel); gamma chunks likewise.
"""

from __future__ import annotations

import io
import struct
import time
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from detectors.errors import MediaError, MediaReason
from detectors.jpeg_walk import MAX_SCANS, JpegError, walk
from detectors.limits import DEFAULT_LIMITS, Limits
from detectors.sampling import EvenSampler
from detectors.types import U8, Media

__all__ = ["decode_animation", "decode_image", "encode_jpeg", "is_animated"]

_ANIMATED = ("GIF", "PNG", "WEBP")

# What Pillow raises on damaged bytes (its plugins let parser errors through), found by fuzzing.
_DAMAGE = (
    AssertionError,
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    OverflowError,
    RuntimeError,
    struct.error,
    zlib.error,
)

_EIGHT_BITS = ((np.arange(65536, dtype=np.uint32) * 255 + 32767) // 65535).astype(np.uint8)

_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode_image(data: bytes | memoryview, *, limits: Limits = DEFAULT_LIMITS) -> Media:
    """Decodes one still image; of an animation or a multi-page file the first picture.

    Handles grey, palette, CMYK (Adobe's inverted kind too) and 16-bit samples (16-bit grey is scaled by 255/65535
    and rounded; of 16-bit colour the high byte is kept, at most one level off). Transparency is composited on
    white: the colour under a transparent pixel is one no viewer shows, and white is what a page shows through it.
    EXIF orientation is applied.

    Args:
        data: the encoded image.
        limits: checked on the header, before any pixel is decoded.

    Returns:
        `Media` with pixels ``uint8 [H, W, 3]``.

    Raises:
        MediaError: EMPTY, TOO_LARGE, TOO_SMALL, TRUNCATED, UNSUPPORTED (sample format) or UNDECODABLE.
    """
    limits.check_bytes(len(data))
    with _opened(data, limits) as image:
        return Media(_pixels(image), origin=image.format or "image")


def is_animated(data: bytes | memoryview, *, limits: Limits = DEFAULT_LIMITS) -> bool:
    """Whether a GIF, APNG or WebP holds more than one picture. Raises MediaError as `decode_image` does."""
    with _opened(data, limits) as image:
        return image.format in _ANIMATED and bool(getattr(image, "is_animated", False))


def decode_animation(
    data: bytes | memoryview, *, limits: Limits = DEFAULT_LIMITS, max_frames: int | None = None
) -> Media:
    """Decodes an animated GIF, APNG or WebP as a video of evenly spaced frames.

    Args:
        data: the encoded animation.
        limits: as for `decode_image`, and the bounds on frames and bytes of a video.
        max_frames: frames to keep; default ``limits.container_frames``.

    Returns:
        `Media` with pixels ``uint8 [T, H, W, 3]``; the rate is of the kept frames where durations are stored.

    Raises:
        MediaError: as `decode_image`.
    """
    limits.check_bytes(len(data))
    with _opened(data, limits) as image:
        keep = limits.frames_kept(image.width, image.height, max_frames)
        sampler = EvenSampler[U8](keep)
        milliseconds = 0.0
        end = time.monotonic() + limits.max_seconds
        for index in range(limits.max_decoded_frames):
            if sampler.seen and time.monotonic() > end:
                break
            try:
                image.seek(index)
            except EOFError:
                break
            limits.check_size(*image.size)
            if sampler.wants_next():
                sampler.offer(_pixels(image, oriented=False))
            else:
                image.load()  # the next frame is drawn over this one
                sampler.skip()
            milliseconds += float(image.info.get("duration", 0) or 0)  # WebP tells it only once the frame is read
        frames = sampler.taken()
        if any(frame.shape != frames[0].shape for frame in frames):
            raise MediaError(MediaReason.FRAMES, "the animation changes its size")
        rate = len(frames) * 1000.0 / milliseconds if milliseconds > 0 else None
        return Media(np.stack(frames), rate=rate, origin=image.format or "animation")


def encode_jpeg(pixels: U8, quality: int = 75) -> bytes:
    """Encodes RGB ``uint8 [H, W, 3]`` as the SN34 validators do: Pillow, baseline, 4:2:0, no metadata."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=quality, subsampling="4:2:0")
    return buffer.getvalue()


@contextmanager
def _opened(data: bytes | memoryview, limits: Limits) -> Iterator[Image.Image]:
    """Opens, checks the header, and maps whatever Pillow raises while the pixels are read."""
    _hush_pillow()
    try:
        with Image.open(io.BytesIO(data), formats=limits.formats) as image:
            limits.check_size(*image.size)
            if image.format in ("JPEG", "MPO"):
                _check_scans(data)
            yield image
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise MediaError(MediaReason.TOO_LARGE, "the header announces too many pixels") from error
    except UnidentifiedImageError as error:
        reason = MediaReason.TRUNCATED if _cut_short(data) else MediaReason.UNDECODABLE
        raise MediaError(reason, f"not a readable image; read are {', '.join(limits.formats)}") from error
    except MemoryError as error:
        raise MediaError(MediaReason.TOO_LARGE, "the image does not fit into memory") from error
    except _DAMAGE as error:
        cut = isinstance(error, EOFError) or "truncated" in str(error).lower() or _cut_short(data)
        raise MediaError(
            MediaReason.TRUNCATED if cut else MediaReason.UNDECODABLE,
            "the image ends early" if cut else "the image is damaged",
        ) from error


def _pixels(image: Image.Image, *, oriented: bool = True) -> U8:
    """Any Pillow mode to a writable, contiguous ``uint8 [H, W, 3]``."""
    image.load()
    transposition = _TRANSPOSE.get(_orientation(image)) if oriented else None
    rgb = _to_rgb(image)
    if transposition is not None:
        rgb = rgb.transpose(transposition)
    return np.array(rgb, dtype=np.uint8)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        # Pillow's own conversion clips at 255. A table, since arithmetic on 40 million pixels takes seconds.
        return Image.fromarray(_EIGHT_BITS[np.asarray(image)]).convert("RGB")
    if image.mode in ("I", "F"):
        raise MediaError(MediaReason.UNSUPPORTED, "32-bit samples have no defined white; save as 8 or 16 bit")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        page = Image.new("RGB", image.size, (255, 255, 255))
        page.paste(rgba, mask=rgba.getchannel("A"))
        return page
    return image if image.mode == "RGB" else image.convert("RGB")


def _orientation(image: Image.Image) -> int:
    """EXIF orientation 1-8; 1 where there is none or the EXIF block is damaged (the picture itself is not)."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except _DAMAGE:
        return 1


def _check_scans(data: bytes | memoryview) -> None:
    """Refuses the JPEG that costs minutes: every scan of a progressive image passes over all its pixels."""
    try:
        scans = walk(data).scans
    except JpegError as error:
        scans = error.scans  # damaged or cut short: whether it can still be shown is libjpeg's to say
    if scans > MAX_SCANS:
        raise MediaError(MediaReason.UNSUPPORTED, f"a JPEG of more than {MAX_SCANS} scans")


def _cut_short(data: bytes | memoryview) -> bool:
    """Whether bytes that failed to decode start like a known image and lack its end."""
    head = bytes(data[:12])
    if head.startswith(b"\xff\xd8"):
        try:
            walk(data)
        except JpegError as error:
            return error.truncated
        return False
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return b"IEND" not in bytes(data[-64:])
    if head[:4] == b"RIFF" and head[8:12] in (b"WEBP", b""):
        return len(data) < 8 or len(data) < 8 + int.from_bytes(head[4:8], "little")
    if head[:2] == b"BM" and len(head) >= 6:
        return len(data) < int.from_bytes(head[2:6], "little")
    return head[:3] == b"GIF" and bytes(data[-1:]) != b";"


_BOMB = ("error", None, Image.DecompressionBombWarning, None, 0)


def _hush_pillow() -> None:
    """Pillow's remarks on strangers' metadata are no news, and each distinct text would be kept for ever.

    ``warnings.catch_warnings`` is not thread-safe, so two narrow filters are installed, once, and again when a test
    runner has swept them away.
    """
    if _BOMB not in warnings.filters:
        warnings.filterwarnings("ignore", module=r"PIL\.")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
