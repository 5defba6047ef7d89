"""The sheet holds what each expert said of each view, by the cards alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from detectors import datasets
from detectors.errors import ConfigError
from detectors.training.merge_sheet import bare, score_images, score_videos
from detectors.training.recipe import Recipe
from neurons.demo_media import photographs
from tests.detectors.fixtures_camo import build, config
from tests.detectors.training.pool_of_photos import write_pool

RECIPE = Recipe(name="m", version="0", architecture="camo", views=2, kinds=("grid",), seed=3)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> datasets.Dataset:
    root = tmp_path_factory.mktemp("pool")
    write_pool(root, groups=3)
    _write_gif(root / "real" / "clips" / "pan.gif")
    return datasets.read(root)


def _write_gif(path: Path) -> None:
    from PIL import Image  # noqa: PLC0415

    photo = dict(photographs())["chelsea"]
    frames = [Image.fromarray(photo[k : k + 64, k : k + 80]) for k in range(0, 24, 2)]
    path.parent.mkdir(parents=True)
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=40)


def test_images_their_made_fakes_and_no_video(pool: datasets.Dataset) -> None:
    network, experts, _ = build()
    root = pool.origin.resolve()
    rows = score_images(network, pool.items, RECIPE, root, made=True)
    images = [item for item in pool if item.modality == "image"]
    reals = sum(not item.fake for item in images)
    assert len(rows) == 2 * (len(images) + reals)
    made = np.char.startswith(rows.sources, "made:")
    assert int(made.sum()) == 2 * reals
    assert (rows.labels[made] == 1).all()
    assert set(rows.groups[made]) == {item.group for item in images if not item.fake}
    assert rows.gates == ("face", "text")
    assert set(rows.names) <= set(experts)
    face = rows.names.index("face") if "face" in rows.names else None
    if face is not None:  # an expert behind a gate has a number where its gate fired, and nowhere else
        np.testing.assert_array_equal(np.isfinite(rows.logits[:, face]), rows.fired[:, 0])
    general, second = (rows.logits[:, rows.names.index(name)] for name in ("general", "second"))
    np.testing.assert_allclose(second - general, 1.0, atol=1e-6)
    again = score_images(build()[0], list(reversed(pool.items)), RECIPE, root, made=False)
    assert sorted(again.logits[:, 0]) == pytest.approx(sorted(rows.logits[~made, 0]))


def test_videos_are_judged_as_a_whole(pool: datasets.Dataset) -> None:
    network, experts, _ = build()
    rows = score_videos(network, pool.items, RECIPE, pool.origin.resolve())
    assert len(rows) == 2
    assert set(rows.sources) == {"clips"}
    assert (rows.labels == 0).all()
    assert max(experts["general"].shown) == 8
    with pytest.raises(ConfigError, match="no usable video"):
        score_videos(network, [i for i in pool if i.modality == "image"], RECIPE, pool.origin)


def test_the_configurations_own_calibrations_are_left_out() -> None:
    experts = {"general": {"weights": "x", "calibration": {"slope": 3.0}, "video_calibration": {"slope": 2.0}}}
    network, fakes, _ = build(config(gates={}, experts=experts, merge="max"))
    plain = bare(network)
    part = plain.config.experts["general"]
    assert part.calibration is None
    assert part.video_calibration is None
    assert plain.config.merge == "learned"
    assert network.config.experts["general"].calibration is not None
    assert set(plain.costs) == set(network.costs)
    assert set(fakes) == {"general"}
