"""The state of a run on disk: written whole or not at all, so that a killed run goes on from its last one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

from detectors.training.recipe import Recipe

__all__ = ["Part", "resume", "save"]


class Part(Protocol):
    """A network, an optimiser: what has a state."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any: ...


def save(path: Path, recipe: Recipe, step: int, parts: Mapping[str, Part], extra: Mapping[str, Any]) -> None:
    """Writes the state after `step` steps; a reader finds the old one or the new one, never half of one.

    Args:
        path: of the state.
        recipe: of the run.
        step: steps done.
        parts: whose states are kept.
        extra: further plain values or tensors, as :func:`resume` gives them back.
    """
    state: dict[str, Any] = {name: part.state_dict() for name, part in parts.items()}
    state |= {"recipe": recipe.run_key, "step": step, "extra": dict(extra)}
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def refuse_other(stored: Mapping[str, Any], recipe: Recipe, folder: Path) -> None:
    """Checks that a run's folder belongs to the recipe.

    Raises:
        ValueError: `stored` is the ``run_key`` of another recipe.
    """
    if type(recipe).model_validate(stored).run_key != recipe.run_key:
        raise ValueError(f"{folder} holds a run of another recipe; choose another folder or remove it")


def resume(path: Path, recipe: Recipe, parts: Mapping[str, Part]) -> tuple[int, dict[str, Any]]:
    """Fills the parts from the state.

    Returns:
        Steps done and the extra values; 0 and none where there is no state.

    Raises:
        ValueError: the state is of another recipe.
    """
    if not path.exists():
        return 0, {}
    state = torch.load(path, map_location="cpu", weights_only=True)
    refuse_other(state["recipe"], recipe, path.parent)
    for name, part in parts.items():
        part.load_state_dict(state[name])
    return int(state["step"]), dict(state["extra"])
