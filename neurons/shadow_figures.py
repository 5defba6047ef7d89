"""Two detectors on the same challenges: do they agree, how long do they take, which one earns more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from detectors.types import Label, Modality, Prediction
from neurons.intervals import Interval, draws, interval
from neurons.operations import ShadowReport
from neurons.payoff import play
from neurons.rewards import PROFILES

__all__ = ["Figures", "Labelled", "reward_gain"]

_REPLICATES = (200, 1000)  # resamples for an interval: as many as _STEPS allows
_STEPS = 1_000_000  # paid answers in all resamples together that are worth computing: about a second
_BLOCK = 20_000  # paid answers between two looks for live work: some milliseconds

F64 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Labelled:
    """One challenge whose truth is known.

    Attributes:
        modality, label: of the challenge.
        active: (real, synthetic, semi-synthetic) of what serves.
        candidate: the same of the candidate; None where it failed, which is silence.
    """

    modality: Modality
    label: Label
    active: tuple[float, float, float]
    candidate: tuple[float, float, float] | None


@dataclass(slots=True)
class Figures:
    """The running figures of one plan.

    Attributes:
        judged: challenges so far.
        failed: of those, the candidate gave no number on.
        labelled: those whose truth is known, in order.
    """

    judged: int = 0
    failed: int = 0
    labelled: list[Labelled] = field(default_factory=list)
    _agreed: int = 0
    _differences: list[float] = field(default_factory=list)
    _alone_ms: list[float] = field(default_factory=list)
    _batch_ms: list[float] = field(default_factory=list)
    _candidate_ms: list[float] = field(default_factory=list)

    def add(
        self,
        active: Prediction,
        candidate: Prediction | None,
        *,
        milliseconds: float,
        modality: Modality,
        label: int | None,
        alone: bool,
    ) -> None:
        """Takes in one challenge.

        Args:
            active: what answered.
            candidate: what the candidate says; None where it raised.
            milliseconds: that the candidate took.
            modality: of the challenge.
            label: the truth, None where it is not known.
            alone: whether `active` was judged in a batch of one, so that its milliseconds are its own.
        """
        self.judged += 1
        (self._alone_ms if alone else self._batch_ms).append(active.milliseconds)
        if candidate is None:
            self.failed += 1
        else:
            self._agreed += (active.p_fake > 0.5) == (candidate.p_fake > 0.5)
            self._differences.append(candidate.p_fake - active.p_fake)
            self._candidate_ms.append(milliseconds)
        if label is not None:
            said = None if candidate is None else candidate.probabilities
            self.labelled.append(Labelled(modality, Label(label), active.probabilities, said))

    def into(self, report: ShadowReport) -> ShadowReport:
        """`report` with these figures, all but those of the reward."""
        return replace(
            report,
            judged=self.judged,
            failed=self.failed,
            agreement=self._agreed / self.judged if self.judged else None,
            mean_difference=float(np.mean(self._differences)) if self._differences else None,
            active_ms=_median(self._alone_ms or self._batch_ms),
            candidate_ms=_median(self._candidate_ms),
            labelled=len(self.labelled),
        )


def _median(values: Sequence[float]) -> float | None:
    return float(np.median(values)) if values else None


def reward_gain(
    labelled: Sequence[Labelled], profile: str, *, pause: Callable[[], None], seed: int = 0
) -> tuple[float | None, Interval | None]:
    """The candidate's minus the active one's mean reward a step, were both asked just these challenges in this order.

    Args:
        labelled: in the order they came.
        profile: name in :data:`neurons.rewards.PROFILES`.
        pause: called every few milliseconds; may wait or raise.
        seed: of the resamples, which are the same for both.

    Returns:
        The difference, None of no challenge; and its 95 % interval (:mod:`neurons.intervals`), None of fewer than ten.
    """
    if not labelled:
        return None, None
    rules, count = PROFILES[profile], len(labelled)
    video = np.array([case.modality == "video" for case in labelled], bool)
    labels = np.array([int(case.label) for case in labelled], np.int64)
    active = np.array([case.active for case in labelled], np.float64)
    silence = (np.nan, np.nan, np.nan)
    candidate = np.array([case.candidate or silence for case in labelled], np.float64)

    def gains(at: npt.NDArray[np.intp]) -> F64:
        """Of each row of positions, ``[R, T]``, the mean difference a step."""
        paid = [play(rules, video[at], answers[at], labels[at]) for answers in (candidate, active)]
        return np.asarray((paid[0] - paid[1]).mean(axis=1), np.float64)

    whole = float(gains(np.arange(count)[None])[0])
    least, most = _REPLICATES
    rows = draws(count, min(most, max(least, _STEPS // count)), seed)
    samples = []
    if interval([0.0], count=count) is not None:  # else too few: nothing to resample for
        for block in np.array_split(rows, max(1, min(len(rows), rows.size // _BLOCK))):
            pause()
            samples.append(gains(block))
    return whole, interval(np.concatenate(samples), count=count) if samples else None
