"""``deepfake-miner evaluate``: detectors measured behind the validators' pipeline, and what they would earn."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from detectors import datasets
from detectors.augment import Mix
from detectors.datasets import Dataset, Item
from detectors.errors import ConfigError
from detectors.evaluation import compare, compose, judges, markdown, plots
from detectors.evaluation.report import ROUNDS, brief, clean, report
from detectors.evaluation.run import Outcome, at_most, score, score_grid
from detectors.evaluation.scores import Scores, digest, read_dump
from detectors.evaluation.views import GRID, LEVELS, MIXES, Level, Views, key_of
from detectors.training.splits import fits, load_split
from neurons.challenges import FRAMES
from neurons.payoff import difference, rewards
from neurons.rewards import PROFILES

__all__ = ["Options", "evaluate", "leave_one_out"]

_LISTED = 1000  # undecodable files named in the JSON; all are counted


@dataclass(frozen=True, slots=True)
class Options:
    """What to measure and where the figures go.

    Attributes:
        data: manifest or folder; None where `dump` is given.
        dump: an earlier ``--predictions`` file whose answers are reported instead of asking detectors.
        detectors: see :func:`detectors.evaluation.judges.load`; the first one's figures stand at the JSON's top.
        level: one of :data:`detectors.evaluation.views.LEVELS`.
        json, markdown, plots, predictions: files (a folder for the plots) to write; None for none.
        compare: dumps of other detectors on the same views, compared with the first detector.
        split, only: a split file and which side of it; without `only` the validation side.
        views: of each item.
        most: items of each source at most.
        seed: of views and resampling.
        grid: also the robustness grid.
        threads: of torch, and of decoding.
        rounds: resamples of the intervals.
        weights: the weights folder; None is the shipped one.
        command: what the JSON says was run.
    """

    data: Path | None = None
    dump: Path | None = None
    detectors: tuple[str, ...] = ()
    level: str = "mix-2.0"
    json: Path | None = None
    markdown: Path | None = None
    plots: Path | None = None
    predictions: Path | None = None
    compare: tuple[Path, ...] = ()
    split: Path | None = None
    only: str | None = None
    views: int = 1
    most: int | None = None
    seed: int = 0
    grid: bool = False
    threads: int | None = None
    rounds: int = ROUNDS
    weights: Path | None = None
    command: str = ""


def evaluate(options: Options, *, console: Console | None = None) -> dict[str, Any]:
    """Measures, prints the table, writes the files asked for, returns the JSON.

    Raises:
        ConfigError: an option, manifest, split or dump cannot be used.
        WeightsError: weights do not load.
    """
    console = console or Console()
    level = _level(options.level)
    if (options.data is None) == (options.dump is None):
        raise ConfigError("evaluate needs --data MANIFEST|DIR, or --from FILE.jsonl in its place")
    if options.dump is not None:
        outcome, about, data = _from_dump(options, options.dump)
        grids: dict[str, Any] = {}
    else:
        outcome, about, data, grids = _measured(options, level)
    mix = MIXES.get(data["level"])
    blocks = {
        name: {
            **report(scores, rounds=options.rounds, seed=options.seed),
            "reward": clean(rewards(scores, mix=mix, seed=options.seed)),
            "detector": about[name],
            **({"grid": grids[name]} if name in grids else {}),
        }
        for name, scores in outcome.scores.items()
    }
    first = next(iter(blocks))
    result: dict[str, Any] = {
        **blocks[first],
        "data": data,
        "undecodable": len(outcome.unusable),
        "undecodable_files": [dataclasses.asdict(row) for row in list(outcome.unusable.values())[:_LISTED]],
        "compare": _compared(outcome.scores, options, mix),
        "detectors": blocks,
        "seconds": round(outcome.seconds, 3),
        "command": options.command,
    }
    result = dict(clean(result))
    _write(options, result, outcome.scores)
    console.print(_table(blocks))
    if outcome.unusable:
        console.print(f"{len(outcome.unusable)} files could not be decoded; they are listed in the JSON")
    return result


def leave_one_out(named: Sequence[str], *, json_file: Path | None, markdown_file: Path | None) -> dict[str, Any]:
    """Composes ``NAME=FILE.json`` reports into the leave-one-out tables and writes them.

    Raises:
        ConfigError: an argument is not of that form, a file is no report, or it does not hold what was left out.
    """
    reports: dict[str, Any] = {}
    for text in named:
        name, equals, file = text.rpartition("=")
        if not equals or not name or name in reports:
            raise ConfigError(f"--leave-one-out {text!r}: expected NAME=FILE.json, each name once")
        try:
            reports[name] = json.loads(Path(file).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{file}: not a report of evaluate: {error}") from error
    found = compose.leave_one_out(reports)
    if json_file is not None:
        _put(json_file, json.dumps(found, indent=1, allow_nan=False) + "\n")
    text = markdown.leave_one_out(found)
    if markdown_file is not None:
        _put(markdown_file, text)
    return found


def _measured(
    options: Options, level: Level
) -> tuple[Outcome, dict[str, Mapping[str, Any]], dict[str, Any], dict[str, Any]]:
    """Scores, detectors' descriptions, the data's, and the grid by detector."""
    names = options.detectors or ("camo",)
    if len(set(names)) != len(names):
        raise ConfigError("--detector: each one once")
    if options.data is None or options.views < 1:
        raise ConfigError("--views must be at least 1")
    dataset = datasets.read(options.data)
    root = dataset.origin.resolve()
    root = root if root.is_dir() else root.parent
    items = _side(dataset.items, options.split, options.only)
    items = at_most(items, options.most, lambda item: digest(f"{options.seed}|{key_of(item, root)}"))
    if not items:
        raise ConfigError(f"{options.data}: no item is left to evaluate")
    found = [judges.load(n, seed=options.seed, threads=options.threads, weights=options.weights) for n in names]
    frames = FRAMES[MIXES.get(level, "2.0")]
    views = Views(root, level, options.seed, frames)
    workers = options.threads or 2
    if options.predictions is not None:
        options.predictions.parent.mkdir(parents=True, exist_ok=True)
    with _bar("views", len(items) * options.views) as progress:
        outcome = score(
            found,
            items,
            views,
            number=options.views,
            workers=workers,
            predictions=options.predictions,
            progress=progress,
        )
    grids: dict[str, Any] = {}
    if options.grid:
        asked = [judge for judge in found if judge.name != judges.FormatProbe.name]
        with _bar("grid", len(items) * len(GRID)) as progress:
            cells = score_grid(asked, items, views, workers=workers, progress=progress)
        kinds = {cell.name: dataclasses.asdict(cell) for cell in GRID}
        grids = {n: {c: {**kinds[c], **brief(s)} for c, s in by_cell.items()} for n, by_cell in cells.items()}
    about = {j.name: {**j.about, "milliseconds_a_view": outcome.milliseconds.get(j.name)} for j in found}
    return outcome, dict(about), _described(options, dataset, items, level), clean(grids)


def _from_dump(options: Options, dump: Path) -> tuple[Outcome, dict[str, Mapping[str, Any]], dict[str, Any]]:
    asked = {"--grid": options.grid, "--predictions": options.predictions, "--split": options.split}
    for flag, value in asked.items():
        if value:
            raise ConfigError(f"{flag} needs --data: a dump holds answers, no media")
    scores = read_dump(dump, options.detectors)
    first = next(iter(scores.values()))
    levels = sorted(set(first.levels.tolist()))
    level = options.level if len(levels) > 1 else ("none" if levels[0] < 0 else str(levels[0]))
    about = {name: {"name": name, "weights": {}, "from": dump.name} for name in scores}
    data = {"description": f"{dump.name}: {len(first)} views", "level": level, "seed": options.seed, "split": None}
    return Outcome(scores), dict(about), data


def _level(text: str) -> Level:
    for level in LEVELS:
        if text == level:
            return level
    raise ConfigError(f"--level {text!r} is none of {', '.join(LEVELS)}")


def _side(items: Sequence[Item], split: Path | None, only: str | None) -> list[Item]:
    """The items of one side of a split file.

    ``fitting`` and ``reporting`` are the halves of the validation side: calibration is fitted on one, figures are of
    the other. The file is that of ``detectors.training.splits``, or ``{"groups": {"validation": [...]}}``, where a side
    that is not listed is everything that no listed side has.
    """
    if split is None:
        if only is not None:
            raise ConfigError("--only needs --split FILE")
        return list(items)
    side = only or "validation"
    if side in ("fitting", "reporting"):
        return [item for item in _side(items, split, "validation") if fits(item.group) == (side == "fitting")]
    if side not in ("train", "validation"):
        raise ConfigError(f"--only {side!r} is none of train, validation, fitting, reporting")
    try:
        raw = json.loads(split.read_text(encoding="utf-8"))
        listed = raw.get("groups")
        groups = None if listed is None else {name: frozenset(map(str, found)) for name, found in listed.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"{split}: not a split file: {error}") from error
    if not groups:
        return load_split(split).apply(items)[side == "validation"]
    if side in groups:
        return [item for item in items if item.group in groups[side]]
    elsewhere = frozenset().union(*groups.values())
    return [item for item in items if item.group not in elsewhere]


def _described(options: Options, dataset: Dataset, items: Sequence[Item], level: Level) -> dict[str, Any]:
    split = None
    if options.split is not None:
        split = {"file": options.split.name, "only": options.only or "validation", "digest": _sha256(options.split)}
    return {
        "description": replace(dataset, items=tuple(items)).description,
        "items": len(items),
        "sources": len({item.source for item in items}),
        "level": level,
        "views": options.views,
        "seed": options.seed,
        "most": options.most,
        "split": split,
    }


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _compared(scores: Mapping[str, Scores], options: Options, mix: Mix | None) -> dict[str, Any]:
    """The first detector against every other one, its own experts alone, and earlier dumps."""
    first, *others = scores
    rivals = {name: scores[name] for name in others}
    experts = scores[first].experts if len(scores[first].experts) > 1 else {}
    rivals |= {f"expert {name} alone": scores[first].expert(name) for name in experts}
    for path in options.compare:
        rivals |= {f"{name} of {path.name}": found for name, found in read_dump(path).items()}
    rows = {}
    for name, rival in rivals.items():
        row = compare.paired(scores[first], rival, rounds=options.rounds, seed=options.seed)
        both = compare.common(scores[first], rival)
        for profile in PROFILES.values():
            row[f"reward {profile.name}"] = clean(difference(*both, profile, mix=mix, seed=options.seed))
        rows[f"{first} against {name}"] = row
    return rows


def _write(options: Options, result: Mapping[str, Any], scores: Mapping[str, Scores]) -> None:
    if options.json is not None:
        _put(options.json, json.dumps(result, indent=1, allow_nan=False) + "\n")
    if options.markdown is not None:
        _put(options.markdown, markdown.page(result))
    if options.plots is not None:
        plots.write(options.plots, scores, result["detectors"])


def _put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _table(blocks: Mapping[str, Mapping[str, Any]]) -> Table:
    table = Table(box=SIMPLE, padding=(0, 0, 0, 1), caption="second lines: 95 %")
    for column in ("detector", "views", "AUC", "bal. acc.", "TNR", "TPR", "ECE", "reward 2.0"):
        first = column == "detector"
        table.add_column(column, justify="left" if first else "right", no_wrap=not first, overflow="fold")
    for name, block in blocks.items():
        spans, paid = block["intervals"], block["reward"]["sn34-2.0"]
        shown = [(block[c], spans[c]) for c in ("auc", "balanced_accuracy")]
        shown += [(block[c], None) for c in ("tnr", "tpr", "ece")]
        shown.append((paid["median"], paid["interval"]))
        table.add_row(escape(name), str(block["n"]), *(_figure(*pair) for pair in shown))
    return table


def _figure(value: float | None, span: Sequence[float] | None) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}" if span is None else f"{value:.3f}\n{span[0]:.2f}–{span[1]:.2f}"


@contextmanager
def _bar(name: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on standard error while it is a terminal."""
    console = Console(stderr=True)
    columns = (TextColumn(name), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(name, total=total)
        yield lambda done: bar.update(task, completed=done)
