"""UCF's own losses: Yan et al., ICCV 2023, sections 3.2 and 3.3; weights as in the authors' release (DeepfakeBench).

    total = shared head + 0.1 method head + 0.3 reconstructions + 0.05 contrast

The shared head's term is the recipe's cross-entropy. In 7 of 10 forward passes the shared features change places within
the reals and within the fakes, so that they cannot carry what is particular to a picture. A picture is painted from its
content with its own trace and with that of its partner, and both paintings should be the picture. Contrast pulls
features of a kind together and pushes real and fake apart.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from detectors.experts.base import Architecture
from detectors.experts.ucf import UCF, Disentangled
from detectors.training.losses import Objective, Weights, last_linear
from detectors.training.recipe import Recipe
from detectors.training.samples import Batch

__all__ = ["DisentanglingObjective", "objective_for"]

_METHOD, _PAINTING, _CONTRAST = 0.1, 0.3, 0.05
_MARGIN = 3.0
_SHUFFLED = 0.7  # share of forward passes with shared features out of place


def objective_for(network: Architecture, recipe: Recipe, sources: Sequence[str]) -> Objective:
    """The losses that the network is trained with."""
    if isinstance(network, UCF) and not network.inference_only:
        return DisentanglingObjective(network, recipe, sources)
    return Objective(network, recipe, sources)


class DisentanglingObjective(Objective):
    """See the module. Batches are pairs of a real and a fake, as all are here.

    The method head has one output for real and the rest for makers of fakes; where the pool has more makers than that,
    several share one.
    """

    def __init__(self, network: UCF, recipe: Recipe, sources: Sequence[str]) -> None:
        super().__init__(network, recipe, sources)
        self._methods = last_linear(network.head_spe).out_features

    def judge(self, network: Architecture, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Logits of the shared head, and what the other terms need."""
        if not isinstance(network, UCF):
            raise TypeError(f"{type(network).__name__} does not separate content from trace")
        parts = network.disentangle(x)
        shared = parts.shared.mean((2, 3))
        logits = network.head_sha(_shuffled(shared))
        half = len(x) // 2
        swapped = torch.cat([torch.arange(half, 2 * half), torch.arange(half)]).to(x.device)
        partner = Disentangled(parts.specific[swapped], parts.shared[swapped], parts.content[swapped])
        found = {
            "shared": shared,
            "specific": parts.specific.mean((2, 3)),
            "methods": network.method_logits(parts),
            "own": network.reconstruct(parts, parts.content),
            "other": network.reconstruct(partner, parts.content),
        }
        return logits, found

    def further(self, found: dict[str, Tensor], batch: Batch, weights: Weights) -> dict[str, tuple[float, Tensor]]:
        """Each term's weight and its sum over the part's samples."""
        device = found["shared"].device
        groups = weights.groups.to(device)
        fakes = groups >= self.real_groups
        methods = torch.where(fakes, 1 + (groups - self.real_groups) % (self._methods - 1), 0)
        told = F.cross_entropy(found["methods"].float(), methods, reduction="none")
        picture = torch.from_numpy(batch.pixels).to(device).movedim(-1, -3).float() / 127.5 - 1.0
        painted = sum((_distance(found[name].float(), picture) for name in ("own", "other")), torch.zeros_like(told))
        apart = _contrast(found["shared"].float()) + _contrast(found["specific"].float())
        terms = {"methods": (_METHOD, told), "paintings": (_PAINTING, painted), "contrast": (_CONTRAST, apart)}
        return {name: (factor, values.sum() * weights.even) for name, (factor, values) in terms.items()}


def _shuffled(shared: Tensor) -> Tensor:
    if float(torch.rand(())) >= _SHUFFLED:
        return shared
    half = len(shared) // 2
    order = torch.cat([torch.randperm(half), half + torch.randperm(half)])
    return shared[order.to(shared.device)]


def _distance(painted: Tensor, picture: Tensor) -> Tensor:
    """Mean absolute difference of each sample; the decoder's sides are multiples of 32."""
    if painted.shape[-2:] != picture.shape[-2:]:
        size = painted.shape[-2:]
        picture = F.interpolate(picture, size=(int(size[0]), int(size[1])), mode="bilinear", antialias=True)
    return (painted - picture).abs().mean((1, 2, 3))


def _contrast(features: Tensor) -> Tensor:
    """Triplets of each sample: the next one of its own half should be nearer than its partner, by a margin."""
    first, second = features.chunk(2)
    nearer = torch.cat([first.roll(-1, 0), second.roll(-1, 0)])
    farther = torch.cat([second, first])
    ahead = (features - nearer).pow(2).sum(1).add(1e-8).sqrt() - (features - farther).pow(2).sum(1).add(1e-8).sqrt()
    return F.relu(ahead + _MARGIN)
