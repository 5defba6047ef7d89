"""``deepfake-miner train``: a recipe from the command line."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from detectors import paths
from detectors.card import Card
from detectors.errors import ConfigError
from detectors.store import Store
from detectors.training import run as runs
from detectors.training.autoencoder import train_autoencoder
from detectors.training.contents import train_contents
from detectors.training.frozen_head import train_head
from detectors.training.points import train_points
from detectors.training.pretraining import pretrain
from detectors.training.progress import Progress
from detectors.training.recipe import load_as
from detectors.yaml_file import read_yaml

__all__ = ["train"]

# Networks with loops of their own: their labels are points, contents or the picture itself, not real and fake.
_OWN = {"face-points": train_points, "content": train_contents, "autoencoder": train_autoencoder}
# Loops with the trainer's arguments, by the recipe's `kind`.
_KINDS: Mapping[str, Callable[..., Card | None]] = {
    "": runs.train,
    "frequency-pretraining": pretrain,
    "frozen-head": train_head,
}
_MERGE = "merge"


class OwnRecipe(BaseModel):
    """Recipe of a network with a loop of its own; `name` chooses it, `steps` its length, `seed` everything else."""

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
    left_out: Sequence[str] = (),
    steps: int | None = None,
) -> None:
    """Trains `recipe` and prints the card's figures.

    Args:
        recipe: of an expert, of a gate's network, or of what makes fakes or pre-trains.
        data, backbones, threads: see :func:`detectors.training.run.train`.
        store: folder of the weights; None is the shipped one.
        run: folder of the run's state; None is ``build/train/NAME``.
        activate: points the store at the result.
        say: prints a line.
        left_out: sources or generators that an expert is measured on and not trained on.
        steps: in place of the recipe's.

    Raises:
        ConfigError: recipe or folders are not usable.
    """
    weights = Store(store if store is not None else paths.weights())
    name, kind = _name_and_kind(recipe)
    changes: dict[str, Any] = {"sources_left_out": tuple(left_out)} if left_out else {}
    changes |= {} if steps is None else {"steps": steps}
    if changes and (kind not in ("", "frozen-head") or name in _OWN):
        raise ConfigError(f"{recipe}: --leave-out and --steps are for recipes of experts")
    if kind == _MERGE:
        from detectors.training.fit import fit  # noqa: PLC0415 - evaluation and all experts, for this kind alone

        fit(recipe, data=data, weights=weights.root, threads=threads, say=say, out=Path("build/merge.json"))
        return
    if name in _OWN:
        settings = load_as(OwnRecipe, recipe)
        card = _OWN[name](data, weights, version=settings.version, steps=settings.steps, seed=settings.seed, report=say)
    else:
        state = run if run is not None else Path("build/train") / name
        with _reporter(name, say) as report:
            more = {"changes": changes} if changes else {}
            trained = _KINDS[kind](
                recipe, data=data, store=weights, run=state, backbones=backbones, threads=threads, report=report, **more
            )
        if trained is None:  # one of several processes; the first one saved
            return
        card = trained
    if activate:
        weights.activate(card.name, card.version)
    say(_figures(card))


@contextmanager
def _reporter(name: str, say: Callable[[str], None]) -> Iterator[Callable[[Progress], None]]:
    """A progress bar on a terminal, a line for each report elsewhere."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda p: say(
            f"{name}: step {p.step} of {p.steps}, loss {p.loss:.4f}, {p.seconds_left / 60:.0f} min left"
        )
        return
    columns = (TextColumn(name), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[said]}"))
    with Bar(*columns, TimeElapsedColumn(), console=console) as bar:
        task = bar.add_task(name, total=None, said="first steps")

        def report(p: Progress) -> None:
            left = timedelta(seconds=round(p.seconds_left))
            bar.update(task, completed=p.step, total=p.steps, said=f"loss {p.loss:.4f}, {left} left, so far")

        yield report


def _name_and_kind(recipe: Path) -> tuple[str, str]:
    try:
        keys = read_yaml(recipe)
        name, kind = str(keys["name"]), str(keys.get("kind", ""))
    except (ConfigError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{recipe}: not a recipe: {error}") from error
    known = [*(k for k in _KINDS if k), _MERGE]
    if kind not in ("", *known):
        raise ConfigError(f"{recipe}: kind {kind!r} is unknown; known are {', '.join(known)}, or none")
    return name, kind


def _figures(card: Card) -> str:
    lines = [f"{card.key}: sha256 {card.sha256}"]
    lines += [f"  {name}: {value}" for name, value in card.metrics.items()]
    return "\n".join(lines)
