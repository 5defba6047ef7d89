"""What a terminal shows, and what a log file gets instead."""

from __future__ import annotations

import io

from rich.console import Console

from neurons.live import Board, Standing, table

GOOD = Standing(0.9, 0.8, 0.95, 12.34, 56.7, 60, 60)
POOR = Standing(0.2, 0.0, 0.5, float("nan"), float("nan"), 0, 60)


def printed(console_is_terminal: bool, total: int) -> str:
    out = io.StringIO()
    console = Console(file=out, force_terminal=console_is_terminal, width=160, color_system=None)
    with Board(console, total, "title") as board:
        for done in range(1, total + 1):
            board.show(done, lambda: {"ours": GOOD, "poor": POOR})
    return out.getvalue()


def test_a_log_file_gets_about_ten_plain_lines() -> None:
    lines = printed(False, 60).splitlines()
    assert lines[-1] == "60/60 challenges · reward: ours 0.900, poor 0.200"
    assert len(lines) == 10
    assert "\x1b" not in "".join(lines)


def test_short_runs_get_a_line_each() -> None:
    assert len(printed(False, 3).splitlines()) == 3


def test_a_terminal_gets_a_table_that_goes_away() -> None:
    shown = printed(True, 2)
    assert "title · 2/2" in shown
    assert "\x1b[" in shown


def test_the_table_is_sorted_by_reward() -> None:
    out = io.StringIO()
    Console(file=out, width=200).print(table({"poor": POOR, "ours": GOOD}, "final"))
    text = out.getvalue()
    assert text.index("ours") < text.index("poor")
    for figure in ("0.900", "0.800", "0.950", "12.3", "56.7", "60/60", "0/60"):
        assert figure in text


def test_figures_are_asked_for_only_when_they_are_shown() -> None:
    asked: list[int] = []

    def standings() -> dict[str, Standing]:
        asked.append(len(asked))
        return {"ours": GOOD}

    for terminal in (False, True):
        asked.clear()
        console = Console(file=io.StringIO(), force_terminal=terminal, width=160)
        with Board(console, 1000, "title") as board:
            for done in range(1, 1001):
                board.show(done, standings)
        assert 1 <= len(asked) <= 20
