from __future__ import annotations

from dataclasses import replace
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


def test_a_batch_says_what_its_samples_are(pool: Pool) -> None:
    batches = [pool.batch(step) for step in range(4)]
    kinds = {"inpainted", "pasted", "self_blended", "spliced", "wavelet_blended"}
    for batch in batches:
        made = np.array([bool(kind) for kind in batch.kinds])
        assert np.array_equal(made[4:], batch.paired)
        assert not made[:4].any()
        assert np.array_equal(batch.sources < 0, made)
        assert np.array_equal(batch.classes > 0, batch.labels > 0)
        for kind, label in zip(batch.kinds, batch.classes, strict=True):
            assert not kind or (label == Label.SEMISYNTHETIC) == (kind in kinds)
    assert pool.sources == ("cat", "cup")
    assert {int(s) for b in batches for s in b.sources} == {-1, 0, 1}


def test_a_part_of_a_batch_is_that_part_of_the_whole(pool: Pool) -> None:
    part, whole = pool.batch(2, slice(1, 3)), pool.batch(2)
    assert np.array_equal(part.pixels, whole.pairs(1, 3).pixels)
    assert part.kinds == whole.pairs(1, 3).kinds
    assert part.labels.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize(("share", "label"), [(1.0, Label.SEMISYNTHETIC), (1e-9, Label.SYNTHETIC)])
def test_the_share_of_semi_synthetic_fakes_is_kept(share: float, label: Label, pool: Pool) -> None:
    recipe = RECIPE.model_copy(update={"semi_share": share, "made_share": 0.5})
    drawn = Pool(pool.items, recipe).batch(0)  # the pool's own fakes are all synthetic
    assert drawn.classes[4:].tolist() == [label] * 4
    assert label == Label.SYNTHETIC or drawn.paired.all()
    with pytest.raises(ValueError, match="no maker gives semisynthetic"):
        Pool(pool.items, recipe.model_copy(update={"kinds": ("grid",)}))


def test_whole_views_are_the_wire_image_made_smaller(pool: Pool) -> None:
    def mean_correlation(view: str) -> float:
        crops = Pool(pool.items, RECIPE.model_copy(update={"view": view, "made_share": 0.0})).batch(0).pixels
        full = Pool(pool.items, RECIPE.model_copy(update={"side": 256, "made_share": 0.0})).batch(0).pixels
        small = full.reshape(8, 64, 4, 64, 4, 3).mean((2, 4))
        return float(np.mean([np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(crops, small, strict=True)]))

    assert mean_correlation("whole") > 0.98
    assert mean_correlation("crop") < 0.9


def test_both_views_are_drawn_and_a_pair_shares_its_draw(pool: Pool) -> None:
    settings = {"made_share": 1.0, "kinds": ("pasted",), "batch": 16}
    shown = {
        view: Pool(pool.items, RECIPE.model_copy(update={"view": view, **settings})).batch(1).pixels
        for view in ("crop", "whole", "both")
    }
    same = {
        view: [np.array_equal(a, b) for a, b in zip(shown["both"], shown[view], strict=True)]
        for view in ("crop", "whole")
    }
    assert any(same["crop"])
    assert any(same["whole"])
    assert same["crop"][:8] == same["crop"][8:]
    assert same["whole"][:8] == same["whole"][8:]


def test_masked_spectra_are_those_of_both_of_a_pair(pool: Pool) -> None:
    settings = {"made_share": 1.0, "kinds": ("pasted",)}
    plain = Pool(pool.items, RECIPE.model_copy(update=settings)).batch(0).pixels.astype(int)
    masked = Pool(pool.items, RECIPE.model_copy(update={"frequency_masking": 1.0, **settings})).batch(0).pixels
    lost = [np.abs(np.fft.fft2((p - m).mean(-1))) > 60 for p, m in zip(plain, masked.astype(int), strict=True)]
    for k in range(4):
        assert not np.array_equal(plain[k], masked[k])
        shared = (lost[k] & lost[4 + k]).sum() / max(1, (lost[k] | lost[4 + k]).sum())
        others = (lost[k] & lost[(k + 1) % 4]).sum() / max(1, (lost[k] | lost[(k + 1) % 4]).sum())
        assert shared > others


def test_weights_tilt_the_draw_of_sources(pool: Pool) -> None:
    recipe = RECIPE.model_copy(update={"source_weights": {"cat": 20.0}, "made_share": 0.0, "batch": 64})
    drawn = Pool(pool.items, recipe).batch(0).sources
    assert (drawn[:32] == 0).mean() > 0.8
    assert (drawn[32:] == 0).mean() > 0.8


def test_generators_can_be_left_out_and_nothing_is_made_of_what_is(pool: Pool) -> None:
    items = [replace(i, generator="camera" if i.label == Label.REAL else f"gan-{i.source}") for i in pool.items]
    left = Pool(items, RECIPE.model_copy(update={"sources_left_out": ("gan-cat",)}))
    assert {(i.source, i.fake) for i in left.items} == {("cat", False), ("cup", False), ("cup", True)}
    settings = {"sources_left_out": ("cat",), "made_share": 1.0, "kinds": ("pasted",), "batch": 16}
    reds = Pool(items, RECIPE.model_copy(update=settings)).batch(0)
    assert set(reds.sources[:8].tolist()) == {0}
    assert reds.paired.all()


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


def test_a_made_fake_has_its_reals_group_and_the_others_their_own(pool: Pool) -> None:
    batch = pool.batch(2)
    half = len(batch) // 2
    assert any(batch.paired)
    for k in np.flatnonzero(batch.paired):
        assert batch.groups[k] == batch.groups[half + k] != ""
    assert all(batch.groups)
    assert batch.pairs(1, 3).groups == (*batch.groups[1:3], *batch.groups[half + 1 : half + 3])


def test_a_fake_stands_beside_a_real_of_its_content(pool: Pool) -> None:
    across = {("cat", False): "one", ("cup", True): "one", ("cup", False): "two", ("cat", True): "two"}
    named = [replace(i, content=across[i.source, i.fake]) for i in pool.items]
    batch = Pool(named, RECIPE.model_copy(update={"made_share": 0.0, "same_content": 1.0})).batch(0)
    assert all(real != fake for real, fake in zip(batch.sources[:4], batch.sources[4:], strict=True))


def test_few_semisynthetic_files_are_not_drilled(pool: Pool) -> None:
    items = [
        replace(i, label=Label.SEMISYNTHETIC) if k == 0 and i.fake else i for k, i in enumerate(reversed(pool.items))
    ]
    asked = RECIPE.model_copy(update={"made_share": 0.0, "semi_share": 0.5, "kinds": ("upsampled", "spliced")})
    batches = [Pool(items, asked).batch(step) for step in range(4)]
    semi = [kind for b in batches for kind, c in zip(b.kinds, b.classes, strict=True) if c == Label.SEMISYNTHETIC]
    assert semi
    assert set(semi) == {"spliced"}
