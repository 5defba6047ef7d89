"""``deepfake-miner train``: a recipe from the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict

from detectors import paths
from detectors.card import Card
from detectors.errors import ConfigError
from detectors.store import Store
from detectors.training import run as runs
from detectors.training.contents import train_contents
from detectors.training.loop import Progress
from detectors.training.points import train_points

__all__ = ["train"]

# The gates' networks have loops of their own: their labels are points and contents, not real and fake.
_GATES = {"face-points": train_points, "content": train_contents}


class GateRecipe(BaseModel):
    """Recipe of a gate's network; `name` chooses the loop, `steps` its length, `seed` everything else."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    version: str
    steps: int
    seed: int = 0


def train(
    recipe: Path,
    *,
    data: Path,
    backbones: Path | None,
    store: Path | None,
    run: Path | None,
    threads: int | None,
    activate: bool,
    say: Callable[[str], None],
) -> None:
    """Trains `recipe` and prints the card's figures.

    Args:
        recipe: of an expert, or of a gate's network.
        data, backbones, threads: see :func:`detectors.training.run.train`.
        store: folder of the weights; None is the shipped one.
        run: folder of the run's state; None is ``build/train/NAME``.
        activate: points the store at the result.
        say: prints a line.

    Raises:
        ConfigError: recipe or folders are not usable.
    """
    weights = Store(store if store is not None else paths.weights())
    name = _name(recipe)
    if name in _GATES:
        settings = GateRecipe.model_validate(yaml.safe_load(recipe.read_text(encoding="utf-8")))
        card = _GATES[name](
            data, weights, version=settings.version, steps=settings.steps, seed=settings.seed, report=say
        )
    else:
        state = run if run is not None else Path("build/train") / name

        def report(progress: Progress) -> None:
            say(
                f"{name}: step {progress.step} of {progress.steps}, loss {progress.loss:.4f}, "
                f"{progress.seconds_left / 60:.0f} min left"
            )

        card = runs.train(
            recipe, data=data, store=weights, run=state, backbones=backbones, threads=threads, report=report
        )
    if activate:
        weights.activate(card.name, card.version)
    say(_figures(card))


def _name(recipe: Path) -> str:
    try:
        found = yaml.safe_load(recipe.read_text(encoding="utf-8"))["name"]
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise ConfigError(f"{recipe}: not a recipe: {error}") from error
    return str(found)


def _figures(card: Card) -> str:
    lines = [f"{card.key}: sha256 {card.sha256}"]
    lines += [f"  {name}: {value}" for name, value in card.metrics.items()]
    return "\n".join(lines)
