"""What a head on a frozen ImageNet trunk makes of sources that it has not seen: the cheap leave-one-out.

Training a network once for every source left out takes days on two cores; training a head on features that are computed
once takes seconds. The trunk has seen no fake at all, so what the head is shown decides everything: the figures say how
far *this pool* carries to a generator or a camera that is not in it, and what more sources bring.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import roc_auc_score

from detectors.datasets import Item
from detectors.experts.efficientnet_lite import EfficientNetLite, standardised_head
from detectors.training.frozen_head import HeadRecipe, Rows, descend, features_of
from detectors.training.recipe import Recipe
from detectors.training.samples import Pool
from detectors.training.splits import Fold

__all__ = ["Crossed", "Features", "Held", "crossed", "curve", "extract", "held_out"]

F32 = npt.NDArray[np.float32]
_CHUNK = 24
_SETTINGS = HeadRecipe(
    kind="frozen-head",
    name="fold",
    version="0",
    architecture="efficientnet-lite",
    draws=1,
    made_share=0.0,
    batch=256,
    steps=300,
    learning_rate=1e-3,
    weight_decay=0.3,
)


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """Statistics of wire views.

    Attributes:
        values: ``float32 [N, D]``.
        items: ``int64 [N]``, index of each view's item.
    """

    values: F32
    items: npt.NDArray[np.int64]

    def of(self, positions: Sequence[int]) -> npt.NDArray[np.int64]:
        """The rows of the items at `positions`."""
        return np.flatnonzero(np.isin(self.items, positions))


@dataclass(frozen=True, slots=True)
class Held:
    """One left-out source or generator.

    Attributes:
        name: of what was left out.
        views: of it, and of the other class.
        auc: over both.
        right: share of its own views on the right side of 0.5: TPR of a generator, TNR of a real source.
        balanced_accuracy: over both.
    """

    name: str
    views: tuple[int, int]
    auc: float
    right: float
    balanced_accuracy: float


@dataclass(frozen=True, slots=True)
class Crossed:
    """A real source and a source of fakes, judged by heads that saw neither.

    Attributes:
        real, fake: names of the two sources.
        views: of each.
        auc: between the two.
        balanced_accuracy: at 0.5.
    """

    real: str
    fake: str
    views: tuple[int, int]
    auc: float
    balanced_accuracy: float


def extract(items: Sequence[Item], views: int, seed: int) -> Features:
    """Statistics of `views` wire views (mix 2.0) of every item, by the ImageNet trunk of EfficientNet-Lite2.

    Raises:
        ConfigError: the trunk's package is not installed.
    """
    pool = Pool(items, Recipe(name="frozen", version="0", architecture="efficientnet-lite"))
    network = (
        EfficientNetLite.from_package("efficientnet-lite2", pooling="stages")
        .eval()
        .to(memory_format=torch.channels_last)
    )
    rows: list[F32] = []
    index: list[int] = []
    waiting: list[npt.NDArray[np.uint8]] = []

    def flush() -> None:
        rows.append(features_of(network, waiting, network.published.preprocess))
        waiting.clear()

    for number, item in enumerate(items):
        for k in range(views):
            view = pool.view(item, seed * 1_000_003 + number * views + k)
            if view is None:  # the pool above has no gate
                continue
            waiting.append(view)
            index.append(number)
            if len(waiting) == _CHUNK:
                flush()
    if waiting:
        flush()
    return Features(np.concatenate(rows), np.array(index, np.int64))


def held_out(items: Sequence[Item], features: Features, folds: Sequence[Fold]) -> list[Held]:
    """Fits a head for every fold and measures it on what the fold holds out."""
    place = {id(item): k for k, item in enumerate(items)}
    found = []
    for fold in folds:
        training = features.of([place[id(i)] for i in fold.training])
        rows = features.of([place[id(i)] for i in fold.held])
        z = _fit(items, features, training)(rows)
        fake = np.array([items[k].fake for k in features.items[rows]])
        named = np.array([fold.name in (items[k].source, items[k].generator) for k in features.items[rows]])
        found.append(_held(fold.name, z, fake, named))
    return found


def crossed(
    items: Sequence[Item], features: Features, *, least: int = 12, parts: int = 3, seed: int = 0
) -> list[Crossed]:
    """Every real source against every source of fakes, neither of them trained on: what a stranger's set meets.

    Leaving out one side only flatters: the other side's sources are known, and half of the balanced accuracy with them.

    Args:
        items, features: as for :func:`held_out`.
        least: items below which a source is trained on and never judged.
        parts: the sources of fakes are dealt into so many parts, and a fit leaves out one real source and one part: one
            fit for every pair would cost `parts` times the sources of a part as much.
        seed: of the deal.

    Returns:
        One entry a pair, sorted by names.

    Raises:
        ValueError: fewer than two real sources, or fewer sources of fakes than parts, have enough items.
    """
    sources = [item.source for item in items]
    enough = {name for name in sources if sources.count(name) >= least}
    reals = sorted({item.source for item in items if not item.fake} & enough)
    fakes = sorted({item.source for item in items if item.fake} & enough)
    if len(reals) < 2 or len(fakes) < max(2, parts):
        raise ValueError(f"{len(reals)} real and {len(fakes)} fake sources have {least} items: too few to leave out")
    dealt = np.random.default_rng(seed).permutation(np.array(fakes))
    found = []
    for real in reals:
        for part in (set(dealt[k::parts].tolist()) for k in range(parts)):
            held = {k for k, item in enumerate(items) if item.source == real or item.source in part}
            groups = {items[k].group for k in held}
            training = [k for k, item in enumerate(items) if item.group not in groups and k not in held]
            logits = _fit(items, features, features.of(training))
            a = logits(features.of([k for k in held if items[k].source == real]))
            for name in sorted(part):
                b = logits(features.of([k for k in held if items[k].source == name]))
                found.append(_crossed(real, name, a, b))
    return sorted(found, key=lambda c: (c.real, c.fake))


def curve(
    items: Sequence[Item], features: Features, folds: Sequence[Fold], counts: Sequence[int], *, orders: int, seed: int
) -> list[dict[str, Any]]:
    """Balanced accuracy on left-out generators against the number of fake sources that were trained on.

    Args:
        items, features: as for :func:`held_out`.
        folds: over generators.
        counts: numbers of fake sources; a fold that has fewer gives all it has.
        orders: random choices of sources for every count and fold.
        seed: of the choices.

    Returns:
        One object a count: mean over folds and orders of balanced accuracy and AUC, and the standard deviation of the
        mean over orders.
    """
    place = {id(item): k for k, item in enumerate(items)}
    complete: dict[str, Held] = {}  # folds that were trained on all they have, which another count need not repeat

    def trained(fold: Fold, count: int, rng: np.random.Generator) -> Held:
        names = sorted({i.source for i in fold.training if i.fake})
        kept = set(rng.permutation(np.array(names))[:count].tolist())  # drawn first: the stream is the folds' in turn
        if count >= len(names) and fold.name in complete:
            return complete[fold.name]
        training = [place[id(i)] for i in fold.training if not i.fake or i.source in kept]
        rows = features.of([place[id(i)] for i in fold.held])
        z = _fit(items, features, features.of(training))(rows)
        fake = np.array([items[k].fake for k in features.items[rows]])
        held = _held(fold.name, z, fake, fake)
        if count >= len(names):
            complete[fold.name] = held
        return held

    found = []
    for count in counts:
        means = np.empty((orders, 2))
        for order in range(orders):
            rng = np.random.default_rng([seed, count, order])
            row = [trained(fold, count, rng) for fold in folds]
            means[order] = np.mean([(held.balanced_accuracy, held.auc) for held in row], axis=0)
        found.append(
            {
                "fake_sources": count,
                "balanced_accuracy": round(float(means[:, 0].mean()), 4),
                "spread": round(float(means[:, 0].std(ddof=1)) if orders > 1 else 0.0, 4),
                "auc": round(float(means[:, 1].mean()), 4),
            }
        )
    return found


def _fit(
    items: Sequence[Item], features: Features, rows: npt.NDArray[np.int64]
) -> Callable[[npt.NDArray[np.int64]], npt.NDArray[np.float64]]:
    """Logits of P(fake) of any rows, by a head as ``general``'s trained on `rows`; shorter, and without its factors."""
    mine = [items[k] for k in features.items[rows]]
    classes, sources = np.array([i.label for i in mine], np.uint8), np.array([i.source for i in mine], np.str_)
    torch.manual_seed(_SETTINGS.seed)
    head = standardised_head(features.values.shape[1], 256, 1, 0.5)
    for _ in descend(head, Rows(features.values[rows], classes, sources), _SETTINGS):
        pass

    def logits(wanted: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        with torch.inference_mode():
            found: npt.NDArray[np.float64] = head(torch.from_numpy(features.values[wanted]))[:, 0].double().numpy()
            return found

    return logits


def _crossed(real: str, fake: str, a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> Crossed:
    auc = roc_auc_score(np.arange(len(a) + len(b)) >= len(a), np.concatenate([a, b]))
    balanced = (float((a <= 0).mean()) + float((b > 0).mean())) / 2
    return Crossed(real, fake, (len(a), len(b)), round(float(auc), 4), round(balanced, 4))


def _held(name: str, z: npt.NDArray[np.float64], fake: npt.NDArray[np.bool_], named: npt.NDArray[np.bool_]) -> Held:
    right = (z > 0) == fake
    both = (float(right[fake].mean()), float(right[~fake].mean()))
    return Held(
        name,
        (int(named.sum()), int((~named).sum())),
        round(float(roc_auc_score(fake, z)), 4),
        round(float(right[named].mean()), 4),
        round(sum(both) / 2, 4),
    )
