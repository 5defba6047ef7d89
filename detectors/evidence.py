"""Where a network finds what it says: its fake logit, spread over the places of its last map.

By its own patch scores where it has them (:class:`detectors.experts.patches.HasPatches`), else by Grad-CAM (Selvaraju
et al., ICCV 2017, section 3). Where a linear head follows the mean over places the two are one map, as the paper shows;
so the unit of either is the logit, and what no place can be given is spread evenly.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from detectors.errors import PredictionError
from detectors.experts.base import Architecture, NeuralDetector, fake_logit
from detectors.experts.patches import HasPatches
from detectors.types import U8

__all__ = ["Evidence", "evidence"]

F64 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """What a network says of one frame or clip, and where.

    Attributes:
        logit: of P(fake), before the card's calibration.
        maps: ``float64 [t, h, w]``, one a frame, in logits; above 0 speaks for fake. Their mean is `logit`, unless the
            clip was filled up: what was filled in has its part in the logit and no map here.
    """

    logit: float
    maps: F64


def evidence(expert: NeuralDetector, inputs: Sequence[U8]) -> list[Evidence]:
    """Asks a network of frames or clips for its evidence. Leaves it as it is: no gradient, no hook, no other mode.

    Args:
        expert: the network and its card. Others may use it meanwhile.
        inputs: ``uint8 [t, H, W, 3]`` each, t at most the card's `frames`.

    Returns:
        One each, in order; `maps` of the `t` frames given, in the network's square.

    Raises:
        PredictionError: a number is not finite, or no module of the network has a spatial output.
    """
    found: dict[int, Evidence] = {}
    for start in range(0, len(inputs), expert.batch_size):
        chunk = inputs[start : start + expert.batch_size]
        for members, x in expert.tensors(chunk):
            logits, maps = _maps(expert, x)
            if not (torch.isfinite(logits).all() and torch.isfinite(maps).all()):
                raise PredictionError(f"{expert.card.key}: the network's evidence is not finite")
            for member, logit, places in zip(members, logits.tolist(), maps.cpu().numpy(), strict=True):
                found[start + member] = Evidence(logit, places[: len(chunk[member])])
    return [found[index] for index in range(len(inputs))]


def _maps(expert: NeuralDetector, x: Tensor) -> tuple[Tensor, Tensor]:
    """Fake logits ``float64 [N]`` and maps ``float64 [N, T, h, w]``."""
    fake, semi = expert.card.fake_index, expert.card.semi_index
    network = expert.network
    if network.training:  # a trainer that shares it left it so, and may be at work
        network = _twin(network)
    if isinstance(network, HasPatches):
        with torch.no_grad():
            patches = network.patch_logits(x).double()
        if x.ndim == 4:
            patches = patches[:, None]
        with torch.enable_grad():
            pooled = patches.mean((1, 3, 4)).requires_grad_()
            logits = fake_logit(pooled, fake, semi)
            (slopes,) = torch.autograd.grad(logits.sum(), pooled)
        maps = torch.einsum("nk,ntkhw->nthw", slopes, patches)
    else:
        with torch.enable_grad():
            maps, logits = _grad_cam(_twin(network), x, fake, semi)
    logits = logits.detach()
    return logits, maps + (logits - maps.mean((1, 2, 3)))[:, None, None, None]


def _grad_cam(twin: Architecture, x: Tensor, fake: int, semi: int | None) -> tuple[Tensor, Tensor]:
    """Maps ``[N, T, h, w]``, before the ReLU, and logits ``[N]``; the gradient is summed over places, not averaged."""
    seen: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and _is_spatial(output, x):
            seen.append(output)

    for module in twin.modules():
        module.register_forward_hook(keep)
    logits = fake_logit(twin(x.detach().requires_grad_()).double(), fake, semi)
    for output, slope in _slopes(logits, reversed(seen)):
        weights = slope.sum((2, 3), keepdim=True)
        maps = (weights * output).sum(1).detach().double()  # [N * m, h, w]
        frames = 1 if x.ndim == 4 else x.shape[1]
        return maps.view(len(x), -1, *maps.shape[1:]).expand(-1, frames, -1, -1), logits
    raise PredictionError("no module of the network has a spatial output")


def _slopes(logits: Tensor, outputs: Iterator[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """Those outputs that the logits depend on, with the gradient."""
    for output in outputs:
        (slope,) = torch.autograd.grad(logits.sum(), output, retain_graph=True, allow_unused=True)
        if slope is not None:
            yield output, slope


def _is_spatial(output: Tensor, x: Tensor) -> bool:
    """Whether an output is ``[N * m, C, h, w]`` with more than one place, m one map a frame or one for all."""
    if output.ndim != 4 or not output.requires_grad or output.shape[2] * output.shape[3] < 2:
        return False
    return len(output) == len(x) or (x.ndim == 5 and len(output) == len(x) * x.shape[1])


def _twin(network: Architecture) -> Architecture:
    """The same network around the same weights, in eval mode; its hooks are its own, no other thread runs into them."""
    weights = (*network.parameters(), *network.buffers())
    return copy.deepcopy(network, {id(tensor): tensor for tensor in weights}).eval()
