"""The training loop: plain PyTorch on whatever ``accelerate`` finds, resumable to the step, fixed by (seed, step)."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from detectors.card import Preprocess
from detectors.experts.base import Architecture
from detectors.training import precision, state
from detectors.training.disentangling import objective_for
from detectors.training.feed import feed
from detectors.training.losses import head_of
from detectors.training.progress import Log, Progress
from detectors.training.recipe import Recipe
from detectors.training.samples import Batch, Pool

__all__ = ["Progress", "fit"]

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def fit(
    network: Architecture, pool: Pool, recipe: Recipe, view: Preprocess, run: Path, *, log_every: int = 25
) -> Generator[Progress, None, None]:
    """Trains `network` in place, ending with the averaged weights; resumes from `run` where a state is there.

    One process, or several that ``torchrun`` started: each takes its share of every step's samples, so the order of
    the data is the same for any number of them. All processes yield; only the first one writes.

    Args:
        network: in the state that the recipe's `init` gives; left on the device that trained it.
        pool: source of the batches.
        recipe: of the run; a state of another recipe in `run` is refused.
        view: the card's preprocessing; its size is ignored since samples come in the recipe's.
        run: folder for ``state.pt``, ``log.jsonl`` and TensorBoard's files.
        log_every: steps between two yields.

    Raises:
        ValueError: `run` holds the state of another recipe.
    """
    run.mkdir(parents=True, exist_ok=True)
    trainer = _Trainer(network, pool, recipe, view)
    first, extra = state.resume(run / "state.pt", recipe, trainer.parts)
    trainer.restore(extra.get("sums", {}))
    spent = float(extra.get("seconds", 0.0))
    log = Log(run, first) if trainer.main else None
    started = time.monotonic()
    part = precision.share(recipe.batch // 2, trainer.accelerator.num_processes, trainer.accelerator.process_index)
    try:
        for step, batch in feed(pool, first, recipe.steps, part):
            trainer.step(step, batch)
            done = step + 1
            seconds = time.monotonic() - started
            progress = None
            if done % log_every == 0 or done == recipe.steps:
                left = seconds / (done - first) * (recipe.steps - done)
                progress = trainer.progress(done, left, spent + seconds)
            if done % recipe.save_every == 0 or done == recipe.steps:
                kept = {"sums": trainer.totals(), "seconds": spent + seconds}
                if trainer.main:
                    state.save(run / "state.pt", recipe, done, trainer.parts, kept)
            if progress is not None:
                if log is not None:
                    log.write(progress)
                yield progress
    finally:
        trainer.objective.release()
        if log is not None:
            log.close()
    network.load_state_dict(trainer.average.state_dict())
    network.eval()


class _Trainer:
    """What a step needs: network, average, objective and optimiser on this process's device."""

    def __init__(self, network: Architecture, pool: Pool, recipe: Recipe, view: Preprocess) -> None:
        self.accelerator = precision.accelerator()
        self.device: torch.device = self.accelerator.device
        self.main: bool = self.accelerator.is_main_process
        self._recipe, self._view = recipe, view
        # A third faster on the CPU, and what tensor cores want.
        self.network = network.to(self.device).to(memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.network).requires_grad_(False)
        _seed(recipe.seed, 0, 0)
        self.objective = objective_for(self.network, recipe, pool.sources).to(self.device)
        groups = _groups(self.network, self.objective, recipe)
        self.optimiser = torch.optim.AdamW(groups, lr=recipe.learning_rate)
        self.sums: dict[str, Tensor] = {}  # since the last report
        self.network.train()
        self.objective.train()
        if recipe.freeze_norms:
            for module in self.network.modules():
                if isinstance(module, _NORMS):
                    module.eval()

    @property
    def parts(self) -> dict[str, state.Part]:
        return {
            "network": self.network,
            "average": self.average,
            "objective": self.objective,
            "optimiser": self.optimiser,
        }

    def step(self, step: int, batch: Batch) -> None:
        """One optimiser step on this process's part of the batch."""
        recipe = self._recipe
        # Dropout's generator is set anew for every step: nothing of it to save, and a resumed run draws the same.
        _seed(recipe.seed, step, self.accelerator.process_index)
        rate = _rate(recipe, step)
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["factor"]
        self.optimiser.zero_grad(set_to_none=True)
        weights = self.objective.weigh(batch, self._together)
        by_group = torch.zeros_like(self.objective.weights)
        half = len(batch) // 2
        pairs = half if recipe.micro_batch is None else recipe.micro_batch // 2
        for start in range(0, half, pairs):
            end = min(start + pairs, half)
            micro = batch.pairs(start, end)
            x = precision.to_input(micro.pixels, self._view, self.device)
            with precision.autocast(self.device, recipe.precision):
                logits, found = self.objective.judge(self.network, x)
            terms = self.objective(logits, found, micro, weights.pairs(start, end), step / recipe.steps)
            terms.total.backward()
            by_group += terms.by_group
            for name, value in {"loss": terms.total.detach(), **terms.parts}.items():
                self._add(name, value)
        precision.sum_gradients(self.accelerator, [self.network, self.objective])
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), recipe.clip)
        self._add("gradient", norm / self.accelerator.num_processes)
        self.optimiser.step()
        precision.agree_buffers(self.accelerator, self.network)
        if recipe.robust != "none":
            self.objective.after(self._together(by_group), weights.counts)
        _follow(self.average, self.network, min(recipe.average, (1 + step) / (10 + step)))
        self._add("steps", torch.ones((), device=self.device) / self.accelerator.num_processes)

    def progress(self, done: int, left: float, seconds: float) -> Progress:
        """Means of the sums, which start anew."""
        values = self.totals()
        self.sums = {}
        steps = values.pop("steps")
        scalars = {name: value / steps for name, value in values.items() if name != "loss"}
        scalars["rate"] = _rate(self._recipe, done - 1)
        epoch = done * self._recipe.batch / self._recipe.epoch
        return Progress(done, self._recipe.steps, values["loss"] / steps, left, seconds, epoch, scalars)

    def totals(self) -> dict[str, float]:
        """The sums since the last report, over all processes."""
        names = sorted(self.sums)
        if not names:
            return {}
        found: list[float] = self._together(torch.stack([self.sums[name].double() for name in names])).tolist()
        return dict(zip(names, found, strict=True))

    def restore(self, totals: Mapping[str, float]) -> None:
        """Takes up the sums of a resumed run; the first process has them all."""
        for name, value in totals.items():
            self._add(name, torch.tensor(value if self.main else 0.0, dtype=torch.float64, device=self.device))

    def _add(self, name: str, value: Tensor) -> None:
        self.sums[name] = self.sums[name] + value.double() if name in self.sums else value.double()

    def _together(self, value: Tensor) -> Tensor:
        if self.accelerator.num_processes == 1:
            return value
        summed: Tensor = self.accelerator.reduce(value, reduction="sum")
        return summed


def _seed(seed: int, step: int, process: int) -> None:
    torch.manual_seed((seed * 1_000_003 + step) * 1_009 + process)


def _groups(network: nn.Module, objective: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """No decay on biases and norms, as usual for AdamW; the trunk at its own factor of the rate."""
    head = {id(p) for p in head_of(network).parameters()}
    trained = [p for p in network.parameters() if p.requires_grad]
    sets = {
        recipe.trunk_rate: [p for p in trained if id(p) not in head],
        1.0: [p for p in trained if id(p) in head],
    }
    if recipe.trunk_rate == 1.0:
        sets = {1.0: trained}
    sets.setdefault(1.0, []).extend(objective.parameters())
    groups: list[dict[str, Any]] = []
    for factor, members in sets.items():
        for decay, chosen in ((recipe.weight_decay, True), (0.0, False)):
            params = [p for p in members if (p.ndim > 1) == chosen]
            groups.append({"params": params, "weight_decay": decay, "factor": factor})
    return groups


def _rate(recipe: Recipe, step: int) -> float:
    """Linear warm-up, then a cosine to one hundredth."""
    if step < recipe.warmup:
        return recipe.learning_rate * (step + 1) / recipe.warmup
    share = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return recipe.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share)))


@torch.no_grad()
def _follow(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Running statistics are averaged as the weights are that they belong to; counters are copied."""
    for mine, theirs in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
        if mine.is_floating_point():
            mine.lerp_(theirs, 1 - decay)
        else:
            mine.copy_(theirs)
