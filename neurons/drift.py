"""Whether the answers of late are spread as they were on held-out media: the population stability index."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import Final

__all__ = ["BINS", "LEAST", "WINDOW", "Window", "bin_of", "psi"]

BINS: Final = 10
"""Equal bins of P(fake); see ``reference`` in ``configs/camo.yaml``."""
WINDOW: Final = 500
"""Answers that are looked at."""
LEAST: Final = 200
"""Answers below which nothing is said: chance alone gives an index of about 9/N, 0.05 at 200."""

_PSEUDO = 0.5  # answers that every bin is taken to hold besides its own: the logarithm of an empty one is not finite


class Window:
    """How the last answers fall into the bins. One thread adds, any may read.

    Args:
        size: answers that are remembered.
    """

    def __init__(self, size: int = WINDOW) -> None:
        self._size = size
        self._last: deque[int] = deque()
        self._counts = [0] * BINS

    def add(self, p_fake: float) -> None:
        """Takes in an answer, in [0, 1], and forgets the oldest beyond the size."""
        index = bin_of(p_fake)
        self._last.append(index)
        self._counts[index] += 1
        if len(self._last) > self._size:
            self._counts[self._last.popleft()] -= 1

    @property
    def counts(self) -> list[int]:
        """Answers by bin; a copy."""
        return self._counts.copy()


def bin_of(p_fake: float) -> int:
    """The bin of a probability: ``[0, 0.1)`` is 0, ``[0.9, 1]`` is 9."""
    return min(int(p_fake * BINS), BINS - 1)


def psi(counts: Sequence[int], reference: Sequence[float], *, least: int = LEAST) -> float:
    """The population stability index, sum of (a - r) ln(a / r) over the bins (Siddiqi, Credit Risk Scorecards, 2006).

    Half an answer is added to every bin of both sides, on the same number of answers, so that an empty bin gives no
    infinity and equal shares give exactly 0.

    Args:
        counts: answers by bin.
        reference: shares by bin that are expected; sum 1.
        least: answers below which nothing is said.

    Returns:
        At least 0; NaN of fewer than `least` answers or without a reference.
    """
    total = sum(counts)
    if total < max(1, least) or len(reference) != len(counts):
        return math.nan
    whole = total + _PSEUDO * len(counts)
    found = 0.0
    for count, share in zip(counts, reference, strict=True):
        actual, expected = (count + _PSEUDO) / whole, (share * total + _PSEUDO) / whole
        found += (actual - expected) * math.log(actual / expected)
    return found
