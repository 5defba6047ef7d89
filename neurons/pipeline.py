"""From encoded challenges to predictions: bounded decoding, then the detector; one bad item spoils no other."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeAlias, TypeGuard

from detectors.card import Card
from detectors.errors import DetectorError, MediaError
from detectors.media import decode_container, decode_image, decode_jpeg_frames
from detectors.types import Detector, Media, Prediction
from neurons.wire.base import Challenge

__all__ = ["Judge", "Judged", "JudgesChallenges", "Outcome", "TrivialDetector", "TrivialJudge", "Watcher"]

_log = logging.getLogger(__name__)

Outcome: TypeAlias = Prediction | DetectorError  # a MediaError is a DetectorError: the caller's fault
_SERIAL_BYTES = 64 * 1024  # decoding less than this costs about as much as handing it to another thread


Judged: TypeAlias = tuple[Challenge, Media, Prediction]

Watcher = Callable[[Sequence[Judged]], None]
"""Shown what was judged, on the inference thread before the answers leave: it hands on and returns, never raising."""


class JudgesChallenges(Protocol):
    """What the scheduler drives: blocking, called from one worker thread at a time."""

    def judge(self, challenges: Sequence[Challenge], deadline: float | None) -> list[Outcome]:
        """One outcome per challenge, in order; `deadline` in ``time.monotonic()`` seconds."""
        ...


class Judge:
    """Decodes a batch in parallel and asks a detector.

    Args:
        detector: anything that predicts; CAMO in production.
        decode_threads: threads that decode one batch; decoders release the interpreter lock.
        watchers: shown every media with what was said of it.
    """

    def __init__(self, detector: Detector, *, decode_threads: int = 2, watchers: Sequence[Watcher] = ()) -> None:
        self._detector = detector
        self._watchers = tuple(watchers)
        self._pool = ThreadPoolExecutor(decode_threads, thread_name_prefix="decode")

    def close(self) -> None:
        """Ends the decoding threads; the judge is not used afterwards."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def judge(self, challenges: Sequence[Challenge], deadline: float | None) -> list[Outcome]:
        """Judges a batch.

        Args:
            challenges: images and videos in any mixture; may be empty.
            deadline: ``time.monotonic()`` seconds by which the answers are wanted, or None.

        Returns:
            In order, for each challenge a :class:`Prediction`, the :class:`MediaError` that says why it cannot be
            decoded, or the :class:`DetectorError` of a detector that failed on it alone.
        """
        began = time.monotonic()
        decoded = self._decode_all(challenges)
        spent = (time.monotonic() - began) * 1e3
        good = [(challenge, media) for challenge, media in zip(challenges, decoded, strict=True) if _is_media(media)]
        outcomes = [_timed(outcome, spent) for outcome in self._predict([media for _, media in good], deadline)]
        pairs = zip(good, outcomes, strict=True)
        judged = [(*asked, outcome) for asked, outcome in pairs if isinstance(outcome, Prediction)]
        for watch in self._watchers:
            watch(judged)
        answers = iter(outcomes)
        return [next(answers) if isinstance(media, Media) else media for media in decoded]

    def _decode_all(self, challenges: Sequence[Challenge]) -> list[Media | MediaError]:
        if len(challenges) > 1 and sum(len(c.payload) for c in challenges) > _SERIAL_BYTES:
            return list(self._pool.map(_decode, challenges))
        return [_decode(challenge) for challenge in challenges]

    def _predict(self, batch: list[Media], deadline: float | None) -> list[Outcome]:
        if not batch:
            return []
        try:
            predictions = self._detector.predict(batch, deadline=deadline)
            if len(predictions) != len(batch):
                raise DetectorError(f"{len(predictions)} predictions for {len(batch)} media")
        # The worker's edge: a detector is exchangeable and may raise anything (out of memory, a broken weight);
        # its batch mates must still be answered and the process must live.
        except Exception as error:  # noqa: BLE001
            if len(batch) == 1:
                _log.exception("the detector failed on one item")
                return [error if isinstance(error, DetectorError) else _wrapped(error)]
            _log.warning("a batch of %d failed with %s; judging its items one by one", len(batch), _name(error))
            return [outcome for media in batch for outcome in self._predict([media], deadline)]
        return list(predictions)


def _is_media(decoded: Media | MediaError) -> TypeGuard[Media]:
    return isinstance(decoded, Media)


def _timed(outcome: Outcome, decode_ms: float) -> Outcome:
    if not isinstance(outcome, Prediction):
        return outcome
    return dataclasses.replace(outcome, stages={"decode": decode_ms, **outcome.stages})


def _wrapped(error: Exception) -> DetectorError:
    wrapped = DetectorError(f"detector raised {_name(error)}")
    wrapped.__cause__ = error
    return wrapped


def _name(error: Exception) -> str:
    return type(error).__name__


def _decode(challenge: Challenge) -> Media | MediaError:
    try:
        if challenge.encoding == "image":
            return decode_image(challenge.payload)
        if challenge.encoding == "jpeg-frames":
            return decode_jpeg_frames(challenge.payload)
        return decode_container(challenge.payload)
    except MediaError as error:
        return error


class TrivialDetector:
    """Answers a constant: stands in where only the way to the detector is tested. Never earns a reward.

    Args:
        probabilities: what it answers, (real, synthetic, semi-synthetic).
    """

    def __init__(self, probabilities: tuple[float, float, float] = (0.5, 0.5, 0.0)) -> None:
        self._answer = Prediction(probabilities, route=("trivial",), detector="trivial@1.0.0")
        self.card = Card(name="trivial", version="1.0.0", architecture="trivial", provenance="none: a constant")

    def predict(self, batch: Sequence[Media], *, deadline: float | None = None) -> list[Prediction]:
        """The constant, once per item; `deadline` is always met."""
        return [self._answer] * len(batch)


class TrivialJudge:
    """Answers a constant without decoding anything: measures the service alone (``scripts/bench_serve.py``)."""

    def __init__(self, probabilities: tuple[float, float, float] = (0.5, 0.5, 0.0)) -> None:
        self._answer = Prediction(probabilities, route=("trivial",), detector="trivial@1.0.0")

    def judge(self, challenges: Sequence[Challenge], deadline: float | None) -> list[Outcome]:
        """The constant, once per challenge."""
        return [self._answer] * len(challenges)
