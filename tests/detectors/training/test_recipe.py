from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from detectors import paths, registry
from detectors.errors import ConfigError
from detectors.training.fakes import NEED_WEIGHTS
from detectors.training.recipe import Recipe

# The others train by loops of their own.
KEYS = {path: yaml.safe_load(path.read_text()) for path in sorted((paths.configs() / "train").glob("*.yaml"))}
SHIPPED = [path for path, keys in KEYS.items() if "architecture" in keys and "kind" not in keys]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_every_shipped_recipe_can_be_built(path: Path) -> None:
    recipe = Recipe.load(path)
    assert path.stem.startswith(recipe.name)
    registry.architecture(recipe.architecture)(**recipe.options)


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("name: a\nversion: '1'\narchitecture: npr\nlearning_rat: 1", "learning_rat"),
        ("name: a\nversion: '1'\narchitecture: npr\nbatch: 7", "batch"),
        ("name: a\nversion: '1'\narchitecture: npr\nmade_share: 1.5", "made_share"),
        ("name: a\nversion: '1'\narchitecture: npr\nmicro_batch: 3", "micro_batch"),
        ("name: a\nversion: '1'\narchitecture: npr\nprecision: fp16", "precision"),
        ("name: a\nversion: '1'\narchitecture: npr\nsource_weights: {lfw: 0}", "source_weights.lfw"),
        ("name: a\nversion: '1'\narchitecture: npr\ninit: efficientnet-lite", "init"),
        ("name: a", "version"),
        ("- a", "file"),
        ("a: [", "recipe.yaml"),
    ],
)
def test_what_cannot_be_is_refused_by_name(text: str, where: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=where):
        Recipe.load(path)


def test_the_makers_are_those_of_the_media() -> None:
    base = {"name": "a", "version": "1", "architecture": "npr"}
    assert "grid" in Recipe.model_validate(base).kinds
    assert not set(Recipe.model_validate(base).kinds) & NEED_WEIGHTS
    assert "still" in Recipe.model_validate({**base, "media": "video"}).kinds


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no\.yaml"):
        Recipe.load(tmp_path / "no.yaml")
