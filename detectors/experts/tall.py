"""TALL: Xu et al., "TALL: Thumbnail Layout for Deepfake Video Detection", ICCV 2023.

Four frames in one picture, judged by a Swin Transformer (Liu et al., ICCV 2021) with large windows. The layout of
buffers and keys is that of the published checkpoints, whose masks and index tables are part of the state dict.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detectors.card import Card, Preprocess
from detectors.experts.base import Architecture
from detectors.preprocess import Padding

__all__ = ["TALL", "thumbnail"]

_FRAMES = 4
_MASKED = -100.0  # added to the attention logits of patches that are neighbours only through the cyclic shift

_PUBLISHED = Card(
    name="tall",
    version="published",
    architecture="tall",
    preprocess=Preprocess(size=224, interpolation="bicubic", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    fake_index=1,
    frames=_FRAMES,
    licence_code="Apache-2.0 (this implementation; DeepfakeBench is CC BY-NC 4.0)",
    licence_weights="CC BY-NC 4.0",
    provenance="FaceForensics++ c23, aligned face crops with margin 1.3, four consecutive frames",
    origin="SCLBD/DeepfakeBench: TALL-Swin-B",
)


def thumbnail(frames: Tensor, side: int) -> Tensor:
    """Four frames as one picture, 2 x 2 in reading order, before the last resize.

    Args:
        frames: ``[N, 4, C, H, W]``; resized to `side` where they differ from it (bilinear, no antialiasing).
        side: of one frame, in pixels.

    Returns:
        ``[N, C, 2 side, 2 side]``.
    """
    batch, count, channels = frames.shape[:3]
    if frames.shape[-2:] != (side, side):
        flat = F.interpolate(frames.flatten(0, 1), size=(side, side), mode="bilinear", align_corners=False)
        frames = flat.view(batch, count, channels, side, side)
    grid = frames.view(batch, 2, 2, channels, side, side).permute(0, 3, 1, 4, 2, 5)
    return grid.reshape(batch, channels, 2 * side, 2 * side)


class TALL(Architecture):
    """TALL-Swin. ``[N, 4, 3, H, W]`` to ``[N, num_classes]``; index 1 is fake.

    Args:
        num_classes: outputs of the head.
        image_size: side of the picture that Swin sees, in pixels; a multiple of ``8 * patch_size * window``.
        patch_size: side of a patch, in pixels.
        embed_dim: channels of the first stage; doubled at each further one.
        depths: blocks per stage.
        num_heads: attention heads per stage.
        window_sizes: side of the attention window per stage, in patches; not larger than the stage's map.
        drop_path: rate of the last block's stochastic depth; earlier ones less, linearly (Huang et al., ECCV 2016).
        padding: how a clip of less than four frames is filled; BitMind fills with zeros.
    """

    published: ClassVar[Card] = _PUBLISHED
    presets: ClassVar[Mapping[str, Card]] = {
        "tall": _PUBLISHED,
        "tall-bitmind": replace(
            _PUBLISHED,
            name="tall-bitmind",
            options={"padding": "zero"},
            preprocess=Preprocess(size=256),
            licence_weights="as stated by its publisher",
            origin="BitMind subnet v2.2.11: bitmind/tall tall_trainFF_testCDF.pth, no normalisation",
        ),
    }
    derived: ClassVar[tuple[str, ...]] = ("num_batches_tracked", "relative_position_index", "attn_mask")

    def __init__(
        self,
        num_classes: int = 2,
        *,
        image_size: int = 224,
        patch_size: int = 4,
        embed_dim: int = 128,
        depths: Sequence[int] = (2, 2, 18, 2),
        num_heads: Sequence[int] = (4, 8, 16, 32),
        window_sizes: Sequence[int] = (14, 14, 14, 7),
        drop_path: float = 0.1,
        padding: Padding = "repeat",
    ) -> None:
        super().__init__()
        self.padding = padding
        self.model = _ThumbnailSwin(
            num_classes,
            image_size=image_size,
            patch_size=patch_size,
            embed_dim=embed_dim,
            depths=depths,
            num_heads=num_heads,
            window_sizes=window_sizes,
            drop_path=drop_path,
        )

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x)
        return logits

    def patch_logits(self, x: Tensor) -> Tensor:
        """See :class:`~detectors.experts.patches.HasPatches`: ``[N, 4, K, s, s]``; s is the side of Swin's last map."""
        return self.model.patch_logits(x)


class _ThumbnailSwin(nn.Module):
    """Swin on a thumbnail, with one learned position vector per frame and no other absolute position."""

    def __init__(
        self,
        num_classes: int,
        *,
        image_size: int,
        patch_size: int,
        embed_dim: int,
        depths: Sequence[int],
        num_heads: Sequence[int],
        window_sizes: Sequence[int],
        drop_path: float,
    ) -> None:
        super().__init__()
        self.image_size = image_size
        self.frame_pos_embed = nn.Parameter(torch.zeros(1, _FRAMES, embed_dim))
        self.patch_embed = _PatchEmbed(patch_size, embed_dim)
        rates = [drop_path * k / max(1, sum(depths) - 1) for k in range(sum(depths))]
        side, width = image_size // patch_size, embed_dim
        self.side = side
        self.layers = nn.ModuleList()
        for stage, (depth, heads, window) in enumerate(zip(depths, num_heads, window_sizes, strict=True)):
            last = stage == len(depths) - 1
            before = sum(depths[:stage])
            self.layers.append(_Stage(width, side, heads, window, rates[before : before + depth], merge=not last))
            if not last:
                side, width = side // 2, width * 2
        self.norm = nn.LayerNorm(width)
        self.avgpool = nn.AdaptiveAvgPool1d(1)
        self.head = nn.Linear(width, num_classes)
        nn.init.trunc_normal_(self.frame_pos_embed, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def frame_positions(self) -> Tensor:
        """The frames' vectors spread over their quadrants: ``[1, side * side, embed_dim]``."""
        half = self.side // 2
        grid = self.frame_pos_embed.view(1, 2, 2, -1)
        grid = grid.repeat_interleave(half, dim=1).repeat_interleave(half, dim=2)
        return grid.flatten(1, 2)

    def forward(self, frames: Tensor) -> Tensor:
        x = self.avgpool(self.patches(frames).transpose(1, 2))
        logits: Tensor = self.head(torch.flatten(x, 1))
        return logits

    def patches(self, frames: Tensor) -> Tensor:
        """``[N, s * s, C]``: the last layer's patches of the thumbnail, in reading order."""
        size = self.image_size
        x = F.interpolate(thumbnail(frames, size), size=(size, size), mode="bilinear", align_corners=False)
        x = self.patch_embed(x) + self.frame_positions()
        for layer in self.layers:
            x = layer(x)
        normed: Tensor = self.norm(x)
        return normed

    def patch_logits(self, frames: Tensor) -> Tensor:
        """``[N, 4, K, s, s]``. The last map's side may be odd: each patch is doubled, then cut into quadrants."""
        logits: Tensor = self.head(self.patches(frames)).transpose(1, 2)
        side = math.isqrt(logits.shape[-1])
        grid = logits.view(*logits.shape[:2], side, side).repeat_interleave(2, 2).repeat_interleave(2, 3)
        cut = grid.view(*logits.shape[:2], 2, side, 2, side).permute(0, 2, 4, 1, 3, 5)
        return cut.flatten(1, 2)


class _PatchEmbed(nn.Module):
    """``[N, 3, S, S]`` to normalised patches ``[N, (S / patch)^2, C]``."""

    def __init__(self, patch_size: int, embed_dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, embed_dim, kernel_size=patch_size, stride=patch_size)
        self.norm = nn.LayerNorm(embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(self.proj(x).flatten(2).transpose(1, 2))
        return out


class _Stage(nn.Module):
    """Blocks with plain and shifted windows in turn, then the 2 x 2 merge."""

    def __init__(
        self, width: int, side: int, heads: int, window: int, drop_paths: Sequence[float], *, merge: bool
    ) -> None:
        super().__init__()
        window = min(window, side)
        shifts = [0 if k % 2 == 0 or window == side else window // 2 for k in range(len(drop_paths))]
        self.blocks = nn.ModuleList(
            _Block(width, side, heads=heads, window=window, shift=shift, drop_path=rate)
            for shift, rate in zip(shifts, drop_paths, strict=True)
        )
        self.downsample = _Merge(width, side) if merge else None

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x if self.downsample is None else self.downsample(x)


class _Merge(nn.Module):
    """Each 2 x 2 patches to one of twice the width; column by column, as Swin's files order the channels."""

    def __init__(self, width: int, side: int) -> None:
        super().__init__()
        self.side = side
        self.reduction = nn.Linear(4 * width, 2 * width, bias=False)
        self.norm = nn.LayerNorm(4 * width)

    def forward(self, x: Tensor) -> Tensor:
        batch, _, width = x.shape
        half = self.side // 2
        grid = x.view(batch, half, 2, half, 2, width).permute(0, 1, 3, 4, 2, 5)
        out: Tensor = self.reduction(self.norm(grid.reshape(batch, half * half, 4 * width)))
        return out


class _Block(nn.Module):
    """Windowed attention and an MLP, each after a norm and around a shortcut."""

    attn_mask: Tensor | None

    def __init__(self, width: int, side: int, *, heads: int, window: int, shift: int, drop_path: float) -> None:
        super().__init__()
        self.side, self.window, self.shift, self.drop_path = side, window, shift, drop_path
        self.norm1 = nn.LayerNorm(width)
        self.attn = _WindowAttention(width, heads, window)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = _Mlp(width)
        self.register_buffer("attn_mask", _shift_mask(side, window, shift) if shift else None)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self._dropped(self._attend(self.norm1(x)))
        return x + self._dropped(self.mlp(self.norm2(x)))

    def _attend(self, x: Tensor) -> Tensor:
        batch, count, width = x.shape
        grid = x.view(batch, self.side, self.side, width)
        if self.shift:
            grid = torch.roll(grid, (-self.shift, -self.shift), dims=(1, 2))
        grid = _merge_windows(self.attn(_windows(grid, self.window), self.attn_mask), self.side)
        if self.shift:
            grid = torch.roll(grid, (self.shift, self.shift), dims=(1, 2))
        return grid.reshape(batch, count, width)

    def _dropped(self, x: Tensor) -> Tensor:
        """Stochastic depth: while training, leaves a sample's branch out at the block's rate."""
        if not self.training or self.drop_path == 0.0:
            return x
        keep = 1.0 - self.drop_path
        return x * x.new_empty(len(x), 1, 1).bernoulli_(keep) / keep


class _Mlp(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


class _WindowAttention(nn.Module):
    """Multi-head attention within windows, with a learned bias per relative position and head."""

    relative_position_index: Tensor

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        self.register_buffer("relative_position_index", _relative_positions(window))
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)

    def forward(self, windows: Tensor, mask: Tensor | None) -> Tensor:
        """``[N, W, n, C]`` (W windows of n patches) to the same; `mask` is ``[W, n, n]``."""
        batch, count, patches, width = windows.shape
        qkv = self.qkv(windows).view(batch * count, patches, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        bias = self.relative_position_bias_table[self.relative_position_index.view(-1)]
        bias = bias.view(1, patches, patches, self.heads).permute(0, 3, 1, 2)
        if mask is not None:
            bias = (bias + mask.unsqueeze(1)).repeat(batch, 1, 1, 1)  # [N * W, heads, n, n]
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype))
        projected: Tensor = self.proj(out.transpose(1, 2).reshape(batch, count, patches, width))
        return projected


def _windows(grid: Tensor, window: int) -> Tensor:
    """``[N, S, S, C]`` to ``[N, (S / window)^2, window^2, C]``, in reading order."""
    batch, side, _, width = grid.shape
    count = side // window
    cut = grid.view(batch, count, window, count, window, width).transpose(2, 3)
    return cut.reshape(batch, count * count, window * window, width)


def _merge_windows(windows: Tensor, side: int) -> Tensor:
    """The inverse of :func:`_windows`."""
    batch, _, patches, width = windows.shape
    window = round(patches**0.5)
    count = side // window
    grid = windows.view(batch, count, count, window, window, width).transpose(2, 3)
    return grid.reshape(batch, side, side, width)


def _relative_positions(window: int) -> Tensor:
    """Row of the bias table for each pair of a window's patches: ``int64 [n, n]``."""
    rows, columns = torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")
    rows, columns = rows.flatten(), columns.flatten()
    down = rows[:, None] - rows[None, :] + window - 1
    right = columns[:, None] - columns[None, :] + window - 1
    return down * (2 * window - 1) + right


def _shift_mask(side: int, window: int, shift: int) -> Tensor:
    """``[W, n, n]``: 0 between patches of one region of the shifted map, else -100."""
    band = torch.zeros(side, dtype=torch.long)
    band[side - window : side - shift] = 1
    band[side - shift :] = 2
    regions = (band[:, None] * 3 + band[None, :]).view(1, side, side, 1)
    of = _windows(regions, window)[0, :, :, 0]
    apart = of[:, :, None] != of[:, None, :]
    return torch.zeros(apart.shape).masked_fill(apart, _MASKED)
