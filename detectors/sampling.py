"""Evenly spaced items of a stream whose length is not known, or not to be believed."""

from __future__ import annotations

from typing import Generic, TypeVar

import numpy as np

__all__ = ["EvenSampler", "even_indices", "middle_indices"]

T = TypeVar("T")


def even_indices(length: int, count: int) -> list[int]:
    """At most `count` indices spread over ``range(length)``, first and last included (the middle one for one)."""
    if length <= count:
        return list(range(length))
    if count == 1:
        return [length // 2]
    return [int(i) for i in np.linspace(0, length - 1, count).round()]


def middle_indices(length: int, count: int) -> list[int]:
    """The middles of at most `count` equal parts of ``range(length)``: titles and fades at the ends do not count."""
    parts = min(length, count)
    return [(2 * i + 1) * length // (2 * parts) for i in range(parts)]


class EvenSampler(Generic[T]):
    """Keeps at most ``2 * count`` items while a stream passes and gives `count` evenly spaced ones at its end.

    Every stride-th item is held; when the store is full every other one is dropped and the stride doubles. Exact for
    streams of up to ``2 * count`` items, beyond that spaced evenly to within one stride.
    """

    def __init__(self, count: int) -> None:
        self._count = max(1, count)
        self._stride = 1
        self._seen = 0
        self._items: list[T] = []

    @property
    def seen(self) -> int:
        """Items that have passed."""
        return self._seen

    def wants_next(self) -> bool:
        """Whether the next item would be held, so that a costly conversion can be left out."""
        return self._seen % self._stride == 0

    def skip(self) -> None:
        """Counts an item that was not wanted."""
        self._seen += 1

    def offer(self, item: T) -> None:
        if self.wants_next():
            self._items.append(item)
            if len(self._items) > 2 * self._count:
                del self._items[1::2]
                self._stride *= 2
        self._seen += 1

    def taken(self) -> list[T]:
        """The evenly spaced items, in order."""
        return [self._items[i] for i in even_indices(len(self._items), self._count)]
