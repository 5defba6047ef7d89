"""What a step minimises, as sums over samples, so that parts of a batch add up to the whole one's gradient.

cross-entropy   binary on P(fake) for one or two outputs, over (real, synthetic, semi-synthetic) for three
pair ranking    log(1 + exp(z_real - z_fake)) of a real and the fake made from it (RankNet; Burges et al., ICML
                2005): subject and source cancel, the trace remains
adversary       a small network tells the source from the features, the features are driven against it (DANN;
                Ganin & Lempitsky, ICML 2015), among reals and among fakes apart: what the label explains may stay
group weights   sources on which the loss is high weigh more (group DRO; Sagawa et al., ICLR 2020, algorithm 1),
                reals and fakes apart, so that the classes stay as likely as they are
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from detectors.experts.base import Architecture, fake_logit
from detectors.training.recipe import Recipe
from detectors.training.samples import Batch

__all__ = ["Objective", "Terms", "Weights", "first_linear", "head_of", "last_linear", "outputs_of"]

_HIDDEN = 128  # units of the adversary
_SEMI = 2  # index of the semi-synthetic output of a head of three


def head_of(network: nn.Module) -> nn.Module:
    """What makes logits of features: ``head``, ``head_sha`` (UCF), or else the last linear layer.

    Raises:
        ValueError: the network has no linear layer.
    """
    for name in ("head", "head_sha"):
        found = getattr(network, name, None)
        if isinstance(found, nn.Module):
            return found
    linear = [m for m in network.modules() if isinstance(m, nn.Linear)]
    if not linear:
        raise ValueError(f"{type(network).__name__} has no linear layer that could be its head")
    return linear[-1]


def first_linear(module: nn.Module) -> nn.Linear:
    """The first linear layer of a head."""
    return next(m for m in module.modules() if isinstance(m, nn.Linear))


def last_linear(module: nn.Module) -> nn.Linear:
    """The last linear layer of a head."""
    return [m for m in module.modules() if isinstance(m, nn.Linear)][-1]


def outputs_of(network: nn.Module) -> int:
    """How many logits the head gives."""
    return last_linear(head_of(network)).out_features


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """What a step's samples count: each term's weights sum to 1 over the whole batch.

    Attributes:
        samples: ``float32 [b]``, of the cross-entropy.
        even: of the adversary; the same for every sample.
        pair: of each pair in the ranking; 0 where the batch has none.
        groups: ``int64 [b]``, index of each sample's group.
        counts: ``float32 [G]``, samples of each group in the whole batch.
    """

    samples: Tensor
    even: float
    pair: float
    groups: Tensor
    counts: Tensor

    def pairs(self, first: int, last: int) -> Weights:
        """As :meth:`detectors.training.samples.Batch.pairs`."""
        half = len(self.samples) // 2
        index = torch.cat([torch.arange(first, last), torch.arange(half + first, half + last)])
        return Weights(self.samples[index], self.even, self.pair, self.groups[index], self.counts)


@dataclass(frozen=True, slots=True, eq=False)
class Terms:
    """Part of a step's loss.

    Attributes:
        total: what is differentiated.
        parts: each term before its weight in the recipe, by name, detached.
        by_group: ``float32 [G]``, summed cross-entropy of each group, detached.
    """

    total: Tensor
    parts: dict[str, Tensor]
    by_group: Tensor


class Objective(nn.Module):
    """The loss of one recipe, with the state that some of its terms have.

    Args:
        network: that is trained; its head is watched for the features that go into it.
        recipe: which terms, how strong.
        sources: of the pool, in the order of ``Batch.sources``.
    """

    weights: Tensor  # of the groups, [G]; sums to 1 over those of a class

    def __init__(self, network: Architecture, recipe: Recipe, sources: Sequence[str]) -> None:
        super().__init__()
        self._recipe = recipe
        self._fake_index = network.published.fake_index
        self._three = outputs_of(network) > _SEMI
        self._count = len(sources)
        self._kinds = {kind: k for k, kind in enumerate(sorted(recipe.kinds))}
        # Groups: reals by source, fakes by source, made fakes by kind.
        groups = 2 * self._count + len(self._kinds)
        self.real_groups = self._count
        self._fakes = torch.arange(groups) >= self._count
        even = torch.where(self._fakes, 1.0 / (groups - self._count), 1.0 / self._count)
        self.register_buffer("weights", even)
        self._seen: list[Tensor] = []
        self._hook: RemovableHandle | None = None
        self.adversary: nn.ModuleList | None = None
        if recipe.adversarial_weight > 0:
            head = head_of(network)
            width = first_linear(head).in_features
            self.adversary = nn.ModuleList(_adversary(width, n) for n in (self._count, groups - self._count))
            self._hook = head.register_forward_pre_hook(self._watch)

    def release(self) -> None:
        """Stops watching the network."""
        if self._hook is not None:
            self._hook.remove()

    def _watch(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if self.training and torch.is_grad_enabled():
            self._seen = [inputs[0]]

    def judge(self, network: Architecture, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The network's logits, and whatever else of the forward pass :meth:`further` needs."""
        logits: Tensor = network(x)
        return logits, {}

    def further(self, found: dict[str, Tensor], batch: Batch, weights: Weights) -> dict[str, tuple[float, Tensor]]:
        """Terms of one architecture alone: weight and sum over the part's samples, by name."""
        return {}

    def weigh(self, batch: Batch, together: Callable[[Tensor], Tensor]) -> Weights:
        """What the samples of this process's part of a step count.

        Args:
            batch: this process's part.
            together: sums a tensor over all processes; the identity where there is one.
        """
        device = self.weights.device
        groups = torch.from_numpy(self._groups(batch))
        counts = torch.bincount(groups, minlength=len(self.weights)).float()
        extra = torch.tensor([float(len(batch)), float(batch.paired.sum())])
        found = together(torch.cat([counts, extra]).to(device)).cpu()
        counts, total, pairs = found[:-2], float(found[-2]), float(found[-1])
        if self._recipe.robust == "group":
            present = self.weights.cpu() * (counts > 0)
            for side in (self._fakes, ~self._fakes):
                present[side] *= 0.5 / present[side].sum().clamp(min=1e-12)
            samples = (present / counts.clamp(min=1))[groups]
        else:
            samples = torch.full((len(batch),), 1.0 / total)
        return Weights(samples, 1.0 / total, 1.0 / pairs if pairs else 0.0, groups, counts)

    def forward(
        self, logits: Tensor, found: dict[str, Tensor], batch: Batch, weights: Weights, progress: float
    ) -> Terms:
        """The loss of a part of a step.

        Args:
            logits: ``[b, K]`` of the part, on the network's device.
            found: what :meth:`judge` gave with them.
            batch: the part.
            weights: the part's.
            progress: share of the training that is done, in [0, 1].
        """
        logits = logits.float()
        device = logits.device
        fake = fake_logit(logits, 1, _SEMI) if self._three else fake_logit(logits, self._fake_index)
        each = self._cross_entropy(logits, fake, batch)
        loss = (each * weights.samples.to(device)).sum()
        total, parts = loss, {"cross_entropy": loss.detach()}
        if self._recipe.pair_weight > 0:
            first, second = fake.chunk(2)
            ranked = F.softplus(first - second)[torch.from_numpy(batch.paired).to(device)].sum() * weights.pair
            total = total + self._recipe.pair_weight * ranked
            parts["pairs"] = ranked.detach()
        groups = weights.groups.to(device)
        if self.adversary is not None:
            told = self._told(self.adversary, groups, progress).sum() * weights.even
            total = total + told
            parts["sources"] = told.detach()
        for name, (factor, value) in self.further(found, batch, weights).items():
            total = total + factor * value
            parts[name] = value.detach()
        by_group = torch.zeros_like(self.weights).index_add_(0, groups, each.detach())
        return Terms(total, parts, by_group)

    def after(self, by_group: Tensor, counts: Tensor) -> None:
        """Raises the weights of the groups that did badly; a no-op without `robust`.

        Args:
            by_group: ``[G]``, summed cross-entropy of the whole step.
            counts: ``[G]``, samples of each group in the whole step.
        """
        if self._recipe.robust == "none":
            return
        grown = self.weights * torch.exp(self._recipe.robust_step * by_group / counts.to(by_group.device).clamp(min=1))
        fakes = self._fakes.to(grown.device)
        for side in (fakes, ~fakes):
            grown[side] /= grown[side].sum()
        self.weights.copy_(grown)

    def _cross_entropy(self, logits: Tensor, fake: Tensor, batch: Batch) -> Tensor:
        """Of each sample, labels smoothed towards evenness."""
        smoothing = self._recipe.smoothing
        if self._three:
            classes = torch.from_numpy(batch.classes.astype(np.int64)).to(logits.device)
            return F.cross_entropy(logits, classes, label_smoothing=smoothing, reduction="none")
        target = torch.from_numpy(batch.labels.astype(np.float32)).to(logits.device) * (1 - smoothing) + smoothing / 2
        return F.binary_cross_entropy_with_logits(fake, target, reduction="none")

    def _told(self, adversary: nn.ModuleList, groups: Tensor, progress: float) -> Tensor:
        """Each sample's loss of naming its source from the features, whose gradient arrives there reversed."""
        (features,) = self._seen
        self._seen = []
        strength = 2.0 / (1.0 + math.exp(-10.0 * progress)) - 1.0  # Ganin's schedule: the adversary learns first
        reversed_ = _reverse(features.float(), strength * self._recipe.adversarial_weight)
        losses = torch.zeros(len(features), device=features.device)
        fakes = groups >= self._count
        for side, names, offset in ((~fakes, adversary[0], 0), (fakes, adversary[1], self._count)):
            if bool(side.any()):
                losses[side] = F.cross_entropy(names(reversed_[side]), groups[side] - offset, reduction="none")
        return losses

    def _groups(self, batch: Batch) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        made = 2 * self._count
        found = [
            made + self._kinds[kind] if kind else int(source) + (self._count if fake else 0)
            for kind, source, fake in zip(batch.kinds, batch.sources, batch.labels > 0, strict=True)
        ]
        return np.array(found, np.int64)


def _adversary(width: int, sources: int) -> nn.Module:
    """Normed first: otherwise shrinking the features would be the cheapest way to blind it."""
    return nn.Sequential(
        nn.LayerNorm(width, elementwise_affine=False), nn.Linear(width, _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, sources)
    )


def _reverse(x: Tensor, strength: float) -> Tensor:
    """`x`, through which a gradient goes back multiplied by ``-strength``."""
    return (1.0 + strength) * x.detach() - strength * x
