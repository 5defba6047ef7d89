from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from detectors.datasets import split_by_group
from detectors.errors import ConfigError
from detectors.experts.efficientnet_lite import EfficientNetLite, standardised_head
from detectors.training import frozen_head
from detectors.training.frozen_head import HeadRecipe, Rows, descend, fit_head
from detectors.training.recipe import Recipe
from detectors.training.samples import Pool
from tests.detectors.training.pool_of_photos import write_pool

RECIPE = HeadRecipe(
    kind="frozen-head",
    name="head",
    version="1",
    architecture="efficientnet-lite",
    options={"variant": "lite0", "num_classes": 3, "pooling": "stages", "hidden": 8},
    side=256,
    view="whole",
    draws=2,
    most=3,
    made_share=0.25,
    batch=16,
    steps=40,
    learning_rate=3e-3,
    seed=2,
)


def _rows(count: int = 120) -> Rows:
    rng = np.random.default_rng(0)
    classes = rng.integers(0, 3, count).astype(np.uint8)
    values = rng.normal(0, 1, (count, 6)).astype(np.float32) * 40 + 7
    values[:, 0] += 200.0 * (classes == 1)
    values[:, 1] += 200.0 * (classes == 2)
    sources = np.where(classes == 0, "camera", np.where(classes == 1, "maker", "made:spliced"))
    return Rows(values, classes, sources.astype(np.str_))


def test_a_head_learns_three_classes_of_features_in_any_unit() -> None:
    rows = _rows()
    torch.manual_seed(0)
    head = standardised_head(6, 16, 3, 0.0)
    reports = list(descend(head, rows, RECIPE.model_copy(update={"steps": 300, "batch": 64})))
    assert [r.step for r in reports] == [100, 200, 300]
    assert reports[-1].loss < reports[0].loss
    said = head(torch.from_numpy(rows.values)).argmax(1).numpy()
    assert (said == rows.classes).mean() > 0.8


def test_the_same_seed_gives_the_same_head() -> None:
    states = []
    for _ in range(2):
        torch.manual_seed(4)
        head = standardised_head(6, 8, 1, 0.3)
        list(descend(head, _rows(), RECIPE))
        states.append(head.state_dict())
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_classes_and_sources_are_drawn_as_the_recipe_says() -> None:
    names = ["a"] * 60 + ["b"] * 20 + ["few"] * 4 + ["x"] * 30 + ["made:grid"] * 9
    classes = np.array([0] * 84 + [1] * 39, np.uint8)
    rows = Rows(np.zeros((len(names), 2), np.float32), classes, np.array(names, np.str_))
    recipe = RECIPE.model_copy(update={"draws": 1, "source_weights": {"b": 2.0}})
    reals, fakes = frozen_head._odds(rows, recipe)
    assert reals.sum() == pytest.approx(1.0)
    assert fakes.sum() == pytest.approx(1.0)
    share = {name: float((reals + fakes)[rows.sources == name].sum()) for name in sorted(set(names))}
    assert share["b"] == pytest.approx(2 * share["a"])
    assert share["few"] == pytest.approx(share["a"] * 4 / 16)
    assert share["made:grid"] == pytest.approx(0.25)
    assert not reals[classes > 0].any()


def test_only_the_head_moves_and_a_killed_run_goes_on(tmp_path: Path) -> None:
    items, _ = split_by_group(write_pool(tmp_path / "data", groups=4), 0.0, 1)
    torch.manual_seed(1)
    network = EfficientNetLite(**RECIPE.options)
    before = {name: value.clone() for name, value in network.trunk.state_dict().items()}
    view = EfficientNetLite.published.preprocess
    last = list(fit_head(network, Pool(items, RECIPE), RECIPE, view, tmp_path / "run"))[-1]
    assert last.step == RECIPE.steps
    assert all(torch.equal(value, before[name]) for name, value in network.trunk.state_dict().items())
    kept = sorted(p.name for p in (tmp_path / "run").glob("*.npz"))
    assert kept == ["features-0.npz", "features-1.npz"]
    with np.load(tmp_path / "run" / "features-0.npz") as found:
        assert len(found["classes"]) >= 6  # three of either source, and what was made
        assert found["values"].shape[1] == network.head[0].num_features  # type: ignore[index]
    torch.manual_seed(1)
    again = EfficientNetLite(**RECIPE.options)
    list(fit_head(again, Pool(items, RECIPE), RECIPE, view, tmp_path / "run"))
    assert all(
        torch.equal(a, b) for a, b in zip(network.state_dict().values(), again.state_dict().values(), strict=True)
    )


def test_another_kind_of_recipe_is_refused(tmp_path: Path) -> None:
    pool = Pool(write_pool(tmp_path / "data", groups=2), RECIPE)
    plain = Recipe(name="plain", version="1", architecture="efficientnet-lite")
    network = EfficientNetLite(**RECIPE.options)
    with pytest.raises(ConfigError, match="frozen-head"):
        list(fit_head(network, pool, plain, EfficientNetLite.published.preprocess, tmp_path / "run"))


def test_what_a_frozen_trunk_has_no_use_for_is_refused_and_not_ignored() -> None:
    for name, value in (("adversarial_weight", 0.1), ("robust", "group"), ("pair_weight", 1.0), ("trunk_rate", 0.5)):
        with pytest.raises(ValidationError, match=f"no use for {name}"):
            HeadRecipe(**{**RECIPE.model_dump(exclude_defaults=True), "kind": "frozen-head", name: value})


def test_a_folder_of_another_recipe_is_refused(tmp_path: Path) -> None:
    """Features of sources that another run left out must not come back through its cache."""
    pool = Pool(write_pool(tmp_path / "data", groups=2), RECIPE)
    network = EfficientNetLite(**RECIPE.options)
    view = EfficientNetLite.published.preprocess
    list(fit_head(network, pool, RECIPE, view, tmp_path / "run"))
    other = RECIPE.model_copy(update={"sources_left_out": ("cat",)})
    with pytest.raises(ValueError, match="another recipe"):
        list(fit_head(network, pool, other, view, tmp_path / "run"))
    assert "loss" in (tmp_path / "run" / "log.jsonl").read_text()
