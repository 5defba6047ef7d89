"""One recipe from start to card: split, train, calibrate on one half of the validation groups, report on the other."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from detectors import datasets, registry
from detectors.calibration import choose, fit_platt
from detectors.card import Card, Preprocess
from detectors.curve import Curve
from detectors.datasets import Item
from detectors.errors import ConfigError
from detectors.experts.base import Architecture, NeuralDetector
from detectors.gates.base import Gate
from detectors.store import Store
from detectors.training import evaluate, format_probe, precision, splits
from detectors.training.clip_samples import ClipPool
from detectors.training.loop import Progress, fit
from detectors.training.losses import head_of, outputs_of
from detectors.training.recipe import Recipe
from detectors.training.samples import Pool
from detectors.types import U8, Label, Media

__all__ = ["network_of", "preprocess_changes", "train"]

_FOLDABLE = 10  # groups of a class from which a choice by cross-validation means something
_PROBED = 1024  # training views that the format probe sees


def train(
    path: Path,
    *,
    data: Path,
    store: Store,
    run: Path,
    backbones: Path | None = None,
    threads: int | None = None,
    report: Callable[[Progress], None] = lambda _: None,
    changes: Mapping[str, Any] | None = None,
    kind: type[Recipe] = Recipe,
    learn: Callable[..., Iterator[Progress]] = fit,
) -> Card | None:
    """Trains one recipe and saves its weights and card into `store`.

    Under ``torchrun`` every process calls it; the first one reports, measures and saves.

    Args:
        path: the recipe.
        data: a folder or manifest, see ``detectors.datasets``.
        store: where weights and card go.
        run: folder of the run's state; an interrupted run of the same recipe goes on from it.
        backbones: folder of pretrained trunks, needed where the recipe names an `init`.
        threads: of torch; None leaves them as they are.
        report: called with the progress.
        changes: values in place of the recipe's, by key, e.g. ``sources_left_out`` and ``steps`` for a fold.
        kind: of the recipe.
        learn: trains the network in place, with the arguments of :func:`detectors.training.loop.fit`.

    Returns:
        The card, as saved; None in the other processes of several.

    Raises:
        ConfigError: the recipe or a folder it needs is not usable.
    """
    recipe = kind.load(path, changes)
    if threads is not None:
        torch.set_num_threads(threads)
    items = datasets.read(data)
    training, validation = datasets.split_by_group(items, recipe.validation, recipe.split_seed)
    training, validation, left = _left_out(training, validation, recipe.sources_left_out)
    gate = _gate(recipe, store)
    network, init = network_of(recipe, backbones, store)
    base = network.published
    view = replace(base.preprocess, **preprocess_changes(recipe.preprocess))
    pool = _pool(training, recipe, gate, base)
    first = precision.is_main()
    seconds = 0.0
    for progress in learn(network, pool, recipe, view, run):
        seconds = progress.seconds
        if first:
            report(progress)
    precision.finish()
    if not first:
        return None
    network, options = _shipped(network.to("cpu"), recipe)
    held = _pool(validation, recipe, gate, base)
    card = replace(
        base,
        name=recipe.name,
        version=recipe.version,
        options=options,
        preprocess=view,
        licence_weights="Apache-2.0 for the weights; the training data keep the licences of their sources",
        provenance=_provenance(pool, recipe) + init,
        origin=f"recipe {path.name}, seed {recipe.seed}, {recipe.steps} steps of {recipe.batch}",
        command=f"deepfake-miner train configs/train/{path.name}",
    )
    if outputs_of(network) == len(Label):  # then they are in Label's order
        card = replace(card, fake_index=int(Label.SYNTHETIC), semi_index=int(Label.SEMISYNTHETIC))
    card = _measured(card, network, held, recipe)
    facts = {"split": _split(pool, held, recipe), "training": _effort(network, recipe, seconds)}
    if recipe.media == "image":
        facts["format_probe"] = _probe(pool)
    if left:
        facts["left_out"] = _on_left_out(card, network, recipe, gate, [*left, *validation])
    return store.save(replace(card, metrics={**card.metrics, **facts}), network)


def _left_out(
    training: Sequence[Item], validation: Sequence[Item], names: Sequence[str]
) -> tuple[list[Item], list[Item], list[Item]]:
    """(training, validation, left out); nothing that is trained on shares a group with what is left out."""
    kept, left = splits.leave_out([*training, *validation], sources=names, generators=names)
    chosen = {id(item) for item in kept}
    return [i for i in training if id(i) in chosen], [i for i in validation if id(i) in chosen], left


def _probe(pool: Pool) -> dict[str, Any]:
    """What size, compression and colour tell of the training views; above AUC 0.6 the pipeline leaks the label."""
    batches = range(10**6, 10**6 + max(4, _PROBED // pool.recipe.batch))  # steps that no training reaches
    try:
        report = format_probe.probe_views(pool.batch(step) for step in batches)
    except ValueError as error:  # a handful of groups can be trained on, but says nothing
        return {"skipped": str(error)}
    return {**report.as_dict(), "leaks": report.leaks}


def _on_left_out(
    card: Card, network: Architecture, recipe: Recipe, gate: Gate | None, items: Sequence[Item]
) -> dict[str, Any]:
    """Figures on what was left out, against the other class of the validation groups where it has one class only."""
    names = set(recipe.sources_left_out)
    own = {i.fake for i in items if names & {i.source, i.generator}}
    chosen = [i for i in items if names & {i.source, i.generator} or i.fake not in own]
    pool = _pool(chosen, recipe.model_copy(update={"sources_left_out": ()}), gate, card)
    return evaluate.summary(evaluate.parts(_scored(card, network, pool, recipe))["pool"])


def _scored(card: Card, network: Architecture, pool: Pool, recipe: Recipe) -> evaluate.Scored:
    detector = NeuralDetector(card, network)
    logits = detector.logits if card.frames == 1 else _clip_logits(detector)
    return evaluate.score(logits, pool, pool.items, recipe.views, recipe.seed + 1)


def _split(pool: Pool, held: Pool, recipe: Recipe) -> dict[str, Any]:
    """What was held out, by a hash over the groups' names that another machine can check."""
    groups = sorted({f"{i.source}/{i.group}" for i in held.items})
    return {
        "seed": recipe.split_seed,
        "share": recipe.validation,
        "training_items": len(pool.items),
        "validation_items": len(held.items),
        "validation_groups": len(groups),
        "validation_groups_sha256": hashlib.sha256("\n".join(groups).encode()).hexdigest()[:16],
        "left_out": list(recipe.sources_left_out),
    }


def _effort(network: Architecture, recipe: Recipe, seconds: float) -> dict[str, Any]:
    return {
        "steps": recipe.steps,
        "samples": recipe.steps * recipe.batch,
        "epochs": round(recipe.steps * recipe.batch / recipe.epoch, 2),
        "parameters": sum(p.numel() for p in network.parameters()),
        "seconds": round(seconds),
    }


def _measured(card: Card, network: Architecture, held: Pool, recipe: Recipe) -> Card:
    """Calibrated on one half of the held-out groups, figures from the other half only."""
    fitting, reporting = evaluate.halves(_scored(card, network, held, recipe))
    fitting = evaluate.balanced(fitting)
    calibration = _curve(fitting)
    shifted = calibration.logits(reporting.logits)
    calibrated = evaluate.parts(dataclasses.replace(reporting, logits=shifted))
    figures = {name: evaluate.summary(part) for name, part in calibrated.items()}
    return replace(card, calibration=calibration, metrics=figures)


def _curve(fitting: evaluate.Scored) -> Curve:
    """Chosen by cross-validation; Platt's where a class has too few groups for folds."""
    few = min(
        len({g for g, f in zip(fitting.groups, fitting.fake, strict=True) if f == kind}) for kind in (True, False)
    )
    if few < _FOLDABLE:
        return fit_platt(fitting.logits, fitting.fake)
    return choose(fitting.logits, fitting.fake, fitting.groups).curve


def _clip_logits(detector: NeuralDetector) -> Callable[[Sequence[U8]], evaluate.F64]:
    """What `evaluate.score` asks for, of clips ``uint8 [T, H, W, 3]``."""

    def logits(clips: Sequence[U8]) -> evaluate.F64:
        said = np.array([p.p_fake for p in detector.predict([Media(clip) for clip in clips])]).clip(1e-9, 1 - 1e-9)
        found: evaluate.F64 = np.log(said) - np.log1p(-said)
        return found

    return logits


def _pool(items: Sequence[Item], recipe: Recipe, gate: Gate | None, card: Card) -> Pool:
    if (recipe.media == "video") != (card.frames > 1):
        raise ConfigError(
            f"recipe {recipe.name}: media {recipe.media!r}, but {card.name} looks at {card.frames} frames"
        )
    return Pool(items, recipe, gate) if recipe.media == "image" else ClipPool(items, recipe, card.frames)


def _shipped(network: Architecture, recipe: Recipe) -> tuple[Architecture, dict[str, Any]]:
    """The network without what only its training needs, and its options."""
    if not network.training_only or recipe.options.get("inference_only"):
        return network, recipe.options
    options = {**recipe.options, "inference_only": True}
    slim = type(network)(**options)
    wanted = slim.state_dict()
    slim.load_state_dict({name: value for name, value in network.state_dict().items() if name in wanted})
    return slim.eval(), options


def network_of(recipe: Recipe, backbones: Path | None, store: Store) -> tuple[Architecture, str]:
    """The network as the recipe's `init` has it, and what the card says of that."""
    torch.manual_seed(recipe.seed)
    kind = registry.architecture(recipe.architecture)
    if recipe.init is None:
        return kind(**recipe.options), ""
    if "@" in recipe.init:
        return _continued(kind, recipe, store), f"; started from {recipe.init}: {store.card(recipe.init).provenance}"
    maker = "from_tflite_npz" if recipe.init == "mobilenet-v2" else "from_package"
    build = getattr(kind, maker, None)
    if build is None:
        raise ConfigError(f"recipe {recipe.name}: {recipe.architecture} has no trunk {recipe.init!r}")
    if maker == "from_package":
        trunk: Architecture = build(recipe.init, **recipe.options)
        source = f"ImageNet weights of {trunk.published.origin}, {trunk.published.licence_weights}"
        return trunk, f"; trunk: {recipe.init}, {source}, {recipe.use_of_trunk}"
    if backbones is None or not backbones.is_dir():
        raise ConfigError(f"recipe {recipe.name}: init {recipe.init!r} needs --backbones DIR with the pretrained trunk")
    trunk = build(backbones / "mobilenet_v2_100_ptq", **recipe.options)
    return trunk, f"; trunk: MobileNetV2 1.0 ImageNet weights by Google (Apache-2.0), {recipe.use_of_trunk}"


def _continued(kind: type[Architecture], recipe: Recipe, store: Store) -> Architecture:
    """The network of stored weights; a head of another shape starts afresh."""
    found = store.load(str(recipe.init)).network
    if not isinstance(found, kind):
        raise ConfigError(f"recipe {recipe.name}: init {recipe.init} is no {recipe.architecture}")
    network = kind(**recipe.options)
    fresh = {id(p) for p in head_of(network).parameters()}
    head = {name for name, p in network.named_parameters() if id(p) in fresh}
    theirs, mine = found.state_dict(), network.state_dict()
    fitting = {name: value for name, value in theirs.items() if name in mine and mine[name].shape == value.shape}
    wrong = sorted((set(mine) | set(theirs)) - set(fitting) - head)
    if wrong:
        raise ConfigError(f"recipe {recipe.name}: init {recipe.init} was built with other options; {wrong[0]} differs")
    network.load_state_dict(fitting, strict=False)
    return network


def _gate(recipe: Recipe, store: Store) -> Gate | None:
    if recipe.gate is None:
        return None
    from detectors.gates.face import FaceGate  # noqa: PLC0415 - only recipes of gated experts need it

    return FaceGate.load(store)


def preprocess_changes(values: dict[str, Any]) -> dict[str, Any]:
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
