"""The shipped experts on a small pool, from the command line to the configuration and back."""

from __future__ import annotations

import json
from pathlib import Path

from detectors import paths
from detectors.camo_config import load_config
from detectors.training.fit import MergeRecipe, fit
from tests.detectors.training.pool_of_photos import write_pool

RECIPE = "kind: merge\nviews: 1\nvalidation: 0.95\nmade: 0\nrounds: 20\nfolds: 2\nmethods: [temperature, platt]\n"


def test_from_pool_to_configuration(tmp_path: Path) -> None:
    write_pool(tmp_path / "data", groups=8)
    (tmp_path / "merge.yaml").write_text(RECIPE)
    config, out = tmp_path / "camo.yaml", tmp_path / "merge.json"
    config.write_text((paths.configs() / "camo.yaml").read_text())
    said: list[str] = []
    report = fit(tmp_path / "merge.yaml", data=tmp_path / "data", config=config, out=out, say=said.append)
    assert json.loads(out.read_text()) == json.loads(json.dumps(report))
    assert said
    assert "one half" in report["image"]["how"]
    assert "video" not in report
    read = load_config(config)
    numbers = report["image"]["numbers"]
    assert read.curve("image").slope == numbers["merge"]["slope"]
    weights = {name: round(weight, 4) for name, weight in numbers["weights"].items()}
    assert {name: read.experts[name].weight for name in weights} == weights
    assert set(report["image"]["figures"]) >= {*weights, "maximum", "merge as it was", "merge as fitted"}


def test_the_shipped_recipe_is_right() -> None:
    recipe = MergeRecipe.load(paths.configs() / "train" / "merge.yaml")
    assert recipe.split is not None
    assert (paths.configs() / recipe.split).is_file()
    assert recipe.settings.goal.name == recipe.goal
