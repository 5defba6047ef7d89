"""The card: everything one must know of a set of weights to use it rightly. Frozen, data only, JSON on disk."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import TypeAdapter

from detectors.curve import Curve
from detectors.errors import ConfigError, WeightsError

__all__ = ["Card", "Preprocess"]


@dataclass(frozen=True, slots=True)
class Preprocess:
    """From ``uint8`` RGB to the network's input.

    Attributes:
        size: side of the square input, in pixels; 0 keeps the native size.
        mode: ``resize`` squeezes to size x size; ``centre_square`` crops to the short side, then resizes;
            ``centre_crop`` cuts size x size at native resolution (smaller images are reflected up to it);
            ``native`` leaves the pixels alone.
        interpolation: PIL's name of the filter.
        scale: ``unit`` gives [0, 1]; ``byte`` gives 0..255.
        mean, std: per channel, in the unit that `scale` gives, in the order of `channels`.
        channels: colour order the network was trained with.
    """

    size: int = 256
    mode: Literal["resize", "centre_square", "centre_crop", "native"] = "resize"
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bilinear"
    scale: Literal["unit", "byte"] = "unit"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    channels: Literal["RGB", "BGR"] = "RGB"


@dataclass(frozen=True, slots=True)
class Card:
    """Describes one version of one set of weights.

    Attributes:
        name: of the weights, e.g. ``npr-general``; with `version` it names the files ``NAME-VERSION.*``.
        version: e.g. ``1.0.0``.
        architecture: key of ``detectors.registry``.
        options: keyword arguments of the architecture's constructor.
        sha256: of the safetensors file, hex; empty for a detector without a file (CAMO itself, stand-ins).
        preprocess: how pixels become input.
        fake_index: which output means fake; for a one-logit head 0.
        semi_index: which output means semi-synthetic; None where the head does not tell it from synthetic. Where it
            does, `fake_index` is the synthetic one, and P(fake) is the sum of both.
        residual: name of a front end outside the network, or empty.
        calibration: applied to the logit of P(fake).
        frames: for a video network the frames a clip holds; 1 for an image network.
        licence_code, licence_weights: SPDX identifiers or a plain sentence.
        provenance: what the weights were trained on.
        origin: where an imported file came from (its sha256 and layout), or the recipe that trained it.
        golden: P(fake) on the probe inputs of ``detectors.store`` by probe name, to notice silent change.
        metrics: measured figures by name.
        command: the command that produced the metrics.
    """

    name: str
    version: str
    architecture: str
    options: Mapping[str, Any] = field(default_factory=dict)
    sha256: str = ""
    preprocess: Preprocess = field(default_factory=Preprocess)
    fake_index: int = 0
    semi_index: int | None = None
    residual: str = ""
    calibration: Curve = field(default_factory=Curve)
    frames: int = 1
    licence_code: str = ""
    licence_weights: str = ""
    provenance: str = ""
    origin: str = ""
    golden: Mapping[str, float] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    command: str = ""

    @property
    def key(self) -> str:
        """``NAME@VERSION``."""
        return f"{self.name}@{self.version}"

    @property
    def stem(self) -> str:
        """File name without suffix, ``NAME-VERSION``."""
        return f"{self.name}-{self.version}"

    @property
    def weights(self) -> Mapping[str, str]:
        """``NAME@VERSION`` by expert and ``gate:NAME``, where this is CAMO's card; of another detector, its own."""
        experts, gates = self.options.get("experts"), self.options.get("gates")
        if not isinstance(experts, Mapping) or not isinstance(gates, Mapping):
            return {self.name: self.key}
        return {**experts, **{f"gate:{name}": key for name, key in gates.items() if key}}

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Card:
        """Reads a card.

        Raises:
            WeightsError: not JSON, an unknown key, a missing key, or a value of the wrong kind.
        """
        try:
            raw = json.loads(text)
            raw["preprocess"] = _build(Preprocess, raw.get("preprocess", {}))
            raw["calibration"] = _build(Curve, raw.get("calibration", {}))
            card = _build(cls, raw)
            _kinds().validate_json(text, strict=True)
        except (ConfigError, ValueError, TypeError, AttributeError, RecursionError) as error:
            raise WeightsError(f"card is not usable: {error}") from error
        return card

    @classmethod
    def load(cls, path: Path) -> Card:
        """Reads the card at `path`; raises WeightsError naming the file."""
        try:
            return cls.from_json(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, WeightsError) as error:
            raise WeightsError(f"{path.name}: {error}") from error


@functools.cache
def _kinds() -> TypeAdapter[Card]:
    """Checks the kind of every value; which keys there are is checked, with better words, by `_build`."""
    return TypeAdapter(Card)


_T = TypeVar("_T")


def _build(cls: type[_T], raw: dict[str, Any]) -> _T:
    """Builds a flat dataclass from JSON, lists back to tuples, unknown keys refused."""
    known = {f.name for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(set(raw) - known)
    if unknown:
        raise TypeError(f"unknown keys {unknown} in {cls.__name__}; known are {sorted(known)}")
    return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in raw.items()})
