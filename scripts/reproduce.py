"""Trains the default set again, fits its merge, and checks that it lands within the published intervals.

    .venv/bin/python scripts/reproduce.py --data DIR [--out build/reproduce] [--steps N]

Everything goes into a folder of its own: nothing of ``weights/`` or ``configs/`` changes. Exit code 1 when a figure is
outside the interval that ``docs/results/validation.json`` gives for it. A run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from detectors import paths
from detectors.camo_config import load_config
from detectors.store import Store
from detectors.training.fit import fit

FIGURES = ("auc", "balanced_accuracy", "tnr", "tpr")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("build/reproduce"))
    parser.add_argument("--steps", type=int, help="in place of the recipes': shows that it runs, reproduces nothing")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--most", type=int, help="files a source that are evaluated")
    parser.add_argument("--published", type=Path, default=Path("docs/results/validation.json"))
    options = parser.parse_args()
    weights, config = options.out / "weights", options.out / "camo.yaml"
    names = prepared(weights, config)
    shorter = [] if options.steps is None else ["--steps", str(options.steps)]
    for name in names:
        run = options.out / "runs" / name
        recipe = paths.configs() / "train" / f"{name}.yaml"
        train = [*shorter, "--data", options.data, "--store", weights, "--run", run, "--threads", options.threads]
        command("train", recipe, *train, "--activate")
    fit(
        paths.configs() / "train" / "merge.yaml",
        data=options.data,
        config=config,
        weights=weights,
        threads=options.threads,
    )
    report = options.out / "validation.json"
    most = [] if options.most is None else ["--most", options.most]
    # the half and the views that scripts/results.py publishes
    split = ["--split", paths.configs() / "splits" / "pool.json", "--only", "reporting", "--views", 2]
    where = ["--data", options.data, "--detector", f"camo:{config}", "--store", weights, "--json", report]
    command("evaluate", *where, *split, *most, "--threads", options.threads)
    found = json.loads(report.read_text(encoding="utf-8"))
    published = json.loads(options.published.read_text(encoding="utf-8"))
    lines = compared(found, published)
    print("\n".join(lines))
    sys.exit(1 if any(line.endswith("OUTSIDE") for line in lines) else 0)


def prepared(weights: Path, config: Path) -> list[str]:
    """A folder with all weights but the default experts', and a copy of the configuration; the experts' names."""
    store = Store(paths.weights())
    experts = {part.weights.partition("@")[0] for part in load_config(paths.configs() / "camo.yaml").experts.values()}
    weights.mkdir(parents=True, exist_ok=True)
    for card in store.cards():
        if card.name not in experts:
            for suffix in (".json", ".safetensors"):
                shutil.copy2(store.root / f"{card.stem}{suffix}", weights)
    pointer = {name: version for name, version in store.pointer().items() if name not in experts}
    (weights / "active.json").write_text(json.dumps(pointer), encoding="utf-8")
    shutil.copy2(paths.configs() / "camo.yaml", config)
    return sorted(experts)


def compared(found: dict[str, Any], published: dict[str, Any]) -> list[str]:
    """One line a figure: what was published with its interval, what was found, and whether that is inside."""
    lines = []
    for name in FIGURES:
        low, high = published["intervals"][name]
        inside = "inside" if low <= found[name] <= high else "OUTSIDE"
        lines.append(
            f"{name}: published {published[name]:.4f} [{low:.4f}, {high:.4f}], found {found[name]:.4f}: {inside}"
        )
    return lines


def command(*words: object) -> None:
    """Runs ``deepfake-miner WORDS``; the first failure ends it all."""
    subprocess.run([Path(sys.executable).with_name("deepfake-miner"), *(str(word) for word in words)], check=True)


if __name__ == "__main__":
    main()
