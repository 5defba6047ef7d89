"""NPR: Tan et al., "Rethinking the Up-Sampling Operations in CNN-based Generative Network", CVPR 2024.

A ResNet-50 (He et al., CVPR 2016) cut after its second stage, on the residual of nearest-neighbour up-sampling.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detectors.card import Card, Preprocess
from detectors.experts.base import Architecture
from detectors.experts.patches import class_activation
from detectors.features.npr import npr_residual

__all__ = ["NPR"]

_PUBLISHED = Card(
    name="npr",
    version="published",
    architecture="npr",
    preprocess=Preprocess(size=256, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    licence_code="Apache-2.0 (this implementation; the authors' repository states no licence)",
    licence_weights="none stated by the authors: all rights reserved",
    provenance="ProGAN car, cat, chair, horse against LSUN (the authors' four-class training set)",
    origin="chuangchuangtan/NPR-DeepfakeDetection 73cde1c: NPR.pth, model_epoch_last_3090.pth",
)


class NPR(Architecture):
    """Truncated ResNet-50 on the NPR residual. ``[N, 3, H, W]`` to ``[N, num_classes]``, H and W >= 16.

    An odd last row or column is dropped, as the authors advise.

    Args:
        num_classes: 1 for the published head (sigmoid, P(fake)).
    """

    published: ClassVar[Card] = _PUBLISHED
    presets: ClassVar[Mapping[str, Card]] = {
        "npr": _PUBLISHED,
        "npr-bitmind": replace(
            _PUBLISHED,
            name="npr-bitmind",
            preprocess=Preprocess(size=256, mode="centre_square"),
            licence_weights="as stated by its publisher",
            provenance="BitMind's retraining: bm-real, open-images-v7, celeb-a-hq, ffhq-256, MS-COCO against diffusion",
            origin="BitMind subnet v2.2.11: bitmind/npr npr.pth, no normalisation",
        ),
    }

    def __init__(self, num_classes: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.layer1 = _stage(64, 64, blocks=3, stride=1)
        self.layer2 = _stage(256, 128, blocks=4, stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Linear(512, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def features(self, x: Tensor) -> Tensor:
        """``[N, 3, H, W]`` to the pooled ``[N, 512]`` before the head."""
        return torch.flatten(self.avgpool(self._maps(x)), 1)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc1(self.features(x))
        return logits

    def patch_logits(self, x: Tensor) -> Tensor:
        """See :class:`~detectors.experts.patches.HasPatches`; a place is 8 x 8 pixels."""
        return class_activation(self.fc1, self._maps(x))

    def _maps(self, x: Tensor) -> Tensor:
        x = x[..., : x.shape[-2] // 2 * 2, : x.shape[-1] // 2 * 2]
        x = self.conv1(npr_residual(x) * (2.0 / 3.0))
        x = self.maxpool(self.relu(self.bn1(x)))
        maps: Tensor = self.layer2(self.layer1(x))
        return maps


class _Bottleneck(nn.Module):
    """1x1, 3x3 (with the stride), 1x1 to four times the planes, and a shortcut."""

    def __init__(self, inputs: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, planes, kernel_size=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, planes * 4, kernel_size=1, bias=False)
        self.bn3 = nn.BatchNorm2d(planes * 4)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or inputs != planes * 4:
            shortcut = nn.Conv2d(inputs, planes * 4, kernel_size=1, stride=stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(planes * 4))

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return F.relu(out + (x if self.downsample is None else self.downsample(x)))


def _stage(inputs: int, planes: int, *, blocks: int, stride: int) -> nn.Sequential:
    rest = [_Bottleneck(planes * 4, planes, 1) for _ in range(blocks - 1)]
    return nn.Sequential(_Bottleneck(inputs, planes, stride), *rest)
