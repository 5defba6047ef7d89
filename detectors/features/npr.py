"""Neighbouring pixel relationships (Tan et al., CVPR 2024, section 3): what nearest-neighbour up-sampling leaves."""

from __future__ import annotations

from torch import Tensor

__all__ = ["npr_residual"]


def npr_residual(x: Tensor) -> Tensor:
    """Each 2 x 2 block minus its top-left pixel, which is ``x - up2(down2(x))`` with nearest resampling.

    Args:
        x: ``[..., H, W]`` with H and W even.

    Returns:
        The same shape; every entry at an even row and an even column is 0.

    Raises:
        ValueError: H or W is odd.
    """
    if x.shape[-2] % 2 or x.shape[-1] % 2:
        raise ValueError(f"NPR needs even sides, got {x.shape[-2]} x {x.shape[-1]}: drop the last row or column")
    corner = x[..., ::2, ::2]
    return x - corner.repeat_interleave(2, dim=-2).repeat_interleave(2, dim=-1)
