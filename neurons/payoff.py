"""What scored views would earn: many streams of challenges drawn from them, paid by a profile's rules, all at once.

:class:`neurons.rewards.Tracker` pays one answer at a time; here the same integers come from running sums over all
streams together, so 200 streams of 200 challenges take milliseconds. A test holds the two equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from detectors.augment import LEVELS, Mix
from detectors.evaluation.measures import interval, said_class, said_fake
from detectors.evaluation.scores import F64, I64, Bool, Scores
from detectors.types import Label, Modality
from neurons.challenges import LABEL_PRIORS
from neurons.rewards import PROFILES, Profile

__all__ = ["Pay", "difference", "payoff", "play", "rewards", "simulate"]

CHALLENGES = 200
STREAMS = 200
VIDEO_SHARE = 0.5

_MODALITIES: tuple[Modality, ...] = ("image", "video")


@dataclass(frozen=True, slots=True, eq=False)
class Pay:
    """Rewards of simulated streams.

    Attributes:
        settled: mean reward a step over the second half of each stream, ``float64 [streams]``.
        last: reward of each stream's last step.
        modalities: that had both classes and were drawn.
        note: how the simulation departs from the profile; empty where it does not.
    """

    settled: F64
    last: F64
    modalities: tuple[Modality, ...]
    note: str


def rewards(scores: Scores, *, mix: Mix | None, seed: int = 0) -> dict[str, Any]:
    """``{profile: {median, mean, interval, last, ...}}`` of every profile; see :func:`simulate`."""
    return {name: payoff(simulate(scores, profile, mix=mix, seed=seed)) for name, profile in PROFILES.items()}


def payoff(pay: Pay | None) -> dict[str, Any]:
    """One profile's row: figures of the settled reward, and of the last step's, over streams; None without any."""
    if pay is None:
        note = "no modality has both real and fake views"
        empty = {"median": None, "mean": None, "interval": None}
        return {**empty, "last": dict(empty), "modalities": [], "streams": 0, "challenges": CHALLENGES, "note": note}
    return {
        **_spread(pay.settled),
        "last": _spread(pay.last),
        "modalities": list(pay.modalities),
        "streams": len(pay.settled),
        "challenges": CHALLENGES,
        "note": pay.note,
    }


def difference(a: Scores, b: Scores, profile: Profile, *, mix: Mix | None, seed: int = 0) -> dict[str, Any]:
    """Settled reward of two detectors on the same views and the same streams: a, b, a − b and its 95 % interval.

    Args:
        a, b: row by row the same views (:func:`detectors.evaluation.compare.common`).
        profile, mix, seed: as :func:`simulate`.
    """
    one, two = (simulate(scores, profile, mix=mix, seed=seed) for scores in (a, b))
    if one is None or two is None:
        return {"a": None, "b": None, "difference": None, "interval": None}
    gap = one.settled - two.settled
    means = float(one.settled.mean()), float(two.settled.mean())
    return {"a": means[0], "b": means[1], "difference": float(gap.mean()), "interval": interval(gap)}


def simulate(
    scores: Scores,
    profile: Profile,
    *,
    mix: Mix | None,
    seed: int = 0,
    challenges: int = CHALLENGES,
    streams: int = STREAMS,
) -> Pay | None:
    """Draws streams of challenges from scored views as the validators draw them, and pays the answers.

    A challenge is an image or a video by toss, real or fake by the profile's prior, then a source, then one of its
    views. Each stream draws from its own resample of the groups, so that the spread over streams holds both the luck
    of a stream and the smallness of the pool. The draws depend on the views and the seed, not on the answers.

    Args:
        scores: a view without an answer counts as silence: it costs the step.
        profile: whose rules and prior.
        mix: under which the views' levels were drawn; None where all have one level or none. Where it is not the
            profile's own, views are drawn by the ratio of the level's probabilities.
        seed: of the draws.
        challenges: of one stream.
        streams: how many.

    Returns:
        None where no modality has both real and fake views.
    """
    rng = np.random.default_rng(seed)
    truth = scores.labels if profile.answer == "vector" else np.minimum(scores.labels, 1)
    pools = {m: _pools(scores, truth, m, profile, mix) for m in _MODALITIES}
    usable = tuple(m for m in _MODALITIES if int(Label.REAL) in pools[m] and len(pools[m]) > 1)
    if not usable:
        return None
    paying, note = _fitted(profile, usable, mix)
    _, group = np.unique(scores.groups, return_inverse=True)
    share = VIDEO_SHARE if len(usable) == 2 else float(usable[0] == "video")
    video: Bool = np.less(rng.random((streams, challenges)), share)
    coin, place = rng.random((2, streams, challenges))
    rows = np.empty((streams, challenges), np.int64)
    for stream in range(streams):
        counts = np.bincount(rng.integers(group.max() + 1, size=group.max() + 1), minlength=group.max() + 1)
        for modality in usable:
            here = np.asarray(video[stream] == (modality == "video"))
            rows[stream, here] = _drawn(pools[modality], coin[stream, here], place[stream, here], counts[group])
    paid = play(paying, video, scores.probabilities[rows], scores.labels[rows])
    return Pay(paid[:, challenges // 2 :].mean(axis=1), paid[:, -1], usable, note)


def play(profile: Profile, video: Bool, probabilities: F64, labels: I64) -> F64:
    """The reward of every step of every stream, as :class:`neurons.rewards.Tracker` would pay it.

    Args:
        profile: whose rules.
        video: ``bool [R, T]``, False for an image.
        probabilities: ``float64 [R, T, 3]``; a distribution, or NaN for no answer.
        labels: :class:`Label` as ``int64 [R, T]``.

    Returns:
        ``float64 [R, T]``.
    """
    answered = np.asarray(np.isfinite(probabilities).all(axis=2))
    filled = np.where(answered[..., None], probabilities, 0.0)
    if profile.answer == "vector":
        said, true = said_class(filled.reshape(-1, 3)).reshape(labels.shape), labels
    else:
        said, true = said_fake(1.0 - filled[..., 0]).astype(np.int64), np.minimum(labels, 1)
    total = np.zeros(labels.shape)
    for modality in _MODALITIES:
        here = np.asarray(video == (modality == "video"))
        total += profile.weight(modality) * _quality(profile, here, answered, said, true)
    return np.where(answered, total, 0.0)


class _Window:
    """Sums over the last steps of one modality, at every step of ``[R, T]``."""

    def __init__(self, here: Bool) -> None:
        self._rows, self._columns = np.nonzero(here)
        self._upto = here.cumsum(axis=1)  # steps of this modality so far
        self._at = self._upto[self._rows, self._columns]
        self._shape = here.shape

    def last(self, count: int, values: npt.NDArray[Any]) -> F64:
        """Of the `count` newest steps the sum of `values` ``[R, T]``."""
        running = np.zeros((self._shape[0], self._shape[1] + 1))
        running[self._rows, self._at] = values[self._rows, self._columns]
        running = running.cumsum(axis=1)
        newest = np.take_along_axis(running, self._upto, axis=1)
        before = np.take_along_axis(running, np.maximum(self._upto - count, 0), axis=1)
        return np.asarray(newest - before, np.float64)


def _quality(profile: Profile, here: Bool, answered: Bool, said: I64, true: I64) -> F64:
    """What one modality's windows are worth at every step, before weight and penalty."""
    window = _Window(here)

    def correlation(said: I64, true: I64, classes: int) -> F64:
        count, size = profile.window, window.last(profile.window, answered)
        hits = window.last(count, answered & (said == true))
        columns = [[window.last(count, answered & (side == k)) for k in range(classes)] for side in (said, true)]
        covariance = hits * size - sum(a * b for a, b in zip(*columns, strict=True))
        spread = np.prod([size**2 - sum(c * c for c in side) for side in columns], axis=0)
        return np.where(spread > 0, covariance / np.sqrt(np.where(spread > 0, spread, 1.0)), 0.0)

    binary = correlation(np.minimum(said, 1), np.minimum(true, 1), 2)
    if profile.answer == "vector":
        return profile.mcc * binary + profile.mcc3 * correlation(said, true, 3)
    recent = window.last(profile.recent, answered)
    accuracy = window.last(profile.recent, answered & (said == true)) / np.maximum(recent, 1)
    return profile.mcc * np.maximum(0.0, binary) + profile.accuracy * accuracy


@dataclass(frozen=True, slots=True, eq=False)
class _Pool:
    """Views of one label and modality, to be drawn evenly over sources."""

    rows: I64
    source: I64
    weight: F64
    prior: float


def _pools(scores: Scores, truth: I64, modality: Modality, profile: Profile, mix: Mix | None) -> dict[int, _Pool]:
    found = {}
    weights = np.ones(len(scores))
    if mix is not None and mix != profile.mix:
        ratio = np.array(LEVELS[profile.mix]) / np.array(LEVELS[mix])
        weights = ratio[np.maximum(scores.levels, 0)]
    for label, prior in LABEL_PRIORS[profile.mix].items():
        rows = np.flatnonzero((truth == int(label)) & (scores.video == (modality == "video")))
        if len(rows):
            _, source = np.unique(scores.sources.codes[rows], return_inverse=True)
            found[int(label)] = _Pool(rows, source, weights[rows], prior)
    return found


def _drawn(pools: Mapping[int, _Pool], coin: F64, place: F64, counts: I64) -> I64:
    """Rows of the views that `coin` (which label) and `place` (which view) choose, ``[T]`` each."""
    fakes = [label for label in pools if label != int(Label.REAL)]
    shares = np.array([pools[label].prior for label in fakes])
    labels = [int(Label.REAL), *fakes]
    edges = np.cumsum([0.5, *(0.5 * shares / shares.sum())])
    chosen = np.minimum(np.searchsorted(edges, coin, side="right"), len(labels) - 1)
    rows = np.empty(len(coin), np.int64)
    for k, label in enumerate(labels):
        here, pool = chosen == k, pools[label]
        weight = pool.weight * counts[pool.rows]
        if not weight.any():  # the resample holds none of them
            weight = pool.weight
        per_source = np.bincount(pool.source, weights=weight)
        share = weight / np.where(per_source > 0, per_source, 1.0)[pool.source]
        upto = np.cumsum(share)
        at = np.searchsorted(upto, place[here] * upto[-1], side="right")
        rows[here] = pool.rows[np.minimum(at, len(pool.rows) - 1)]
    return rows


def _fitted(profile: Profile, usable: tuple[Modality, ...], mix: Mix | None) -> tuple[Profile, str]:
    """The profile with the weight of an absent modality given to the one present, and what was changed."""
    notes = []
    if len(usable) == 1:
        absent = "video" if usable[0] == "image" else "image"
        profile = replace(profile, image=float(usable[0] == "image"), video=float(usable[0] == "video"))
        notes.append(f"no {absent}s of both classes: {usable[0]}s count in full")
    if mix is None:
        notes.append("all challenges at the evaluated level, not the profile's mix")
    elif mix != profile.mix:
        notes.append(f"levels drawn under mix {mix}, weighted to mix {profile.mix}")
    return profile, "; ".join(notes)


def _spread(values: F64) -> dict[str, Any]:
    return {"median": float(np.median(values)), "mean": float(values.mean()), "interval": interval(values)}
