"""The figures of ``docs/results``: every detector that ships and every baseline on groups that nothing was fitted to.

    .venv/bin/python scripts/results.py --data DIR [--views 2]

Held-out groups have two halves (``detectors.training.splits.fits``): calibration and merge were fitted on one, this
reports on the other. ``docs/results/validation.*`` is the pool as it is; ``three-class.*`` adds semi-synthetic pictures
made from its reals, since the pool has next to none; ``grid.*`` is the robustness grid on a few files a source.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from detectors import datasets, media, paths
from detectors.camo_config import load_config
from detectors.datasets import COLUMNS, Item
from detectors.training import fakes
from detectors.training.splits import fits, load_split
from detectors.types import Label

BASELINES = ("always-real", "random", "format-probe")
SPLIT = Path(os.path.relpath(paths.configs() / "splits" / "pool.json"))  # as it should stand in the reports


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--views", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--most", type=int, help="files a source; for a quick look")
    parser.add_argument("--grid-most", type=int, default=4, help="files a source of the grid; 0 leaves the grid out")
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    parser.add_argument("--work", type=Path, default=Path("build/results"))
    options = parser.parse_args()
    data = datasets.read(options.data)
    _, held = load_split(SPLIT).apply(data)
    experts = load_config(paths.configs() / "camo.yaml").experts
    names = ["camo", *(f"expert {part.weights}" for part in experts.values())]
    split = ["--split", SPLIT, "--only", "reporting", "--threads", options.threads]
    most = [] if options.most is None else ["--most", options.most]
    common = ["--data", options.data, *split, *most]
    options.work.mkdir(parents=True, exist_ok=True)
    asked = [word for name in [*names, *BASELINES] for word in ("--detector", name)]
    dump = ["--predictions", options.work / "validation.jsonl", "--plots", options.out]
    evaluate(options.out / "validation", *common, *asked, "--views", options.views, *dump)
    made = made_semisynthetic([i for i in held if not fits(i.group)], options.work / "three-class", options.most)
    evaluate(options.out / "three-class", "--data", made, "--level", "mix-2.2", "--threads", options.threads)
    if options.grid_most:
        few = ["--data", options.data, *split, "--most", options.grid_most, "--grid", "--detector", "camo"]
        evaluate(options.out / "grid", *few)


def evaluate(stem: Path, *words: object) -> None:
    """Runs ``deepfake-miner evaluate`` into ``STEM.json`` and ``STEM.md``."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    files = ["--json", stem.with_suffix(".json"), "--markdown", stem.with_suffix(".md")]
    command = [Path(sys.executable).with_name("deepfake-miner"), "evaluate", *words, *files]
    subprocess.run([str(word) for word in command], check=True)
    where = str(words[words.index("--data") + 1])
    for path in (stem.with_suffix(".json"), stem.with_suffix(".md")):
        path.write_text(path.read_text(encoding="utf-8").replace(where, "DIR"), encoding="utf-8")


def made_semisynthetic(items: Sequence[Item], folder: Path, most: int | None) -> Path:
    """A pool of the images in `items` and one semi-synthetic fake of every real one; its manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    kinds = [kind for kind, label in fakes.LABELS.items() if label is Label.SEMISYNTHETIC]
    rows: list[dict[str, str]] = []
    seen: dict[str, int] = {}
    for number, item in enumerate(i for i in items if i.modality == "image"):
        seen[item.source] = seen.get(item.source, 0) + 1
        if most is not None and seen[item.source] > most:
            continue
        rows.append(_row(folder, f"{number}", item.path.read_bytes(), item.label, item))
        if not item.fake:
            rng = np.random.default_rng([2, number])
            kind = kinds[int(rng.integers(len(kinds)))]
            made = fakes.make(media.decode_image(item.path.read_bytes()).pixels, rng, kind)
            # at the quality of the pool's own re-encoding
            data = media.encode_jpeg(made.pixels, quality=90)
            rows.append(_row(folder, f"{number}-made", data, Label.SEMISYNTHETIC, item, kind=kind))
    path = folder / datasets.MANIFEST
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    return path


def _row(folder: Path, name: str, data: bytes, label: Label, item: Item, *, kind: str = "") -> dict[str, str]:
    (folder / f"{name}.jpg").write_bytes(data)
    row = dict.fromkeys(COLUMNS, "")
    said = {Label.REAL: "real", Label.SYNTHETIC: "synthetic", Label.SEMISYNTHETIC: "semisynthetic"}[label]
    row |= {"path": f"{name}.jpg", "modality": "image", "label": said, "content": item.content, "group": item.group}
    return row | {"source": f"made:{kind}" if kind else item.source, "generator": kind or item.generator}


if __name__ == "__main__":
    main()
