"""Valid images and videos, small, made by the house's own encoders and by those of Pillow and FFmpeg."""

from __future__ import annotations

import functools
import os
from typing import Any

import av
import numpy as np
from PIL import Image

from detectors.media import encode_jpeg, encode_jpeg_frames
from neurons.mp4 import mp4_of_jpegs
from tests.detectors.fixtures_media import encoded, movie, photo, png_header, video_frames, with_segment

__all__ = ["animations", "images", "jpeg_payloads", "videos"]

SCENE = photo(32, 40)
_GREY = SCENE[..., 0]
_BITS = Image.fromarray(_GREY > 128)
_DEEP = Image.fromarray(_GREY.astype(np.uint16) * 257)
_ALPHA = np.concatenate([SCENE, np.repeat(np.arange(40, dtype=np.uint8)[None, :, None] * 6, 32, axis=0)], axis=2)


@functools.cache
def _jpegs() -> tuple[bytes, ...]:
    exif = Image.Exif()
    exif[0x0112] = 6
    plain = encode_jpeg(SCENE)
    return (
        plain,
        encoded(SCENE, "JPEG", quality=90, progressive=True),
        encoded(_GREY, "JPEG"),
        encoded(Image.fromarray(SCENE).convert("CMYK"), "JPEG"),
        encoded(SCENE, "JPEG", exif=exif.tobytes(), icc_profile=b"\0" * 140, comment=b"a remark"),
        encoded(SCENE, "JPEG", restart_marker_rows=1),
        with_segment(plain, 0xE1, b"Exif\0\0" + plain),
        encoded(SCENE, "MPO", save_all=True, append_images=[Image.fromarray(SCENE)]),
    )


@functools.cache
def images() -> tuple[bytes, ...]:
    """Still images in every format and sample layout that is read."""
    palette = Image.fromarray(SCENE).quantize(16)
    pages = [Image.fromarray(SCENE)]
    return (
        *_jpegs(),
        encoded(SCENE, "PNG"),
        encoded(_BITS, "PNG"),
        encoded(_GREY, "PNG"),
        encoded(_ALPHA, "PNG"),
        encoded(Image.fromarray(_ALPHA).convert("LA"), "PNG"),
        encoded(palette, "PNG", transparency=0),
        encoded(_DEEP, "PNG"),
        png_header(64, 64),
        encoded(SCENE, "WEBP"),
        encoded(SCENE, "WEBP", lossless=True, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0"),
        encoded(_ALPHA, "WEBP"),
        encoded(SCENE, "BMP"),
        encoded(palette, "BMP"),
        encoded(_BITS, "BMP"),
        encoded(SCENE, "TIFF"),
        *(encoded(SCENE, "TIFF", compression=c) for c in ("tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits")),
        encoded(_DEEP, "TIFF"),
        encoded(_BITS, "TIFF", compression="group4"),
        encoded(SCENE, "TIFF", save_all=True, append_images=pages),
        encoded(palette, "GIF"),
    )


@functools.cache
def animations() -> tuple[bytes, ...]:
    """Animated GIF, APNG and WebP."""
    frames = [Image.fromarray(f) for f in video_frames(4, 24, 32)]
    rest = {"save_all": True, "append_images": frames[1:], "duration": 40}
    return (
        encoded(frames[0], "GIF", **rest),
        encoded(frames[0].quantize(8), "GIF", disposal=2, transparency=1, **rest),
        encoded(frames[0], "PNG", blend=1, disposal=1, **rest),
        encoded(frames[0], "WEBP", **rest),
        encoded(frames[0], "WEBP", lossless=True, **rest),
    )


@functools.cache
def jpeg_payloads() -> tuple[bytes, ...]:
    """What a video synapse carries, and single JPEGs."""
    clip = video_frames(3, 24, 32)
    return (
        *_jpegs(),
        encode_jpeg_frames(clip),
        encode_jpeg_frames(clip, 95) + bytes(7),
        encode_jpeg(clip[0]) + bytes(3) + encode_jpeg(clip[1]),
        b"".join(encoded(frame, "JPEG", progressive=True) for frame in clip),
        encode_jpeg_frames(clip) * 60,
    )


_ENCODERS = (
    ("mp4", "mpeg4", "yuv420p"),
    ("mp4", "libx264", "yuv420p"),
    ("mp4", "libx265", "yuv420p"),
    ("mp4", "libsvtav1", "yuv420p"),
    ("mov", "prores_ks", "yuv422p10le"),
    ("mov", "mjpeg", "yuvj420p"),
    ("mov", "png", "rgba"),
    ("webm", "libvpx", "yuv420p"),
    ("webm", "libvpx-vp9", "yuva420p"),
    ("matroska", "ffv1", "yuv420p"),
    ("matroska", "mpeg2video", "yuv420p"),
    ("avi", "msmpeg4", "yuv420p"),
    ("avi", "h263", "yuv420p"),
    ("avi", "huffyuv", "yuv422p"),
    ("avi", "utvideo", "yuv420p"),
    ("avi", "rawvideo", "yuv420p"),
    ("gif", "gif", "rgb8"),
)


@functools.cache
def videos() -> tuple[bytes, ...]:
    """A clip of four frames in each container and codec that is read and that this FFmpeg writes."""
    os.environ.setdefault("SVT_LOG", "0")  # else this encoder writes a page to standard error
    clip = video_frames(4, 96, 128)
    made = [mp4_of_jpegs(encode_jpeg_frames(clip)), movie(clip, rotation=90)]
    for container, codec, pixels in _ENCODERS:
        if codec not in av.codecs_available:
            continue
        try:
            av.codec.Codec(codec, "w")
        except av.codec.codec.UnknownCodecError:
            continue
        options: dict[str, Any] = {"preset": "ultrafast"} if codec in ("libx264", "libx265") else {}
        if codec == "libx265":
            options["x265-params"] = "log-level=none:pools=1"
        made.append(movie(clip, container, codec, pixel_format=pixels, **options))
    return tuple(made)
