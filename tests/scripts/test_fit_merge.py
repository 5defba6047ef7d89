"""The shipped experts on a small pool, from the command line to the configuration and back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from detectors import paths
from detectors.camo_config import load_config
from detectors.training.fit import MergeRecipe
from scripts.fit_merge import main
from tests.detectors.training.pool_of_photos import write_pool

RECIPE = "kind: merge\nviews: 1\nvalidation: 0.95\nmade: 0\nrounds: 20\nfolds: 2\nmethods: [temperature, platt]\n"


def test_from_pool_to_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_pool(tmp_path / "data", groups=8)
    (tmp_path / "merge.yaml").write_text(RECIPE)
    config, out = tmp_path / "camo.yaml", tmp_path / "merge.json"
    config.write_text((paths.configs() / "camo.yaml").read_text())
    arguments = ["--data", tmp_path / "data", "--recipe", tmp_path / "merge.yaml", "--config", config, "--out", out]
    rest = ["--write", "--runs", "1", "--challenges", "4"]
    main([str(a) for a in arguments] + rest)
    report = json.loads(out.read_text())
    assert "one half" in report["image"]["how"]
    assert "video" not in report
    read = load_config(config)
    numbers = report["image"]["numbers"]
    assert read.curve("image").slope == numbers["merge"]["slope"]
    weights = {name: round(weight, 4) for name, weight in numbers["weights"].items()}
    assert {name: read.experts[name].weight for name in weights} == weights
    assert set(report["image"]["figures"]) >= {*weights, "maximum", "merge as it was", "merge as fitted"}
    assert 0.0 <= report["reward sn34-2.0, learned"]["median"] <= 1.0
    assert json.loads(capsys.readouterr().out.partition("\n{")[2].join(["{", ""])) == report


def test_the_shipped_recipe_is_right() -> None:
    recipe = MergeRecipe.load(paths.configs() / "train" / "merge.yaml")
    assert recipe.split is not None
    assert (paths.configs() / recipe.split).is_file()
    assert recipe.settings.goal.name == recipe.goal
