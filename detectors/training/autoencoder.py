"""A small KL auto-encoder of photographs, whose decoder leaves the traces that latent generators leave.

Same shape as the first stage of latent diffusion (Rombach et al., CVPR 2022, sec. 3.1: eight times smaller per side,
four channels, weakly drawn to a standard normal), a hundredth of its size. It is trained here, on the reals of the
pool, and serves one end: fakes made from reals by a round trip (:mod:`detectors.training.fakes`), as DDA and
AlignedForensics make them with the large ones.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detectors import datasets, media
from detectors.card import Card, Preprocess
from detectors.datasets import Item
from detectors.errors import ConfigError
from detectors.experts.base import Architecture
from detectors.store import Store
from detectors.training.small import descend
from detectors.types import U8, Label

__all__ = ["FACTOR", "LATENT", "WEIGHTS", "AutoEncoder", "pixels_of", "tensor_of", "train_autoencoder"]

WEIGHTS = "autoencoder"
FACTOR = 8  # pixels of a side per latent
LATENT = 4  # channels

_BATCH = 10
_GROUPS = 4  # of channels that are normalised together
_SIDE = 96  # pixels of a training crop
_SHORT = 320  # of a picture kept in memory
_A_SOURCE = 150  # pictures kept of one source
_SPLIT_SEED = 1  # the recipes' own: what an expert holds out, the auto-encoder has not seen either
_SQUARED = 255.0**2


class _Block(nn.Module):
    """Two normalised 3 x 3 convolutions beside an identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(_GROUPS, width)
        self.norm2 = nn.GroupNorm(_GROUPS, width)
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.second(F.silu(self.norm2(self.first(F.silu(self.norm1(x))))))
        return out


class _Up(nn.Module):
    """Nearest neighbour by two, then a 3 x 3 convolution: the way of latent diffusion's decoder."""

    def __init__(self, narrow: int, wide: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(_GROUPS, wide)
        self.conv = nn.Conv2d(wide, narrow, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(F.interpolate(F.silu(self.norm(x)), scale_factor=2.0, mode="nearest"))
        return out


class AutoEncoder(Architecture):
    """Pixels ``[N, 3, H, W]`` in [-1, 1] to a latent ``[N, 4, H/8, W/8]`` and back; H and W are multiples of 8.

    Args:
        width: channels at half resolution; doubled twice below it.
    """

    published: ClassVar[Card] = Card(
        name=WEIGHTS,
        version="published",
        architecture=WEIGHTS,
        preprocess=Preprocess(size=128, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
        licence_code="Apache-2.0",
        licence_weights="Apache-2.0",
    )

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        w1, w2, w3 = width, 2 * width, 4 * width
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(2),
            nn.Conv2d(12, w1, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(w1, w2, 3, stride=2, padding=1),
            _Block(w2),
            nn.GroupNorm(_GROUPS, w2),
            nn.SiLU(),
            nn.Conv2d(w2, w3, 3, stride=2, padding=1),
            _Block(w3),
            nn.GroupNorm(_GROUPS, w3),
            nn.SiLU(),
        )
        self.moments = nn.Conv2d(w3, 2 * LATENT, 1)
        self.decoder = nn.Sequential(
            nn.Conv2d(LATENT, w3, 3, padding=1),
            _Block(w3),
            _Block(w3),
            _Up(w2, w3),
            _Block(w2),
            _Up(w1, w2),
            _Block(w1),
            _Up(width // 2, w1),
            nn.SiLU(),
            nn.Conv2d(width // 2, 3, 3, padding=1),
        )
        self._start()

    def _start(self) -> None:
        """Without normalising layers the signal lives on its initial scale alone: keep it through every layer."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.constant_(module.bias, 0.0) if module.bias is not None else None
            if isinstance(module, _Block):
                nn.init.normal_(module.second.weight, std=1e-3)
        with torch.no_grad():  # a spread of 1 would drown what the encoder says, and the latent would stay empty
            self.moments.weight[LATENT:].mul_(0.01)
            self.moments.bias[LATENT:] = -4.0  # type: ignore[index]
            self.decoder[-1].weight.mul_(0.3)  # type: ignore[operator]

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and logarithm of the variance of the latent, each ``[N, 4, H/8, W/8]``."""
        mean, spread = self.moments(self.encoder(x)).chunk(2, dim=1)
        return mean, spread.clamp(-12.0, 6.0)

    def decode(self, latent: Tensor) -> Tensor:
        """Pixels ``[N, 3, H, W]``, roughly in [-1, 1]."""
        out: Tensor = self.decoder(latent)
        return out

    def forward(self, x: Tensor) -> Tensor:
        """Logarithm of the mean absolute error of the round trip, ``[N, 1]``.

        There is no verdict in it: it gives the store's golden scores something that changes with the weights.
        """
        error = (self.decode(self.encode(x)[0]) - x).abs().mean(dim=(1, 2, 3))
        return torch.log(error.clamp_min(1e-6))[:, None]


def tensor_of(image: U8) -> Tensor:
    """``uint8 [H, W, 3]`` to ``float32 [1, 3, H', W']`` in [-1, 1], reflected up to multiples of 8."""
    height, width = image.shape[:2]
    padded = cv2.copyMakeBorder(image, 0, -height % FACTOR, 0, -width % FACTOR, cv2.BORDER_REFLECT_101)
    return torch.from_numpy(padded.astype(np.float32) / 127.5 - 1.0).permute(2, 0, 1)[None].contiguous()


def pixels_of(x: Tensor, height: int, width: int) -> U8:
    """The inverse of :func:`tensor_of`: ``uint8 [height, width, 3]``."""
    values = x[0, :, :height, :width].permute(1, 2, 0).numpy()
    pixels: U8 = np.clip(np.rint((values + 1.0) * 127.5), 0, 255).astype(np.uint8)
    return pixels


def train_autoencoder(
    data: Path, store: Store, *, version: str, steps: int = 5500, seed: int = 0, report: Callable[[str], None] = print
) -> Card:
    """Trains on the reals, measures on held-out groups, saves ``autoencoder`` and returns its card.

    Args:
        data: manifest or folder with real images.
        store: where it goes; not activated.
        version: of the weights.
        steps: of ten crops of 96 px each; 5500 take about twelve minutes on one core.
        seed: of everything but the split, which is the recipes'.
        report: called with a line now and then.

    Raises:
        ConfigError: the data lack real images, in training or held out.
    """
    training, held = (_reals(side) for side in datasets.split_by_group(datasets.read(data), 0.15, _SPLIT_SEED))
    if not (training and held):
        raise ConfigError(f"{data}: needs real images in several groups, to train on and to hold out")
    torch.manual_seed(seed)
    network = AutoEncoder()
    descend(network, _objective(network, _loaded(training, seed), seed), steps=steps, decay=1e-4, report=report)
    card = replace(
        AutoEncoder.published,
        version=version,
        options={"width": 24},
        provenance="real images of the training pool, drawn evenly over " + ", ".join(sorted(training)),
        origin=f"detectors.training.autoencoder, seed {seed}, {steps} steps of {_BATCH} crops of {_SIDE} px",
        metrics=_measured(network, held),
        command="deepfake-miner train configs/train/autoencoder.yaml",
    )
    return store.save(card, network)


def _reals(items: Sequence[Item]) -> dict[str, list[Item]]:
    found: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        if item.modality == "image" and item.label is Label.REAL:
            found[item.source].append(item)
    return dict(sorted(found.items()))


def _loaded(sources: Mapping[str, Sequence[Item]], seed: int) -> list[list[U8]]:
    """At most 150 pictures a source, short side at most 320 px."""
    rng = np.random.default_rng([seed, 1])
    chosen = {n: [members[i] for i in rng.permutation(len(members))[:_A_SOURCE]] for n, members in sources.items()}
    return [[_picture(item.path, _SHORT) for item in members] for members in chosen.values()]


def _picture(path: Path, short: int) -> U8:
    image = media.decode_image(path.read_bytes()).pixels
    return _scaled(image, min(1.0, short / min(image.shape[:2])))


def _scaled(image: U8, scale: float) -> U8:
    if scale == 1.0:
        return image
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, size, interpolation=way), np.uint8)


def _crop(image: U8, rng: np.random.Generator) -> U8:
    """A square of 96 px from the picture at a random scale, mirrored half of the time."""
    least = _SIDE / min(image.shape[:2])
    scaled = _scaled(image, max(least * 1.001, float(rng.uniform(min(least, 1.0), 1.0))))
    y, x = (int(rng.integers(side - _SIDE + 1)) for side in scaled.shape[:2])
    crop = scaled[y : y + _SIDE, x : x + _SIDE]
    return crop[:, ::-1] if rng.random() < 0.5 else crop


def _objective(network: AutoEncoder, sources: Sequence[Sequence[U8]], seed: int) -> Callable[[int], Tensor]:
    def loss_of(step: int) -> Tensor:
        rng = np.random.default_rng([seed, step])
        crops = []
        for _ in range(_BATCH):
            members = sources[int(rng.integers(len(sources)))]
            crops.append(tensor_of(np.ascontiguousarray(_crop(members[int(rng.integers(len(members)))], rng))))
        x = torch.cat(crops).contiguous(memory_format=torch.channels_last)
        mean, spread = network.encode(x)
        noise = torch.from_numpy(rng.standard_normal(mean.shape, dtype=np.float32))
        out = network.decode(mean + torch.exp(0.5 * spread) * noise)
        drawn = 0.5 * (mean.square() + spread.exp() - 1.0 - spread).mean()
        return _distance(out, x) + 3e-4 * drawn

    return loss_of


def _distance(out: Tensor, x: Tensor) -> Tensor:
    """Absolute error of the pixels, of their first differences and of what a 3 x 3 mean leaves over.

    Pixels alone are best served by a blur; the other two terms are where texture and edges weigh.
    """
    error = out - x
    across, down = (
        (error[..., 1:] - error[..., :-1]).abs().mean(),
        (error[..., 1:, :] - error[..., :-1, :]).abs().mean(),
    )
    high = (error - F.avg_pool2d(error, 3, stride=1, padding=1, count_include_pad=False)).abs().mean()
    return error.abs().mean() + 0.5 * (across + down) + 0.5 * high


def _measured(network: AutoEncoder, held: Mapping[str, Sequence[Item]]) -> dict[str, float]:
    """Mean PSNR in dB of the round trip at short sides up to 256 px, by source and as the mean over sources."""
    found: dict[str, float] = {}
    with torch.inference_mode():
        for name, members in held.items():
            values = []
            for item in members[:40]:
                image = _picture(item.path, 256)
                again = pixels_of(network.decode(network.encode(tensor_of(image))[0]), image.shape[0], image.shape[1])
                error = float(np.mean((again.astype(np.float64) - image) ** 2))
                values.append(10.0 * np.log10(_SQUARED / max(error, 1e-9)))
            found[f"psnr:{name}"] = round(float(np.mean(values)), 2)
    return {**found, "psnr": round(float(np.mean(list(found.values()))), 2)}
