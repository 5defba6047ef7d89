"""How long one item takes: learnt from what was observed, for reckoning with a queue."""

from __future__ import annotations

__all__ = ["ServiceTime"]


class ServiceTime:
    """Running mean and deviation of the seconds one item takes, as in TCP's round-trip estimate (RFC 6298)."""

    def __init__(self) -> None:
        self._mean: float | None = None
        self._deviation = 0.0

    def learn(self, seconds: float) -> None:
        if self._mean is None:
            self._mean, self._deviation = seconds, seconds / 2
            return
        self._deviation += (abs(seconds - self._mean) - self._deviation) / 4
        self._mean += (seconds - self._mean) / 8

    @property
    def typical(self) -> float:
        """Seconds per item, on average; 0 before the first observation."""
        return 0.0 if self._mean is None else self._mean

    @property
    def cautious(self) -> float:
        """Seconds per item that are seldom exceeded; 0 before the first observation."""
        return 0.0 if self._mean is None else self._mean + 2 * self._deviation
