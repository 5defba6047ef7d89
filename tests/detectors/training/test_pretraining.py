"""Pre-training: what is hidden, what is learned, what is saved, and that a kill loses nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from detectors import datasets, paths
from detectors.errors import ConfigError
from detectors.store import Store
from detectors.training import run as runs
from detectors.training.pretraining import Pretrainer, PretrainingRecipe, hidden_bands, pretrain
from detectors.training.samples import Pool
from tests.detectors.training.pool_of_photos import write_pool
from tests.detectors.training.small_run import VIEW, Small

RECIPE = """
kind: frequency-pretraining
name: encoder
version: 0.0.1
architecture: npr
side: 48
rings: 4
sectors: 2
batch: 4
steps: 6
kinds: [grid, pasted]
warmup: 1
save_every: 3
validation: 0.4
learning_rate: 0.002
seed: 1
"""


RECIPE_OF_SMALL = PretrainingRecipe.model_validate(yaml.safe_load(RECIPE))


class Unpooled(Small):
    def features(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.trunk(x)
        return out


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pool")
    write_pool(root, groups=6)
    return root


def recipe_file(folder: Path, text: str = RECIPE) -> Path:
    path = folder / "encoder.yaml"
    path.write_text(text)
    return path


def test_as_many_bands_are_hidden_in_every_view_and_others_in_the_next() -> None:
    recipe = PretrainingRecipe.model_validate(
        {"kind": "frequency-pretraining", "name": "e", "version": "1", "architecture": "npr", "masked": 0.5}
    )
    first, again, next_ = hidden_bands(recipe, 0, 6), hidden_bands(recipe, 0, 6), hidden_bands(recipe, 1, 6)
    assert first.shape == (6, 64)
    assert (first.sum(1) == 32).all()
    assert torch.equal(first, again)
    assert not torch.equal(first, next_)


def contrasts(seed: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Noise of some contrast, grey or coloured: one band tells of all others, in luma and in chroma."""
    rng = np.random.default_rng(seed)
    contrast = np.exp(rng.uniform(0.5, 3.8, (16, 1, 1, 1)))
    return (128 + contrast * rng.normal(size=(16, 32, 32, 3))).clip(0, 255).astype(np.uint8)


def test_the_encoder_learns_what_was_hidden() -> None:
    recipe = RECIPE_OF_SMALL.model_copy(update={"steps": 70, "learning_rate": 0.03})
    trainer = Pretrainer(Small(dropout=0.0), recipe, VIEW)
    before = {name: value.clone() for name, value in trainer.network.head.state_dict().items()}
    trainer.decoder.learn(torch.cat([trainer.powers(contrasts(seed)) for seed in range(8)]))
    assert trainer.measured(contrasts(900 + k) for k in range(4))["explained"] < 0.1
    trainer.network.train()
    for step in range(recipe.steps):
        trainer.step(step, contrasts(step))
    trainer.network.eval()
    found = trainer.measured(contrasts(900 + k) for k in range(4))
    assert found["explained"] > 0.6
    assert found["explained_luma"] > 0.6
    assert all(torch.equal(value, before[name]) for name, value in trainer.network.head.state_dict().items())


def test_a_recipe_starts_from_the_saved_encoder_with_a_fresh_head(pool: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "weights")
    saved = pretrain(recipe_file(tmp_path), data=pool, store=store, run=tmp_path / "run")
    assert saved.key == "encoder@0.0.1"
    assert saved.architecture == "npr"
    assert "without labels" in saved.provenance
    text = "name: expert\nversion: 0.0.1\narchitecture: npr\ninit: encoder@0.0.1\nside: 48\nbatch: 4\nsteps: 1\n"
    (tmp_path / "expert.yaml").write_text(text + "learning_rate: 1.0e-9\nvalidation: 0.4\n")
    card = runs.train(tmp_path / "expert.yaml", data=pool, store=store, run=tmp_path / "expert")
    assert card is not None
    assert "started from encoder@0.0.1" in card.provenance
    mine, theirs = (store.load(key).network.state_dict() for key in ("expert@0.0.1", "encoder@0.0.1"))
    weights = [name for name in theirs if name.endswith("conv1.weight")]
    assert weights
    assert all(torch.allclose(mine[name], theirs[name], atol=1e-5) for name in weights)


def test_a_killed_run_goes_on_to_the_same_weights(pool: Path, tmp_path: Path) -> None:
    """Killed after step 4, the state being that of step 3."""
    source = Pool(datasets.read(pool).items, RECIPE_OF_SMALL)

    def weights(trainer: Pretrainer) -> torch.Tensor:
        return torch.cat([p.detach().flatten() for p in (*trainer.network.parameters(), *trainer.decoder.parameters())])

    whole = Pretrainer(Small(), RECIPE_OF_SMALL, VIEW)
    losses = [p.loss for p in whole.fit(source, tmp_path / "whole", log_every=6)]
    for progress in Pretrainer(Small(), RECIPE_OF_SMALL, VIEW).fit(source, tmp_path / "killed", log_every=4):
        assert progress.step == 4
        break
    again = Pretrainer(Small(seed=9), RECIPE_OF_SMALL, VIEW)
    assert [p.loss for p in again.fit(source, tmp_path / "killed", log_every=6)] == losses
    assert torch.equal(weights(again), weights(whole))
    assert torch.equal(again.decoder.mean, whole.decoder.mean)


def test_slips_are_named(pool: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="pair_weight means nothing"):
        PretrainingRecipe.load(recipe_file(tmp_path, RECIPE + "pair_weight: 1\n"))
    with pytest.raises(ConfigError, match="kind"):
        PretrainingRecipe.load(recipe_file(tmp_path, RECIPE.replace("kind: frequency-pretraining", "")))
    recipe = RECIPE_OF_SMALL.model_copy(update={"architecture": "unpooled"})
    with pytest.raises(ConfigError, match=r"unpooled has no pooled features"):
        Pretrainer(Unpooled(), recipe, VIEW)


def test_the_shipped_recipe_is_right() -> None:
    recipe = PretrainingRecipe.load(paths.configs() / "train" / "frequency-pretraining.yaml")
    assert np.isclose(recipe.masked, 0.5)
