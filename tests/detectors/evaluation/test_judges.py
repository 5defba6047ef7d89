from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from detectors.datasets import Dataset
from detectors.errors import ConfigError
from detectors.evaluation.judges import cross_fitted, load
from detectors.evaluation.views import View, Views
from tests.detectors.evaluation.made_scores import write_files


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_files(tmp_path_factory.mktemp("pool"))


def test_the_baselines(pool: Dataset) -> None:
    images = [item for item in pool if item.modality == "image"]
    made = [Views(pool.origin, "none").view(item, k) for item in images for k in range(40)]
    shown = [view for view in made if isinstance(view, View)]
    assert {a.probabilities for a in load("always-real").answers(shown)} == {(1.0, 0.0, 0.0)}
    chance = load("random", seed=1)
    p = np.array([1 - a.probabilities[0] for a in chance.answers(shown) if a.probabilities])
    assert len(p) == len(shown)
    assert 0.45 < p.mean() < 0.55
    assert p.min() < 0.05
    assert p.max() > 0.95
    one_by_one = [chance.answers([v])[0] for v in shown[::-1]][::-1]
    assert one_by_one == chance.answers(shown)
    assert load("random", seed=2).answers(shown) != one_by_one


def test_a_feature_that_tells_the_label_is_found_and_one_that_tells_the_group_is_not() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 5)
    fake = np.repeat(rng.permutation(np.arange(40) % 2 == 0), 5)
    leak = np.column_stack([fake + rng.normal(0, 0.3, 200), rng.normal(size=200)])
    found = cross_fitted(leak, fake, groups)
    assert ((found > 0.5) == fake).mean() > 0.85
    own = np.eye(40)[groups]  # names the group and nothing else: must not help on other groups
    assert abs((((cross_fitted(own, fake, groups)) > 0.5) == fake).mean() - 0.5) < 0.35


def test_folds_that_cannot_be_fitted_have_no_answer() -> None:
    found = cross_fitted(np.zeros((4, 2)), np.array([True, True, True, True]), np.arange(4))
    assert np.isnan(found).all()


def test_unknown_names_are_refused_with_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="always-real"):
        load("nobody", weights=tmp_path)
    with pytest.raises(ConfigError, match="expert general-whole"):
        load("expert nobody")


@pytest.mark.parametrize("name", ["expert general-whole", "expert:general-whole", "general-whole@1.0.0"])
def test_an_expert_of_the_store(name: str, pool: Dataset) -> None:
    judge = load(name)
    assert judge.name == name
    assert judge.about["weights"] == {"general-whole": "general-whole@1.0.0"}
    made = [Views(pool.origin, "0").view(item) for item in pool if item.path.name in ("one0.jpg", "clip.mp4")]
    shown = [view for view in made if isinstance(view, View)]
    answers = judge.answers(shown)
    assert {v.seen.modality for v in shown} == {"image", "video"}
    assert all(a.probabilities is not None and 0 < a.probabilities[1] < 1 for a in answers)
