"""Small pictures of the last challenges, for people to look at: in memory only, bounded, made on their own thread."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict, deque

import cv2
import numpy as np

from detectors.media import encode_jpeg
from detectors.types import U8, Media

__all__ = ["MOST_WAITING", "MOST_WAITING_BYTES", "SIDE", "Thumbnails", "shrink"]

_log = logging.getLogger(__name__)

SIDE = 160
"""Longest side of a thumbnail, pixels."""
MOST_WAITING = 16
"""Media that may wait to be shrunk; further ones get no thumbnail."""
MOST_WAITING_BYTES = 64 << 20
"""Of their pixels together; a single one may be larger, since nothing else is held then."""

_QUALITY = 80
_IDLE_S = 2.0


def shrink(pixels: U8, side: int = SIDE) -> U8:
    """``uint8 [H, W, 3]`` brought down to a longest side of `side`, never enlarged; a copy."""
    height, width = pixels.shape[:2]
    scale = min(1.0, side / max(height, width))
    if scale == 1.0:
        return np.array(pixels, np.uint8)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)


class Thumbnails:
    """The thumbnails by the id of their request. Safe to use from any thread.

    Args:
        keep: how many; at most about 77 KB each, some 5 KB once they were looked at. 0 keeps nothing at all and starts
            no thread.
    """

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._made: OrderedDict[str, U8 | bytes] = OrderedDict()  # pixels until somebody looks, then the JPEG
        self._waiting: deque[tuple[str, Media]] = deque()
        self._waiting_bytes = 0
        self._dropped = 0
        self._busy = False
        self._closed = keep <= 0
        self._changed = threading.Condition()
        if keep > 0:
            threading.Thread(target=self._work, name="thumbnails", daemon=True).start()

    @property
    def dropped(self) -> int:
        """Media that got none because too many waited."""
        return self._dropped

    def offer(self, name: str, media: Media) -> None:
        """Takes a reference and returns at once; of a video the middle frame will be shown."""
        with self._changed:
            if self._closed:
                return
            size = media.pixels.nbytes
            full = self._waiting_bytes + size > MOST_WAITING_BYTES and self._waiting_bytes > 0
            if full or len(self._waiting) >= MOST_WAITING:
                self._dropped += 1
                return
            self._waiting.append((name, media))
            self._waiting_bytes += size
            self._changed.notify_all()

    def has(self, name: str) -> bool:
        """Whether there is a thumbnail of that request."""
        return name in self._made

    def jpeg(self, name: str) -> bytes | None:
        """The thumbnail, encoded when it is looked at for the first time; None where there is none."""
        with self._changed:
            found = self._made.get(name)
        if found is None or isinstance(found, bytes):
            return found
        encoded = encode_jpeg(found, quality=_QUALITY)  # not under the lock, which the inference thread takes
        with self._changed:
            if name in self._made:
                self._made[name] = encoded
        return encoded

    def held_bytes(self) -> int:
        """Memory of what is kept and of what waits."""
        with self._changed:
            kept = sum(len(one) if isinstance(one, bytes) else one.nbytes for one in self._made.values())
            return kept + self._waiting_bytes

    def settle(self, timeout_s: float = _IDLE_S) -> bool:
        """Waits until nothing waits any more; False where that took longer than `timeout_s`."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting and not self._busy, timeout_s)

    def close(self) -> None:
        """Ends the thread and lets go of every pixel."""
        with self._changed:
            self._closed = True
            self._waiting.clear()
            self._waiting_bytes = 0
            self._made.clear()
            self._changed.notify_all()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if self._closed:
                    return
                name, media = self._waiting.popleft()
                self._busy = True
            small = _small(media)
            size = media.pixels.nbytes
            del media  # while this thread sleeps, it must not be what keeps a video alive
            with self._changed:
                self._busy = False
                self._waiting_bytes = max(0, self._waiting_bytes - size)
                if small is not None and not self._closed:
                    self._made[name] = small
                    while len(self._made) > self._keep:
                        self._made.popitem(last=False)
                self._changed.notify_all()


def _small(media: Media) -> U8 | None:
    frames = media.frames
    try:
        return shrink(frames[len(frames) // 2])
    except (cv2.error, MemoryError):  # a missing thumbnail is no reason to lose all further ones
        _log.warning("no thumbnail of a %s of %d x %d pixels", media.modality, *media.size)
        return None
