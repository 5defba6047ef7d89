"""What one request to a challenge path was: who asked, what became of it, where the time went.

A :class:`Trace` is filled in while the request is served; what it ends as, a :class:`Seen`, goes to every observer:
the log, the metrics, the console.
"""

from __future__ import annotations

import itertools
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from detectors.types import Modality, Prediction
from neurons import logs

__all__ = ["ANSWERED", "GONE", "Observer", "Seen", "Tier", "Trace", "log_seen", "new_id", "tier_of"]

_log = logging.getLogger(__name__)

ANSWERED: Final = "answered"
"""Outcome of a request that got a prediction."""
GONE: Final = "gone"
"""Outcome of a request whose caller hung up."""

Tier = Literal["validator", "listed", "unregistered", "offline", "unproven"]
"""What a caller is to us; ``unproven`` until its signature held and it may ask."""

_TIERS: Final[Mapping[str, Tier]] = {
    "registered": "validator",
    "allow_list": "listed",
    "unregistered_allowed": "unregistered",
    "offline": "offline",
}

Observer = Callable[["Seen"], None]
"""Called on the event loop for every request, a stranger's flood included: at most some microseconds, never raising."""

_start = os.urandom(3).hex()
_numbers = itertools.count(1)


def new_id() -> str:
    """An id that no other request of this process has, and hardly one of another: ``3f9c01-1a``."""
    return f"{_start}-{next(_numbers):x}"


def tier_of(reason: str) -> Tier:
    """The tier that the reason of a :class:`neurons.access.Decision` means."""
    return _TIERS.get(reason, "unproven")


@dataclass(frozen=True, slots=True)
class Seen:
    """One request, ended.

    Attributes:
        id: of the request, in every log line about it.
        at: when its headers were complete, seconds since the epoch.
        path: of the request, one of the challenge paths.
        wire: the dialect it claimed to speak.
        hotkey: the proven caller; empty where nothing was proven.
        tier: what the caller is to us.
        modality: empty where the request was refused before that was known.
        outcome: ``answered``, ``gone``, ``bug``, or the reason of the refusal.
        status: of HTTP; 0 where nobody was left to answer.
        seconds: from the headers to the answer.
        stages: milliseconds by stage, in order: ``body``, ``verify`` (signature, access, transport encoding),
            ``queue``, ``decode``, ``gate:NAME``, experts by name, ``merge``. The last four are those of the batch.
        prediction: where there was one.
        label: the truth where the caller sent it along (testnet, simulation).
    """

    id: str
    at: float
    path: str
    wire: str
    hotkey: str
    tier: Tier
    modality: Modality | Literal[""]
    outcome: str
    status: int
    seconds: float
    stages: Mapping[str, float] = field(default_factory=dict)
    prediction: Prediction | None = None
    label: int | None = None


class Trace:
    """What is known of a request so far. One request's own, never shared."""

    __slots__ = (
        "at",
        "hotkey",
        "id",
        "label",
        "modality",
        "outcome",
        "path",
        "prediction",
        "stages",
        "started",
        "status",
        "tier",
        "wire",
    )

    def __init__(self, wire: str, path: str, received_ns: int) -> None:
        self.id = new_id()
        self.at = received_ns / 1e9
        self.started = time.monotonic()
        self.wire = wire
        self.path = path
        self.hotkey = ""
        self.tier: Tier = "unproven"
        self.modality: Modality | Literal[""] = ""
        self.label: int | None = None
        self.stages: dict[str, float] = {}
        self.prediction: Prediction | None = None
        self.outcome = GONE
        self.status = 0

    def stage(self, name: str, since: float) -> float:
        """Notes a stage that began at `since` and ends now (``time.monotonic()`` seconds); returns now."""
        now = time.monotonic()
        self.stages[name] = (now - since) * 1e3
        return now

    def end(self, observers: Sequence[Observer]) -> None:
        """Tells everybody."""
        seen = Seen(
            id=self.id,
            at=self.at,
            path=self.path,
            wire=self.wire,
            hotkey=self.hotkey,
            tier=self.tier,
            modality=self.modality,
            outcome=self.outcome,
            status=self.status,
            seconds=time.monotonic() - self.started,
            stages=self.stages,
            prediction=self.prediction,
            label=self.label,
        )
        for observe in observers:
            observe(seen)


def log_seen(seen: Seen) -> None:
    """One line an answer, at ``info``, with the weights that gave it; refusals at ``debug``: strangers cause them."""
    level = logging.INFO if seen.outcome == ANSWERED else logging.DEBUG
    if not _log.isEnabledFor(level):
        return
    fields: dict[str, object] = {
        "request": seen.id,
        "wire": seen.wire,
        "path": seen.path,
        "caller": seen.hotkey,
        "tier": seen.tier,
        "status": seen.status,
        "ms": round(seen.seconds * 1e3, 1),
        "stages": {name: round(spent, 1) for name, spent in seen.stages.items()},
    }
    if seen.prediction is not None:
        fields |= {
            "p_fake": round(seen.prediction.p_fake, 4),
            "route": " > ".join(seen.prediction.route),
            "detector": seen.prediction.detector,
            "weights": dict(seen.prediction.weights),
        }
    logs.plain(_log, level, seen.outcome, fields)
