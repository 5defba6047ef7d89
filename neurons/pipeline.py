"""From encoded challenges to predictions: bounded decoding, then the detector; one bad item spoils no other."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeAlias, TypeGuard

from detectors.card import Card
from detectors.costs import Costs
from detectors.errors import DetectorError, MediaError
from detectors.media import decode_container, decode_image, decode_jpeg_frames
from detectors.types import Detector, Media, Prediction
from neurons.wire.base import Challenge

__all__ = ["Judge", "Judged", "JudgesChallenges", "Outcome", "TrivialDetector", "TrivialJudge", "Watcher"]

_log = logging.getLogger(__name__)

Outcome: TypeAlias = Prediction | DetectorError  # a MediaError is a DetectorError: the caller's fault
_SERIAL_BYTES = 64 * 1024  # decoding less than this costs about as much as handing it to another thread
_MASK = "mask"
_MASK_SIDE = 1024  # pixels: what a stranger's picture of 16 megapixels may cost us to answer
_MASK_BUDGET_MS = 250.0  # until measured
_MASK_MARGIN_S = 0.05  # kept free before the deadline, for encoding and sending


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
        self._costs = Costs({_MASK: _MASK_BUDGET_MS}, 0.2)
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
            In order, for each challenge a :class:`Prediction` (with a heat map where it wants a mask), the
            :class:`MediaError` that says why it cannot be decoded, or the :class:`DetectorError` of a detector that
            failed on it alone.
        """
        began = time.monotonic()
        decoded = self._decode_all(challenges)
        spent = (time.monotonic() - began) * 1e3
        good = [(challenge, media) for challenge, media in zip(challenges, decoded, strict=True) if _is_media(media)]
        outcomes = self._predict(good, deadline)
        for index, ((challenge, media), outcome) in enumerate(zip(good, outcomes, strict=True)):
            if isinstance(outcome, Prediction):
                masked = self._masked(challenge, media, outcome, deadline) if challenge.wants == "mask" else outcome
                outcomes[index] = _timed(masked, spent)
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

    def _predict(self, batch: list[tuple[Challenge, Media]], deadline: float | None) -> list[Outcome]:
        if not batch:
            return []
        try:
            predictions = self._detector.predict([media for _, media in batch], deadline=deadline)
            if len(predictions) != len(batch):
                raise DetectorError(f"{len(predictions)} predictions for {len(batch)} media")
        # The worker's edge: a detector is exchangeable and may raise anything (out of memory, a broken weight);
        # its batch mates must still be answered and the process must live.
        except Exception as error:  # noqa: BLE001
            if len(batch) == 1:
                _log.exception("the detector failed on one item", extra={"request": batch[0][0].id})
                return [error if isinstance(error, DetectorError) else _wrapped(error)]
            _log.warning("a batch of %d failed with %s; judging its items one by one", len(batch), _name(error))
            return [outcome for item in batch for outcome in self._predict([item], deadline)]
        return list(predictions)

    def _masked(self, challenge: Challenge, media: Media, said: Prediction, deadline: float | None) -> Prediction:
        """The prediction with its heat map, of the picture's size or scaled down to 1024 pixels.

        What would be late or fails becomes an even map of P(fake), and the route says so: silence costs more.
        """
        from detectors.heatmap import fitted, flat_map, heat_map  # noqa: PLC0415 - imports torch, which few tests need

        size = fitted(media.size, _MASK_SIDE)
        even = flat_map(said.p_fake, size)
        expected = self._costs.milliseconds(_MASK) / 1e3
        if deadline is not None and time.monotonic() + expected + _MASK_MARGIN_S > deadline:
            self._costs.left_out(_MASK)
            return dataclasses.replace(said, heat_map=even, route=(*said.route, f"late:{_MASK}"))
        began = time.perf_counter()
        try:
            found = heat_map(self._detector, media, size=size, prediction=said)
        except Exception:  # noqa: BLE001 - a detector is exchangeable; there is an answer already, so it is given
            _log.exception("no heat map of one item", extra={"request": challenge.id})
            return dataclasses.replace(said, heat_map=even, route=(*said.route, f"broken:{_MASK}"))
        spent = time.perf_counter() - began
        self._costs.record(_MASK, 1, spent)
        stages = {**found.prediction.stages, _MASK: spent * 1e3}
        return dataclasses.replace(found.prediction, heat_map=found.maps[0], stages=stages)


def _is_media(decoded: Media | MediaError) -> TypeGuard[Media]:
    return isinstance(decoded, Media)


def _timed(outcome: Prediction, decode_ms: float) -> Prediction:
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
