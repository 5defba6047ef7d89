"""What an operator can see and do of a running miner: the nouns that its parts, the commands and the console share.

Who does it: :mod:`neurons.reload` swaps, :mod:`neurons.shadow` compares, :mod:`neurons.telemetry` counts,
:mod:`neurons.recent` remembers; :mod:`neurons.console` shows. Each knows this module and none of the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from neurons.intervals import Interval

__all__ = [
    "Health",
    "Reloads",
    "ShadowPlan",
    "ShadowReport",
    "Shadows",
    "SwapReport",
    "SwapStage",
]

SwapStage = Literal["configuration", "weights", "golden", "memory", "latency", "output", "done"]
"""Where a swap ended; ``done`` is the only good one."""


@dataclass(frozen=True, slots=True)
class SwapReport:
    """One attempt to serve with other weights or another configuration.

    Attributes:
        at: when it ended, seconds since the epoch.
        accepted: whether it serves now.
        stage: the check that decided; ``done`` where all passed.
        reason: one sentence for people; empty where accepted.
        wanted: digest of what was asked for (:func:`neurons.reload.fingerprint`), so that a command finds its own.
        before, after: ``NAME@VERSION`` of the detector as a whole; equal where it was refused.
        weights: ``NAME@VERSION`` by name, of what serves now.
        seconds: from the notice to the end.
    """

    at: float
    accepted: bool
    stage: SwapStage
    reason: str
    wanted: str
    before: str
    after: str
    weights: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    def as_data(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


class Reloads(Protocol):
    """Swaps, as the console sees them."""

    @property
    def reports(self) -> Sequence[SwapReport]:
        """The last ones, oldest first; bounded."""
        ...

    @property
    def store(self) -> Path:
        """The folder of weights that this miner follows."""
        ...

    def look(self) -> None:
        """Looks for changes now rather than at the next notice. Any thread; returns at once."""
        ...


@dataclass(frozen=True, slots=True)
class ShadowPlan:
    """A candidate that shall see live traffic without answering.

    Attributes:
        key: ``NAME@VERSION`` in the store, in place of the active version of that name.
        count: challenges to judge.
        promote: activate it at the end where its reward is better: the interval of the difference excludes 0.
        profile: by whose rules the reward is counted (:data:`neurons.rewards.PROFILES`).
    """

    key: str
    count: int = 200
    promote: bool = False
    profile: str = "sn34-2.0"


@dataclass(frozen=True, slots=True)
class ShadowReport:
    """How a candidate does beside what serves; see :mod:`neurons.shadow`.

    Attributes:
        plan: what was asked for.
        state: ``loading``, ``running``, ``done``, ``failed`` (see `reason`) or ``stopped``.
        reason: one sentence where it failed, or why it was or was not promoted.
        judged: challenges judged by both, those among them that the candidate failed on.
        skipped: challenges that live work left no time for.
        agreement: share of the judged with the same side of P(fake) = 0.5, in [0, 1]; None of none.
        mean_difference: mean of candidate's minus active's P(fake); None of none.
        active_ms, candidate_ms: median milliseconds a challenge; None of none.
        labelled: judged whose truth the caller sent along.
        reward_difference: 95 % interval of `reward_gain`; None where too few are labelled (below ten).
        promoted: whether it was activated.
        failed: of the judged, those the candidate raised on: each a disagreement, and silence to the reward.
        reward_gain: candidate's minus active's mean reward a step over the labelled; None of none.
    """

    plan: ShadowPlan
    state: Literal["loading", "running", "done", "failed", "stopped"]
    reason: str = ""
    judged: int = 0
    skipped: int = 0
    agreement: float | None = None
    mean_difference: float | None = None
    active_ms: float | None = None
    candidate_ms: float | None = None
    labelled: int = 0
    reward_difference: Interval | None = None
    promoted: bool = False
    failed: int = 0
    reward_gain: float | None = None

    def as_data(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


class Shadows(Protocol):
    """The one candidate that may run in the shadow, as the console sees it."""

    def start(self, plan: ShadowPlan) -> None:
        """Replaces what runs; loading and judging happen elsewhere. Any thread."""
        ...

    def stop(self) -> None:
        """Ends what runs; its report stays. Any thread."""
        ...

    def report(self) -> ShadowReport | None:
        """How it stands; None while nothing was ever started."""
        ...


@dataclass(frozen=True, slots=True)
class Health:
    """How the miner is, for the console and its health check.

    Attributes:
        serving: it admits challenges.
        uptime_s: since it serves.
        snapshot_age_s: of the metagraph; None offline.
        queue: challenges that wait.
        in_flight: requests between body and answer.
        rss_bytes: resident memory of the process.
        detector: ``NAME@VERSION`` of what answers now.
        weights: ``NAME@VERSION`` by name of expert.
        problems: sentences for people; empty where all is well.
    """

    serving: bool
    uptime_s: float
    snapshot_age_s: float | None
    queue: int
    in_flight: int
    rss_bytes: int
    detector: str
    weights: Mapping[str, str] = field(default_factory=dict)
    problems: Sequence[str] = ()
