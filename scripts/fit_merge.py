"""Fits the learned merge on one half of the held-out groups and measures everything on the other half.

    .venv/bin/python scripts/fit_merge.py --data ../shared/data [--write]

Prints the numbers of ``configs/camo.yaml`` (``--write`` puts them there) and the figures of ``docs/weights.md``: AUC
with its 95 % interval for every expert alone, the plain maximum and the learned merge, and the reward ``sn34-2.0`` of
both merges over challenges drawn from groups that neither training nor fitting has seen.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from detectors import camo, datasets, merge, paths
from detectors.calibration import MergeFit, fit_merge
from detectors.camo import Camo
from detectors.datasets import Item
from detectors.merge import logit
from detectors.training import evaluate
from detectors.training.recipe import Recipe
from detectors.training.samples import Pool
from detectors.types import Media
from neurons.challenges import MediaSet, Stream
from neurons.pipeline import Judge
from neurons.rewards import PROFILES, Tracker
from neurons.wire.base import Challenge

SPLIT = Recipe(name="split", version="0", architecture="npr")


def scores(detector: Camo, items: Sequence[Item], names: Sequence[str], views: int) -> evaluate.Scored:
    """Views of every item with each expert's logit ``[N, E]`` (NaN where it did not run) in place of one logit."""
    pool = Pool(items, SPLIT)

    def logits(images: Sequence[Any]) -> Any:
        rows = [p.experts for p in detector.predict([Media(i) for i in images])]
        return np.array([[logit(row[name]) if name in row else np.nan for name in names] for row in rows])

    return evaluate.score(logits, pool, items, views, seed=7)


def masks(scored: evaluate.Scored) -> dict[str, Any]:
    """Which views count: the pool's own, or the reals against the fakes made from them."""
    made = np.array([source.startswith("made:") for source in scored.sources])
    return {"pool": ~made, "made": made | ~scored.fake}


def row(scored: evaluate.Scored, values: Any, there: Any) -> dict[str, Any]:
    """The figures of one column where its expert ran."""
    part = evaluate.Scored(values, scored.fake, scored.sources, scored.groups).part(np.isfinite(values) & there)
    return {k: v for k, v in evaluate.summary(part).items() if k != "sources"}


def learned(found: MergeFit, names: Sequence[str], logits: Any) -> Any:
    """The learned merge's logit of every row, by the function that serves."""
    weights = dict(zip(names, found.weights, strict=True))
    rows = ({n: float(v) for n, v in zip(names, row, strict=True) if np.isfinite(v)} for row in logits)
    return np.array([logit(merge.learned(r, weights, slope=found.slope, intercept=found.intercept)) for r in rows])


def reward(detector: Camo, items: Sequence[Item], count: int, seeds: Sequence[int]) -> dict[str, Any]:
    """Median and range of the last reward over runs of `count` challenges each, ``sn34-2.0``."""
    judge = Judge(detector)
    rewards = []
    for seed in seeds:
        tracker = Tracker(PROFILES["sn34-2.0"])
        value = 0.0
        for issued in Stream(MediaSet(tuple(items), "held out"), mix="2.0", seed=seed, count=count):
            image = issued.modality == "image"
            asked = Challenge(issued.modality, issued.payload, "image" if image else "jpeg-frames", "float")
            answer = judge.judge([asked], None)[0]
            if isinstance(answer, Exception):
                raise answer
            value = tracker.step(issued.modality, answer.p_fake, issued.label).total
        rewards.append(value)
    judge.close()
    return {"median": round(float(np.median(rewards)), 3), "runs": [round(v, 3) for v in rewards]}


def write(found: MergeFit, names: Sequence[str], path: Path) -> None:
    """Puts the numbers into camo.yaml, comments and all else untouched."""
    text = path.read_text(encoding="utf-8")
    text = re.sub(r"(?m)^merge_slope: .*$", f"merge_slope: {found.slope:.4f}", text)
    text = re.sub(r"(?m)^merge_intercept: .*$", f"merge_intercept: {found.intercept:.4f}", text)
    for name, weight in zip(names, found.weights, strict=True):
        text, count = re.subn(rf"(?m)(^  {name}:\n(?:    .*\n)*?    weight: )[0-9.]+", rf"\g<1>{weight:.4f}", text)
        if count != 1:
            raise SystemExit(f"{path.name}: no `weight:` under experts.{name}")
    path.write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--views", type=int, default=2, help="challenges drawn per held-out item")
    parser.add_argument("--challenges", type=int, default=200, help="of each simulated run")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--write", action="store_true", help="put the numbers into configs/camo.yaml")
    parser.add_argument("--out", type=Path, default=Path("build/merge.json"))
    options = parser.parse_args()
    torch.set_num_threads(2)
    config = paths.configs() / "camo.yaml"
    detector = camo.load(config)
    _, held = datasets.split_by_group(datasets.read(options.data), SPLIT.validation, SPLIT.split_seed)
    names = list(detector.config.experts)
    scored = scores(detector, held, names, options.views)
    fitting, reporting = evaluate.halves(scored)
    fitting = evaluate.balanced(fitting)
    found = fit_merge(fitting.logits, fitting.fake)
    if options.write:
        write(found, names, config)
        detector = camo.load(config)
    columns = {name: reporting.logits[:, k] for k, name in enumerate(names)}
    general = [k for k, name in enumerate(names) if not detector.config.experts[name].needs]
    gated = np.delete(reporting.logits, general, axis=1)
    fired = np.isfinite(gated).any(axis=1)
    top = np.where(fired, np.nanmax(np.nan_to_num(gated, nan=-1e9), axis=1), reporting.logits[:, general].max(axis=1))
    columns["merge max"] = top
    columns["merge learned"] = learned(found, names, reporting.logits)
    report = {
        "merge": {
            "weights": dict(zip(names, found.weights, strict=True)),
            "slope": found.slope,
            "intercept": found.intercept,
        },
        "figures": {
            name: {column: row(reporting, values, there) for column, values in columns.items()}
            for name, there in masks(reporting).items()
        },
    }
    unseen = [i for i in held if not evaluate.fits(f"{i.source}/{i.group}")]
    report["reward sn34-2.0, learned"] = reward(detector, unseen, options.challenges, range(options.runs))
    report["reward sn34-2.0, max"] = reward(
        camo.load(config, merge="max"), unseen, options.challenges, range(options.runs)
    )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
