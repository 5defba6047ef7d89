"""Where the answer must turn from real to fake so that the expected reward peaks, and what the rewards expect.

The validators' windows as large samples: with an answer always given the penalty is 1, so only the shares of each
label that are called each class matter.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
from scipy.special import expit, ndtr

from detectors.calibration.checks import F64, codes, weighing
from detectors.calibration.measures import brier_score, expected_calibration_error
from detectors.errors import ConfigError

__all__ = [
    "GOALS",
    "Decision",
    "Goal",
    "challenge_weights",
    "confusion",
    "decision_shift",
    "expected_reward",
    "sn34_score",
]

I64 = npt.NDArray[np.int64]

_TINY_SOURCE = 16  # samples below which a source counts for less, as in training
_POINTS = 201  # thresholds tried


@dataclass(frozen=True, slots=True)
class Goal:
    """What is paid for, of one modality.

    Attributes:
        name: of the reward profile.
        prior: shares of real, synthetic and semi-synthetic challenges; they sum to 1.
        mcc, mcc3, accuracy: weights of real against fake MCC, three-class MCC and real against fake accuracy.
        floor: whether the binary MCC counts as 0 below 0.
        proper: pays :func:`sn34_score` instead of the weighted sum.
    """

    name: str
    prior: tuple[float, float, float] = (0.5, 0.5, 0.0)
    mcc: float = 0.0
    mcc3: float = 0.0
    accuracy: float = 0.0
    floor: bool = False
    proper: bool = False


_EVEN, _LATER = (0.5, 0.5, 0.0), (0.5, 0.4, 0.1)

GOALS: Mapping[str, Goal] = MappingProxyType(
    {
        goal.name: goal
        for goal in (
            *(Goal(name, _EVEN, mcc=0.5, accuracy=0.5, floor=True) for name in ("sn34-2.0", "sn34-2.0.1", "sn34-2.1")),
            Goal("sn34-2.2.0", _LATER, mcc=0.9, mcc3=0.1),
            Goal("sn34-2.2.7", _LATER, mcc=0.75, mcc3=0.25),
            Goal("sn34-4", _LATER, proper=True),
        )
    }
)
"""The goals by the name of their profile."""


def challenge_weights(labels: npt.ArrayLike, sources: Sequence[str], prior: Sequence[float]) -> F64:
    """Weights that make samples count as the validators' challenges do: labels by prior, sources within one evenly.

    A source of n samples below 16 counts n/16 of a larger one: a handful of pictures shall not decide.

    Args:
        labels: ``[N]``, 0 to 2.
        sources: ``[N]``.
        prior: shares of the three labels; that of an absent label goes to the other fakes.

    Returns:
        ``float64 [N]`` of mean 1.

    Raises:
        ConfigError: lengths differ, or no label has a prior.
    """
    y = _labels(labels)
    if len(sources) != len(y):
        raise ConfigError(f"needs a source for each of {len(y)} samples, not {len(sources)}")
    shares = _present(y, prior)
    counts = Counter(zip(y.tolist(), sources, strict=True))
    raw = np.array([min(counts[pair], _TINY_SOURCE) / counts[pair] for pair in zip(y.tolist(), sources, strict=True)])
    totals = np.bincount(y, weights=raw, minlength=3)
    return weighing(raw * shares[y] / np.where(totals > 0, totals, 1.0)[y], len(y))


def confusion(said: npt.ArrayLike, labels: npt.ArrayLike, weights: npt.ArrayLike | None = None) -> F64:
    """Shares ``[3, 3]`` of (label, class said), sum 1; classes in the order of :class:`detectors.types.Label`."""
    s, y = _labels(said), _labels(labels)
    if s.shape != y.shape:
        raise ConfigError(f"needs as many labels as answers, not {s.shape} and {y.shape}")
    w = weighing(weights, len(y))
    return np.asarray(np.bincount(3 * y + s, weights=w, minlength=9).reshape(3, 3) / w.sum(), np.float64)


def expected_reward(shares: npt.ArrayLike, goal: Goal) -> F64:
    """What one modality earns in the long run when `shares` of its challenges end so; without the modality's weight.

    The value at the expected shares: a window of 100 scatters around it.

    Args:
        shares: ``[..., 3, 3]`` as :func:`confusion` gives them.
        goal: any but a `proper` one, which shares alone do not decide.

    Returns:
        ``float64 [...]``.
    """
    if goal.proper:
        raise ConfigError(f"{goal.name} needs the Brier score too: see sn34_score")
    c = np.asarray(shares, np.float64)
    binary = _mcc(_folded(c))
    if goal.floor:
        binary = np.maximum(binary, 0.0)
    right = c[..., 0, 0] + c[..., 1:, 1:].sum(axis=(-1, -2))
    return np.asarray(goal.mcc * binary + goal.mcc3 * _mcc(c) + goal.accuracy * right, np.float64)


def sn34_score(mcc: npt.ArrayLike, brier: npt.ArrayLike) -> F64:
    """``sqrt(((MCC + 1) / 2)^1.2 * ((0.25 - Brier) / 0.25)^1.8)`` of the subnet's fourth version; in [0, 1].

    A Brier score above 0.25, worse than a constant 0.5, earns nothing.
    """
    m, b = np.asarray(mcc, np.float64), np.asarray(brier, np.float64)
    sharp = np.maximum(0.25 - b, 0.0) / 0.25
    return np.asarray(np.sqrt(np.maximum((m + 1) / 2, 0.0) ** 1.2 * sharp**1.8), np.float64)


@dataclass(frozen=True, slots=True)
class Decision:
    """Where to decide.

    Attributes:
        threshold: the logit at which the bootstrapped reward peaks.
        shift: what to add to every logit so that it lies at 0.5: ``-threshold``, or 0 where the gain is in the noise.
        reward: (as it was, at the threshold), both of the bootstrapped objective; optimistic, as what was fitted on.
        error: standard error of the gain over group bootstraps.
        brier, ece: (as it was, after `shift`), weighted as the fit.
    """

    threshold: float
    shift: float
    reward: tuple[float, float]
    error: float
    brier: tuple[float, float]
    ece: tuple[float, float]


def decision_shift(
    logits: npt.ArrayLike,
    labels: npt.ArrayLike,
    groups: Sequence[str],
    *,
    goal: Goal = GOALS["sn34-2.0"],
    weights: npt.ArrayLike | None = None,
    semi: npt.ArrayLike | None = None,
    rounds: int = 200,
    caution: float = 1.0,
    seed: int = 0,
) -> Decision:
    """Finds the threshold of the highest expected reward and the shift of all logits that brings it to 0.5.

    Rates are kernel-smoothed over the threshold (Fluss, Faraggi & Reiser 2005, on the Youden index, which peaks as
    jaggedly) and the objective is the mean over bootstraps of whole groups. A shift in logits moves every probability,
    so it is taken only where the gain exceeds `caution` standard errors; Brier score and calibration error tell its
    price.

    Args:
        logits: ``[N]``, calibrated, finite.
        labels: ``[N]``, 0 to 2 or booleans (fake).
        groups: ``[N]``.
        goal: what is paid for; its prior replaces the samples' own shares of the labels.
        weights: of samples within their label; None counts them alike.
        semi: ``bool [N]``, whether a sample, if called fake, would be called semi-synthetic; None: never.
        rounds: bootstraps, at least 2.
        caution: standard errors of gain asked for.
        seed: of the bootstraps.

    Raises:
        ConfigError: shapes differ, a logit is not finite, or real or fake samples are missing.
    """
    z, y = np.asarray(logits, np.float64), _labels(labels)
    if z.shape != y.shape or not np.isfinite(z).all() or len(np.unique(y > 0)) < 2:
        raise ConfigError("needs a finite logit for every label, and real and fake samples")
    index, w = codes(groups, len(z)), weighing(weights, len(z))
    if goal.prior[2] == 0.0:  # the profile knows two classes
        y = np.minimum(y, 1)
    called = np.zeros(len(z), bool) if semi is None else np.asarray(semi, bool)
    shares = _present(y, goal.prior)
    at = np.unique(np.concatenate(([0.0], np.quantile(z, np.linspace(0.005, 0.995, _POINTS)))))
    groups_seen = int(index.max()) + 1
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(groups_seen, np.full(groups_seen, 1 / groups_seen), size=rounds).astype(np.float64)
    objective = _objectives(_Sample(z, y, index, w, called), at, goal, shares, counts)
    if len(objective) < 2:
        raise ConfigError("too few groups of a class: no two bootstraps held both")
    best, home = int(np.argmax(objective.mean(axis=0))), int(np.searchsorted(at, 0.0))
    gain = objective[:, best] - objective[:, home]
    error = float(gain.std(ddof=1))
    taken = float(gain.mean()) > caution * error
    shift = -float(at[best]) if taken else 0.0
    fake = (y > 0).astype(np.float64)
    totals = np.bincount(y, weights=w, minlength=3)
    like = w * shares[y] / np.where(totals > 0, totals, 1.0)[y]
    p, moved = expit(z), expit(z + shift)
    means = objective.mean(axis=0)
    return Decision(
        threshold=float(at[best]),
        shift=shift,
        reward=(float(means[home]), float(means[best])),
        error=error,
        brier=(brier_score(p, fake, like), brier_score(moved, fake, like)),
        ece=(expected_calibration_error(p, fake, 15, like), expected_calibration_error(moved, fake, 15, like)),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Sample:
    logits: F64
    labels: I64
    groups: I64
    weights: F64
    semi: npt.NDArray[np.bool_]


def _objectives(sample: _Sample, at: F64, goal: Goal, shares: F64, counts: F64) -> F64:
    """The goal at each threshold ``at`` ``[T]`` in each bootstrap, ``[B, T]``; `counts` ``[B, G]`` of each group.

    A bootstrap that lacks a label altogether says nothing and is left out.
    """
    z, y, index, w, called = sample.logits, sample.labels, sample.groups, sample.weights, sample.semi
    groups = counts.shape[1]
    kinds = np.flatnonzero(shares > 0)
    masses = np.stack([np.bincount(index[y == k], weights=w[y == k], minlength=groups) for k in kinds])  # [K, G]
    counts = counts[(counts @ masses.T > 0).all(axis=1)]
    fake_said = ndtr((z[:, None] - at) / _bandwidth(z, y, groups))
    squared = (expit(z[:, None] - at) - (y > 0)[:, None]) ** 2
    c = np.zeros((len(counts), len(at), 3, 3))
    brier = np.zeros((len(counts), len(at)))
    for k, mass in zip(kinds, masses, strict=True):
        here = y == k
        total = (counts @ mass)[:, None]
        for said, values in ((1, fake_said * ~called[:, None]), (2, fake_said * called[:, None]), (None, squared)):
            sums = np.zeros((groups, len(at)))
            np.add.at(sums, index[here], w[here, None] * values[here])
            rate = shares[k] * (counts @ sums) / total
            if said is None:
                brier += rate
            else:
                c[..., k, said] = rate
        c[..., k, 0] = shares[k] - c[..., k, 1] - c[..., k, 2]
    return sn34_score(_mcc(_folded(c)), brier) if goal.proper else expected_reward(c, goal)


def _bandwidth(z: F64, y: I64, groups: int) -> float:
    """Silverman's rule (1986, eq. 3.31) for the narrower class, by groups rather than samples."""
    widths = []
    for fake in (False, True):
        part = z[(y > 0) == fake]
        quartiles = np.quantile(part, [0.25, 0.75])
        widths.append(min(float(part.std()), float(quartiles[1] - quartiles[0]) / 1.34))
    return float(max(0.9 * min(widths) * groups**-0.2, 1e-6 * max(float(np.ptp(z)), 1e-6)))


def _folded(c: F64) -> F64:
    """Three classes to two: real and fake."""
    top = np.stack([c[..., 0, 0], c[..., 0, 1:].sum(-1)], axis=-1)
    bottom = np.stack([c[..., 1:, 0].sum(-1), c[..., 1:, 1:].sum((-1, -2))], axis=-1)
    return np.stack([top, bottom], axis=-2)


def _mcc(c: F64) -> F64:
    """Matthews' correlation of shares ``[..., K, K]`` (Gorodkin 2004), 0 where either side has a single value."""
    true, said = c.sum(axis=-1), c.sum(axis=-2)
    covariance = np.trace(c, axis1=-2, axis2=-1) - (true * said).sum(-1)
    spread = (1 - (true**2).sum(-1)) * (1 - (said**2).sum(-1))
    safe = np.where(spread > 1e-15, spread, 1.0)
    return np.asarray(np.where(spread > 1e-15, covariance / np.sqrt(safe), 0.0), np.float64)


def _present(y: I64, prior: Sequence[float]) -> F64:
    """The prior with the share of an absent kind of fake given to the other."""
    shares = np.asarray(prior, np.float64).copy()
    if shares.shape != (3,) or (shares < 0).any() or abs(shares.sum() - 1) > 1e-9:
        raise ConfigError(f"a prior is three shares that sum to 1, not {tuple(prior)}")
    there = np.bincount(y, minlength=3) > 0
    for one, other in ((1, 2), (2, 1)):
        if not there[one] and there[other]:
            shares[other] += shares[one]
            shares[one] = 0.0
    return shares


def _labels(values: npt.ArrayLike) -> I64:
    y = np.asarray(values).astype(np.int64)
    if y.ndim != 1 or not len(y) or y.min() < 0 or y.max() > 2:
        raise ConfigError("labels are 0 (real), 1 (synthetic) or 2 (semi-synthetic), at least one")
    return y
