"""The short loop that the gates' networks are trained with: AdamW, one-cycle rate, no state to resume."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

__all__ = ["descend"]

_REPORT_EVERY = 250


def descend(
    network: nn.Module, loss_of: Callable[[int], Tensor], *, steps: int, decay: float, report: Callable[[str], None]
) -> None:
    """Trains `network` in place and leaves it in eval mode.

    Args:
        network: whose parameters move.
        loss_of: the loss of a step's own batch; called with 0, 1, … steps - 1.
        steps: at least 1.
        decay: AdamW's weight decay.
        report: called with a line every 250 steps.
    """
    optimiser = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps)
    network.train()
    for step in range(steps):
        loss = loss_of(step)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        if (step + 1) % _REPORT_EVERY == 0:
            report(f"step {step + 1} of {steps}, loss {float(loss.detach()):.4f}")
    network.eval()
