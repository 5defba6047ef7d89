"""A challenge's JPEG frames as an MP4 file, for the wires that carry video as a container."""

from __future__ import annotations

import io
from fractions import Fraction

import av
from PIL import Image

from detectors.jpeg_frames import split_jpegs

__all__ = ["mp4_of_jpegs"]


def mp4_of_jpegs(payload: bytes, rate: int = 8) -> bytes:
    """Wraps concatenated JPEG frames into an MP4 (Motion JPEG) without re-encoding them.

    Args:
        payload: complete JPEG streams, one after the other.
        rate: frames a second the container states.
    """
    frames = split_jpegs(payload)
    width, height = Image.open(io.BytesIO(frames[0])).size
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as container:
        stream = container.add_stream("mjpeg", rate=rate)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuvj420p"
        for k, frame in enumerate(frames):
            packet = av.Packet(bytes(frame))
            packet.stream, packet.pts, packet.dts = stream, k, k
            packet.time_base, packet.duration, packet.is_keyframe = Fraction(1, rate), 1, True
            container.mux(packet)
    return out.getvalue()
