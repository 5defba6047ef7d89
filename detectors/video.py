"""Video containers through PyAV: bounded decoding to evenly spaced RGB frames.

The demuxer is chosen from the first bytes and named, never probed: playlists and other formats that open further
files or addresses are out of reach, and whatever a file refers to outside itself stays closed. Decoders are an
explicit list too. Pixels are taken as stored: the sample aspect ratio is not applied, a display rotation is.
"""

from __future__ import annotations

import ctypes
import io
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from detectors.errors import MediaError, MediaReason
from detectors.limits import DEFAULT_LIMITS, Limits
from detectors.sampling import EvenSampler
from detectors.types import U8, Media

if TYPE_CHECKING:
    import av
    from av.container import InputContainer
    from av.video.stream import VideoStream

__all__ = ["CODECS", "container_format", "decode_container"]

_CODEC_NAMES = """
    av1 libdav1d vp8 vp9 libvpx libvpx-vp9 h264 hevc h263 mpeg4 msmpeg4v3 mpeg1video mpeg2video theora mjpeg gif png
    prores ffv1 huffyuv ffvhuff utvideo rawvideo
"""
CODECS = frozenset(_CODEC_NAMES.split())
"""Decoders that strangers' bytes may reach: what cameras, browsers, editors and validators write."""

_LEAST_ALLOCATION = 64 << 20
_MP4_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")


def container_format(head: bytes) -> str | None:
    """FFmpeg's name of the container whose first 16 bytes (or more) are `head`; None for anything else."""
    if head[4:8] in _MP4_BOXES:
        return "mov"
    if head.startswith(b"\x1aE\xdf\xa3"):
        return "matroska"
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "avi"
    return "gif" if head[:6] in (b"GIF87a", b"GIF89a") else None


def decode_container(
    data: bytes | memoryview | Path, *, limits: Limits = DEFAULT_LIMITS, max_frames: int | None = None
) -> Media:
    """Decodes a video file: MP4, MOV, WebM, Matroska, AVI or GIF.

    A clip longer than `max_frames` is represented by that many evenly spaced frames; one longer than
    ``limits.max_decoded_frames`` by evenly spaced key frames. When ``limits.max_seconds`` run out, or the data turns
    out to be damaged on the way, the frames decoded so far are what is judged.

    Args:
        data: the file's bytes, or its path (read as a stream, so that it never has to fit into memory).
        limits: bounds on bytes, pixels, frames, decoded bytes and wall time.
        max_frames: frames to keep; default ``limits.container_frames``.

    Returns:
        `Media` with pixels ``uint8 [T, H, W, 3]``, T >= 1, display rotation applied, alpha composited on white; the
        rate is that of the kept frames.

    Raises:
        MediaError: EMPTY, TOO_LARGE, TOO_SMALL, TRUNCATED, UNSUPPORTED (no video stream, or a codec that is not
            read) or UNDECODABLE.
    """
    with _source(data, limits) as stream:
        head = stream.read(16)
        stream.seek(0)
        name = container_format(head)
        if name is None:
            raise MediaError(MediaReason.UNDECODABLE, "not a video; read are MP4, MOV, WebM, Matroska, AVI and GIF")
        try:
            frames, origin = _read(stream, name, limits, max_frames)
        except MediaError as error:
            if error.reason in (MediaReason.UNDECODABLE, MediaReason.UNSUPPORTED) and _cut_short(stream, name):
                raise MediaError(MediaReason.TRUNCATED, "the video ends before its first frame") from error
            raise
    return Media(_stack(frames), rate=_rate(frames), origin=origin)


def _read(stream: BinaryIO, name: str, limits: Limits, max_frames: int | None) -> tuple[list[av.VideoFrame], str]:
    """The kept frames, at least one, and the container's name."""
    import av  # noqa: PLC0415 - 60 ms that `--help` need not wait for

    _cap_allocations(limits.max_video_bytes)
    options = {"max_pixels": str(limits.max_pixels), "enable_drefs": "0", "protocol_whitelist": "none"}
    sampler: EvenSampler[av.VideoFrame] | None = None
    origin, problem = name, ""
    try:
        with av.open(stream, mode="r", format=name, options=options, io_open=_refuse_io) as container:
            origin = container.format.name
            video = _video_stream(container)
            _check_header(video, limits)
            sampler = EvenSampler(limits.frames_kept(video.width, video.height, max_frames))
            _fill(sampler, container, video, limits)
    except (av.FFmpegError, ValueError, RuntimeError, EOFError) as error:
        problem = f" ({type(error).__name__})"  # what was decoded before it is still good
    except MemoryError as error:
        raise MediaError(MediaReason.TOO_LARGE, "the video does not fit into memory") from error
    frames = sampler.taken() if sampler is not None else []
    if not frames:
        raise MediaError(MediaReason.UNDECODABLE, f"no frame can be decoded{problem}")
    return frames, origin


def _cap_allocations(most: int) -> None:
    """Lets no single allocation of FFmpeg exceed `most` bytes, or 64 MB, which decoders need; holds for the process.

    FFmpeg allocates what a header announces before it looks whether the file has it: 100 bytes of AVI with a tampered
    ``LIST INFO`` made it fill 4 GB. PyAV has no word for the function that bounds this, so it is called as C; found
    through PyAV's own module, wherever the wheel put the library.
    """
    import av._core  # noqa: PLC0415 - see _read

    ctypes.CDLL(av._core.__file__).av_max_alloc(ctypes.c_size_t(max(most, _LEAST_ALLOCATION)))


def _check_header(video: VideoStream, limits: Limits) -> None:
    if not video.width or not video.height:  # FFmpeg withholds a size beyond its `max_pixels`
        raise MediaError(MediaReason.TOO_LARGE, f"no frame size, or one beyond {limits.max_pixels} pixels")
    limits.check_size(video.width, video.height)


def _fill(sampler: EvenSampler[av.VideoFrame], container: InputContainer, video: VideoStream, limits: Limits) -> None:
    """Passes the stream's sound frames by the sampler, within the bounds on frames and wall time."""
    video.thread_type = "AUTO"
    if _length(container, video) > limits.max_decoded_frames:
        video.codec_context.skip_frame = "NONKEY"
    end = time.monotonic() + limits.max_seconds
    for count, frame in enumerate(container.decode(video), start=1):
        if not frame.is_corrupt:
            limits.check_size(frame.width, frame.height)
            sampler.offer(frame)
        if count >= limits.max_decoded_frames or time.monotonic() > end:
            return


def _video_stream(container: InputContainer) -> VideoStream:
    """The first video stream that is not a cover picture."""
    from av.stream import Disposition  # noqa: PLC0415 - see _read

    for video in container.streams.video:
        if video.disposition & Disposition.attached_pic:
            continue
        codec = getattr(video.codec_context, "name", "unknown")  # there is no context where FFmpeg knows no decoder
        if codec not in CODECS:
            raise MediaError(MediaReason.UNSUPPORTED, f"the codec {codec} is not read")
        return video
    raise MediaError(MediaReason.UNSUPPORTED, "the file holds no video stream")


def _length(container: InputContainer, video: VideoStream) -> float:
    """How many frames the headers announce; 0 where they do not."""
    if video.frames:
        return float(video.frames)
    rate = float(video.average_rate or 0)
    if video.duration is not None and video.time_base is not None:
        return float(video.duration * video.time_base) * rate
    return (container.duration or 0) / 1e6 * rate


def _stack(frames: list[av.VideoFrame]) -> U8:
    """RGB frames of the first one's size, turned as a player would show them."""
    first = frames[0]
    pixels = np.empty((len(frames), first.height, first.width, 3), np.uint8)
    for index, frame in enumerate(frames):
        pixels[index] = _rgb(frame, first.width, first.height)
    turns = round(first.rotation / 90) % 4  # counter-clockwise, as numpy turns
    return np.ascontiguousarray(np.rot90(pixels, turns, axes=(1, 2))) if turns else pixels


def _rgb(frame: av.VideoFrame, width: int, height: int) -> U8:
    if not any(component.is_alpha for component in frame.format.components):
        return np.asarray(frame.to_ndarray(format="rgb24", width=width, height=height), np.uint8)
    rgba = np.asarray(frame.to_ndarray(format="rgba", width=width, height=height), np.uint16)
    alpha = rgba[..., 3:]
    return ((rgba[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def _rate(frames: list[av.VideoFrame]) -> float | None:
    """Frames per second of the kept frames, from their times."""
    if frames[0].pts is None or frames[-1].pts is None:
        return None
    seconds = frames[-1].time - frames[0].time
    return (len(frames) - 1) / seconds if seconds > 0 else None


@contextmanager
def _source(data: bytes | memoryview | Path, limits: Limits) -> Iterator[BinaryIO]:
    if not isinstance(data, Path):
        limits.check_bytes(len(data))
        yield io.BytesIO(data)
        return
    try:
        limits.check_bytes(data.stat().st_size)
        stream = data.open("rb")
    except OSError as error:
        raise MediaError(MediaReason.UNDECODABLE, f"the file cannot be read: {error.strerror}") from error
    with stream:
        yield stream


def _refuse_io(url: str, flags: int, options: dict[str, Any]) -> BinaryIO:
    raise PermissionError("a video may not open anything outside itself")


def _cut_short(stream: BinaryIO, name: str) -> bool:
    """Whether the top-level boxes of an MP4 announce more bytes than there are (ISO 14496-12, 4.2)."""
    if name != "mov":
        return False
    size = stream.seek(0, io.SEEK_END)
    at = 0
    for _ in range(1024):
        stream.seek(at)
        head = stream.read(16)
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if len(head) < 8 or length < 8:
            return False
        at += length
        if at >= size:
            return at > size
    return False
