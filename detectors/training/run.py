"""One recipe from start to card: split, train, calibrate on one half of the validation groups, report on the other."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from detectors import datasets, registry
from detectors.calibration import fit_platt
from detectors.card import Card, Preprocess
from detectors.errors import ConfigError
from detectors.experts.base import Architecture, NeuralDetector
from detectors.gates.base import Gate
from detectors.store import Store
from detectors.training import evaluate
from detectors.training.loop import Progress, fit
from detectors.training.recipe import Recipe
from detectors.training.samples import Pool

__all__ = ["train"]


def train(
    path: Path,
    *,
    data: Path,
    store: Store,
    run: Path,
    backbones: Path | None = None,
    threads: int | None = None,
    report: Callable[[Progress], None] = lambda _: None,
) -> Card:
    """Trains one recipe and saves its weights and card into `store`.

    Args:
        path: the recipe.
        data: a folder or manifest, see ``detectors.datasets``.
        store: where weights and card go.
        run: folder of the run's state; an interrupted run of the same recipe goes on from it.
        backbones: folder of pretrained trunks, needed where the recipe names an `init`.
        threads: of torch; None leaves torch's choice.
        report: called with the progress.

    Returns:
        The card, as saved.

    Raises:
        ConfigError: the recipe or a folder it needs is not usable.
    """
    recipe = Recipe.load(path)
    if threads is not None:
        torch.set_num_threads(threads)
    items = datasets.read(data)
    training, validation = datasets.split_by_group(items, recipe.validation, recipe.split_seed)
    gate = _gate(recipe, store)
    network, init = _network(recipe, backbones, store)
    base = network.published
    view = replace(base.preprocess, **_tuples(recipe.preprocess))
    pool = Pool(training, recipe, gate)
    for progress in fit(network, pool, recipe, view, run):
        report(progress)
    card = replace(
        base,
        name=recipe.name,
        version=recipe.version,
        options=recipe.options,
        preprocess=view,
        licence_weights="Apache-2.0 for the weights; the training data keep the licences of their sources",
        provenance=_provenance(pool, recipe) + init,
        origin=f"recipe {path.name}, seed {recipe.seed}, {recipe.steps} steps of {recipe.batch}",
        command=f"deepfake-miner train configs/train/{path.name}",
    )
    held = Pool([i for i in validation if i.source not in recipe.sources_left_out], recipe, gate)
    return store.save(_measured(card, network, held, recipe), network)


def _measured(card: Card, network: Architecture, held: Pool, recipe: Recipe) -> Card:
    """Calibrated on one half of the held-out groups, figures from the other half only."""
    detector = NeuralDetector(card, network)
    scored = evaluate.score(detector.logits, held, held.items, recipe.views, recipe.seed + 1)
    fitting, reporting = evaluate.halves(scored)
    fitting = evaluate.balanced(fitting)
    calibration = fit_platt(fitting.logits, fitting.fake)
    logits = calibration.slope * reporting.logits + calibration.intercept
    calibrated = evaluate.parts(dataclasses.replace(reporting, logits=logits))
    figures = {name: evaluate.summary(part) for name, part in calibrated.items()}
    return replace(card, calibration=calibration, metrics=figures)


def _network(recipe: Recipe, backbones: Path | None, store: Store) -> tuple[Architecture, str]:
    """The network as the recipe's `init` has it, and what the card says of that."""
    torch.manual_seed(recipe.seed)
    kind = registry.architecture(recipe.architecture)
    if recipe.init is None:
        return kind(**recipe.options), ""
    if "@" in recipe.init:
        network = store.load(recipe.init).network
        if not isinstance(network, kind):
            raise ConfigError(f"recipe {recipe.name}: init {recipe.init} is no {recipe.architecture}")
        return network, f"; started from {recipe.init}: {store.card(recipe.init).provenance}"
    if backbones is None or not backbones.is_dir():
        raise ConfigError(f"recipe {recipe.name}: init {recipe.init!r} needs --backbones DIR with the pretrained trunk")
    trunk = kind.from_tflite_npz(backbones / "mobilenet_v2_100_ptq", **recipe.options)  # type: ignore[attr-defined]
    return trunk, "; trunk: MobileNetV2 1.0 ImageNet weights by Google (Apache-2.0), fine-tuned end to end"


def _gate(recipe: Recipe, store: Store) -> Gate | None:
    if recipe.gate is None:
        return None
    from detectors.gates.face import FaceGate  # noqa: PLC0415 - only recipes of gated experts need it

    return FaceGate.load(store)


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    known = {f.name for f in dataclasses.fields(Preprocess)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise ConfigError(f"preprocess: unknown keys {unknown}; known are {sorted(known)}")
    return {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}


def _provenance(pool: Pool, recipe: Recipe) -> str:
    counts: dict[str, int] = {}
    for item in pool.items:
        counts[item.source] = counts.get(item.source, 0) + 1
    listed = ", ".join(f"{name} ({number})" for name, number in sorted(counts.items()))
    return f"{listed}; {recipe.made_share:.0%} of the fakes made from the reals ({', '.join(recipe.kinds)})"
