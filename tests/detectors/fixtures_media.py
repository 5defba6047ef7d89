"""Media made on the spot: nothing in these tests comes from a file."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import av
import numpy as np
from av.video.stream import VideoStream
from PIL import Image

from detectors.types import U8

__all__ = ["encoded", "movie", "photo", "png_header", "video_frames", "with_segment"]


def photo(height: int = 48, width: int = 64, seed: int = 0) -> U8:
    """A smooth RGB scene, so that lossy codecs stay close to it."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    waves = [np.sin(2 * np.pi * (a * x + b * y + c)) for a, b, c in rng.uniform(0.2, 1.0, (3, 3))]
    return np.asarray(127.5 + 100 * np.stack(waves, axis=-1), np.uint8)


def video_frames(count: int, height: int = 48, width: int = 64) -> U8:
    """Frames whose grey level tells their index: level = 10 + 200 * index / (count - 1)."""
    levels = np.linspace(10, 210, count).round().astype(np.uint8)
    return np.broadcast_to(levels[:, None, None, None], (count, height, width, 3)).copy()


def encoded(pixels: U8 | Image.Image, kind: str, **options: Any) -> bytes:
    """One image through Pillow's encoder `kind`."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that announces a size and holds one byte of pixels: 20,000 x 20,000 in 70 bytes."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def with_segment(jpeg: bytes, code: int, body: bytes) -> bytes:
    """The JPEG with one more segment right after its start."""
    return jpeg[:2] + bytes((0xFF, code)) + struct.pack(">H", len(body) + 2) + body + jpeg[2:]


def movie(
    frames: U8,
    container: str = "mp4",
    codec: str = "mpeg4",
    rate: int = 25,
    rotation: int = 0,
    pixel_format: str = "yuv420p",
    **options: str,
) -> bytes:
    """RGB frames through FFmpeg; `rotation` is written as display metadata."""
    buffer = io.BytesIO()
    with av.open(buffer, mode="w", format=container) as out:
        stream = out.add_stream(codec, rate=rate, options=options)
        assert isinstance(stream, VideoStream)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pixel_format
        if rotation:
            stream.set_display_rotation(rotation)
        for pixels in frames:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        out.mux(stream.encode(None))
    return buffer.getvalue()
