"""The formulas behind ``tests/golden``: weight fill, inputs, standard images, and how a recorded tensor is compared."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from detectors.types import U8

FOLDER = Path(__file__).parents[2] / "golden"


def record(model: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / "models" / f"{model}.json").read_text(encoding="utf-8"))
    return found


def manifest(model: str) -> dict[str, list[int]]:
    found: dict[str, list[int]] = json.loads((FOLDER / "manifests" / f"{model}.json").read_text(encoding="utf-8"))
    return found


def preprocessing(entry: str) -> dict[str, Any]:
    found: dict[str, dict[str, Any]] = json.loads((FOLDER / "preprocessing.json").read_text(encoding="utf-8"))
    return found[entry]


def filled(state: Mapping[str, torch.Tensor], gain: float, kept: Collection[str]) -> dict[str, torch.Tensor]:
    """The formula-made weights of a state dict under its official keys; `kept` buffers and counters stay."""
    return {
        key: value if _stays(key, kept) else torch.from_numpy(_values(key, tuple(value.shape), gain))
        for key, value in state.items()
    }


def fill_crc(state: Mapping[str, torch.Tensor], kept: Collection[str]) -> str:
    crc = 0
    for key in sorted(state):
        if not _stays(key, kept):
            crc = zlib.crc32(state[key].numpy().tobytes(), crc)
    return f"{crc:08x}"


def uniform(shape: Collection[int]) -> torch.Tensor:
    """The input of every record: uniform in [-1, 1), seed 7."""
    return torch.from_numpy((np.random.RandomState(7).random_sample(tuple(shape)) * 2 - 1).astype(np.float32))


def standard_image(name: str) -> U8:
    """``noise_HxW`` or ``smooth_HxW``."""
    kind, _, size = name.partition("_")
    height, width = map(int, size.split("x"))
    if kind == "noise":
        noise: U8 = np.random.RandomState(7).randint(0, 256, (height, width, 3)).astype(np.uint8)
        return noise
    y, x, c = np.mgrid[0:height, 0:width, 0:3].astype(np.float64)
    v = 127.5 * (1 + 0.6 * np.sin(0.031 * x * (c + 1) + 0.017 * y) + 0.4 * np.cos(0.023 * y * (3 - c)))
    smooth: U8 = np.clip(np.floor(v), 0, 255).astype(np.uint8)
    return smooth


def difference(found: torch.Tensor | npt.NDArray[Any], wanted: Mapping[str, Any]) -> float:
    """Largest absolute difference from the recorded numbers, relative to the largest absolute value.

    Raises:
        AssertionError: the shape is another one.
    """
    array = np.asarray(found, dtype=np.float64)
    assert list(array.shape) == wanted["shape"]
    flat = array.ravel()
    scale = max(float(np.abs(flat).max()), 1e-12)
    if "values" in wanted:
        return float(np.abs(flat - np.ravel(wanted["values"])).max()) / scale
    probes = flat[[k * (flat.size - 1) // 15 for k in range(16)]]
    gaps = [
        float(np.abs(flat[:16] - wanted["first16"]).max()),
        float(np.abs(probes - wanted["probe16"]).max()),
        abs(float(flat.mean()) - wanted["mean"]),
        abs(float(flat.std()) - wanted["std"]),
        # the norm's own scale is sqrt(N) times that of an element
        abs(math.sqrt(float((flat**2).sum())) - wanted["l2"]) / math.sqrt(flat.size),
    ]
    worst: float = max(gaps)
    return worst / scale


def _stays(key: str, kept: Collection[str]) -> bool:
    return key.endswith("num_batches_tracked") or key in kept


def _values(key: str, shape: tuple[int, ...], gain: float) -> npt.NDArray[np.float32]:
    rng = np.random.RandomState(zlib.crc32(key.encode()))
    if key.endswith("running_mean"):
        values = 0.1 * rng.standard_normal(shape)
    elif key.endswith("running_var"):
        values = 0.5 + rng.random_sample(shape)
    elif len(shape) <= 1 and key.endswith("weight"):
        values = 1 + 0.1 * rng.standard_normal(shape)
    elif len(shape) <= 1:
        values = 0.05 * rng.standard_normal(shape)
    else:
        values = rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:])) * gain
    return np.asarray(values, dtype=np.float32)
