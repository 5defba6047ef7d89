from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from detectors.datasets import Dataset, Item, split_by_group
from detectors.errors import ConfigError
from detectors.training.splits import folds, leave_out, load_split, make_split
from detectors.types import Label


def item(source: str, number: int, label: Label, generator: str, group: str, root: Path = Path("/pool")) -> Item:
    return Item(root / source / f"{number}.jpg", "image", label, "", generator, source, group)


def pool(root: Path = Path("/pool")) -> Dataset:
    """Two real sources, three generators in two sources; prompts are shared by two of the generators."""
    items: list[Item] = []
    for k in range(60):
        items += [
            item("street", k, Label.REAL, "camera", f"street:{k}", root),
            item("studio", k, Label.REAL, "camera", f"studio:{k}", root),
            item("web", 2 * k, Label.SYNTHETIC, "flux", f"prompt:{k}", root),
            item("web", 2 * k + 1, Label.SYNTHETIC, "sdxl", f"prompt:{k}", root),
            item("swap", k, Label.SEMISYNTHETIC, "swapper", f"street:{k}", root),
        ]
    return Dataset(tuple(items), root / "manifest.csv")


def test_the_file_round_trips_and_says_what_split_by_group_says(tmp_path: Path) -> None:
    data = pool()
    split = make_split(data, 0.2, 7)
    split.save(tmp_path / "a/split.json")
    again = load_split(tmp_path / "a/split.json")
    assert again == split
    assert again.apply(data) == split_by_group(data, 0.2, 7)
    again.save(tmp_path / "b.json")
    assert (tmp_path / "b.json").read_bytes() == (tmp_path / "a/split.json").read_bytes()
    training, validation = again.apply(data)
    assert set(again.validation) == {i.group for i in validation}
    for source, sides in split.counts.items():
        assert sides.training == sum(i.source == source for i in training)
        assert sides.validation == sum(i.source == source for i in validation)
    assert str(tmp_path) not in (tmp_path / "b.json").read_text()


def test_the_hash_is_of_the_pool_wherever_it_lies(tmp_path: Path) -> None:
    data, moved = pool(), pool(tmp_path)
    split = make_split(data, 0.2, 7)
    assert make_split(moved, 0.2, 7) == split
    assert make_split(Dataset(data.items[::-1], data.origin), 0.2, 7) == split
    split.check(moved)
    with pytest.raises(ConfigError, match="is not the pool"):
        split.check(Dataset(data.items[1:], data.origin))
    renamed = replace(data[0], path=Path("/pool/street/other.jpg"))
    with pytest.raises(ConfigError, match="is not the pool"):
        split.check(Dataset((renamed, *data.items[1:]), data.origin))


def test_a_part_of_the_pool_is_split_as_the_whole() -> None:
    data = pool()
    split = make_split(data, 0.2, 7)
    part = [i for i in data if i.source == "web"]
    training, validation = split.apply(part)
    assert [i for i in split.apply(data)[1] if i.source == "web"] == validation
    assert len(training) + len(validation) == len(part)


def test_groups_that_contradict_the_file_are_refused() -> None:
    data = pool()
    split = make_split(data, 0.2, 7)
    held = split_by_group([item("new", k, Label.REAL, "camera", f"new:{k}") for k in range(40)], 0.2, 7)[1]
    with pytest.raises(ConfigError, match="contradicts its split: 1 groups"):
        split.apply([*data, held[0]])  # drawn for validation, not in the file
    edited = split.model_copy(update={"validation": split.validation[1:]})
    with pytest.raises(ConfigError, match=split.validation[0]):
        edited.apply(data)
    with pytest.raises(ConfigError, match="contradicts"):
        split.model_copy(update={"seed": 8}).apply(data)


@pytest.mark.parametrize("text", ["", "{}", '{"seed": 1, "fraction": 2}', "[1]"])
def test_a_file_that_is_no_split_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ConfigError, match="not a split"):
        load_split(tmp_path / "x.json")
    with pytest.raises(ConfigError, match="No such file"):
        load_split(tmp_path / "none.json")


def test_leave_out_takes_the_groups_along() -> None:
    data = pool()
    kept, left = leave_out(data, generators=["flux"])
    assert {i.generator for i in left} == {"flux"}
    assert {i.source for i in kept} == {"street", "studio", "swap"}  # the other generator had the same prompts
    kept, left = leave_out(data, sources=["studio"])
    assert {i.source for i in left} == {"studio"}
    assert {i.source for i in kept} == {"street", "web", "swap"}
    assert leave_out(data) == (list(data), [])


def groups(items: tuple[Item, ...]) -> set[str]:
    return {i.group for i in items}


def test_folds_over_generators() -> None:
    data = pool()
    found = folds(data, "generator", fraction=0.2, seed=7)
    assert [f.name for f in found] == ["flux", "sdxl", "swapper"]
    training, validation = split_by_group(data, 0.2, 7)
    for fold in found:
        assert {i for i in fold.held if i.fake} == {i for i in data if i.generator == fold.name}
        assert {i for i in fold.held if not i.fake} == {i for i in validation if not i.fake}
        assert not groups(fold.held) & groups(fold.training)
        assert not set(fold.training) - set(training)
        assert fold.name not in {i.generator for i in fold.training}
        assert any(i.fake for i in fold.training)
    assert [f.name for f in folds(data, "generator", Label.SEMISYNTHETIC)] == ["swapper"]


def test_folds_over_real_sources() -> None:
    data = pool()
    found = folds(data, "source", Label.REAL, fraction=0.2, seed=7)
    assert [f.name for f in found] == ["street", "studio"]
    validation = split_by_group(data, 0.2, 7)[1]
    for fold in found:
        assert {i for i in fold.held if not i.fake} == {i for i in data if i.source == fold.name}
        assert {i for i in fold.held if i.fake} == {i for i in validation if i.fake}
        assert not groups(fold.held) & groups(fold.training)
        assert fold.name not in {i.source for i in fold.training}
    assert "swap" not in {i.source for i in found[0].training}  # made from the source left out
    assert [f.name for f in folds(data, "source")] == ["street", "studio", "swap", "web"]
