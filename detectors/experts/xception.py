"""Xception as a forgery detector: Rössler et al., "FaceForensics++", ICCV 2019; trunk by Chollet, CVPR 2017.

The layout of DeepfakeBench (Yan et al., NeurIPS 2023 Datasets), whose published checkpoints it loads.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detectors.card import Card, Preprocess
from detectors.experts.base import Architecture
from detectors.experts.patches import class_activation

__all__ = ["WIDTHS", "Xception", "XceptionTrunk"]

#: Output channels of block 1, block 2, the middle flow, block 12, the third and the fourth convolution.
WIDTHS = (128, 256, 728, 1024, 1536, 2048)

_PUBLISHED = Card(
    name="xception",
    version="published",
    architecture="xception",
    preprocess=Preprocess(size=256, interpolation="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3),
    fake_index=1,
    licence_code="Apache-2.0 (this implementation; DeepfakeBench is CC BY-NC 4.0)",
    licence_weights="CC BY-NC 4.0",
    provenance="FaceForensics++ c23, aligned face crops with margin 1.3",
    origin="SCLBD/DeepfakeBench release v1.0.1: xception_best.pth",
)


class Xception(Architecture):
    """Two-class Xception on face crops. ``[N, in_channels, H, W]`` to ``[N, num_classes]``, H and W >= 48.

    Args:
        num_classes: outputs of the head; index 1 is fake in the published files.
        in_channels: 3 for colour; more for front ends that add planes.
        dropout: before the head while training; a value above 0 moves the head's keys to ``last_linear.1``.
        widths: see :data:`WIDTHS`.
        middle: blocks of the middle flow.
    """

    published: ClassVar[Card] = _PUBLISHED
    presets: ClassVar[Mapping[str, Card]] = {"xception": _PUBLISHED}

    def __init__(
        self,
        num_classes: int = 2,
        *,
        in_channels: int = 3,
        dropout: float = 0.0,
        widths: Sequence[int] = WIDTHS,
        middle: int = 8,
    ) -> None:
        super().__init__()
        self.backbone = XceptionTrunk(
            num_classes, in_channels=in_channels, dropout=dropout, widths=widths, middle=middle
        )

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.backbone.classify(self.backbone.features(x))
        return logits

    def patch_logits(self, x: Tensor) -> Tensor:
        """See :class:`~detectors.experts.patches.HasPatches`; a place is about 32 x 32 pixels."""
        return class_activation(self.backbone.last_linear, F.relu(self.backbone.features(x)))


class XceptionTrunk(nn.Module):
    """The trunk that several systems share; the two heads it may end in are always built, as in the published files.

    Args:
        num_classes, in_channels, dropout, widths, middle: see :class:`Xception`.
        adjusted: channels of :meth:`adjusted_features`.
    """

    def __init__(
        self,
        num_classes: int = 2,
        *,
        in_channels: int = 3,
        dropout: float = 0.0,
        widths: Sequence[int] = WIDTHS,
        middle: int = 8,
        adjusted: int = 512,
    ) -> None:
        super().__init__()
        first, second, flow, exit_, third, fourth = widths
        self.conv1 = nn.Conv2d(in_channels, 32, kernel_size=3, stride=2, bias=False)
        self.bn1 = nn.BatchNorm2d(32)
        self.conv2 = nn.Conv2d(32, 64, kernel_size=3, bias=False)
        self.bn2 = nn.BatchNorm2d(64)
        self.block1 = _Block((64, first, first), stride=2, leading_relu=False)
        self.block2 = _Block((first, second, second), stride=2)
        self.block3 = _Block((second, flow, flow), stride=2)
        self.middle = [f"block{4 + k}" for k in range(middle)]
        for name in self.middle:
            self.add_module(name, _Block((flow,) * 4, stride=1))
        self.block12 = _Block((flow, flow, exit_), stride=2)
        self.conv3 = _SeparableConv(exit_, third)
        self.bn3 = nn.BatchNorm2d(third)
        self.conv4 = _SeparableConv(third, fourth)
        self.bn4 = nn.BatchNorm2d(fourth)
        linear = nn.Linear(fourth, num_classes)
        self.last_linear = nn.Sequential(nn.Dropout(dropout), linear) if dropout else linear
        self.adjust_channel = nn.Sequential(nn.Conv2d(fourth, adjusted, 1), nn.BatchNorm2d(adjusted), nn.ReLU())
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def features(self, x: Tensor) -> Tensor:
        """``[N, in_channels, H, W]`` to ``[N, widths[-1], H/32, W/32]``, before the last ReLU."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        x = self.block3(self.block2(self.block1(x)))
        for name in self.middle:
            x = self.get_submodule(name)(x)
        x = F.relu(self.bn3(self.conv3(self.block12(x))))
        out: Tensor = self.bn4(self.conv4(x))
        return out

    def adjusted_features(self, x: Tensor) -> Tensor:
        """``[N, in_channels, H, W]`` to the ``[N, adjusted, H/32, W/32]`` map that UCF works on."""
        out: Tensor = self.adjust_channel(self.features(x))
        return out

    def classify(self, features: Tensor) -> Tensor:
        """The ``[N, num_classes]`` logits of :meth:`features`."""
        pooled = F.relu(features).mean((2, 3))
        logits: Tensor = self.last_linear(pooled)
        return logits


class _SeparableConv(nn.Module):
    """3x3 depthwise, then 1x1; no bias."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, inputs, kernel_size=3, padding=1, groups=inputs, bias=False)
        self.pointwise = nn.Conv2d(inputs, outputs, kernel_size=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.pointwise(self.conv1(x))
        return out


class _Block(nn.Module):
    """Separable convolutions ``channels[0] -> channels[1] -> ...`` each after a ReLU, and a shortcut around them."""

    def __init__(self, channels: Sequence[int], *, stride: int, leading_relu: bool = True) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in itertools.pairwise(channels):
            # Not in place: the first one's input is also the shortcut's.
            layers += [nn.ReLU(), _SeparableConv(inputs, outputs), nn.BatchNorm2d(outputs)]
        if not leading_relu:
            layers = layers[1:]
        if stride > 1:
            layers.append(nn.MaxPool2d(kernel_size=3, stride=stride, padding=1))
        self.skip: nn.Conv2d | None = None
        if stride > 1 or channels[0] != channels[-1]:
            self.skip = nn.Conv2d(channels[0], channels[-1], kernel_size=1, stride=stride, bias=False)
            self.skipbn = nn.BatchNorm2d(channels[-1])
        self.rep = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.rep(x)
        return torch.add(out, x if self.skip is None else self.skipbn(self.skip(x)))
