"""Fits the learned merge and its calibrations as ``configs/train/merge.yaml`` says, and simulates what they earn.

    .venv/bin/python scripts/fit_merge.py --data DIR [--write]

The figures are of held-out groups that the numbers were not fitted on; ``--write`` puts the numbers into the
configuration. The simulated reward ``sn34-2.0`` of the configuration as it then is, and of the plain maximum, is over
challenges drawn from the same groups.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from detectors import camo, datasets, paths
from detectors.camo import Camo
from detectors.datasets import Item
from detectors.training import evaluate
from detectors.training.fit import MergeRecipe, fit, held_out
from neurons.challenges import MediaSet, Stream
from neurons.pipeline import Judge
from neurons.rewards import PROFILES, Tracker
from neurons.wire.base import Challenge


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


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--recipe", type=Path, default=paths.configs() / "train" / "merge.yaml")
    parser.add_argument("--config", type=Path, default=paths.configs() / "camo.yaml")
    parser.add_argument("--weights", type=Path, default=paths.weights())
    parser.add_argument("--challenges", type=int, default=200, help="of each simulated run")
    parser.add_argument("--runs", type=int, default=5, help="0 simulates none")
    parser.add_argument("--write", action="store_true", help="put the numbers into the configuration")
    parser.add_argument("--out", type=Path, default=Path("build/merge.json"))
    options = parser.parse_args(arguments)
    files = {"config": options.config, "weights": options.weights}
    report = fit(options.recipe, data=options.data, write=options.write, threads=2, **files)
    unseen = [i for i in held_out(datasets.read(options.data), MergeRecipe.load(options.recipe)) if not _fitted_on(i)]
    for rule in ("learned", "max") if options.runs else ():
        detector = camo.load(options.config, merge=rule, weights=options.weights)
        report[f"reward sn34-2.0, {rule}"] = reward(detector, unseen, options.challenges, range(options.runs))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=2))


def _fitted_on(item: Item) -> bool:
    return evaluate.fits(item.group)


if __name__ == "__main__":
    main()
