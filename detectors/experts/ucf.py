"""UCF: Yan et al., "UCF: Uncovering Common Features for Generalizable Deepfake Detection", ICCV 2023.

Two Xception encoders separate content from forgery, two small stacks separate what is specific to a forgery method
from what is common to all. Only the common part judges; everything else exists to train it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detectors.card import Card, Preprocess
from detectors.experts.base import Architecture
from detectors.experts.xception import WIDTHS, XceptionTrunk

__all__ = ["UCF", "Disentangled"]

_PUBLISHED = Card(
    name="ucf",
    version="published",
    architecture="ucf",
    options={"inference_only": True},
    preprocess=Preprocess(size=256, interpolation="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3),
    fake_index=1,
    licence_code="Apache-2.0 (this implementation; DeepfakeBench is CC BY-NC 4.0)",
    licence_weights="CC BY-NC 4.0",
    provenance="FaceForensics++ c23, aligned face crops with margin 1.3",
    origin="SCLBD/DeepfakeBench release v1.0.1: ucf_best.pth",
)
_BITMIND = replace(
    _PUBLISHED,
    name="ucf-bitmind",
    preprocess=replace(_PUBLISHED.preprocess, interpolation="lanczos"),
    licence_weights="as stated by its publisher",
    provenance="BitMind's retraining: bm-real, open-images-v7, celeb-a-hq, ffhq-256, MS-COCO against diffusion",
    origin="BitMind subnet v2.2.11: bitmind/bm-ucf bm-general-v1.pth, its inference preprocessing",
)
_IMAGENET = Preprocess(size=256, mode="centre_square", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


@dataclass(frozen=True, slots=True, eq=False)
class Disentangled:
    """What :meth:`UCF.disentangle` separates; C maps of H/32 x W/32.

    Attributes:
        specific: ``[N, 256, h, w]``, the forgery method's own trace.
        shared: ``[N, 256, h, w]``, what all methods leave.
        content: ``[N, 512, h, w]``, what the picture shows.
    """

    specific: Tensor
    shared: Tensor
    content: Tensor


class UCF(Architecture):
    """UCF. ``[N, 3, H, W]`` to the shared head's ``[N, num_classes]``; index 1 is fake. H and W >= 48.

    Args:
        num_classes: outputs of the shared head.
        specific_task_number: outputs of the method head: forgery methods seen in training, plus one for real. Only
            built for training; the usual reason why a checkpoint does not fit.
        inference_only: builds just ``encoder_f``, ``block_sha`` and ``head_sha`` (half of the parameters).
        widths, middle: of the encoders, see :class:`detectors.experts.xception.Xception`.
    """

    published: ClassVar[Card] = _PUBLISHED
    presets: ClassVar[Mapping[str, Card]] = {
        "ucf": _PUBLISHED,
        "ucf-bitmind": _BITMIND,
        # The same weights under the statistics and equalisation that they were trained with there.
        "ucf-bitmind-training": replace(_BITMIND, name="ucf-bitmind-training", preprocess=_IMAGENET, residual="clahe"),
    }
    training_only: ClassVar[tuple[str, ...]] = ("encoder_c.", "con_gan.", "block_spe.", "head_spe.")

    def __init__(
        self,
        num_classes: int = 2,
        *,
        specific_task_number: int = 5,
        inference_only: bool = False,
        widths: Sequence[int] = WIDTHS,
        middle: int = 8,
    ) -> None:
        super().__init__()
        self.inference_only = inference_only
        self.encoder_f = XceptionTrunk(widths=widths, middle=middle)
        if not inference_only:
            self.encoder_c = XceptionTrunk(widths=widths, middle=middle)
            self.con_gan = _ConditionalDecoder()
            self.head_spe = _Head(specific_task_number)
        self.head_sha = _Head(num_classes)
        if not inference_only:
            self.block_spe = _Projection()
        self.block_sha = _Projection()

    def features(self, x: Tensor) -> Tensor:
        """``[N, 3, H, W]`` to the pooled shared features ``[N, 256]``."""
        maps: Tensor = self.block_sha(self.encoder_f.adjusted_features(x))
        return maps.mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head_sha(self.features(x))
        return logits

    def disentangle(self, x: Tensor) -> Disentangled:
        """All three parts of ``[N, 3, H, W]``, for training.

        Raises:
            RuntimeError: the network was built with `inference_only`.
        """
        self._need_training_parts()
        forgery = self.encoder_f.adjusted_features(x)
        content = self.encoder_c.adjusted_features(x)
        return Disentangled(self.block_spe(forgery), self.block_sha(forgery), content)

    def method_logits(self, parts: Disentangled) -> Tensor:
        """Which forgery method: ``[N, specific_task_number]``, class 0 real."""
        self._need_training_parts()
        logits: Tensor = self.head_spe(parts.specific.mean((2, 3)))
        return logits

    def reconstruct(self, forgery: Disentangled, content: Tensor) -> Tensor:
        """Paints `content` with the trace of `forgery`.

        Args:
            forgery: of N images; its `specific` and `shared` maps are used.
            content: ``[N, 512, h, w]``, of the same or of other images.

        Returns:
            ``[N, 3, 32 h, 32 w]`` in [-1, 1].
        """
        self._need_training_parts()
        image: Tensor = self.con_gan(torch.cat([forgery.specific, forgery.shared], dim=1), content)
        return image

    def _need_training_parts(self) -> None:
        if self.inference_only:
            raise RuntimeError("UCF was built with inference_only: its training parts are not there")


class _Projection(nn.Module):
    """1x1 convolutions 512 -> 256 -> 256 -> 256."""

    def __init__(self) -> None:
        super().__init__()
        self.conv2d = nn.Sequential(
            nn.Conv2d(512, 256, 1), nn.LeakyReLU(), nn.Conv2d(256, 256, 1), nn.LeakyReLU(), nn.Conv2d(256, 256, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv2d(x)
        return out


class _Head(nn.Module):
    """Pooled ``[N, 256]`` to logits; dropout comes after the last layer, as in the published training."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(256, 512), nn.LeakyReLU(), nn.Linear(512, outputs))
        self.dropout = nn.Dropout(0.2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.dropout(self.mlp(x))
        return out


class _AdaIN(nn.Module):
    """Adaptive instance normalisation (Huang and Belongie, ICCV 2017): x with the channel statistics of y."""

    def __init__(self, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        (x_std, x_mean), (y_std, y_mean) = self._statistics(x), self._statistics(y)
        return (x - x_mean) / x_std * y_std + y_mean

    def _statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        variance, mean = torch.var_mean(x, dim=(2, 3), keepdim=True)  # unbiased
        return (variance + self.eps).sqrt(), mean


class _ConditionalDecoder(nn.Module):
    """Three AdaIN stages, each doubling the side, then x4 and tanh: ``[N, 512, h, w]`` to ``[N, 3, 32h, 32w]``."""

    def __init__(self) -> None:
        super().__init__()
        self.adain3, self.adain2, self.adain1 = _AdaIN(), _AdaIN(), _AdaIN()
        self.dropout = nn.Dropout(0.3)
        self.dconv_up3 = _double_conv(512, 256)
        self.dconv_up2 = _double_conv(256, 128)
        self.dconv_up1 = _double_conv(128, 64)
        self.conv_last = nn.Conv2d(64, 3, kernel_size=1)

    def forward(self, style: Tensor, content: Tensor) -> Tensor:
        x = self._up(self.dconv_up3, self.adain3(content, style))
        style = self._up(self.dconv_up3, style)
        x = self._up(self.dconv_up2, self.adain2(x, style))
        style = self._up(self.dconv_up2, style)
        x = self._up(self.dconv_up1, self.adain1(x, style))
        return torch.tanh(_upsample(self.conv_last(x), 4))

    def _up(self, convolutions: nn.Module, x: Tensor) -> Tensor:
        out: Tensor = convolutions(self.dropout(_upsample(x, 2)))
        return out


def _double_conv(inputs: int, outputs: int) -> nn.Sequential:
    first, second = nn.Conv2d(inputs, outputs, 3, padding=1), nn.Conv2d(outputs, outputs, 3, padding=1)
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU())


def _upsample(x: Tensor, factor: int) -> Tensor:
    return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=True)
