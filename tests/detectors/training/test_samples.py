from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from detectors import augment, media
from detectors.errors import MediaError
from detectors.gates.base import Gated
from detectors.training.recipe import Recipe
from detectors.training.samples import Pool, wire_view
from detectors.types import U8, Label
from tests.detectors.training.pool_of_photos import write_pool

RECIPE = Recipe(name="t", version="1", architecture="npr", side=64, batch=8, made_share=0.5, seed=4)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    return Pool(write_pool(tmp_path_factory.mktemp("pool")), RECIPE)


def test_a_batch_is_half_real_half_fake_and_of_the_recipes_size(pool: Pool) -> None:
    batch = pool.batch(0)
    assert batch.pixels.shape == (8, 64, 64, 3)
    assert batch.paired.shape == (4,)
    assert batch.labels.tolist() == [0] * 4 + [1] * 4


def test_a_batch_depends_on_seed_and_step_alone(pool: Pool, tmp_path: Path) -> None:
    again = Pool(write_pool(tmp_path), RECIPE)
    pool.batch(7)  # what was drawn before must not matter
    assert np.array_equal(pool.batch(3).pixels, again.batch(3).pixels)
    assert not np.array_equal(pool.batch(3).pixels, pool.batch(4).pixels)


def test_pairs_share_their_augmentation(pool: Pool) -> None:
    paired = Pool(pool.items, RECIPE.model_copy(update={"made_share": 1.0}))
    assert paired.batch(1).paired.all()
    pixels = paired.batch(1).pixels
    for real, fake in zip(pixels[:4], pixels[4:], strict=True):
        assert np.corrcoef(real[::8, ::8].astype(float).ravel(), fake[::8, ::8].astype(float).ravel())[0, 1] > 0.5
        assert not np.array_equal(real, fake)


def test_a_pool_without_fakes_makes_them_all(pool: Pool) -> None:
    reals = Pool([i for i in pool.items if i.label == Label.REAL], RECIPE.model_copy(update={"made_share": 0.0}))
    batch = reals.batch(0)
    assert batch.labels.sum() == 4
    assert batch.paired.all()
    pixels = batch.pixels
    assert not np.array_equal(pixels[:4], pixels[4:])


def test_a_pool_without_reals_is_refused(pool: Pool) -> None:
    with pytest.raises(ValueError, match="real"):
        Pool([i for i in pool.items if i.label != Label.REAL], RECIPE)


def test_sources_and_contents_can_be_left_out(pool: Pool) -> None:
    left = Pool(pool.items, RECIPE.model_copy(update={"sources_left_out": ("cat",)}))
    assert {item.source for item in left.items} == {"cup"}


def test_the_gate_decides_what_is_seen(pool: Pool) -> None:
    class Corner:
        name = "corner"

        def __call__(self, image: U8) -> Gated | None:
            return Gated(np.full((256, 256, 3), 77, np.uint8), 1.0)

    batch = Pool(pool.items, RECIPE.model_copy(update={"made_share": 0.0}), Corner()).batch(0)
    assert (batch.pixels == 77).all()
    assert not batch.paired.any()


def test_a_gate_that_never_fires_is_an_error_not_a_loop(pool: Pool) -> None:
    class Shut:
        name = "shut"

        def __call__(self, image: U8) -> Gated | None:
            return None

    with pytest.raises(MediaError, match="fired on none"):
        Pool(pool.items, RECIPE, Shut()).batch(0)
    assert Pool(pool.items, RECIPE, Shut()).view(pool.items[0], 0) is None


def test_wire_view_is_what_a_validator_sends() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    drawn = augment.draw(np.random.default_rng(0), 0, (300, 400))
    expected = media.decode_image(media.encode_jpeg(augment.apply(drawn, frame), quality=75)).pixels
    assert np.array_equal(wire_view(frame, drawn), expected)
