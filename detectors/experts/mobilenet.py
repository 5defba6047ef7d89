"""MobileNetV2: Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018.

Width 1.0 with batch norms already folded into the convolutions, as an inference file holds it, so that a published
TFLite trunk can be fine-tuned. TensorFlow's "same" padding is kept: at stride 2 the odd pixel goes right and below.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detectors.card import Card, Preprocess
from detectors.errors import WeightsError
from detectors.experts.base import Architecture
from detectors.experts.patches import class_activation

__all__ = ["MobileNetV2"]

_PIXEL_SCALE = 0.00784314  # the TFLite file's input quantisation: (pixel - 127) * 0.00784314

_PUBLISHED = Card(
    name="mobilenetv2",
    version="published",
    architecture="mobilenetv2",
    preprocess=Preprocess(size=256, scale="byte", mean=(127.0,) * 3, std=(1 / _PIXEL_SCALE,) * 3),
    licence_code="Apache-2.0",
    licence_weights="Apache-2.0 (trunk)",
    provenance="trunk: ImageNet classification",
    origin="google-coral/test_data 104342d: tf2_mobilenet_v2_1.0_224_ptq.tflite, dequantised to float32",
)

# Table 2 of the paper: expansion, channels, repeats, stride of the first.
_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


class MobileNetV2(Architecture):
    """Norm-free MobileNetV2 1.0 with a linear head. ``[N, 3, H, W]`` to ``[N, num_classes]``, any H and W >= 32.

    Args:
        num_classes: outputs of the head; 1 is a sigmoid head.
        dropout: on the pooled features while training, in [0, 1).
    """

    published: ClassVar[Card] = _PUBLISHED
    presets: ClassVar[Mapping[str, Card]] = {"mobilenetv2": _PUBLISHED}

    def __init__(self, num_classes: int = 1, dropout: float = 0.0) -> None:
        super().__init__()
        self.stem = _SameConv(3, 32, kernel=3, stride=2)
        blocks: list[nn.Module] = []
        channels = 32
        for expansion, width, repeats, stride in _STAGES:
            for k in range(repeats):
                blocks.append(_InvertedResidual(channels, width, expansion, stride if k == 0 else 1))
                channels = width
        self.blocks = nn.Sequential(*blocks)
        self.last = _SameConv(channels, 1280, kernel=1)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(1280, num_classes)

    def features(self, x: Tensor) -> Tensor:
        """``[N, 3, H, W]`` to the pooled ``[N, 1280]``."""
        return self._maps(x).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.dropout(self.features(x)))
        return logits

    def patch_logits(self, x: Tensor) -> Tensor:
        """See :class:`~detectors.experts.patches.HasPatches`; a place is 32 x 32 pixels."""
        return class_activation(self.head, self._maps(x))

    def _maps(self, x: Tensor) -> Tensor:
        maps: Tensor = self.last(self.blocks(self.stem(x)))
        return maps

    @classmethod
    def from_tflite_npz(cls, folder: Path, **options: Any) -> MobileNetV2:
        """Builds the network with a trunk converted from TFLite; the head stays as initialised.

        Args:
            folder: holds ``graph.json`` (operations in order) and ``weights.npz`` (tensors in TFLite's layout).
            options: of the constructor.

        Raises:
            WeightsError: a file is missing, or the graph is not this network's.
        """
        network = cls(**options)
        try:
            graph = json.loads((folder / "graph.json").read_text(encoding="utf-8"))
            with np.load(folder / "weights.npz", allow_pickle=False) as archive:
                found = list(_convolutions(graph, archive))
        except (OSError, KeyError, ValueError) as error:
            raise WeightsError(f"{folder}: not a converted TFLite graph: {error}") from error
        wanted = [m for m in network.modules() if isinstance(m, _SameConv)]
        if len(found) != len(wanted) + 1:  # the last one is ImageNet's classifier
            raise WeightsError(
                f"{folder}: {len(found)} convolutions, MobileNetV2 with a classifier has {len(wanted) + 1}"
            )
        with torch.no_grad():
            for index, (module, (weight, bias, stride)) in enumerate(zip(wanted, found[:-1], strict=True)):
                if module.weight.shape != weight.shape or module.stride != stride:
                    raise WeightsError(f"{folder}: convolution {index} is {tuple(weight.shape)}, not MobileNetV2's")
                module.weight.copy_(weight)
                module.bias.copy_(bias)
        return network


class _SameConv(nn.Module):
    """Convolution with bias (the folded norm) under TensorFlow's "same" padding, ReLU6 unless `linear`."""

    def __init__(
        self, inputs: int, outputs: int, *, kernel: int, stride: int = 1, groups: int = 1, linear: bool = False
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs // groups, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.kernel, self.stride, self.groups, self.linear = kernel, stride, groups, linear
        nn.init.kaiming_normal_(self.weight, nonlinearity="linear" if linear else "relu")

    def forward(self, x: Tensor) -> Tensor:
        padding = self.kernel // 2
        if self.stride > 1:
            right, below = (max((-(-n // 2) - 1) * 2 + self.kernel - n, 0) for n in (x.shape[3], x.shape[2]))
            x = F.pad(x, (right // 2, right - right // 2, below // 2, below - below // 2))
            padding = 0
        x = F.conv2d(x, self.weight, self.bias, self.stride, padding, groups=self.groups)
        return x if self.linear else F.relu6(x)


class _InvertedResidual(nn.Module):
    """1x1 expansion, 3x3 depthwise, 1x1 linear projection; added to the input where shapes allow."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        layers: list[nn.Module] = [] if expansion == 1 else [_SameConv(inputs, hidden, kernel=1)]
        layers.append(_SameConv(hidden, hidden, kernel=3, stride=stride, groups=hidden))
        layers.append(_SameConv(hidden, outputs, kernel=1, linear=True))
        self.layers = nn.Sequential(*layers)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return x + out if self.residual else out


def _convolutions(graph: Mapping[str, Any], archive: Mapping[str, Any]) -> Iterator[tuple[Tensor, Tensor, int]]:
    """(weight ``[O, I, k, k]``, bias ``[O]``, stride) of each convolution in graph order."""
    for operation in graph["ops"]:
        if operation["op"] in ("CONV_2D", "DEPTHWISE_CONV_2D"):
            _, weight, bias = operation["inp"]
            axes = (0, 3, 1, 2) if operation["op"] == "CONV_2D" else (3, 0, 1, 2)
            arrays = archive[weight].transpose(axes).copy(), archive[bias].copy()
            yield torch.from_numpy(arrays[0]), torch.from_numpy(arrays[1]), int(operation["strideH"])
