"""Drawing items evenly over the sources of a class."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping

import numpy as np

from detectors.datasets import Item

__all__ = ["FEW", "Sources", "contents_of", "kept", "share_of"]

FEW = 16  # items below which a source is drawn less often


def kept(items: Iterable[Item], contents: Collection[str], left_out: Collection[str]) -> list[Item]:
    """Items of the contents (all where empty) of which neither source nor generator is left out."""
    wanted = (i for i in items if not contents or i.content in contents)
    return [i for i in wanted if i.source not in left_out and i.generator not in left_out]


def share_of(count: float, factor: float = 1.0, floor: int = FEW) -> float:
    """A source's share of its class before scaling: its factor, and below `floor` items in proportion to them."""
    return factor * min(count, floor) / floor


def contents_of(items: Iterable[Item]) -> tuple[str, ...]:
    """The contents that are named at all, sorted."""
    return tuple(sorted({i.content for i in items} - {""}))


class Sources:
    """Items by source.

    Args:
        items: of one class.
        factors: on the even draw, by source; 1 where none is named.
    """

    def __init__(self, items: Iterable[Item], factors: Mapping[str, float]) -> None:
        found: dict[str, list[Item]] = defaultdict(list)
        for item in items:
            found[item.source].append(item)
        self._members = dict(sorted(found.items()))
        self.names = tuple(self._members)
        weights = np.array([share_of(len(m), factors.get(n, 1.0)) for n, m in self._members.items()], np.float64)
        self._odds = weights / weights.sum() if self.names else weights

    def __bool__(self) -> bool:
        return bool(self.names)

    @property
    def scarce(self) -> bool:
        """Too few items to draw a class from them alone: they would be learned by heart."""
        return sum(len(m) for m in self._members.values()) < FEW

    def pick(self, rng: np.random.Generator) -> Item:
        """Evenly over sources, but one of n items below 16 only n/16 as often: tiny ones are not drilled."""
        members = self._members[self.names[int(rng.choice(len(self.names), p=self._odds))]]
        return members[int(rng.integers(len(members)))]
