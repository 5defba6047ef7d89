"""Masked pre-training of a forensic encoder on spectra, without labels.

A view loses some bands of its spectrum (ring and direction) and the encoder, with a linear decoder on its pooled
features, tells how much power they held in luma and chroma. Cameras, codecs and generators each tie their bands
together in their own way, so what predicts a band knows the history of the picture. The encoder's weights are saved
with a fresh head, for a recipe's ``init: NAME@VERSION``. The idea of masking and predicting is He et al.'s (CVPR 2022,
masked auto-encoders), the spectrum as what is masked Doloriel & Cheung's (ICASSP 2024).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from detectors import datasets
from detectors.card import Card, Preprocess
from detectors.errors import ConfigError
from detectors.experts.base import Architecture
from detectors.features import spectrum
from detectors.store import Store
from detectors.training import precision, state
from detectors.training import run as runs
from detectors.training.feed import feed
from detectors.training.losses import head_of
from detectors.training.progress import Log, Progress
from detectors.training.recipe import Recipe
from detectors.training.samples import Pool
from detectors.types import U8

__all__ = ["Decoder", "Pretrainer", "PretrainingRecipe", "hidden_bands", "pretrain"]

_STATISTICS = 16  # batches that the targets' mean and deviation are taken from; chroma is heavy-tailed
_HELD_BATCHES = 8  # of held-out views that the result is measured on

# What only labels give a meaning to.
_LABELLED = frozenset(
    {"pair_weight", "semi_share", "adversarial_weight", "robust", "robust_step", "smoothing", "frequency_masking"}
    | {"views", "average", "micro_batch", "trunk_rate"}
)


class PretrainingRecipe(Recipe):
    """A recipe of pre-training; the keys of :class:`Recipe` but those that labels give a meaning to, and:

    Attributes:
        kind: says which loop runs it.
        rings, sectors: bands of the spectrum, see :func:`detectors.features.spectrum.band_index`.
        masked: share of the bands that a view loses.
    """

    kind: Literal["frequency-pretraining"]
    rings: int = Field(16, ge=2, le=64)
    sectors: int = Field(4, ge=1, le=16)
    masked: float = Field(0.5, gt=0, lt=1)

    @model_validator(mode="after")
    def _no_labels(self) -> PretrainingRecipe:
        found = sorted(self.model_fields_set & _LABELLED)
        if found:
            raise ValueError(f"{found[0]} means nothing without labels")
        return self


class Decoder(nn.Module):
    """Pooled features to standardised band powers of luma and two chroma planes.

    Args:
        width: of the features.
        bands: rings * sectors.
    """

    def __init__(self, width: int, bands: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, 3 * bands)
        self.register_buffer("mean", torch.zeros(3, bands))
        self.register_buffer("deviation", torch.ones(3, bands))
        self.mean: Tensor
        self.deviation: Tensor

    def forward(self, features: Tensor) -> Tensor:
        """``[N, width]`` to ``[N, 3, bands]``."""
        out: Tensor = self.linear(features).unflatten(1, (3, -1))
        return out

    def standardised(self, powers: Tensor) -> Tensor:
        """Log powers ``[N, 3, bands]`` in deviations from their mean over the pool."""
        return (powers - self.mean) / self.deviation

    def learn(self, powers: Tensor) -> None:
        """Takes mean and deviation from samples ``[N, 3, bands]``."""
        self.mean.copy_(powers.mean(0))
        self.deviation.copy_(powers.std(0).clamp(min=1e-3))


def hidden_bands(recipe: PretrainingRecipe, step: int, count: int) -> Tensor:
    """Which bands each of `count` views of a step loses, ``bool [count, bands]``; the same number in each."""
    bands = recipe.rings * recipe.sectors
    lost = min(bands - 1, max(1, round(recipe.masked * bands)))
    ranks = np.random.default_rng([recipe.seed, step, 5]).random((count, bands)).argsort(axis=1)
    return torch.from_numpy(ranks < lost)


def pretrain(
    path: Path,
    *,
    data: Path,
    store: Store,
    run: Path,
    backbones: Path | None = None,
    threads: int | None = None,
    report: Callable[[Progress], None] = lambda _: None,
) -> Card:
    """Pre-trains the recipe's architecture and saves it; args and errors as :func:`detectors.training.run.train`.

    Returns:
        The card, as saved: its `metrics` hold ``explained``, the share of the hidden bands' variance on held-out
        groups that the encoder explains (0 for the pool's mean), of all planes and of luma alone. The weights tell
        nothing about fakes: their head is as initialised.
    """
    recipe = PretrainingRecipe.load(path)
    if threads is not None:
        torch.set_num_threads(threads)
    training, held = datasets.split_by_group(datasets.read(data), recipe.validation, recipe.split_seed)
    network, init = runs.network_of(recipe, backbones, store)
    base = network.published
    view = replace(base.preprocess, **runs.preprocess_changes(recipe.preprocess))
    trainer = Pretrainer(network, recipe, view)
    seconds = 0.0
    for progress in trainer.fit(Pool(training, recipe), run):
        seconds = progress.seconds
        report(progress)
    network.eval()
    unseen = Pool(held, recipe)
    metrics = trainer.measured(unseen.batch(step).pixels for step in range(_HELD_BATCHES))
    _reset(head_of(network))
    card = replace(
        base,
        name=recipe.name,
        version=recipe.version,
        options=recipe.options,
        preprocess=view,
        licence_weights="Apache-2.0 for the weights; the training data keep the licences of their sources",
        provenance=f"pre-trained without labels on {len(training)} items; the head is as initialised{init}",
        origin=f"recipe {path.name}, seed {recipe.seed}, {recipe.steps} steps of {recipe.batch}",
        metrics={**metrics, "seconds": round(seconds)},
        command=f"deepfake-miner train configs/train/{path.name}",
    )
    return store.save(card, network.to("cpu"))


class Pretrainer:
    """An encoder, its decoder and their optimiser.

    Args:
        network: offers ``features(x)``, ``[N, 3, H, W]`` to ``[N, width]``; trained in place, all but its head.
        recipe: of the run.
        view: the card's preprocessing; its size is ignored since samples come in the recipe's.

    Raises:
        ConfigError: the network has no such features.
    """

    def __init__(self, network: Architecture, recipe: PretrainingRecipe, view: Preprocess) -> None:
        self._recipe, self._view = recipe, view
        self.device: torch.device = precision.accelerator().device
        self.network: Any = network.to(self.device).to(memory_format=torch.channels_last)
        torch.manual_seed(recipe.seed)
        width = self._width()
        self.decoder = Decoder(width, recipe.rings * recipe.sectors).to(self.device)
        head = {id(p) for p in head_of(network).parameters()}
        trained = [p for p in network.parameters() if id(p) not in head] + list(self.decoder.parameters())
        groups = [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": recipe.weight_decay},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ]
        self.optimiser = torch.optim.AdamW(groups, lr=recipe.learning_rate)

    def fit(self, pool: Pool, run: Path, log_every: int = 25) -> Generator[Progress, None, None]:
        """Trains; resumes from `run` where a state is there."""
        run.mkdir(parents=True, exist_ok=True)
        recipe = self._recipe
        parts: dict[str, state.Part] = {
            "network": self.network,
            "decoder": self.decoder,
            "optimiser": self.optimiser,
        }
        first, extra = state.resume(run / "state.pt", recipe, parts)
        if first == 0:
            powers = [self.powers(pool.batch(step).pixels) for step in range(_STATISTICS)]
            self.decoder.learn(torch.cat(powers))
        spent, losses = float(extra.get("seconds", 0.0)), list(extra.get("losses", []))
        log, started = Log(run, first), time.monotonic()
        self.network.train()
        try:
            for step, batch in feed(pool, first, recipe.steps):
                losses.append(self.step(step, batch.pixels))
                done, seconds = step + 1, time.monotonic() - started
                progress = None
                if done % log_every == 0 or done == recipe.steps:
                    left = seconds / (done - first) * (recipe.steps - done)
                    epoch = done * recipe.batch / recipe.epoch
                    progress = Progress(done, recipe.steps, float(np.mean(losses)), left, spent + seconds, epoch)
                    losses = []
                if done % recipe.save_every == 0 or done == recipe.steps:
                    kept = {"seconds": spent + seconds, "losses": losses}
                    state.save(run / "state.pt", recipe, done, parts, kept)
                if progress is not None:
                    log.write(progress)
                    yield progress
        finally:
            log.close()

    def step(self, step: int, pixels: U8) -> float:
        """One optimiser step; returns the mean squared error of the hidden bands, in variances."""
        recipe = self._recipe
        torch.manual_seed(recipe.seed * 1_000_003 + step)  # of dropout, so that a resumed run draws the same
        for group in self.optimiser.param_groups:
            group["lr"] = _rate(recipe, step)
        said, wanted, hidden = self._judged(step, pixels)
        loss = ((said - wanted) ** 2)[hidden[:, None].expand_as(said)].mean()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_([p for g in self.optimiser.param_groups for p in g["params"]], recipe.clip)
        self.optimiser.step()
        return float(loss.detach())

    @torch.no_grad()
    def measured(self, batches: Iterable[U8]) -> dict[str, float]:
        """Explained variance of the bands hidden in views ``uint8 [N, H, W, 3]`` that were not trained on."""
        error, spread = torch.zeros(3), torch.zeros(3)
        for step, pixels in enumerate(batches):
            said, wanted, hidden = (t.cpu() for t in self._judged(step, pixels))
            weight = hidden[:, None].float()
            error += (weight * (said - wanted) ** 2).sum((0, 2))
            spread += (weight * wanted**2).sum((0, 2))
        return {
            "explained": round(1 - float(error.sum() / spread.sum()), 4),
            "explained_luma": round(1 - float(error[0] / spread[0]), 4),
        }

    def powers(self, pixels: U8) -> Tensor:
        """Log band powers ``[N, 3, bands]`` of ``uint8 [N, H, W, 3]``."""
        x = torch.from_numpy(np.ascontiguousarray(pixels)).to(self.device).movedim(-1, -3).float() / 255
        return spectrum.band_power(spectrum.ycc(x), self._recipe.rings, self._recipe.sectors)

    def _judged(self, step: int, pixels: U8) -> tuple[Tensor, Tensor, Tensor]:
        """(said, wanted) ``[N, 3, bands]`` and hidden ``[N, bands]`` of one batch."""
        recipe = self._recipe
        hidden = hidden_bands(recipe, step, len(pixels)).to(self.device)
        # Normalisation is affine and the masking leaves the mean: after it or before it, the bands are as empty.
        x = precision.to_input(pixels, self._view, self.device)
        x = spectrum.without_bands(x, hidden, recipe.rings, recipe.sectors)
        with precision.autocast(self.device, recipe.precision):
            features = self.network.features(x.contiguous(memory_format=torch.channels_last))
        said = self.decoder(features.float())
        return said, self.decoder.standardised(self.powers(pixels)), hidden

    @torch.no_grad()
    def _width(self) -> int:
        features = getattr(self.network, "features", None)
        self.network.eval()  # norms keep the statistics they have
        found = None if features is None else features(torch.zeros(1, 3, 64, 64, device=self.device))
        if found is None or found.ndim != 2:
            raise ConfigError(f"recipe {self._recipe.name}: {self._recipe.architecture} has no pooled features()")
        return int(found.shape[1])


def _reset(head: nn.Module) -> None:
    """Makes a head anew: what it held before the pre-training no longer fits the features."""
    for module in head.modules():
        if isinstance(module, nn.Linear):
            module.reset_parameters()


def _rate(recipe: Recipe, step: int) -> float:
    """Linear warm-up, then a cosine to one hundredth."""
    if step < recipe.warmup:
        return recipe.learning_rate * (step + 1) / recipe.warmup
    share = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return recipe.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share)))
