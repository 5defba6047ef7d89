"""The committed split, and the folds of leave-one-out: who trains, who measures, and that no group does both."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from detectors.datasets import Dataset, Item, split_by_group
from detectors.errors import ConfigError
from detectors.types import Label

__all__ = ["FRACTION", "SEED", "Fold", "Split", "fits", "folds", "leave_out", "load_split", "make_split"]

FRACTION = 0.15
SEED = 1


class Sides(BaseModel):
    """Items of one source on either side."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    training: int = 0
    validation: int = 0


class Split(BaseModel):
    """A split, as its file has it.

    The sides follow from seed and fraction alone (``datasets.split_by_group``); the list and the hash are there so that
    a pool that changed is noticed.

    Attributes:
        seed, fraction: of ``split_by_group``.
        sha256: over path, group and side of every item, sorted; paths relative to the pool.
        counts: items by source.
        validation: the groups held out, sorted.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int
    fraction: float = Field(ge=0, le=1)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    counts: dict[str, Sides]
    validation: tuple[str, ...]

    def apply(self, items: Iterable[Item]) -> tuple[list[Item], list[Item]]:
        """(training, validation) of a pool or of any part of it.

        Raises:
            ConfigError: an item's group is listed and not drawn for validation, or drawn and not listed.
        """
        held = set(self.validation)
        training, validation = split_by_group(items, self.fraction, self.seed)
        wrong = {item.group for item in training} & held | {item.group for item in validation} - held
        if wrong:
            named = ", ".join(sorted(wrong)[:3])
            raise ConfigError(
                f"the pool contradicts its split: {len(wrong)} groups are on the wrong side, as {named}; "
                "make the split file again with `data split`"
            )
        return training, validation

    def check(self, pool: Dataset) -> None:
        """Refuses a pool that is not, file by file and group by group, the one the split was made of.

        Raises:
            ConfigError: it is not.
        """
        found = _digest(pool, *self.apply(pool))
        if found != self.sha256:
            raise ConfigError(
                f"{pool.origin}: is not the pool of the split file (hash {found[:12]}, not {self.sha256[:12]}): files "
                "or groups changed; make the split file again with `data split`"
            )

    def save(self, path: Path) -> None:
        """Writes the file; the same split gives the same bytes."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.model_dump(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def make_split(pool: Dataset, fraction: float = FRACTION, seed: int = SEED) -> Split:
    """Splits a pool by group, as ``datasets.split_by_group`` does.

    Raises:
        ValueError: the fraction is outside [0, 1].
    """
    training, validation = split_by_group(pool, fraction, seed)
    counts = {side: Counter(item.source for item in items) for side, items in _sides(training, validation)}
    return Split(
        seed=seed,
        fraction=fraction,
        sha256=_digest(pool, training, validation),
        counts={
            source: Sides(training=counts["training"][source], validation=counts["validation"][source])
            for source in sorted({item.source for item in pool})
        },
        validation=tuple(sorted({item.group for item in validation})),
    )


def load_split(path: Path) -> Split:
    """Reads a split file.

    Raises:
        ConfigError: unreadable, or not a split.
    """
    try:
        return Split.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"{path}: not a split: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def fits(group: str) -> bool:
    """Whether a held-out group serves to fit (calibration, merge) rather than to report; half of them do."""
    return zlib.crc32(group.encode()) % 2 == 0


def leave_out(
    items: Iterable[Item], *, sources: Collection[str] = (), generators: Collection[str] = ()
) -> tuple[list[Item], list[Item]]:
    """(kept, left out): what comes from the named sources or generators, and what shares no group with it.

    An item of another source whose group is left out is in neither list.
    """
    every = list(items)
    left = [item for item in every if item.source in sources or item.generator in generators]
    groups = {item.group for item in left}
    return [item for item in every if item.group not in groups], left


@dataclass(frozen=True, slots=True, eq=False)
class Fold:
    """One round of leave-one-out.

    Attributes:
        name: of the generator or source left out.
        training: nothing of that name, no group that is in `held`, and nothing of the split's validation side.
        held: all that carries the name, and the other class from the validation side.
    """

    name: str
    training: tuple[Item, ...]
    held: tuple[Item, ...]


def folds(
    items: Iterable[Item],
    by: Literal["source", "generator"],
    label: Label | None = None,
    *,
    fraction: float = FRACTION,
    seed: int = SEED,
) -> list[Fold]:
    """Leave-one-out over generators or sources, one fold a name, sorted.

    Args:
        items: the whole pool.
        by: ``generator`` leaves out one maker of fakes a fold, ``source`` one collection.
        label: leaves out items of this label only; None all fakes for generators, everything for sources.
        fraction, seed: of the split whose validation side gives the other class.

    Returns:
        Folds whose held side has both reals and fakes; a generator without a name makes none.
    """
    every = list(items)
    training, validation = split_by_group(every, fraction, seed)

    def name(item: Item) -> str:
        return item.source if by == "source" else item.generator

    def chosen(item: Item) -> bool:
        return (item.label == label) if label is not None else (by == "source" or item.fake)

    found = []
    for left in sorted({name(item) for item in every if chosen(item)} - {""}):
        held = [item for item in every if name(item) == left and chosen(item)]
        classes = {item.fake for item in held}
        held += [item for item in validation if item.fake not in classes and name(item) != left]
        groups = {item.group for item in held}
        kept = [item for item in training if name(item) != left and item.group not in groups]
        found.append(Fold(left, tuple(kept), tuple(held)))
    return found


def _sides(training: Sequence[Item], validation: Sequence[Item]) -> list[tuple[str, Sequence[Item]]]:
    return [("training", training), ("validation", validation)]


def _digest(pool: Dataset, training: Sequence[Item], validation: Sequence[Item]) -> str:
    root = (pool.origin if pool.origin.is_dir() else pool.origin.parent).resolve()
    lines = sorted(
        f"{item.path.relative_to(root).as_posix()}\0{item.group}\0{side}"
        for side, items in _sides(training, validation)
        for item in items
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
