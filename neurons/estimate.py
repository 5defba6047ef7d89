"""What a validator would pay for the challenges whose truth is known: an estimate, and how far it can be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from detectors.types import Label, Modality
from neurons.intervals import Interval, accuracies, draws, interval
from neurons.rewards import NO_ANSWER, PROFILES, Metrics, Profile, Tracker, reward
from neurons.scores import Outcome, Summary, summarise

__all__ = ["LEAST_LABELS", "Estimate", "Known", "ProfileEstimate", "estimate"]

LEAST_LABELS = 10
"""Fewer labelled challenges than this give no figure: it would be made of chance."""

_REPLICATES = 500


@dataclass(frozen=True, slots=True)
class Known:
    """One challenge whose truth is known.

    Attributes:
        modality: image or video.
        label: the truth.
        probabilities: what we answered, (real, synthetic, semi-synthetic); None where the caller got no answer.
    """

    modality: Modality
    label: Label
    probabilities: tuple[float, float, float] | None


@dataclass(frozen=True, slots=True)
class ProfileEstimate:
    """One reward profile.

    Attributes:
        name: of the profile, see :data:`neurons.rewards.PROFILES`.
        reward: what it pays for an answer now, by the windows of both modalities; in [-1, 1].
        image, video: what the windows say; a modality without pairs earns nothing of its share.
        image_share, video_share: of the two modalities in the reward; they sum to 1.
    """

    name: str
    reward: float
    image: Metrics
    video: Metrics
    image_share: float
    video_share: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """What is known so far.

    Attributes:
        labelled: challenges with a known truth that were looked at, the unanswered among them.
        summary: figures over all of them; None below :data:`LEAST_LABELS`.
        accuracy: 95 % interval of the accuracy; None below :data:`LEAST_LABELS`.
        profiles: one by one; empty below :data:`LEAST_LABELS`.
    """

    labelled: int
    summary: Summary | None = None
    accuracy: Interval | None = None
    profiles: tuple[ProfileEstimate, ...] = ()


def estimate(known: Sequence[Known]) -> Estimate:
    """Pays for `known`, oldest first, as a single validator would that had sent all of them."""
    if len(known) < LEAST_LABELS:
        return Estimate(len(known))
    outcomes = [
        Outcome(one.modality, one.label, NO_ANSWER if one.probabilities is None else one.probabilities) for one in known
    ]
    profiles = tuple(_pay(profile, known) for profile in PROFILES.values())
    return Estimate(len(known), summarise(outcomes), _accuracy(known), profiles)


def _pay(profile: Profile, known: Sequence[Known]) -> ProfileEstimate:
    tracker = Tracker(profile)
    for one in known:
        if one.probabilities is None:
            tracker.update(one.modality, NO_ANSWER, one.label)
        else:
            said = one.probabilities
            tracker.update(one.modality, said if profile.answer == "vector" else 1.0 - said[0], one.label)
    metrics: dict[Modality, Metrics] = {"image": tracker.metrics("image"), "video": tracker.metrics("video")}
    total = reward(profile, metrics, 1.0).total
    return ProfileEstimate(profile.name, total, metrics["image"], metrics["video"], profile.image, profile.video)


def _accuracy(known: Sequence[Known]) -> Interval | None:
    answered = [(one.label is not Label.REAL, 1.0 - one.probabilities[0] > 0.5) for one in known if one.probabilities]
    if not answered:
        return None
    truth, said = (np.array(column, np.bool_) for column in zip(*answered, strict=True))
    at = draws(len(answered), _REPLICATES, seed=0)
    return interval(accuracies(truth, said, np.ones(len(answered), np.bool_), at), count=len(answered))
