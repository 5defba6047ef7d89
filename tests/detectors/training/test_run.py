from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from detectors.errors import ConfigError
from detectors.hub.prepare import prepare, write_manifest
from detectors.hub.sources import describe
from detectors.store import Store
from detectors.training import run
from detectors.types import Label, Media
from tests.detectors.hub import local
from tests.detectors.training.pool_of_photos import write_pool, write_videos

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
    assert card is not None
    assert card.key == "tiny@0.0.1"
    assert card.preprocess.size == 64
    assert set(card.metrics) == {"pool", "made", "split", "training", "format_probe"}
    for figures in (card.metrics["pool"], card.metrics["made"]):
        assert 0 < figures["views"] < len(items)
        assert 0.0 <= figures["auc"] <= 1.0
    assert all(s.startswith("made:") or s in ("cat", "cup") for s in card.metrics["made"]["sources"])
    assert "cat" in card.provenance
    image = Media(np.zeros((80, 90, 3), np.uint8))
    assert 0.0 <= store.load("tiny@0.0.1").predict([image])[0].p_fake <= 1.0


def test_what_is_left_out_is_measured_and_takes_its_groups_along(tmp_path: Path) -> None:
    write_pool(tmp_path / "data", groups=8)
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    changes = {"sources_left_out": ("cat",), "steps": 1}
    store = Store(tmp_path / "weights")
    card = run.train(tmp_path / "tiny.yaml", data=tmp_path / "data", store=store, run=tmp_path / "run", changes=changes)
    assert card is not None
    assert card.metrics["left_out"]["sources"]["cat"]["views"] == 16  # real and fake of eight groups, on either side
    assert "cup" not in card.metrics["left_out"]["sources"]  # both classes were left out: no other is needed
    assert "cat" not in card.provenance.split(";")[0]
    assert card.metrics["training"]["steps"] == 1


def test_a_hub_data_set_laid_out_locally_trains_as_it_is(tmp_path: Path) -> None:
    """Two data sets as the hub's client leaves them, prepared into one pool, through the whole recipe."""
    pool = tmp_path / "pool"
    for name, label in (("someone/photos", Label.REAL), ("someone/fakes", Label.SYNTHETIC)):
        directory = tmp_path / name.replace("/", "--")
        images = [local.encoded(part, quality=92) for part in local.parts(20 if label is Label.REAL else 19, side=96)]
        local.shard(
            directory / "data/train-00000-of-00001.parquet", images, id=[f"{label}-{k}" for k in range(len(images))]
        )
        (directory / "README.md").write_text(local.README)
        source = describe(directory, name, label=label, modality="image", content="general", generator="")
        prepare(directory, pool, source)
    write_manifest(pool)
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    card = run.train(tmp_path / "tiny.yaml", data=pool, store=Store(tmp_path / "weights"), run=tmp_path / "run")
    assert card is not None
    assert card.metrics["split"]["training_items"] + card.metrics["split"]["validation_items"] > 20
    assert "someone" in card.provenance


def test_a_recipe_can_start_from_weights_of_the_store(tmp_path: Path) -> None:
    write_pool(tmp_path / "data", groups=8)
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    store = Store(tmp_path / "weights")
    run.train(tmp_path / "tiny.yaml", data=tmp_path / "data", store=store, run=tmp_path / "one")
    more = RECIPE.replace("0.0.1", "0.0.2") + "init: tiny@0.0.1\nlearning_rate: 1.0e-9\n"
    (tmp_path / "more.yaml").write_text(more)
    card = run.train(tmp_path / "more.yaml", data=tmp_path / "data", store=store, run=tmp_path / "two")
    assert card is not None
    assert "started from tiny@0.0.1" in card.provenance
    before, after = (store.load(f"tiny@{v}").network.state_dict() for v in ("0.0.1", "0.0.2"))
    assert all(torch.allclose(value, after[name], atol=1e-6) for name, value in before.items())
    (tmp_path / "other.yaml").write_text(more.replace("mobilenetv2", "npr").replace("0.0.2", "0.0.3"))
    with pytest.raises(ConfigError, match="no npr"):
        run.train(tmp_path / "other.yaml", data=tmp_path / "data", store=store, run=tmp_path / "three")


def test_a_head_of_three_says_what_is_semi_synthetic(tmp_path: Path) -> None:
    write_pool(tmp_path / "data", groups=8)
    three = RECIPE + "options: {num_classes: 3}\nsemi_share: 0.3\npair_weight: 1.0\n"
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    (tmp_path / "three.yaml").write_text(three.replace("0.0.1", "0.0.2") + "init: tiny@0.0.1\n")
    store = Store(tmp_path / "weights")
    run.train(tmp_path / "tiny.yaml", data=tmp_path / "data", store=store, run=tmp_path / "one")
    card = run.train(tmp_path / "three.yaml", data=tmp_path / "data", store=store, run=tmp_path / "three")
    assert card is not None
    assert (card.fake_index, card.semi_index) == (1, 2)
    assert card.metrics["training"]["samples"] == 3 * 8
    assert card.metrics["split"]["seed"] == 1
    answer = store.load("tiny@0.0.2").predict([Media(np.zeros((80, 90, 3), np.uint8))])[0]
    assert all(p > 0 for p in answer.probabilities)


def test_clips_are_learned_and_answered(tmp_path: Path) -> None:
    write_videos(tmp_path / "data")
    (tmp_path / "clips.yaml").write_text(
        RECIPE.replace("mobilenetv2", "tall").replace("side: 48", "side: 56").replace("size: 64", "size: 56")
        + "media: video\nview: whole\noptions: {image_size: 56, embed_dim: 8, depths: [2, 2], num_heads: [1, 2],"
        " window_sizes: [7, 7]}\n"
    )
    store = Store(tmp_path / "weights")
    card = run.train(tmp_path / "clips.yaml", data=tmp_path / "data", store=store, run=tmp_path / "run")
    assert card is not None
    assert card.frames == 4
    assert any(name.startswith("made:") for name in card.metrics["made"]["sources"])
    clip = Media(np.zeros((9, 60, 60, 3), np.uint8), rate=8.0)
    assert 0.0 <= store.load("tiny@0.0.1").predict([clip])[0].p_fake <= 1.0
    (tmp_path / "wrong.yaml").write_text(RECIPE + "media: video\n")
    with pytest.raises(ConfigError, match="1 frames"):
        run.train(tmp_path / "wrong.yaml", data=tmp_path / "data", store=store, run=tmp_path / "wrong")


def test_ucf_ships_without_what_only_training_needs(tmp_path: Path) -> None:
    write_pool(tmp_path / "data", groups=8)
    options = "options: {specific_task_number: 4, widths: [8, 8, 16, 16, 16, 32], middle: 1}\n"
    text = RECIPE.replace("mobilenetv2", "ucf").replace("side: 48", "side: 64") + options
    (tmp_path / "ucf.yaml").write_text(text)
    store = Store(tmp_path / "weights")
    card = run.train(tmp_path / "ucf.yaml", data=tmp_path / "data", store=store, run=tmp_path / "run")
    assert card is not None
    assert card.options["inference_only"] is True
    names = store.load("tiny@0.0.1").network.state_dict()
    assert names
    assert not any(name.startswith(("encoder_c", "con_gan", "head_spe", "block_spe")) for name in names)


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
