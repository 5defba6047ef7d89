"""Routes and expert scores for the report: no wire carries them, so the same challenges are judged once more here."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from detectors.errors import DetectorError
from detectors.types import Detector, Prediction
from neurons.challenges import Issued
from neurons.conduct import Result
from neurons.pipeline import Judge
from neurons.summary import Trace
from neurons.wire.base import Challenge

__all__ = ["explain", "fair_threads", "traces_of"]

_SAME = 1e-3  # two runs of one network on one input differ by less, whatever the batch and the threads


def fair_threads() -> int:
    """Torch's threads in one process out of two that work at the same time; its idle threads spin, so no more."""
    return max(1, len(os.sched_getaffinity(0)) // 2)


def traces_of(result: Result, detectors: Mapping[str, Detector]) -> tuple[dict[str, dict[int, Trace]], str]:
    """Looks the routes of some miners up.

    Args:
        result: of a run that kept what it sent.
        detectors: by the miner's name, the detector that it serves.

    Returns:
        Traces by miner and index, and the sentence for the report that says where they are from.
    """
    with ThreadPoolExecutor(max(1, len(detectors))) as pool:
        predictions = list(pool.map(lambda detector: explain(detector, result.issued), detectors.values()))
    traces, same, every = {}, 0, 0
    for name, found in zip(detectors, predictions, strict=True):
        traces[name] = {index: Trace(p.route, p.experts) for index, p in found.items()}
        for exchange in result.ledger.exchanges:
            reply, again = exchange.replies[name], found.get(exchange.issued.index)
            if reply.answer is not None and again is not None:
                every += 1
                same += abs(reply.p_fake - again.p_fake) < _SAME
    note = (
        "No wire carries a route. Routes and expert scores were looked up afterwards by judging the same challenges "
        f"once more in the validator's own process; {same} of {every} answers came out the same as over the wire."
    )
    return traces, note


def explain(detector: Detector, challenges: Mapping[int, Issued]) -> dict[int, Prediction]:
    """Judges challenges once more, through the miner's own decoding, without a server.

    Args:
        detector: the one that the miner serves.
        challenges: by index, payloads included.

    Returns:
        By index; a challenge that cannot be judged is left out.
    """
    judge = Judge(detector, decode_threads=1)
    found: dict[int, Prediction] = {}
    try:
        for index, issued in challenges.items():
            if issued.modality == "image":
                challenge = Challenge("image", issued.payload, "image", "vector")
            else:
                challenge = Challenge("video", issued.payload, "jpeg-frames", "vector")
            outcome = judge.judge([challenge], None)[0]
            if not isinstance(outcome, DetectorError):
                found[index] = outcome
    finally:
        judge.close()
    return found
