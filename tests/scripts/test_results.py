"""The pieces of ``scripts/results.py`` and ``scripts/reproduce.py`` that decide what their figures mean."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from detectors import datasets, media, paths
from detectors.camo_config import load_config
from detectors.store import Store
from detectors.types import Label
from scripts.reproduce import compared, prepared
from scripts.results import made_semisynthetic
from tests.detectors.training.pool_of_photos import write_pool


def test_every_real_gets_a_semisynthetic_twin_in_its_group(tmp_path: Path) -> None:
    items = write_pool(tmp_path / "pool", groups=3).items
    made = datasets.read(made_semisynthetic(items, tmp_path / "three", None))
    labels = [item.label for item in made]
    reals = sum(not item.fake for item in items)
    assert labels.count(Label.REAL) == labels.count(Label.SEMISYNTHETIC) == reals
    assert labels.count(Label.SYNTHETIC) == len(items) - reals
    twins = {item.group: item for item in made if item.label is Label.SEMISYNTHETIC}
    for real in (item for item in made if item.label is Label.REAL):
        twin = twins[real.group]
        assert twin.source.startswith("made:")
        pixels = [media.decode_image(i.path.read_bytes()).pixels.astype(int) for i in (real, twin)]
        assert pixels[0].shape == pixels[1].shape
        assert np.abs(pixels[0] - pixels[1]).max() > 8
    again = made_semisynthetic(items, tmp_path / "again", None)
    assert [p.read_bytes() for p in sorted(again.parent.iterdir())] == [
        p.read_bytes() for p in sorted((tmp_path / "three").iterdir())
    ]


def test_figures_are_compared_with_the_published_intervals() -> None:
    names = ("auc", "balanced_accuracy", "tnr", "tpr")
    published: dict[str, Any] = {**dict.fromkeys(names, 0.8), "intervals": {name: [0.75, 0.85] for name in names}}
    inside = compared(dict.fromkeys(names, 0.76), published)
    assert [line.endswith(": inside") for line in inside] == [True] * 4
    outside = compared({**dict.fromkeys(names, 0.76), "tnr": 0.6}, published)
    assert [line for line in outside if line.endswith("OUTSIDE")] == [outside[2]]
    assert "found 0.6000" in outside[2]


def test_reproducing_starts_without_the_weights_it_makes(tmp_path: Path) -> None:
    names = prepared(tmp_path / "weights", tmp_path / "camo.yaml")
    store = Store(tmp_path / "weights")
    there = {card.name for card in store.cards()}
    assert names
    assert not there & set(names)
    assert there >= {"autoencoder"}  # what the makers need
    assert set(json.loads((tmp_path / "weights/active.json").read_text())) <= there
    assert load_config(tmp_path / "camo.yaml") == load_config(paths.configs() / "camo.yaml")
    assert all((paths.configs() / "train" / f"{name}.yaml").is_file() for name in names)
