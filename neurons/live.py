"""What a person sees while a simulation runs: a table that lives on a terminal, plain lines everywhere else."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.table import Table

__all__ = ["Board", "Standing", "table"]

_REDRAW_S = 0.25
_PLAIN_LINES = 10  # a run's progress in a log file: about this many lines, however long it is


@dataclass(frozen=True, slots=True)
class Standing:
    """A miner's figures so far.

    Attributes:
        reward: mean over the steps so far, in [0, 1].
        mcc: over all answers so far, in [-1, 1].
        accuracy: over all answers so far, in [0, 1].
        p50_ms, p99_ms: latency so far, milliseconds.
        answered, asked: challenges.
    """

    reward: float
    mcc: float
    accuracy: float
    p50_ms: float
    p99_ms: float
    answered: int
    asked: int


def table(standings: Mapping[str, Standing], title: str) -> Table:
    """The figures of all miners, one row each, best reward first."""
    result = Table(title=title, title_justify="left", header_style="bold")
    result.add_column("miner", no_wrap=True)
    for name in ("reward", "MCC", "accuracy", "p50 ms", "p99 ms", "answered"):
        result.add_column(name, justify="right", no_wrap=True)
    ours = next(iter(standings), "")
    for name, s in sorted(standings.items(), key=lambda pair: -pair[1].reward):
        cells = [name, f"{s.reward:.3f}", f"{s.mcc:.3f}", f"{s.accuracy:.3f}", f"{s.p50_ms:.1f}", f"{s.p99_ms:.1f}"]
        cells.append(f"{s.answered}/{s.asked}")
        result.add_row(*cells, style="bold" if name == ours else "")
    return result


class Board:
    """Context manager that shows progress.

    Args:
        console: where to; decides by itself whether it is a terminal.
        total: challenges in the run.
        title: above the table.
    """

    def __init__(self, console: Console, total: int, title: str) -> None:
        self._console = console
        self._total = total
        self._title = title
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None
        self._drawn = 0.0
        self._step = max(1, total // _PLAIN_LINES)

    def __enter__(self) -> Board:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def show(self, done: int, standings: Callable[[], Mapping[str, Standing]]) -> None:
        """Redraws the table a few times a second, or from time to time writes a line.

        Args:
            done: challenges so far.
            standings: the figures so far; called only when they are shown, since they cost more the longer a run is.
        """
        last = done == self._total
        if self._live:
            now = time.monotonic()
            if last or now - self._drawn >= _REDRAW_S:
                self._drawn = now
                self._live.update(table(standings(), f"{self._title} · {done}/{self._total}"), refresh=True)
        elif done % self._step == 0 or last:
            figures = ", ".join(f"{name} {s.reward:.3f}" for name, s in standings().items())
            self._console.print(f"{done}/{self._total} challenges · reward: {figures}", soft_wrap=True, highlight=False)
