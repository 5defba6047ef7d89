from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from detectors.errors import ConfigError
from detectors.store import Store
from detectors.training import run
from detectors.types import Media
from tests.detectors.training.pool_of_photos import write_pool

RECIPE = """
name: tiny
version: 0.0.1
architecture: mobilenetv2
preprocess: {size: 64, mode: centre_square}
side: 48
batch: 8
steps: 3
validation: 0.4
seed: 1
"""


def test_a_recipe_becomes_weights_with_a_card_that_say_what_they_are(tmp_path: Path) -> None:
    items = write_pool(tmp_path / "data", groups=8)
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    store = Store(tmp_path / "weights")
    card = run.train(tmp_path / "tiny.yaml", data=tmp_path / "data", store=store, run=tmp_path / "run")
    assert card.key == "tiny@0.0.1"
    assert card.preprocess.size == 64
    assert set(card.metrics) == {"pool", "made"}
    for figures in card.metrics.values():
        assert 0 < figures["views"] < len(items)
        assert 0.0 <= figures["auc"] <= 1.0
    assert all(s.startswith("made:") or s in ("cat", "cup") for s in card.metrics["made"]["sources"])
    assert "cat" in card.provenance
    image = Media(np.zeros((80, 90, 3), np.uint8))
    assert 0.0 <= store.load("tiny@0.0.1").predict([image])[0].p_fake <= 1.0


def test_a_recipe_can_start_from_weights_of_the_store(tmp_path: Path) -> None:
    write_pool(tmp_path / "data", groups=8)
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    store = Store(tmp_path / "weights")
    run.train(tmp_path / "tiny.yaml", data=tmp_path / "data", store=store, run=tmp_path / "one")
    more = RECIPE.replace("0.0.1", "0.0.2") + "init: tiny@0.0.1\nlearning_rate: 1.0e-9\n"
    (tmp_path / "more.yaml").write_text(more)
    card = run.train(tmp_path / "more.yaml", data=tmp_path / "data", store=store, run=tmp_path / "two")
    assert "started from tiny@0.0.1" in card.provenance
    before, after = (store.load(f"tiny@{v}").network.state_dict() for v in ("0.0.1", "0.0.2"))
    assert all(torch.allclose(value, after[name], atol=1e-6) for name, value in before.items())
    (tmp_path / "other.yaml").write_text(more.replace("mobilenetv2", "npr").replace("0.0.2", "0.0.3"))
    with pytest.raises(ConfigError, match="no npr"):
        run.train(tmp_path / "other.yaml", data=tmp_path / "data", store=store, run=tmp_path / "three")


def test_a_trunk_that_is_not_there_is_named(tmp_path: Path) -> None:
    write_pool(tmp_path / "data")
    (tmp_path / "tiny.yaml").write_text(RECIPE + "init: mobilenet-v2\n")
    with pytest.raises(ConfigError, match="--backbones"):
        run.train(tmp_path / "tiny.yaml", data=tmp_path / "data", store=Store(tmp_path / "w"), run=tmp_path / "run")


def test_an_unknown_preprocessing_key_is_refused(tmp_path: Path) -> None:
    write_pool(tmp_path / "data")
    (tmp_path / "tiny.yaml").write_text(RECIPE.replace("size: 64", "sise: 64"))
    with pytest.raises(ConfigError, match="sise"):
        run.train(tmp_path / "tiny.yaml", data=tmp_path / "data", store=Store(tmp_path / "w"), run=tmp_path / "run")
