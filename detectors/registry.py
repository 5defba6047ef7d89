"""The explicit table of architectures. A name is imported when it is asked for, never before."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from detectors.errors import ConfigError

if TYPE_CHECKING:
    from detectors.card import Card
    from detectors.experts.base import Architecture

__all__ = ["architecture", "build", "names", "published_cards"]

_TABLE: Mapping[str, str] = {
    "efficientnet-lite": "detectors.experts.efficientnet_lite:EfficientNetLite",
    "mobilenetv2": "detectors.experts.mobilenet:MobileNetV2",
    "npr": "detectors.experts.npr:NPR",
    "tall": "detectors.experts.tall:TALL",
    "ucf": "detectors.experts.ucf:UCF",
    "xception": "detectors.experts.xception:Xception",
}

# Networks that gates use: stored, hashed and swapped like experts, but no experts themselves.
_GATES: Mapping[str, str] = {
    "autoencoder": "detectors.training.autoencoder:AutoEncoder",
    "gate": "detectors.gates.network:GateNet",
}


def names() -> tuple[str, ...]:
    """Every expert's architecture, sorted."""
    return tuple(sorted(_TABLE))


def architecture(name: str) -> type[Architecture]:
    """The class behind a name.

    Raises:
        ConfigError: the name is not in the table; the text proposes near ones.
    """
    try:
        module, _, attribute = {**_TABLE, **_GATES}[name].partition(":")
    except KeyError:
        near = difflib.get_close_matches(name, _TABLE, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(names())}"
        raise ConfigError(f"architecture {name!r} is unknown; {hint}") from None
    found: type[Architecture] = getattr(importlib.import_module(module), attribute)
    return found


def build(card: Card) -> Architecture:
    """A freshly initialised network of the card's architecture and options.

    Raises:
        ConfigError: the architecture is unknown, or refuses an option.
    """
    cls = architecture(card.architecture)
    try:
        return cls(**card.options)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{card.key}: {card.architecture} refuses options {dict(card.options)}: {error}") from error


def published_cards() -> dict[str, Card]:
    """Every preset by name: the authors' own conventions and those of others that run the same network."""
    return {preset: card for name in names() for preset, card in architecture(name).presets.items()}
