"""The structure of a JPEG stream: where it ends and how many scans it has, without decoding it (ITU-T T.81, B.1).

Looking for FF D9 is not enough: an EXIF thumbnail is a complete JPEG inside a segment. So the segments are walked by
their lengths, and only entropy-coded data is searched. The search runs in the regular-expression engine: a Python loop
over bytes would take seconds on what strangers can send.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["MAX_SCANS", "JpegError", "JpegExtent", "walk"]

MAX_SCANS = 40
"""More than encoders write (a progressive JPEG has about ten); each scan passes over all pixels."""

_MAX_MARKERS = 8192
_MARKER = re.compile(rb"\xff+([^\x00\xff])")  # fill bytes FF may precede a marker
_AFTER_SCAN = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # neither a stuffed byte nor a restart
_SOI, _EOI, _SOS = 0xD8, 0xD9, 0xDA
_BARE = frozenset((0x01, *range(0xD0, 0xD8)))  # TEM and RSTn carry no length


@dataclass(frozen=True, slots=True)
class JpegExtent:
    """Where one JPEG ends in the bytes (exclusive), and its number of scans."""

    end: int
    scans: int


class JpegError(Exception):
    """The bytes are not one whole JPEG; `truncated` when they stop before its end. Stays inside the package."""

    def __init__(self, detail: str, *, truncated: bool = False, scans: int = 0) -> None:
        super().__init__(detail)
        self.truncated = truncated
        self.scans = scans


def walk(data: bytes | memoryview, start: int = 0) -> JpegExtent:
    """Walks one JPEG from its SOI at `start` to its EOI; linear in the bytes passed.

    Raises:
        JpegError: no SOI, a marker where none may be, a bad length, too many markers, or the bytes end first.
    """
    size = len(data)
    if bytes(data[start : start + 2]) != b"\xff\xd8":
        raise JpegError("no start of image", truncated=0 < size - start < 2 and data[start] == 0xFF)
    at, scans = start + 2, 0
    for _ in range(_MAX_MARKERS):
        found = _MARKER.match(data, at)
        if found is None:
            # Nothing but fill bytes (or nothing at all) up to the end is a cut; anything else is damage.
            raise JpegError("no marker where a segment must start", truncated=_ends_in_fill(data, at), scans=scans)
        code, at = found[1][0], found.end()
        if code == _EOI:
            return JpegExtent(at, scans)
        if code in _BARE:
            continue
        if code == _SOI:
            raise JpegError("a second start of image inside", scans=scans)
        length = int.from_bytes(data[at : at + 2], "big")
        if at + max(2, length) > size:
            raise JpegError("ends inside a segment", truncated=True, scans=scans)
        if length < 2:
            raise JpegError("a segment length below two", scans=scans)
        at += length
        if code == _SOS:
            scans += 1
            if scans > MAX_SCANS:
                raise JpegError("too many scans", scans=scans)
            after = _AFTER_SCAN.search(data, at)
            if after is None:
                raise JpegError("ends inside a scan", truncated=True, scans=scans)
            at = after.start()
    raise JpegError("too many markers", scans=scans)


_FILL = re.compile(rb"\xff*")


def _ends_in_fill(data: bytes | memoryview, at: int) -> bool:
    run = _FILL.match(data, at)
    return run is not None and run.end() == len(data)
