from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from detectors.experts.mobilenet import MobileNetV2
from detectors.training.loop import Progress, fit
from detectors.training.recipe import Recipe
from detectors.training.samples import Batch, Pool
from tests.detectors.training.pool_of_photos import write_pool

RECIPE = Recipe(
    name="t", version="1", architecture="mobilenetv2", side=48, batch=8, steps=6, warmup=2, made_share=1.0, seed=4
)
VIEW = MobileNetV2.published.preprocess


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    return Pool(write_pool(tmp_path_factory.mktemp("pool")), RECIPE)


def network(seed: int = 0) -> MobileNetV2:
    torch.manual_seed(seed)
    return MobileNetV2()


def test_a_run_logs_every_step_and_moves_the_weights(pool: Pool, tmp_path: Path) -> None:
    net = network()
    before = net.head.weight.detach().clone()
    steps = list(fit(net, pool, RECIPE, VIEW, tmp_path, log_every=2))
    assert [p.step for p in steps] == [2, 4, 6]
    assert all(0.0 < p.loss < 5.0 and p.seconds_left >= 0.0 for p in steps)
    assert not torch.equal(before, net.head.weight)
    assert [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()] == [2, 4, 6]


def test_an_interrupted_run_goes_on_to_the_same_weights(pool: Pool, tmp_path: Path) -> None:
    whole = network()
    list(fit(whole, pool, RECIPE, VIEW, tmp_path / "whole", log_every=2))
    cut = fit(network(), pool, RECIPE, VIEW, tmp_path / "cut", log_every=2)
    assert isinstance(next(cut), Progress)
    cut.close()
    resumed = network(seed=9)  # whatever it starts from, the state decides
    assert next(iter(fit(resumed, pool, RECIPE, VIEW, tmp_path / "cut", log_every=2))).step == 4
    resumed = network(seed=9)
    list(fit(resumed, pool, RECIPE, VIEW, tmp_path / "cut", log_every=2))
    for name, value in whole.state_dict().items():
        assert torch.allclose(value, resumed.state_dict()[name], atol=1e-6), name


def test_a_state_of_another_recipe_is_refused(pool: Pool, tmp_path: Path) -> None:
    list(fit(network(), pool, RECIPE, VIEW, tmp_path))
    with pytest.raises(ValueError, match="another recipe"):
        list(fit(network(), pool, RECIPE.model_copy(update={"seed": 5}), VIEW, tmp_path))


@pytest.mark.parametrize("pair_weight", [0.0, 1.0])
def test_it_learns_what_can_be_learned(tmp_path: Path, pair_weight: float) -> None:
    class Flat(Pool):
        """Real is dark, fake is bright."""

        def batch(self, step: int) -> Batch:
            drawn = super().batch(step)
            pixels = (drawn.pixels // 4 + drawn.labels[:, None, None, None] * 150).astype(np.uint8)
            return replace(drawn, pixels=pixels)

    changes = {"steps": 40, "learning_rate": 1e-3, "smoothing": 0.0, "pair_weight": pair_weight}
    recipe = RECIPE.model_copy(update=changes)
    last = list(fit(network(), Flat(write_pool(tmp_path), recipe), recipe, VIEW, tmp_path / "run", log_every=10))[-1]
    assert last.loss < 0.3
