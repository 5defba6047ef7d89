"""What telemetry costs the axon's loop: counting a request, reading the metrics, writing the log line of an answer.

    .venv/bin/python scripts/bench_telemetry.py 2>/dev/null

Processor time of one core, best of eight rounds. Log lines go to standard error, as a miner's do.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

from detectors.types import Prediction
from neurons import logs
from neurons.seen import ANSWERED, Seen, log_seen
from neurons.telemetry import Metrics

_ROUNDS = 8
_ANSWER = Prediction(
    (0.25, 0.75, 0.0),
    route=("gate:face", "general", "general-whole", "merge:learned"),
    weights={"general": "general@1.0.0", "general-whole": "general-whole@1.0.0"},
    detector="camo@0123456789ab",
)
_STAGES = {
    "body": 0.3,
    "verify": 0.4,
    "queue": 2.2,
    "decode": 1.4,
    "gate:face": 7.1,
    "general": 23.4,
    "general-whole": 9.9,
    "merge": 0.1,
}
_HOTKEY = "5" + "G" * 47  # as long as one
_ANSWERED = Seen(
    id="3f9c01-1a",
    at=1.0,
    path="/detect_image",
    wire="epistula",
    hotkey=_HOTKEY,
    tier="validator",
    modality="image",
    outcome=ANSWERED,
    status=200,
    seconds=0.0567,
    stages=_STAGES,
    prediction=_ANSWER,
)
_REFUSED = Seen("3f9c01-1b", 1.0, "/detect_image", "dendrite", "", "unproven", "", "bad_signature", 401, 0.0007)


def microseconds(work: Callable[[], object], count: int) -> float:
    """Processor time of one call."""
    best = float("inf")
    for _ in range(_ROUNDS):
        began = time.process_time()
        for _ in range(count):
            work()
        best = min(best, (time.process_time() - began) / count * 1e6)
    return best


def main() -> None:
    metrics = Metrics()
    print(f"counting an answer          {microseconds(lambda: metrics.observe(_ANSWERED), 3000):8.1f} µs")
    print(f"counting a refused request  {microseconds(lambda: metrics.observe(_REFUSED), 3000):8.1f} µs")
    print(f"reading the metrics         {microseconds(metrics.exposition, 5):8.1f} µs")
    styles: tuple[Literal["console", "json"], ...] = ("console", "json")
    for style in styles:
        logs.configure("info", style)
        print(f"logging an answer, {style:<8} {microseconds(lambda: log_seen(_ANSWERED), 500):8.1f} µs")


if __name__ == "__main__":
    main()
