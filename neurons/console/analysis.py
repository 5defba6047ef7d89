"""One file that the operator dropped on the page: what the live detector says of it, and where it looked."""

from __future__ import annotations

import asyncio
import base64
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import numpy as np

from detectors.errors import DetectorError
from detectors.media import DEFAULT_LIMITS, decode, encode_jpeg
from detectors.sampling import middle_indices
from detectors.types import U8, Detector, Media, Prediction
from neurons.console.bridge import Explainer
from neurons.thumbnails import shrink

__all__ = ["Analysis", "Analyst", "Busy"]

_log = logging.getLogger(__name__)

_SIDE: Final = 640  # longest side of a picture on the page
_STRIP_SIDE: Final = 160  # of a frame in a strip
_STRIP: Final = 8  # frames shown of a video
_QUALITY = 85


class Busy(Exception):  # noqa: N818 - an answer, not an error
    """Another file is being analysed."""


@dataclass(frozen=True, slots=True)
class Analysis:
    """What the page shows of one file.

    Attributes:
        name: of the file, as its sender called it: a stranger's words.
        media: what it was decoded to.
        prediction: the live detector's.
        picture: the media, as a ``data:`` address of a JPEG; of a video its frames side by side.
        heat_map: the same with what spoke for fake laid over it; empty where there is none.
        note: why there is no heat map, or who has no part in it; may be empty.
    """

    name: str
    media: Media
    prediction: Prediction
    picture: str
    heat_map: str
    note: str


class Analyst:
    """Analyses files one at a time, on a thread of its own: neither the console nor the axon waits for it.

    Args:
        detector: the live one.
        explainer: heat maps; None where there are none.
    """

    def __init__(self, detector: Detector, explainer: Explainer | None) -> None:
        self._detector = detector
        self._explainer = explainer
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="analyse")
        self._free = threading.Lock()

    def close(self) -> None:
        """Takes no further files; what runs, runs on to its end unheard."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def analyse(self, name: str, data: bytes) -> Analysis:
        """Decodes under a stranger's limits and asks the live detector.

        Args:
            name: of the file.
            data: its bytes.

        Raises:
            Busy: another one runs.
            MediaError: it is no usable media.
            DetectorError: the detector failed on it.
        """
        if not self._free.acquire(blocking=False):
            raise Busy
        try:
            future = self._pool.submit(self._run, name, data)
        except RuntimeError as error:  # closed
            self._free.release()
            raise Busy from error
        # Its own end frees the place, not that of whoever waits: a page that was closed does not stop the thread.
        future.add_done_callback(lambda _: self._free.release())
        return await asyncio.wrap_future(future)

    def _run(self, name: str, data: bytes) -> Analysis:
        media = decode(data, limits=DEFAULT_LIMITS)
        prediction = self._detector.predict([media])[0]
        drawn, note = None, "This miner draws no heat maps."
        if self._explainer is not None:
            try:
                drawn, note, prediction = _drawn(self._explainer, self._detector, media, prediction)
            except (DetectorError, RuntimeError, ValueError) as error:  # RuntimeError: torch's
                _log.warning("no heat map: %s", error)
                note = f"There is no heat map of it: {error}"
        picture = shrink(media.pixels, _SIDE) if media.modality == "image" else _side_by_side(media)
        return Analysis(name, media, prediction, _address(picture), "" if drawn is None else _address(drawn), note)


def _drawn(
    explainer: Explainer, detector: Detector, media: Media, prediction: Prediction
) -> tuple[U8, str, Prediction]:
    """The heat map over its picture, who has no part in it, and the answer that it explains."""
    frames = media.frames
    size = shrink(frames[0], _SIDE if media.modality == "image" else _STRIP_SIDE).shape[:2]
    found = explainer.explain(detector, media, size=(size[0], size[1]), prediction=prediction)
    note = "; ".join(f"{name} has no part in it: {why}" for name, why in found.left_out.items())
    if media.modality == "image":
        drawn = explainer.overlay(shrink(media.pixels, _SIDE), found.maps[0])
    else:
        small = np.stack([shrink(frames[index], _STRIP_SIDE) for index in found.frames])
        drawn = explainer.strip(small, found.maps, found.scores)
    return drawn, note, found.prediction


def _side_by_side(media: Media) -> U8:
    frames = media.frames
    small = [shrink(frames[index], _STRIP_SIDE) for index in middle_indices(len(frames), _STRIP)]
    return np.concatenate(small, axis=1)


def _address(pixels: U8) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(encode_jpeg(pixels, quality=_QUALITY)).decode("ascii")
