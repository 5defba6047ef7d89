"""``deepfake-miner data``: data sets of the hub, pools, splits and the format probe from the command line."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from detectors import datasets
from detectors.errors import ConfigError
from detectors.hub import SOURCES, describe
from detectors.types import Label, Modality

if TYPE_CHECKING:
    from detectors.training.format_probe import ProbeReport

__all__ = ["LABELS", "listing", "prepare", "probe", "pull", "split"]

LABELS = {label.name.lower(): label for label in Label}


def listing(pool: Path | None) -> Iterator[str]:
    """The validators' sources; or what a pool holds, one line a source."""
    if pool is None:
        for source in SOURCES.values():
            label = source.label.name.lower()
            yield f"{source.name:50} {label:14} {source.modality:6} {source.content:8} {source.layout}"
        return
    data = datasets.read(pool)
    counts = Counter((item.source, item.label.name.lower(), item.modality) for item in data)
    groups = Counter(source for source, _ in {(item.source, item.group) for item in data})
    yield data.description
    for (name, label, modality), count in sorted(counts.items()):
        yield f"{name:50} {label:14} {modality:6} {count:7} files {groups[name]:7} groups"


def pull(name: str, to: Path, *, revision: str | None, trust_latest: bool, most: int | None) -> str:
    """Downloads a data set; see :func:`detectors.hub.pull.pull`."""
    from detectors.hub import pull as hub  # noqa: PLC0415 - the hub's client is slow to import

    done = hub.pull(name, to, revision=revision, trust_latest=trust_latest, most=most)
    return f"{done.name} at {done.revision}: {len(done.files)} files, {done.size / 1e9:.2f} GB, in {to}"


def prepare(
    what: str,
    *,
    local: Path | None,
    to: Path,
    label: str | None,
    modality: Modality | None,
    content: str | None,
    generator: str | None,
    say: Callable[[str], None],
) -> str:
    """Extracts a data set into a pool.

    Args:
        what: the directory; or the data set's name, with its directory in `local`.
        local: see `what`.
        to: the pool.
        label, modality, content, generator: over those of the validators' table; see :func:`detectors.hub.describe`.
        say: prints a line.

    Raises:
        ConfigError: the data set is unknown, its directory unreadable, or the pool not usable.
    """
    from detectors.hub import prepare as hub  # noqa: PLC0415 - imports OpenCV

    directory, name = (Path(what), None) if local is None else (local, what)
    if not directory.is_dir():
        raise ConfigError(f"{directory}: no such folder; `data pull` downloads one, --local says where it is")
    source = describe(
        directory,
        name,
        label=None if label is None else LABELS[label],
        modality=modality,
        content=content,
        generator=generator,
    )

    def report(container: str, count: int) -> None:
        if container:
            say(f"{source.name}: {count} files so far, reading {container}")

    done = hub.prepare(directory, to, source, report=report)
    refused = ", ".join(f"{count} {why}" for why, count in done.refused.items())
    return f"{done.manifest}: {done.held} files of {source.name}, {done.new} of them new; left out: {refused or 'none'}"


def split(data: Path, out: Path, *, fraction: float, seed: int) -> str:
    """Writes the split file of a pool."""
    from detectors.training import splits  # noqa: PLC0415

    made = splits.make_split(datasets.read(data), fraction, seed)
    made.save(out)
    held = sum(side.validation for side in made.counts.values())
    every = held + sum(side.training for side in made.counts.values())
    return f"{out}: {held} of {every} files in {len(made.validation)} groups held out, sha256 {made.sha256}"


def probe(data: Path, recipe: Path | None, *, views: int, seed: int, out: Path | None) -> list[str]:
    """Runs the format probe on the images as they are stored, and on a recipe's training views.

    Args:
        data: folder or manifest.
        recipe: of ``configs/train``; None probes the files alone.
        views: at most so many files, and about so many training views.
        seed: of what is drawn.
        out: JSON file for both reports.

    Raises:
        ConfigError: the pool or the recipe cannot be used, or there are too few images to say anything.
    """
    items = datasets.read(data)
    try:
        found = {"stored": _stored(items, views, seed)}
        if recipe is not None:
            found["training view"] = _shown(items, recipe, views, seed)
    except ValueError as error:
        raise ConfigError(f"{data}: cannot be probed: {error}") from error
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps({name: report.as_dict() for name, report in found.items()}, indent=1) + "\n")
    return [f"{name}: {report}" for name, report in found.items()]


def _stored(items: datasets.Dataset, most: int, seed: int) -> ProbeReport:
    from detectors.training import format_probe  # noqa: PLC0415
    from detectors.training.balance import Plan  # noqa: PLC0415

    images = [item for item in items if item.modality == "image"]
    draws = 2 * (most // 2)
    drawn = sorted(set(Plan(images, batch=draws, epoch=draws, seed=seed).draw(0)))
    chosen = [images[index] for index in drawn]
    rows = [format_probe.features(item.path.read_bytes()) for item in chosen]
    return format_probe.fit_probe(rows, [item.fake for item in chosen], [item.group for item in chosen], seed=seed)


def _shown(items: datasets.Dataset, path: Path, views: int, seed: int) -> ProbeReport:
    from detectors.training import format_probe  # noqa: PLC0415
    from detectors.training.recipe import Recipe  # noqa: PLC0415
    from detectors.training.samples import Pool  # noqa: PLC0415

    recipe = Recipe.load(path)
    if recipe.gate is not None:
        raise ConfigError(f"{path}: shows a gate's cut-outs; probe a recipe without a gate")
    training, _ = datasets.split_by_group(items, recipe.validation, recipe.split_seed)
    pool = Pool(training, recipe)
    steps = -(-views // recipe.batch)
    return format_probe.probe_views(map(pool.batch, range(steps)), seed=seed)
