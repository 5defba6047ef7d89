"""Training a head on a trunk that stays as it is: features once, then a thousand steps in seconds.

Fine-tuning on some thousand pictures bends an ImageNet trunk to their sources (Kumar et al., "Fine-tuning can distort
pretrained features and underperform out-of-distribution", ICLR 2022). A head on the statistics of the frozen trunk
cannot, and costs one forward pass a view in place of a thousand backward ones.
"""

from __future__ import annotations

import json
import math
import time
from collections import defaultdict
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field, model_validator
from torch import nn

from detectors import preprocess
from detectors.card import Card, Preprocess
from detectors.datasets import Item
from detectors.errors import ConfigError
from detectors.experts.base import Architecture
from detectors.training import fakes, state
from detectors.training.losses import head_of
from detectors.training.progress import Log, Progress
from detectors.training.recipe import Recipe
from detectors.training.samples import Pool
from detectors.training.sources import share_of
from detectors.types import U8, Label

__all__ = ["HeadRecipe", "Rows", "descend", "features_of", "fit_head", "train_head"]

F32 = npt.NDArray[np.float32]
_CHUNK = 24


class HeadRecipe(Recipe):
    """A recipe whose `steps` of `batch` rows train the head alone.

    A process of its own: under ``torchrun`` every process would do all of the work.

    Attributes:
        kind: tells it from other recipes.
        draws: how often the pool is gone through, each time with other challenges drawn of its items.
        most: items of a source that one draw takes, other ones each time.
    """

    use_of_trunk: ClassVar[str] = "left as it is"

    kind: Literal["frozen-head"]
    draws: int = Field(5, ge=1)
    most: int = Field(200, ge=1)

    @model_validator(mode="after")
    def _means_something(self) -> Self:
        """Refuses what would be ignored: there is no trunk to turn from the sources, and rows come without partners."""
        ignored = ("adversarial_weight", "pair_weight", "robust", "micro_batch", "trunk_rate", "precision")
        given = [name for name in ignored if getattr(self, name) != type(self).model_fields[name].default]
        if given:
            raise ValueError(f"a frozen-head recipe has no use for {', '.join(given)}")
        return self


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Features of wire views.

    Attributes:
        values: ``float32 [N, D]``.
        classes: ``uint8 [N]``, values of :class:`~detectors.types.Label`.
        sources: N names; ``made:KIND`` of what was made.
    """

    values: F32
    classes: npt.NDArray[np.uint8]
    sources: npt.NDArray[np.str_]


def train_head(path: Path, **options: Any) -> Card | None:
    """As :func:`detectors.training.run.train`, for recipes of this kind."""
    from detectors.training import run  # noqa: PLC0415 - it knows of this module's way to learn only here

    return run.train(path, kind=HeadRecipe, learn=fit_head, **options)


def fit_head(
    network: Architecture, pool: Pool, recipe: Recipe, view: Preprocess, run: Path
) -> Generator[Progress, None, None]:
    """Trains the head of `network` in place.

    Args:
        network: offers ``features(x) -> [N, D]`` and has a ``head``; its first batch norm, if any, is given the
            features' own mean and variance.
        pool: of images, whole.
        recipe: a :class:`HeadRecipe`.
        view: the card's preprocessing.
        run: folder where each draw's features are kept, so that a run that was killed goes on.

    Raises:
        ConfigError: the network has no features.
        ValueError: `run` holds the features of another recipe: of other sources left out, say.
    """
    if not isinstance(recipe, HeadRecipe) or not hasattr(network, "features"):
        raise ConfigError(f"recipe {recipe.name}: needs a network with features, and kind frozen-head")
    run.mkdir(parents=True, exist_ok=True)
    _claim(run / "recipe.json", recipe)
    network.eval().to(memory_format=torch.channels_last)
    started = time.monotonic()
    parts: list[Rows] = []
    for draw in range(recipe.draws):
        parts.append(_drawn(network, pool, recipe, view, run / f"features-{draw}.npz", draw=draw))
        seconds = time.monotonic() - started
        left = seconds / (draw + 1) * (recipe.draws - draw - 1)
        yield Progress(0, recipe.steps, math.nan, left, seconds)
    rows = Rows(
        np.concatenate([p.values for p in parts]),
        np.concatenate([p.classes for p in parts]),
        np.concatenate([p.sources for p in parts]),
    )
    log = Log(run, 0)
    try:
        for progress in descend(head_of(network), rows, recipe, started):
            log.write(progress)
            yield progress
    finally:
        log.close()
    network.eval()


def _claim(path: Path, recipe: HeadRecipe) -> None:
    """Writes the recipe into the run's folder, or refuses the folder of another one."""
    if path.exists():
        state.refuse_other(json.loads(path.read_text(encoding="utf-8")), recipe, path.parent)
    else:
        path.write_text(json.dumps(recipe.run_key | {"kind": recipe.kind}), encoding="utf-8")


def _drawn(network: Architecture, pool: Pool, recipe: HeadRecipe, view: Preprocess, path: Path, *, draw: int) -> Rows:
    """One draw's features, from the file where it is there."""
    if path.exists():
        with np.load(path) as found:
            return Rows(found["values"], found["classes"], found["sources"])
    rng = np.random.default_rng([recipe.seed, draw])
    values: list[F32] = []
    names: list[tuple[int, str]] = []
    waiting: list[U8] = []

    def add(seen: U8, label: Label, source: str) -> None:
        waiting.append(seen)
        names.append((int(label), source))
        if len(waiting) == _CHUNK:
            values.append(features_of(network, waiting, view))
            waiting.clear()

    for item in _chosen(pool.items, recipe.most, rng):
        seed = int(rng.integers(2**62))
        seen = pool.view(item, seed)
        if seen is not None:
            add(seen, item.label, item.source)
        made = pool.made_view(item, seed) if not item.fake and rng.random() < 2 * recipe.made_share else None
        if made is not None:
            add(made[0], fakes.LABELS[made[1]], f"made:{made[1]}")
    if waiting:
        values.append(features_of(network, waiting, view))
    rows = Rows(
        np.concatenate(values),
        np.array([label for label, _ in names], np.uint8),
        np.array([name for _, name in names], np.str_),
    )
    part = path.with_suffix(".part.npz")
    np.savez(part, values=rows.values, classes=rows.classes, sources=rows.sources)
    part.replace(path)
    return rows


def _chosen(items: Sequence[Item], most: int, rng: np.random.Generator) -> list[Item]:
    by_source: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        by_source[item.source].append(item)
    return [members[k] for _, members in sorted(by_source.items()) for k in rng.permutation(len(members))[:most]]


def features_of(network: Any, images: Sequence[U8], view: Preprocess) -> F32:
    """What ``network.features`` says of images, ``float32 [N, D]``."""
    with torch.inference_mode():
        x = preprocess.tensor(list(images), view).contiguous(memory_format=torch.channels_last)
        found: F32 = network.features(x).float().numpy()
        return found


def descend(
    head: nn.Module, rows: Rows, recipe: HeadRecipe, started: float | None = None
) -> Generator[Progress, None, None]:
    """AdamW with a cosine on a head alone; every batch is half real, half fake, balanced over sources within.

    Args:
        head: ``[N, D]`` to logits; its first batch norm, if any, is given the rows' own mean and variance.
        rows: of both classes.
        recipe: steps, batch, rates, weights of the sources.
        started: ``time.monotonic()`` of the run; None is now.
    """
    begun = time.monotonic()
    started = begun if started is None else started
    values, classes = torch.from_numpy(rows.values), torch.from_numpy(rows.classes.astype(np.int64))
    norm = next((m for m in head.modules() if isinstance(m, nn.BatchNorm1d)), None)
    if norm is not None and norm.running_mean is not None and norm.running_var is not None:
        norm.running_mean.copy_(values.mean(0))
        norm.running_var.copy_(values.var(0))
    odds = _odds(rows, recipe)
    optimiser = torch.optim.AdamW(head.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    head.train()
    if norm is not None:
        norm.eval()
    losses: list[float] = []
    for step in range(recipe.steps):
        torch.manual_seed(recipe.seed * 1_000_003 + step)
        rng = np.random.default_rng([recipe.seed, 9, step])
        chosen = torch.from_numpy(np.concatenate([rng.choice(len(p), recipe.batch // 2, p=p) for p in odds]))
        for group in optimiser.param_groups:
            group["lr"] = recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * step / recipe.steps))
        loss = _loss(head(values[chosen]), classes[chosen], recipe.smoothing)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(float(loss.detach()))
        if (step + 1) % 100 == 0 or step + 1 == recipe.steps:
            seconds = time.monotonic() - started
            left = (time.monotonic() - begun) / (step + 1) * (recipe.steps - step - 1)
            yield Progress(step + 1, recipe.steps, float(np.mean(losses)), left, seconds)
            losses.clear()
    head.eval()


def _loss(logits: torch.Tensor, classes: torch.Tensor, smoothing: float) -> torch.Tensor:
    if logits.shape[1] > 1:
        return nn.functional.cross_entropy(logits, classes, label_smoothing=smoothing)
    target = (classes > 0).float() * (1 - smoothing) + smoothing / 2
    return nn.functional.binary_cross_entropy_with_logits(logits[:, 0], target)


def _odds(rows: Rows, recipe: HeadRecipe) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Probability of each row among the reals and among the fakes: sources even but for their factors, small ones less.

    What was made has `made_share` of the fakes.
    """
    weights = np.zeros(len(rows.classes))
    made = np.char.startswith(rows.sources, "made:")
    fake = rows.classes > 0
    for name in np.unique(rows.sources):
        for side in (fake, ~fake):
            here = (rows.sources == name) & side
            if here.any():
                factor = recipe.source_weights.get(str(name), 1.0)
                weights[here] = share_of(here.sum() / recipe.draws, factor) / here.sum()
    for part, share in ((fake & made, recipe.made_share), (fake & ~made, 1.0 - recipe.made_share)):
        if part.any():
            weights[part] *= share / weights[part].sum()
    reals, others = (np.where(side, weights, 0.0) / weights[side].sum() for side in (~fake, fake))
    return reals, others
