"""The detector that answers now, and can be another one from the next batch on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from detectors.card import Card
from detectors.types import Detector, Media, Prediction

__all__ = ["LiveDetector"]


class LiveDetector:
    """A :class:`~detectors.types.Detector` that hands each batch to whatever is current when the batch begins.

    Every batch is answered by exactly one detector, and says which (:attr:`~detectors.types.Prediction.detector`).
    A detector that was replaced goes on with the batch it has, and lives as long as that. Safe from several threads.

    Args:
        detector: answers first.
    """

    def __init__(self, detector: Detector) -> None:
        self._current = detector

    @property
    def current(self) -> Detector:
        """What the next batch is handed to. Whoever keeps it keeps its memory: ask again rather than keep."""
        return self._current

    @property
    def card(self) -> Card:
        """Of :attr:`current`."""
        return self._current.card

    @property
    def costs(self) -> Mapping[str, float]:
        """As :attr:`detectors.camo.Camo.costs`; empty where the current detector keeps none."""
        found: Mapping[str, float] = getattr(self._current, "costs", {})
        return found

    @property
    def faults(self) -> Mapping[str, int]:
        """As :attr:`detectors.camo.Camo.faults`; empty where the current detector counts none."""
        found: Mapping[str, int] = getattr(self._current, "faults", {})
        return found

    def switch(self, new: Detector) -> Detector:
        """Makes `new` current from the next batch on; returns what was."""
        old, self._current = self._current, new
        return old

    def predict(self, batch: Sequence[Media], *, deadline: float | None = None) -> list[Prediction]:
        """See :class:`~detectors.types.Detector`."""
        detector = self._current  # once: a switch while it computes must not reach this batch
        return detector.predict(batch, deadline=deadline)
