"""Measuring weights behind the validators' pipeline: AUC with its interval, accuracy, figures per source."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import balanced_accuracy_score, matthews_corrcoef, roc_auc_score

from detectors.datasets import Item
from detectors.training.samples import Pool
from detectors.training.splits import fits
from detectors.types import U8, Label

__all__ = ["Scored", "auc_interval", "balanced", "halves", "parts", "score", "summary"]

F64 = npt.NDArray[np.float64]
_CHUNK = 32
_MADE = "made:"


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """Validation views and what a network says of them.

    Attributes:
        logits: ``float64 [N]`` of P(fake), before calibration.
        fake: ``bool [N]``.
        sources, groups: per view; a group never stands on both sides of a split.
    """

    logits: F64
    fake: npt.NDArray[np.bool_]
    sources: tuple[str, ...]
    groups: tuple[str, ...]

    def part(self, chosen: npt.NDArray[np.bool_]) -> Scored:
        """The views where `chosen` (``bool [N]``) is true."""
        index = np.flatnonzero(chosen)
        sources, groups = (tuple(names[i] for i in index) for names in (self.sources, self.groups))
        return Scored(self.logits[index], self.fake[index], sources, groups)


def score(logits: Callable[[Sequence[U8]], F64], pool: Pool, items: Sequence[Item], views: int, seed: int) -> Scored:
    """Draws `views` challenges of each item and scores them; views on which the recipe's gate is shut are absent.

    Every real item also gives as many fakes made from it, under the source ``made:KIND`` and the item's own group.
    """
    shown: list[tuple[bool, str, str]] = []
    values: list[F64] = []
    waiting: list[U8] = []

    def add(view: U8, fake: bool, source: str, group: str) -> None:
        shown.append((fake, source, group))
        waiting.append(view)
        if len(waiting) >= _CHUNK:
            values.append(logits(waiting))
            waiting.clear()

    for number, item in enumerate(items):
        group = item.group
        for k in range(views):
            draw = seed * 1_000_003 + number * views + k
            view = pool.view(item, draw)
            if view is not None:
                add(view, item.label != Label.REAL, item.source, group)
            made = pool.made_view(item, draw) if item.label == Label.REAL else None
            if made is not None:
                add(made[0], True, f"{_MADE}{made[1]}", group)
    if waiting:
        values.append(logits(waiting))
    fake, sources, groups = zip(*shown, strict=True) if shown else ((), (), ())
    return Scored(np.concatenate(values) if values else np.empty(0), np.array(fake, dtype=bool), sources, groups)


def parts(scored: Scored) -> dict[str, Scored]:
    """``pool``: the data's own reals and fakes; ``made``: its reals against the fakes made from them."""
    made = np.array([source.startswith(_MADE) for source in scored.sources], dtype=bool)
    return {"pool": scored.part(~made), "made": scored.part(made | ~scored.fake)}


def halves(scored: Scored) -> tuple[Scored, Scored]:
    """(for fitting, for reporting), split by group, the same for every expert."""
    fitting = np.array([fits(group) for group in scored.groups], dtype=bool)
    return scored.part(fitting), scored.part(~fitting)


def balanced(scored: Scored, seed: int = 0) -> Scored:
    """As many reals as fakes, the larger class thinned at random: validators send half of each."""
    rng = np.random.default_rng(seed)
    classes = [np.flatnonzero(scored.fake == value) for value in (False, True)]
    count = min(len(members) for members in classes)
    chosen = np.zeros(len(scored.fake), dtype=bool)
    for members in classes:
        chosen[rng.permutation(members)[:count]] = True
    return scored.part(chosen)


def auc_interval(scored: Scored, *, rounds: int = 400, seed: int = 0) -> tuple[float, float, float]:
    """AUC and its 95 % bootstrap interval over groups: (auc, low, high); NaN where a class is missing."""
    if len(set(scored.fake.tolist())) < 2:
        return float("nan"), float("nan"), float("nan")
    members: dict[str, list[int]] = defaultdict(list)
    for index, group in enumerate(scored.groups):
        members[group].append(index)
    groups = [np.array(m) for m in members.values()]
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(rounds):
        chosen = np.concatenate([groups[i] for i in rng.integers(len(groups), size=len(groups))])
        if scored.fake[chosen].any() and not scored.fake[chosen].all():
            values.append(roc_auc_score(scored.fake[chosen], scored.logits[chosen]))
    low, high = np.quantile(values, [0.025, 0.975])
    return float(roc_auc_score(scored.fake, scored.logits)), float(low), float(high)


def summary(scored: Scored) -> dict[str, Any]:
    """Figures for a card: AUC with interval, balanced accuracy and MCC at 0.5, share judged right per source."""
    auc, low, high = auc_interval(scored)
    said = scored.logits > 0
    per_source: dict[str, Any] = {}
    for name in sorted(set(scored.sources)):
        here = np.array([s == name for s in scored.sources])
        per_source[name] = {"views": int(here.sum()), "right": round(float((said == scored.fake)[here].mean()), 3)}
    return {
        "views": len(scored.fake),
        "auc": round(auc, 4),
        "auc_95": [round(low, 4), round(high, 4)],
        "balanced_accuracy": round(float(balanced_accuracy_score(scored.fake, said)), 4),
        "mcc": round(float(matthews_corrcoef(scored.fake, said)), 4),
        "sources": per_source,
    }
