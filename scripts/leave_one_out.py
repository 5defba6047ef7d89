"""How far the pool carries to sources that are not in it, with a frozen trunk and a linear head.

    .venv/bin/python scripts/leave_one_out.py --data DIR [--views 2] [--out docs/results/leave-one-out.json]

Leaves out every generator and every real source in turn (``detectors.training.splits.folds``) and measures on what was
left out, against held-out groups of the other class. Leaves out every real source together with every source of fakes
and sets the one against the other. Draws the curve of balanced accuracy on left-out generators against the number of
fake sources trained on.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from detectors import datasets
from detectors.training import frozen, splits
from detectors.types import Label

COUNTS = (1, 2, 4, 8, 12, 16, 20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--views", type=int, default=2, help="wire views an image")
    parser.add_argument("--most", type=int, default=250, help="images of a source at most")
    parser.add_argument("--orders", type=int, default=3, help="random choices of sources a point of the curve")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("build/leave-one-out.json"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    started = time.monotonic()
    items = _bounded([i for i in datasets.read(options.data) if i.modality == "image"], options.most)
    features = frozen.extract(items, options.views, options.seed)
    generators = [f for f in splits.folds(items, "generator") if _enough(f)]
    cameras = [f for f in splits.folds(items, "source", Label.REAL) if _enough(f)]
    report: dict[str, Any] = {
        "command": f"scripts/leave_one_out.py --views {options.views} --most {options.most} --orders {options.orders}",
        "images": len(items),
        "views": len(features.items),
        "generators": [dataclasses.asdict(h) for h in frozen.held_out(items, features, generators)],
        "real_sources": [dataclasses.asdict(h) for h in frozen.held_out(items, features, cameras)],
        "crossed": [dataclasses.asdict(c) for c in frozen.crossed(items, features, seed=options.seed)],
        "curve": frozen.curve(items, features, generators, COUNTS, orders=options.orders, seed=options.seed),
    }
    for part, key in (("generators", "balanced_accuracy"), ("generators", "auc"), ("real_sources", "right")):
        values = [row[key] for row in report[part]]
        report[f"{part}_mean_{key}"] = round(float(np.mean(values)), 4)
        report[f"{part}_mean_{key}_95"] = _interval(values, options.seed)
    for key in ("auc", "balanced_accuracy"):
        report[f"crossed_mean_{key}"], report[f"crossed_mean_{key}_95"] = _both(report["crossed"], key, options.seed)
    report["seconds"] = round(time.monotonic() - started)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=1))


def _bounded(items: list[datasets.Item], most: int) -> list[datasets.Item]:
    """At most `most` of a source, by the order of their names' hashes, so that all of its parts are there."""
    count: dict[str, int] = {}
    kept = []
    for item in sorted(items, key=lambda i: zlib.crc32(i.path.name.encode())):
        count[item.source] = count.get(item.source, 0) + 1
        if count[item.source] <= most:
            kept.append(item)
    return kept


def _enough(fold: splits.Fold, least: int = 12) -> bool:
    """A name with a handful of files says nothing of itself."""
    return sum(fold.name in (i.source, i.generator) for i in fold.held) >= least


def _both(rows: list[dict[str, Any]], key: str, seed: int) -> tuple[float, list[float]]:
    """Mean over pairs, and its 95 % interval from drawing both the real and the fake sources again."""
    reals, fakes = (sorted({row[side] for row in rows}) for side in ("real", "fake"))
    table = np.empty((len(reals), len(fakes)))
    for row in rows:
        table[reals.index(row["real"]), fakes.index(row["fake"])] = row[key]
    rng = np.random.default_rng(seed)
    means = [
        float(table[np.ix_(rng.integers(0, len(reals), len(reals)), rng.integers(0, len(fakes), len(fakes)))].mean())
        for _ in range(2000)
    ]
    low, high = np.quantile(means, [0.025, 0.975])
    return round(float(table.mean()), 4), [round(float(low), 4), round(float(high), 4)]


def _interval(values: list[float], seed: int) -> list[float]:
    """95 % bootstrap interval of the mean over sources."""
    rng = np.random.default_rng(seed)
    means = [float(np.mean(rng.choice(values, len(values)))) for _ in range(2000)]
    low, high = np.quantile(means, [0.025, 0.975])
    return [round(float(low), 4), round(float(high), 4)]


if __name__ == "__main__":
    main()
