from __future__ import annotations

from pathlib import Path

import pytest

from detectors import paths, registry
from detectors.errors import ConfigError
from detectors.training.recipe import Recipe

GATES = {"face-points.yaml", "content.yaml"}
SHIPPED = sorted(p for p in (paths.configs() / "train").glob("*.yaml") if p.name not in GATES)


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


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no\.yaml"):
        Recipe.load(tmp_path / "no.yaml")
