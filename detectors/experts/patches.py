"""Patch scores: what a network that averages over places would say of each place alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["HasPatches", "class_activation", "spread_out"]


@runtime_checkable
class HasPatches(Protocol):
    """An architecture that can tell where its logits come from."""

    def patch_logits(self, x: Tensor) -> Tensor:
        """Logits of each place; their mean over all places (and frames) is what ``forward(x)`` returns.

        Never called under ``torch.inference_mode``: it may need gradients of its own.

        Args:
            x: as for ``forward``.

        Returns:
            ``[N, K, h, w]``; of a clip network ``[N, T, K, h, w]``.
        """
        ...


def class_activation(head: Callable[[Tensor], Tensor], maps: Tensor) -> Tensor:
    """Class activation maps (Zhou et al., CVPR 2016): a linear head on every place in place of their mean.

    Args:
        head: ``[..., C]`` to ``[..., K]``, linear.
        maps: ``[N, C, h, w]``, whose mean over places the network gives its head.

    Returns:
        ``[N, K, h, w]``.
    """
    return head(maps.movedim(1, -1)).movedim(-1, 1)


def spread_out(head: Callable[[Tensor], Tensor], parts: Sequence[tuple[Tensor, bool]]) -> Tensor:
    """Class activation maps of any head, by its first-order view at this picture, on means and deviations of maps.

    A mean and a variance are both means over places, so every place has its share of them, however coarse its map. What
    the first-order view leaves over (nothing, for a linear head on means) belongs to no place and is spread evenly.

    Args:
        head: ``[N, D]`` to ``[N, K]``, differentiable; treats every row by itself.
        parts: maps ``[N, C, h, w]`` in the order of the features, and whether the feature is their standard deviation
            (unbiased) rather than their mean. The last one's places are those of the answer.

    Returns:
        ``[N, K, h, w]``, whose mean over places is ``head(features)``.
    """
    height, width = parts[-1][0].shape[-2:]
    means = [maps.std((2, 3)) if deviates else maps.mean((2, 3)) for maps, deviates in parts]
    with torch.enable_grad():
        features = torch.cat(means, 1).detach().requires_grad_()
        logits = head(features)
        rows = [torch.autograd.grad(z.sum(), features, retain_graph=True)[0] for z in logits.unbind(1)]
    slopes = torch.split(torch.stack(rows, 1), [maps.shape[1] for maps, _ in parts], 2)
    total = torch.zeros((*logits.shape, height, width), dtype=logits.dtype, device=logits.device)
    for (maps, deviates), found, slope in zip(parts, means, slopes, strict=True):
        places = _deviations(maps, found) if deviates else maps
        total += torch.einsum("nkc,nchw->nkhw", slope, F.adaptive_avg_pool2d(places, (height, width)))
    return total + (logits.detach() - total.mean((2, 3)))[..., None, None]


def _deviations(maps: Tensor, deviation: Tensor) -> Tensor:
    """Each place's share of the standard deviation; up to the divisor's n - 1, their mean is the deviation."""
    distance = (maps - maps.mean((2, 3), keepdim=True)).square()
    return distance / deviation[..., None, None].clamp_min(1e-6)
