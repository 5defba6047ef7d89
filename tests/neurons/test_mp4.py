"""JPEG frames in a container are the same pictures."""

from __future__ import annotations

import io

import av
import numpy as np
import pytest

from detectors.errors import MediaError
from detectors.jpeg_frames import split_jpegs
from detectors.media import decode_container, decode_jpeg_frames, encode_jpeg_frames
from neurons.mp4 import mp4_of_jpegs
from tests.detectors.fixtures_media import photo


def test_every_frame_survives_in_order() -> None:
    payload = encode_jpeg_frames(np.stack([photo(64, 64, seed=k) for k in range(9)]))
    wrapped = decode_container(mp4_of_jpegs(payload, rate=12))
    frames = decode_jpeg_frames(payload).pixels
    assert wrapped.pixels.shape == frames.shape
    assert wrapped.rate == pytest.approx(12.0)
    with av.open(io.BytesIO(mp4_of_jpegs(payload)), "r") as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    assert packets == [bytes(frame) for frame in split_jpegs(payload)]  # not re-encoded, to the byte


def test_what_is_no_jpeg_is_refused() -> None:
    with pytest.raises(MediaError):
        mp4_of_jpegs(b"no frames")
