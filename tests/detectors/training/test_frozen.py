from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from detectors.datasets import Item
from detectors.training import frozen
from detectors.training.splits import Fold
from detectors.types import Label

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight features need no three hundred steps."""
    monkeypatch.setattr(frozen, "_SETTINGS", frozen._SETTINGS.model_copy(update={"steps": 60, "batch": 64}))


def _items(count: int) -> list[Item]:
    """Reals of two cameras, fakes of three makers; every file a group of its own."""
    found = []
    for source, label in (("a", Label.REAL), ("b", Label.REAL), *((m, Label.SYNTHETIC) for m in ("x", "y", "z"))):
        for k in range(count):
            generator = "" if label is Label.REAL else source
            found.append(Item(Path(f"/{source}{k}.jpg"), "image", label, "", generator, source, f"{source}{k}"))
    return found


def _features(items: list[Item], shared: float) -> frozen.Features:
    """Two views an item; all fakes share a direction of strength `shared`, each maker has a stronger one of its own."""
    axes = {"x": 2, "y": 3, "z": 4}
    rows, index = [], []
    for k, item in enumerate(items):
        for _ in range(2):
            row = RNG.normal(0, 1, 8)
            row[0] += shared if item.fake else 0.0
            row[axes.get(item.source, 5)] += 3.0 if item.fake else 0.0
            rows.append(row)
            index.append(k)
    return frozen.Features(np.array(rows, np.float32), np.array(index, np.int64))


def _folds(items: list[Item]) -> list[Fold]:
    """Leaves out each maker; the last ten files of each camera are the held reals."""
    found = []
    for name in ("x", "y", "z"):
        reals = [i for i in items if not i.fake]
        held = [i for i in reals if int(i.path.stem[1:]) >= 30] + [i for i in items if i.source == name]
        kept = [i for i in items if i not in held and i.source != name]
        found.append(Fold(name, tuple(kept), tuple(held)))
    return found


def test_what_makers_share_carries_over_and_what_they_do_not_share_does_not() -> None:
    items = _items(40)
    for shared, low, high in ((3.0, 0.9, 1.0), (0.0, 0.0, 0.62)):
        held = frozen.held_out(items, _features(items, shared), _folds(items))
        assert [h.name for h in held] == ["x", "y", "z"]
        assert low <= np.mean([h.auc for h in held]) <= high
        assert held[0].views == (80, 40)


def test_pairs_of_sources_that_nobody_trained_on() -> None:
    items = _items(40)
    for shared, low, high in ((3.0, 0.9, 1.0), (0.0, 0.0, 0.65)):
        rows = frozen.crossed(items, _features(items, shared), parts=3)
        assert [(row.real, row.fake) for row in rows] == [(a, b) for a in "ab" for b in "xyz"]
        assert rows[0].views == (80, 80)
        assert low <= np.mean([row.auc for row in rows]) <= high
    with pytest.raises(ValueError, match="too few"):
        frozen.crossed(items, _features(items, 0.0), least=41)


def test_a_group_of_what_is_judged_is_not_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    # what x makes it makes of the photographs of b: the two share their groups
    items = [dataclasses.replace(i, group=i.group.replace("x", "b")) for i in _items(20)]
    seen: list[set[str]] = []

    def fit(items: Sequence[Item], features: frozen.Features, rows: npt.NDArray[np.int64]) -> Any:
        seen.append({items[k].source for k in features.items[rows]})
        return lambda wanted: np.zeros(len(wanted))

    monkeypatch.setattr(frozen, "_fit", fit)
    frozen.crossed(items, _features(items, 0.0))
    assert len(seen) == 6
    assert [names for names in seen if "b" in names] == [names for names in seen if "x" in names]
    assert any("b" in names for names in seen)
    assert any(names == {"a", "y", "z"} - {left} for names in seen for left in ("y", "z"))


def test_a_fold_with_fewer_sources_than_asked_for_gives_all_it_has() -> None:
    items = _items(40)
    features = _features(items, 1.5)
    rows = frozen.curve(items, features, _folds(items), (1, 2, 5), orders=2, seed=1)
    assert [row["fake_sources"] for row in rows] == [1, 2, 5]
    assert all(0.4 < row["balanced_accuracy"] <= 1.0 for row in rows)
    assert {**rows[1], "fake_sources": 5} == rows[2]  # two are all there are
    assert rows[1]["spread"] == 0.0  # and then there is no choice
    assert rows == frozen.curve(items, features, _folds(items), (1, 2, 5), orders=2, seed=1)


def test_real_photographs_give_rows_of_the_trunk(tmp_path: Path) -> None:
    from tests.detectors.training.pool_of_photos import write_pool  # noqa: PLC0415 - torch and the trunk, here alone

    data = write_pool(tmp_path, groups=2)
    features = frozen.extract(list(data.items), 1, 0)
    assert features.values.shape == (len(data.items), 2256)
    assert np.isfinite(features.values).all()
    assert features.of([1]).tolist() == [1]
