"""The training loop: plain PyTorch, one process, resumable, the order of the data fixed by (seed, step)."""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Generator, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from detectors import preprocess
from detectors.card import Preprocess
from detectors.experts.base import Architecture, fake_logit
from detectors.training.recipe import Recipe
from detectors.training.samples import Batch, Pool

__all__ = ["Progress", "fit"]

_AHEAD = 3  # batches prepared while the network computes


@dataclass(frozen=True, slots=True)
class Progress:
    """What one logged step looks like: step (1-based), steps in all, mean loss since the last, seconds left."""

    step: int
    steps: int
    loss: float
    seconds_left: float


def fit(
    network: Architecture, pool: Pool, recipe: Recipe, view: Preprocess, run: Path, *, log_every: int = 25
) -> Generator[Progress, None, None]:
    """Trains `network` in place, ending with the averaged weights; resumes from `run` where a state is there.

    Args:
        network: in the state that the recipe's `init` gives.
        pool: source of the batches.
        recipe: of the run; a state of another recipe in `run` is refused.
        view: the card's preprocessing; its size is ignored since crops are native.
        run: folder for ``state.pt`` (network, average, optimiser, step) and ``log.jsonl``.
        log_every: steps between two yields.

    Raises:
        ValueError: `run` holds the state of another recipe.
    """
    run.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(recipe.seed)
    optimiser = torch.optim.AdamW(_groups(network, recipe.weight_decay), lr=recipe.learning_rate)
    network.to(memory_format=torch.channels_last)  # a third faster on the CPU
    average = copy.deepcopy(network)
    parts: dict[str, nn.Module | torch.optim.Optimizer] = {
        "network": network,
        "average": average,
        "optimiser": optimiser,
    }
    first = _resume(run / "state.pt", recipe, parts)
    losses: list[float] = []
    started = time.monotonic()
    native = Preprocess(size=0, mode="native", scale=view.scale, mean=view.mean, std=view.std, channels=view.channels)
    network.train()
    with (run / "log.jsonl").open("a", encoding="utf-8") as log:
        for step, batch in _prefetch(pool, first, recipe.steps):
            for group in optimiser.param_groups:
                group["lr"] = _rate(recipe, step)
            loss = _loss(network, preprocess.tensor(list(batch.pixels), native), batch, recipe)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
            _follow(average, network, min(recipe.average, (1 + step) / (10 + step)))
            losses.append(float(loss.detach()))
            done = step + 1
            if done % log_every == 0 or done == recipe.steps:
                left = (time.monotonic() - started) / (done - first) * (recipe.steps - done)
                progress = Progress(done, recipe.steps, float(np.mean(losses)), left)
                losses.clear()
                log.write(json.dumps({"step": done, "loss": progress.loss, "rate": _rate(recipe, step)}) + "\n")
                log.flush()
                _save(run / "state.pt", recipe, done, parts)
                yield progress
    network.load_state_dict(average.state_dict())
    network.eval()


def _loss(network: Architecture, x: Tensor, batch: Batch, recipe: Recipe) -> Tensor:
    """Cross-entropy on the fake log-odds, labels smoothed towards one half, plus the ranking of pairs.

    The pair term, log(1 + exp(z_real - z_fake)) (RankNet; Burges et al., ICML 2005), sees only what a real and the fake
    made from it do not share: subject and source cancel, the trace remains.
    """
    logit = fake_logit(network(x), network.published.fake_index)
    target = torch.from_numpy(batch.labels.astype(np.float32)) * (1 - recipe.smoothing) + recipe.smoothing / 2
    loss = nn.functional.binary_cross_entropy_with_logits(logit, target)
    if recipe.pair_weight > 0 and batch.paired.any():
        real, fake = logit.chunk(2)
        ranked = nn.functional.softplus(real - fake)[torch.from_numpy(batch.paired)]
        loss = loss + recipe.pair_weight * ranked.mean()
    return loss


def _groups(network: nn.Module, decay: float) -> list[dict[str, object]]:
    """No decay on biases and norms, as usual for AdamW."""
    matrices = [p for p in network.parameters() if p.requires_grad and p.ndim > 1]
    vectors = [p for p in network.parameters() if p.requires_grad and p.ndim <= 1]
    return [{"params": matrices, "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0}]


def _rate(recipe: Recipe, step: int) -> float:
    """Linear warm-up, then a cosine to one hundredth."""
    if step < recipe.warmup:
        return recipe.learning_rate * (step + 1) / recipe.warmup
    share = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return recipe.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share)))


@torch.no_grad()
def _follow(average: nn.Module, network: nn.Module, decay: float) -> None:
    for mine, theirs in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
        if mine.is_floating_point():
            mine.lerp_(theirs, 1 - decay)
        else:
            mine.copy_(theirs)


def _prefetch(pool: Pool, first: int, steps: int) -> Iterator[tuple[int, Batch]]:
    """Batches in order, prepared by one thread; OpenCV and Pillow leave the interpreter lock while they work."""
    with ThreadPoolExecutor(1, thread_name_prefix="samples") as worker:
        waiting: list[Future[Batch]] = []
        upcoming = first
        for step in range(first, steps):
            while upcoming < min(steps, step + _AHEAD):
                waiting.append(worker.submit(pool.batch, upcoming))
                upcoming += 1
            yield step, waiting.pop(0).result()


def _save(path: Path, recipe: Recipe, step: int, parts: Mapping[str, nn.Module | torch.optim.Optimizer]) -> None:
    state: dict[str, object] = {name: part.state_dict() for name, part in parts.items()}
    state |= {"recipe": recipe.model_dump_json(), "step": step}
    part = path.with_suffix(".part")
    torch.save(state, part)
    part.replace(path)


def _resume(path: Path, recipe: Recipe, parts: Mapping[str, nn.Module | torch.optim.Optimizer]) -> int:
    """Fills the parts from the state and returns its step; 0 where there is none."""
    if not path.exists():
        return 0
    state = torch.load(path, map_location="cpu", weights_only=True)
    if state["recipe"] != recipe.model_dump_json():
        raise ValueError(f"{path.parent} holds a run of another recipe; choose another folder or remove it")
    for name, part in parts.items():
        part.load_state_dict(state[name])
    return int(state["step"])
