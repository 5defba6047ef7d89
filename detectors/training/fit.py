"""Fitting the learned merge and its calibrations on held-out groups: a recipe in, the numbers of ``camo.yaml`` out.

Nothing is fitted on what an expert was trained on, and nothing is reported on what was fitted: the held-out groups
are halved, one half to fit on and one to report. Where there are too few videos for that, they are cross-fitted: the
figures of a group come from a fit on the other groups, and what is written from a fit on all.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field
from scipy.special import expit

from detectors import calibration, camo, datasets, paths
from detectors.calibration import GOALS, Method
from detectors.datasets import Item
from detectors.errors import ConfigError
from detectors.training import camo_file, splits
from detectors.training.merge_fit import Fitted, Settings, configured, figures, fit_curves_only, fit_merge, weights_of
from detectors.training.merge_sheet import Sheet, bare, score_images, score_videos
from detectors.training.recipe import Recipe, load_as

__all__ = ["MergeRecipe", "fit", "fit_images", "fit_videos", "held_out"]

F64 = npt.NDArray[np.float64]
_BINS = 10


class MergeRecipe(BaseModel):
    """How the merge is fitted.

    Attributes:
        kind: says which loop runs it.
        name: of the recipe.
        split: split file below the configuration folder, as ``data split`` writes it; null splits by the two below.
        validation, split_seed: share and seed of the held-out groups, as in the experts' recipes.
        views: challenges drawn per held-out item.
        mix: the validators' augmentation, see ``detectors.augment``.
        seed: of views, folds and bootstraps.
        methods: calibrations to choose from, the simplest first.
        experts: whether experts get calibrations of their own, where better than their card's.
        spread: whether disagreement may take off.
        by_gate: whether a gate may get its own calibration of the merge, where better.
        made: share of the fakes' weight that fakes made from the reals have; 0 makes none.
        goal: the reward profile whose expected value the decision point maximises.
        folds: of cross-validation.
        rounds: bootstraps of the decision point.
        min_videos: held-out videos below which they are cross-fitted, with the images' weights.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["merge"]
    name: str = "merge"
    split: str | None = None
    validation: float = Field(splits.FRACTION, gt=0, lt=1)
    split_seed: int = splits.SEED
    views: int = Field(2, ge=1)
    mix: Literal["2.0", "2.2"] = "2.0"
    seed: int = 7
    methods: tuple[Method, ...] = Field(calibration.METHODS, min_length=1)
    experts: bool = True
    spread: bool = True
    by_gate: bool = True
    made: float = Field(0.2, ge=0, lt=1)
    goal: Literal["sn34-2.0", "sn34-2.0.1", "sn34-2.1", "sn34-2.2.0", "sn34-2.2.7", "sn34-4"] = "sn34-2.0"
    folds: int = Field(5, ge=2)
    rounds: int = Field(200, ge=2)
    min_videos: int = Field(60, ge=0)

    @property
    def settings(self) -> Settings:
        kept = {f.name for f in dataclasses.fields(Settings)} - {"goal"}
        return Settings(goal=GOALS[self.goal], **{name: getattr(self, name) for name in kept})

    @classmethod
    def load(cls, path: Path) -> MergeRecipe:
        """Reads a recipe.

        Raises:
            ConfigError: unreadable, unknown key, or a value out of range; the text names the key.
        """
        return load_as(cls, path)


def fit(
    path: Path,
    *,
    data: Path,
    config: Path | None = None,
    weights: Path | None = None,
    out: Path | None = None,
    write: bool = True,
    threads: int | None = None,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Fits everything that a recipe asks for.

    Args:
        path: the recipe.
        data: a folder or manifest, see ``detectors.datasets``.
        config: whose experts are merged and whose numbers are written; default ``configs/camo.yaml``.
        weights: the weights folder; default ``weights/``.
        out: where the report goes as JSON; None keeps it.
        write: whether the numbers are put into `config`.
        threads: of torch.
        say: called with a line now and then.

    Returns:
        The report: by modality how it was fitted, the numbers, and figures of groups that they were not fitted on:
        every expert alone, the maximum, the merge as it was and as fitted, with its reliability table.

    Raises:
        ConfigError: recipe, configuration, data or split are not usable, or hold too few groups.
    """
    recipe = MergeRecipe.load(path)
    config = config or paths.configs() / "camo.yaml"
    network = camo.load(config, weights=weights, threads=threads)
    pool = datasets.read(data)
    held = held_out(pool, recipe)
    say(f"{recipe.name}: {len(held)} held-out items, {recipe.views} views each")
    drawn = Recipe(
        name=recipe.name, version="0", architecture="camo", views=recipe.views, mix=recipe.mix, seed=recipe.seed
    )
    root, plain = (data if data.is_dir() else data.parent).resolve(), bare(network)
    sheet = score_images(plain, held, drawn, root, made=recipe.made > 0)
    images, report = fit_images(sheet, recipe.settings, configured(network.config, sheet.names, "image"))
    found: dict[str, Any] = {"image": report}
    count = sum(item.modality == "video" for item in held)
    videos, own = None, count >= max(1, recipe.min_videos)
    if count:
        sheet = score_videos(plain, held, drawn, root)
        before = configured(network.config, sheet.names, "video")
        videos, found["video"] = fit_videos(sheet, recipe.settings, images, before, own_weights=own)
        say(f"{recipe.name}: {count} held-out videos, {found['video']['how']}")
    if write:
        camo_file.write(config, camo_file.changes(images, videos, own_weights=own))
        say(f"{recipe.name}: numbers written to {config.name}")
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return found


def fit_images(sheet: Sheet, settings: Settings, before: Fitted) -> tuple[Fitted, dict[str, Any]]:
    """Fits on one half of the groups; the report is of the other half."""
    fitting, reporting = _halves(sheet)
    fitted = fit_merge(fitting, settings)
    return fitted, _halved(fitted, before, reporting, settings)


def fit_videos(
    sheet: Sheet, settings: Settings, images: Fitted, before: Fitted, *, own_weights: bool
) -> tuple[Fitted | None, dict[str, Any]]:
    """Fits videos.

    Args:
        sheet: of videos.
        settings: as for images.
        images: fitted on images; experts that it does not know keep the weights of `before`.
        before: as configured.
        own_weights: fits weights and all on one half of the groups; otherwise only the curve and the decision point
            of the images' merge, by cross-fitting.

    Returns:
        The numbers, None where there are too few groups of a class to fit anything, and the report.
    """
    if own_weights:
        fitting, reporting = _halves(sheet)
        fitted = fit_merge(fitting, settings)
        return fitted, _halved(fitted, before, reporting, settings)
    base = _inherited(images, before)
    columns = {"merge as it was": before.logits(sheet), "merge by the images' numbers": base.logits(sheet)}
    try:
        y, index = sheet.fake.astype(np.float64), np.unique(sheet.groups, return_inverse=True)[1].astype(np.int64)
        crossed = np.empty(len(sheet))
        for train, test in calibration.folds_of(y, index, settings.folds, settings.seed):
            crossed[test] = fit_curves_only(base, sheet.part(train), settings).logits(sheet.part(test))
        fitted = fit_curves_only(base, sheet, settings)
    except ConfigError as error:
        return None, {"how": f"not fitted, as images: {error}", **_report(base, before, sheet, columns, settings)}
    columns["merge as fitted"] = crossed
    how = "calibrated by cross-fitting over groups, with the images' weights"
    return fitted, {"how": how, **_report(fitted, before, sheet, columns, settings)}


def _inherited(images: Fitted, before: Fitted) -> Fitted:
    """The images' numbers for the videos' experts."""
    known = dict(zip(images.names, zip(images.weights, images.experts, strict=True), strict=True))
    theirs = zip(before.names, before.weights, before.experts, strict=True)
    rows = [known.get(name, (weight, part)) for name, weight, part in theirs]
    return dataclasses.replace(
        before,
        weights=tuple(weight for weight, _ in rows),
        experts=tuple(part for _, part in rows),
        merge=images.merge,
        spread=images.spread,
        gates={},
    )


def _halved(fitted: Fitted, before: Fitted, rows: Sheet, settings: Settings) -> dict[str, Any]:
    columns = {"merge as it was": before.logits(rows), "merge as fitted": fitted.logits(rows)}
    how = "fitted on one half of the held-out groups, figures from the other"
    return {"how": how, **_report(fitted, before, rows, columns, settings)}


def _report(fitted: Fitted, before: Fitted, rows: Sheet, columns: dict[str, F64], settings: Settings) -> dict[str, Any]:
    """Numbers and figures; the last column is the one whose reliability is told."""
    alone = {name: before.experts[k].curve.logits(rows.logits[:, k]) for k, name in enumerate(rows.names)}
    every = {**alone, "maximum": np.nanmax(np.stack(list(alone.values())), axis=0), **columns}
    last = list(columns.values())[-1]
    table = calibration.reliability(expit(last), rows.fake, _BINS, weights_of(rows, settings))
    return {
        "numbers": {
            "weights": dict(zip(fitted.names, fitted.weights, strict=True)),
            "experts": {n: part.model_dump() for n, part in zip(fitted.names, fitted.experts, strict=True)},
            "merge": fitted.merge.model_dump(),
            "spread": fitted.spread,
            "gates": {name: part.model_dump() for name, part in fitted.gates.items()},
        },
        "choice": dict(fitted.notes),
        "figures": {name: figures(values, rows, settings) for name, values in every.items()},
        "reliability": [{k: round(v, 4) for k, v in dataclasses.asdict(row).items()} for row in table],
    }


def _halves(sheet: Sheet) -> tuple[Sheet, Sheet]:
    fitting = np.array([splits.fits(group) for group in sheet.groups], bool)
    return sheet.part(fitting), sheet.part(~fitting)


def held_out(pool: datasets.Dataset, recipe: MergeRecipe) -> Sequence[Item]:
    """The items that no expert was trained on, as the recipe's split has them."""
    if recipe.split is None:
        return datasets.split_by_group(pool, recipe.validation, recipe.split_seed)[1]
    split = splits.load_split(paths.configs() / recipe.split)
    split.check(pool)
    return split.apply(pool)[1]
