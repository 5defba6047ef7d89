"""Devices, processes and number formats of a training run.

``accelerate`` finds the device and joins the processes (``torchrun`` starts them). Gradients are summed here rather
than by a wrapper around the network: a step's samples then weigh the same whatever their number in each process, and
networks with parts that some steps leave out need no special care.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from detectors.card import Preprocess
from detectors.types import U8

__all__ = ["accelerator", "agree_buffers", "autocast", "finish", "is_main", "share", "sum_gradients", "to_input"]


def accelerator() -> Accelerator:
    """This process's device and its peers; torch's number of threads stays as it is."""
    threads = torch.get_num_threads()
    found = Accelerator(cpu=not torch.cuda.is_available())  # said aloud, or processes without CUDA would not be joined
    torch.set_num_threads(threads)
    return found


def is_main() -> bool:
    """Whether this process is the one that reports and writes."""
    return bool(accelerator().is_main_process)


def finish() -> None:
    """Parts from the other processes, if any."""
    found = accelerator()
    if found.num_processes > 1:
        found.wait_for_everyone()
        found.end_training()


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[object]:
    """Forward passes in bfloat16 where the recipe says so.

    Not accelerate's own setting, which holds for a whole process: several recipes may run in one.
    """
    if precision == "bf16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return contextlib.nullcontext()


def share(pairs: int, processes: int, index: int) -> slice:
    """Which of a batch's pairs process `index` of `processes` takes: all together take each pair once.

    Raises:
        ValueError: fewer pairs than processes.
    """
    if pairs < processes:
        raise ValueError(f"a batch of {pairs} pairs cannot be shared by {processes} processes")
    return slice(pairs * index // processes, pairs * (index + 1) // processes)


def sum_gradients(found: Accelerator, modules: Sequence[nn.Module]) -> None:
    """Every process ends with the sum of all processes' gradients."""
    if found.num_processes == 1:
        return
    parameters = [p for m in modules for p in m.parameters() if p.requires_grad]
    for p in parameters:
        if p.grad is None:
            p.grad = torch.zeros_like(p)
    _joined(found, [p.grad for p in parameters if p.grad is not None], mean=False)


def agree_buffers(found: Accelerator, network: nn.Module) -> None:
    """Running statistics become their mean over the processes."""
    buffers = [b for b in network.buffers() if b.is_floating_point()]
    if found.num_processes > 1 and buffers:
        _joined(found, buffers, mean=True)


@torch.no_grad()
def _joined(found: Accelerator, tensors: Sequence[Tensor], *, mean: bool) -> None:
    flat = torch.cat([t.reshape(-1).float() for t in tensors])
    flat = found.reduce(flat, reduction="mean" if mean else "sum")
    for tensor, values in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
        tensor.copy_(values.view(tensor.shape))


def to_input(pixels: U8, view: Preprocess, device: torch.device) -> Tensor:
    """:func:`detectors.preprocess.tensor` of crops that have their size already, computed on the device.

    Args:
        pixels: ``uint8 [N, H, W, 3]``, or ``[N, T, H, W, 3]`` of clips.
        view: `scale`, `mean`, `std` and `channels` are used.
        device: where the network is.

    Returns:
        ``float32 [N, 3, H, W]``, channels last in memory, or ``[N, T, 3, H, W]``.
    """
    x = torch.from_numpy(np.ascontiguousarray(pixels)).to(device, non_blocking=True).movedim(-1, -3).float()
    if view.channels == "BGR":
        x = x.flip(-3)
    if view.scale == "unit":
        x = x / 255.0
    if any(view.mean) or any(s != 1.0 for s in view.std):
        mean = torch.tensor(view.mean, dtype=torch.float32, device=device).view(3, 1, 1)
        std = torch.tensor(view.std, dtype=torch.float32, device=device).view(3, 1, 1)
        x = (x - mean) / std
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x.contiguous()
