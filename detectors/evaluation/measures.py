"""Every figure of a set of scores, and of resamples of its groups, from one set of formulas.

A view is called fake where ``numpy.round(P(fake))`` is 1, so exactly 0.5 is real (SN34 2.0). The three classes are the
argmax of the vector, the first among equals (SN34 2.2). Calibration error: Naeini et al., AAAI 2015; Brier: 1950;
three-class MCC: Gorodkin 2004; ``sn34_score``: the validators' since August 2025.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from detectors.evaluation.scores import F64, I64, Bool, Scores

__all__ = ["BINS", "Measures", "Ranking", "interval", "said_class", "said_fake"]

BINS = 15
"""Equal-width bins of P(fake) for the calibration error, as ``detectors.calibration`` has them."""

_BLOCK = 64  # resamples at once: bounds memory, not the result


def said_fake(p_fake: F64) -> Bool:
    """``bool [N]``: P(fake) rounds to 1; False for NaN."""
    with np.errstate(invalid="ignore"):
        return np.asarray(np.round(p_fake) >= 1.0)


def said_class(probabilities: F64) -> I64:
    """The likeliest class ``int64 [N]`` of ``[N, 3]``, the first among equals."""
    return np.asarray(probabilities.argmax(axis=1), np.int64)


class Ranking:
    """AUC and average precision of N values under any weights, ties counted by half; sorts once.

    Args:
        values: ``float64 [N]``, finite; larger means fake.
        fake: ``bool [N]``.
    """

    def __init__(self, values: F64, fake: Bool) -> None:
        self._order = np.argsort(values, kind="stable")
        ordered = values[self._order]
        self._starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(values) else np.empty(0, int)
        self._fake = fake[self._order]

    def _blocks(self, weights: F64) -> tuple[F64, F64]:
        """Weight of fakes and of reals in each block of equal values, ascending."""
        if not len(self._starts):
            return np.zeros(0), np.zeros(0)
        ordered = weights[self._order]
        fakes = np.add.reduceat(np.where(self._fake, ordered, 0.0), self._starts)
        reals = np.add.reduceat(np.where(self._fake, 0.0, ordered), self._starts)
        return fakes, reals

    def both(self, weights: F64) -> tuple[float, float]:
        """(AUC, average precision) under weights ``float64 [N]``, not negative; NaN where a class has no weight."""
        fakes, reals = self._blocks(weights)
        n_fake, n_real = float(fakes.sum()), float(reals.sum())
        if not n_fake or not n_real:
            return float("nan"), float("nan")
        below = np.cumsum(reals) - reals
        auc = float((fakes * (below + reals / 2)).sum()) / (n_fake * n_real)
        down_fake, down_all = np.cumsum(fakes[::-1]), np.cumsum((fakes + reals)[::-1])
        precision = down_fake / np.where(down_all > 0, down_all, 1.0)
        return auc, float((fakes[::-1] * precision).sum()) / n_fake

    def auc(self) -> float:
        """Unweighted AUC; NaN where a class is missing."""
        return self.both(np.ones(len(self._order)))[0]


class Measures:
    """The figures of answered views, by weight of their groups. Views without an answer are left out.

    The names: auc, ap, accuracy, balanced_accuracy, tnr, tpr, mcc, brier, ece, brier_balanced and ece_balanced (real
    and fake counting half each, as validators send them), sn34_score, three_class_mcc. A figure that the classes
    present do not define is NaN; the two MCC are 0 there, as the validators have it.
    """

    def __init__(self, scores: Scores) -> None:
        scores = scores.part(scores.answered)
        self.n = len(scores)
        self._p, self._fake = scores.p_fake, scores.fake
        names, self._group = np.unique(scores.groups, return_inverse=True)
        self.groups = len(names)
        self._ranking = Ranking(self._p, self._fake)
        self.confusion = np.zeros((3, 3), np.int64)
        said = said_class(scores.probabilities) if self.n else np.zeros(0, np.int64)
        np.add.at(self.confusion, (scores.labels, said), 1)
        self._sums = self._per_group(3 * scores.labels + said)

    def point(self) -> dict[str, float]:
        """The figures themselves."""
        return {name: float(v[0]) for name, v in self.at(np.ones((1, self.groups))).items()}

    def resampled(self, rounds: int, seed: int) -> dict[str, F64]:
        """The figures ``float64 [rounds]`` of as many draws of groups with replacement.

        The draws depend on the groups and the seed alone, so two detectors on the same views can be compared pairwise.
        """
        blocks = [self.at(counts) for counts in _draws(self.groups, rounds, seed)]
        return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}

    def at(self, counts: F64) -> dict[str, F64]:
        """The figures under group weights ``float64 [R, G]``: ``float64 [R]`` each."""
        sums = counts @ self._sums
        tn, fp, fn, tp, error_real, error_fake = sums[:, :6].T
        gaps_real, gaps_fake = sums[:, 6 : 6 + BINS], sums[:, 6 + BINS : 6 + 2 * BINS]
        real, fake = (tn + fp), (tp + fn)
        total = real + fake
        tnr, tpr = _ratio(tn, real), _ratio(tp, fake)
        ranks = np.array([self._ranking.both(row[self._group]) for row in counts]).reshape(-1, 2)
        mcc = _ratio(tp * tn - fp * fn, np.sqrt(fake * real * (tp + fp) * (tn + fn)), empty=0.0)
        brier = _ratio(error_real + error_fake, total)
        gap = gaps_real / np.maximum(real, 1)[:, None] + gaps_fake / np.maximum(fake, 1)[:, None]
        both = (real > 0) & (fake > 0)
        confusion = sums[:, 6 + 2 * BINS :].reshape(-1, 3, 3)
        return {
            "auc": ranks[:, 0],
            "ap": ranks[:, 1],
            "accuracy": _ratio(tp + tn, total),
            "balanced_accuracy": (tnr + tpr) / 2,
            "tnr": tnr,
            "tpr": tpr,
            "mcc": mcc,
            "brier": brier,
            "ece": _ratio(np.abs(gaps_real + gaps_fake).sum(axis=1), total),
            "brier_balanced": (_ratio(error_real, real) + _ratio(error_fake, fake)) / 2,
            "ece_balanced": np.where(both, np.abs(gap).sum(axis=1) / 2, np.nan),
            "sn34_score": np.sqrt(((mcc + 1) / 2) ** 1.2 * np.clip((0.25 - brier) / 0.25, 0, None) ** 1.8),
            "three_class_mcc": _multiclass_mcc(confusion),
        }

    def _per_group(self, cell: I64) -> F64:
        """Sums over each group's views of what the figures are made of, ``float64 [G, 6 + 2 BINS + 9]``."""
        said, fake = said_fake(self._p), self._fake
        error = (self._p - fake) ** 2
        bins = np.minimum((self._p * BINS).astype(np.int64), BINS - 1)
        flags = (~fake & ~said, ~fake & said, fake & ~said, fake & said)
        columns = [self._sum(f.astype(np.float64)) for f in flags]
        columns += [self._sum(np.where(fake, 0.0, error)), self._sum(np.where(fake, error, 0.0))]
        parts = [np.column_stack(columns)]
        for mask in (~fake, fake):
            parts.append(self._sum_by(np.where(mask, self._p - fake, 0.0), bins, BINS))
        parts.append(self._sum_by(np.ones(self.n), cell, 9))
        return np.concatenate(parts, axis=1)

    def _sum(self, values: F64) -> F64:
        return np.asarray(np.bincount(self._group, weights=values, minlength=self.groups), np.float64)

    def _sum_by(self, values: F64, kind: I64, kinds: int) -> F64:
        flat = np.bincount(self._group * kinds + kind, weights=values, minlength=self.groups * kinds)
        return np.asarray(flat, np.float64).reshape(self.groups, kinds)


def _draws(groups: int, rounds: int, seed: int) -> Iterator[F64]:
    """How often each group is drawn, ``float64 [<= _BLOCK, G]`` a time."""
    rng = np.random.default_rng(seed)
    for start in range(0, rounds, _BLOCK):
        counts = np.zeros((min(_BLOCK, rounds - start), groups))
        for k in range(len(counts) if groups else 0):
            counts[k] = np.bincount(rng.integers(groups, size=groups), minlength=groups)
        yield counts


def _ratio(above: F64, below: F64, empty: float = np.nan) -> F64:
    return np.where(below > 0, above / np.where(below > 0, below, 1.0), empty)


def _multiclass_mcc(confusion: F64) -> F64:
    """Gorodkin's correlation of ``[R, true, said]`` tables, 0 where either side has a single value."""
    total, hits = confusion.sum(axis=(1, 2)), np.trace(confusion, axis1=1, axis2=2)
    true, said = confusion.sum(axis=2), confusion.sum(axis=1)
    covariance = hits * total - (true * said).sum(axis=1)
    spread = (total**2 - (true**2).sum(axis=1)) * (total**2 - (said**2).sum(axis=1))
    return _ratio(covariance, np.sqrt(spread), empty=0.0)


def interval(values: npt.ArrayLike) -> list[float] | None:
    """[low, high], the central 95 %; None where more than half of the resamples do not define the figure."""
    known = np.asarray(values, np.float64)
    finite = known[np.isfinite(known)]
    if not len(finite) or len(finite) * 2 < len(known):
        return None
    low, high = np.quantile(finite, [0.025, 0.975])
    return [float(low), float(high)]
