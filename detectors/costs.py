"""What each expert costs here and now, so that a deadline can be kept by leaving some out."""

from __future__ import annotations

import threading
from collections.abc import Mapping

__all__ = ["Costs"]

_RECOVERY = 0.05  # of the way back to the budget, each time it was left out


class Costs:
    """A running mean of milliseconds an item, by name. Safe to use from several threads.

    Args:
        budgets: expected milliseconds an item; believed until the first measurement.
        smoothing: weight of the newest measurement, in (0, 1].
    """

    def __init__(self, budgets: Mapping[str, float], smoothing: float) -> None:
        self._budgets = dict(budgets)
        self._smoothing = smoothing
        self._means: dict[str, float] = {}
        self._lock = threading.Lock()

    def milliseconds(self, name: str, items: int = 1) -> float:
        """What `items` items are expected to take."""
        return self._means.get(name, self._budgets[name]) * items

    def record(self, name: str, items: int, seconds: float) -> None:
        """Learns from a run."""
        if items <= 0:
            return
        value = seconds * 1e3 / items
        with self._lock:
            mean = self._means.get(name, value)
            self._means[name] = mean + self._smoothing * (value - mean)

    def left_out(self, name: str) -> None:
        """Moves a mean above the budget a little back towards it.

        What is left out is not measured: without this, one stall would keep an expert out for ever.
        """
        with self._lock:
            mean, budget = self._means.get(name), self._budgets[name]
            if mean is not None and mean > budget:
                self._means[name] = mean + _RECOVERY * (budget - mean)

    def snapshot(self) -> dict[str, float]:
        """Milliseconds an item by name."""
        return {name: self.milliseconds(name) for name in self._budgets}
