"""A training recipe: one YAML file, one run, one card. Unknown keys are refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from detectors.errors import ConfigError
from detectors.training.fakes import KINDS, NEED_WEIGHTS
from detectors.training.fakes.clips import CLIP_KINDS
from detectors.yaml_file import read_yaml

__all__ = ["Recipe", "load_as"]


def _kinds(before: dict[str, Any]) -> tuple[str, ...]:
    if before.get("media") == "video":
        return tuple(CLIP_KINDS)
    return tuple(kind for kind in KINDS if kind not in NEED_WEIGHTS)


class Recipe(BaseModel):
    """Everything that decides a training run, so that (recipe, data, seed) fixes the order of all samples.

    Attributes:
        name, version: of the weights, as on the card.
        architecture, options: registry key and constructor arguments.
        preprocess: overrides of the architecture's published preprocessing, as on the card.
        init: where the network starts; ``mobilenet-v2`` reads the ImageNet trunk from ``--backbones``,
            ``efficientnet-liteN`` the one that a package ships, NAME@VERSION weights of the store with the same
            architecture (another head starts afresh).
        media: ``image`` shows the network images and single frames of videos, ``video`` clips of as many frames as the
            architecture's card says.
        contents: which contents of the manifest are used; empty means all.
        sources_left_out: sources or generators kept for measuring only; nothing is made from their reals either.
        source_weights: factors on the even draw over the sources of a class, by name; 1 where none is named.
        gate: the gate whose cut-outs are trained on, as in serving; null trains on whole frames.
        side: pixels of what the network is shown.
        view: ``crop`` is a random native crop of the 256 px wire image (or of the gate's 256 px view), ``whole`` all
            of it resized to `side`, ``both`` one or the other per sample, the same for both of a pair.
        recolour: probability that a sample gets another tone before all else, see ``history``.
        same_content: probability that a fake of the data stands beside a real of its content, not beside any.
        frequency_masking: probability that bands of a sample's spectrum are masked; a pair shares the draw.
        made_share: part of the fakes that is made from the reals of the same batch, under the same augmentation.
        pair_weight: weight of the ranking of such pairs beside the cross-entropy.
        kinds: which makers of ``detectors.training.fakes`` (of its ``clips`` for videos) take part; by default all
            that need no weights.
        semi_share: part of the fakes that is semi-synthetic, the rest being fully synthetic; 0 leaves it to the draw.
        adversarial_weight: of the gradient that makes features blind to the source, see ``losses``; 0 is off.
        robust: ``group`` weights sources by their loss (group DRO), see ``losses``.
        robust_step: step of the exponentiated weights of ``robust: group``.
        batch: samples a step, half real and half fake; the field's recipe takes 256.
        micro_batch: samples of a forward pass, whose gradients add up to those of the batch; null is the whole batch.
            It only matters to what is learned where norms see batches.
        epoch: draws that the log calls one epoch.
        steps, warmup: optimiser steps; cosine decay after a linear warm-up.
        learning_rate, weight_decay: AdamW's (Loshchilov & Hutter 2019).
        trunk_rate: factor on the learning rate of everything but the head.
        freeze_norms: batch norms keep the statistics they start with; their scales and shifts still learn.
        clip: largest norm of a step's gradient.
        precision: of the forward pass; ``bf16`` is automatic mixed precision.
        smoothing: label smoothing in [0, 0.5).
        average: decay of the exponential moving average of the weights that is what ships.
        validation: share of the groups kept for validation.
        mix: which validators' augmentation levels, see ``detectors.augment``.
        views: validation challenges drawn per item.
        save_every: steps between two states that a killed run goes on from.
        workers: of the samples; 1 is a thread, more are processes (threads where a gate is used).
        seed: of the weights and the samples.
        split_seed: of the split; the same in every recipe, so that what one expert holds out no other has seen.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    use_of_trunk: ClassVar[str] = "fine-tuned end to end"  # for the card

    name: str
    version: str
    architecture: str
    options: dict[str, Any] = Field(default_factory=dict)
    preprocess: dict[str, Any] = Field(default_factory=dict)
    init: str | None = Field(None, pattern=r"^(mobilenet-v2|efficientnet-lite[0-4]|[\w.-]+@[\w.-]+)$")
    media: Literal["image", "video"] = "image"
    contents: tuple[str, ...] = ()
    sources_left_out: tuple[str, ...] = ()
    source_weights: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    gate: Literal["face"] | None = None
    side: int = Field(160, ge=32, le=256)
    view: Literal["crop", "whole", "both"] = "crop"
    recolour: float = Field(0.0, ge=0, le=1)
    same_content: float = Field(0.0, ge=0, le=1)
    frequency_masking: float = Field(0.0, ge=0, le=1)
    made_share: float = Field(0.4, ge=0, le=1)
    pair_weight: float = Field(0.0, ge=0)
    kinds: tuple[str, ...] = Field(default_factory=_kinds, min_length=1)
    semi_share: float = Field(0.0, ge=0, le=1)
    adversarial_weight: float = Field(0.0, ge=0)
    robust: Literal["none", "group"] = "none"
    robust_step: float = Field(0.01, gt=0)
    batch: int = Field(32, ge=2, multiple_of=2)
    micro_batch: int | None = Field(None, ge=2, multiple_of=2)
    epoch: int = Field(25_600, ge=1)
    steps: int = Field(1000, ge=1)
    warmup: int = Field(100, ge=0)
    learning_rate: float = Field(3e-4, gt=0)
    weight_decay: float = Field(1e-2, ge=0)
    trunk_rate: float = Field(1.0, ge=0)
    freeze_norms: bool = False
    clip: float = Field(1.0, gt=0)
    precision: Literal["fp32", "bf16"] = "fp32"
    smoothing: float = Field(0.05, ge=0, lt=0.5)
    average: float = Field(0.998, ge=0, lt=1)
    validation: float = Field(0.15, gt=0, lt=1)
    mix: Literal["2.0", "2.2"] = "2.0"
    views: int = Field(1, ge=1)
    save_every: int = Field(50, ge=1)
    workers: int = Field(1, ge=1)
    seed: int = 0
    split_seed: int = 1

    @property
    def run_key(self) -> dict[str, Any]:
        """What two runs must share for one to go on from the other's state: what differs from the defaults."""
        return self.model_dump(mode="json", exclude={"save_every", "workers"}, exclude_defaults=True)

    @classmethod
    def load(cls, path: Path, changes: Mapping[str, Any] | None = None) -> Self:
        """Reads a recipe.

        Args:
            path: of the file.
            changes: values in place of the file's, by key.

        Raises:
            ConfigError: unreadable, unknown key, or a value out of range; the text names the key.
        """
        return load_as(cls, path, changes)


_Model = TypeVar("_Model", bound=BaseModel)


def load_as(kind: type[_Model], path: Path, changes: Mapping[str, Any] | None = None) -> _Model:
    """Reads a YAML file as a model; arguments and errors as :meth:`Recipe.load`."""
    try:
        said = read_yaml(path)
        return kind.model_validate({**said, **(changes or {})} if isinstance(said, dict) else said)
    except ConfigError as error:
        raise ConfigError(f"{path.name}: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "file"
        raise ConfigError(f"{path.name}: {where}: {first['msg']}") from error
