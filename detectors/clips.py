"""Consecutive frames of one's own videos, as a validator cuts them; serving uses the bounded ``detectors.video``.

Unlike there, nothing depends on wall time or on how a video is sampled: the same file and range give the same frames.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from detectors.errors import MediaError, MediaReason
from detectors.types import U8
from detectors.video import CODECS, container_format

if TYPE_CHECKING:
    import av
    from av.container import InputContainer
    from av.video.stream import VideoStream

__all__ = ["ClipIndex", "clip_frames", "clip_index"]

_SEEKABLE = ("mov", "matroska")  # containers with an index of key frames that a seek can trust


@dataclass(frozen=True, slots=True)
class ClipIndex:
    """What must be known of a video to cut a clip from it.

    Attributes:
        path: of the file.
        frames: how many it holds, at least 1.
        times: presentation times of the frames in stream units, ascending; empty where a container has none and
            frames can only be counted from the start.
    """

    path: Path
    frames: int
    times: tuple[int, ...]


def clip_index(path: Path) -> ClipIndex:
    """Reads the packets of a video without decoding them.

    Raises:
        MediaError: not a readable video, or one without frames.
    """
    import av  # noqa: PLC0415 - 60 ms that `--help` need not wait for

    name = _format(path)
    try:
        with av.open(str(path), format=name) as container:
            times = [packet.pts for packet in container.demux(_stream(container)) if packet.size]
    except (av.FFmpegError, OSError, ValueError) as error:
        raise _undecodable(path, error) from error
    if not times:
        raise MediaError(MediaReason.EMPTY, f"{path.name} holds no frame")
    known = sorted(time for time in times if time is not None)
    usable = name in _SEEKABLE and len(known) == len(set(known)) == len(times)
    return ClipIndex(path, len(times), tuple(known) if usable else ())


def clip_frames(index: ClipIndex, start: int, count: int) -> Iterator[U8]:
    """Decodes ``count`` consecutive frames from number `start` on, one at a time.

    Args:
        index: from :func:`clip_index`.
        start: in [0, ``index.frames``).
        count: at least 1; fewer come where the video ends.

    Yields:
        RGB ``uint8 [H, W, 3]``, all of one size, turned as a player would show them.

    Raises:
        MediaError: the video cannot be decoded, or ends before `start`.
    """
    import av  # noqa: PLC0415 - see clip_index

    given = 0
    try:
        with av.open(str(index.path), format=_format(index.path)) as container:
            size: tuple[int, int] | None = None
            for frame in _from(container, index, start):
                size = size or (frame.width, frame.height)
                pixels = frame.to_ndarray(format="rgb24", width=size[0], height=size[1])
                turns = round(frame.rotation / 90) % 4
                yield np.ascontiguousarray(np.rot90(pixels, turns) if turns else pixels, dtype=np.uint8)
                given += 1
                if given == count:
                    return
    except (av.FFmpegError, OSError) as error:
        raise _undecodable(index.path, error) from error
    if not given:
        raise MediaError(MediaReason.TRUNCATED, f"{index.path.name} ends before frame {start}")


def _from(container: InputContainer, index: ClipIndex, start: int) -> Iterator[av.VideoFrame]:
    """Frames from number `start` on, by way of the key frame before it where the container can seek."""
    video = _stream(container)
    if not index.times or start == 0:
        for number, frame in enumerate(container.decode(video)):
            if number >= start:
                yield frame
        return
    wanted = index.times[start]
    container.seek(wanted, stream=video)
    landed = False
    for frame in container.decode(video):
        if not landed and (frame.pts is None or frame.pts > wanted):
            break  # the seek went past the frame
        landed = True
        if frame.pts is not None and frame.pts >= wanted:
            yield frame
    else:
        return
    container.seek(index.times[0], stream=video)
    yield from (frame for frame in container.decode(video) if frame.pts is not None and frame.pts >= wanted)


def _format(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            name = container_format(stream.read(16))
    except OSError as error:
        raise _undecodable(path, error) from error
    if name is None:
        raise MediaError(MediaReason.UNSUPPORTED, f"{path.name} is not MP4, MOV, WebM, Matroska, AVI or GIF")
    return name


def _stream(container: InputContainer) -> VideoStream:
    for video in container.streams.video:
        codec = getattr(video.codec_context, "name", "unknown")
        if codec in CODECS:
            return video
    raise ValueError("no video stream with a codec that is read")


def _undecodable(path: Path, error: Exception) -> MediaError:
    return MediaError(MediaReason.UNDECODABLE, f"{path.name} cannot be read ({type(error).__name__})")
