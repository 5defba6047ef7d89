"""A training recipe: one YAML file, one run, one card. Unknown keys are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from detectors.errors import ConfigError
from detectors.training.fakes import KINDS

__all__ = ["Recipe"]


class Recipe(BaseModel):
    """Everything that decides a training run, so that (recipe, data, seed) fixes the order of all samples.

    Attributes:
        name, version: of the weights, as on the card.
        architecture, options: registry key and constructor arguments.
        preprocess: overrides of the architecture's published preprocessing, as on the card.
        init: where the network starts; ``mobilenet-v2`` reads the ImageNet trunk from ``--backbones``, NAME@VERSION
            weights of the store with the same architecture.
        contents: which contents of the manifest are used; empty means all.
        sources_left_out: sources kept for measuring only.
        gate: the gate whose cut-outs are trained on, as in serving; null trains on whole frames.
        side: pixels of the random native crop of the 256 px wire image (or of the gate's 256 px view).
        made_share: part of the fakes that is made from the reals of the same batch, under the same augmentation.
        pair_weight: weight of the ranking of such pairs beside the cross-entropy.
        kinds: which makers of ``detectors.training.fakes`` take part.
        batch: samples a step, half real and half fake.
        steps, warmup: optimiser steps; cosine decay after a linear warm-up.
        learning_rate, weight_decay: AdamW's (Loshchilov & Hutter 2019).
        smoothing: label smoothing in [0, 0.5).
        average: decay of the exponential moving average of the weights that is what ships.
        validation: share of the groups kept for validation.
        mix: which validators' augmentation levels, see ``detectors.augment``.
        views: validation challenges drawn per item.
        seed: of the weights and the samples.
        split_seed: of the split; the same in every recipe, so that what one expert holds out no other has seen.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    version: str
    architecture: str
    options: dict[str, Any] = Field(default_factory=dict)
    preprocess: dict[str, Any] = Field(default_factory=dict)
    init: str | None = Field(None, pattern=r"^(mobilenet-v2|[\w.-]+@[\w.-]+)$")
    contents: tuple[str, ...] = ()
    sources_left_out: tuple[str, ...] = ()
    gate: Literal["face"] | None = None
    side: int = Field(160, ge=32, le=256)
    made_share: float = Field(0.4, ge=0, le=1)
    pair_weight: float = Field(0.0, ge=0)
    kinds: tuple[str, ...] = tuple(KINDS)
    batch: int = Field(32, ge=2, multiple_of=2)
    steps: int = Field(1000, ge=1)
    warmup: int = Field(100, ge=0)
    learning_rate: float = Field(3e-4, gt=0)
    weight_decay: float = Field(1e-2, ge=0)
    smoothing: float = Field(0.05, ge=0, lt=0.5)
    average: float = Field(0.998, ge=0, lt=1)
    validation: float = Field(0.15, gt=0, lt=1)
    mix: Literal["2.0", "2.2"] = "2.0"
    views: int = Field(1, ge=1)
    seed: int = 0
    split_seed: int = 1

    @classmethod
    def load(cls, path: Path) -> Recipe:
        """Reads a recipe.

        Raises:
            ConfigError: unreadable, unknown key, or a value out of range; the text names the key.
        """
        try:
            return cls.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
        except (OSError, yaml.YAMLError) as error:
            raise ConfigError(f"{path.name}: {error}") from error
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "file"
            raise ConfigError(f"{path.name}: {where}: {first['msg']}") from error
