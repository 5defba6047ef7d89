"""What an attack on a miner saw, and the table that ``make attacks`` makes of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from scripts.attacks_peers import Duel

__all__ = ["Attack", "Seen", "Verdict", "markdown", "not_applicable", "row", "unexpected"]

Verdict = Literal["no", "yes", "the wire's", "the price", "n/a"]
"""Whether what was seen is a defect.

``the wire's``: no server that answers honest validators could do otherwise. ``the price``: of what another row shows
to be refused.
"""


@dataclass(frozen=True)
class Seen:
    """What one miner did.

    Attributes:
        text: for a cell, e.g. ``refused 401``.
        defect: see :data:`Verdict`.
        data: the figures behind it.
    """

    text: str
    defect: Verdict
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Attack:
    """One row: what is tried on each side.

    Attributes:
        title: of the row.
        run: tries it.
    """

    title: str
    run: Callable[[Duel], Awaitable[Seen]]


def row(text: str, defect: bool, **data: Any) -> Seen:
    """What was seen, with a plain yes or no."""
    return Seen(text, "yes" if defect else "no", data)


def not_applicable(why: str) -> Seen:
    return Seen(f"n/a: {why}", "n/a")


def markdown(titles: Sequence[str], names: Sequence[str], seen: Mapping[str, Sequence[Seen]]) -> str:
    """The table: a row an attack, and for each side what it did and whether that is a defect.

    Args:
        titles: of the rows, in order.
        names: of the sides, in the order of their cells.
        seen: the cells by title.
    """
    lines = ["| attack |" + "".join(f" {name} | defect |" for name in names)]
    lines.append("|---|" + "---|---|" * len(names))
    lines += [f"| {title} |" + "".join(f" {cell.text} | {cell.defect} |" for cell in seen[title]) for title in titles]
    found = (sum(seen[title][side].defect == "yes" for title in titles) for side in range(len(names)))
    tried = (sum(seen[title][side].defect != "n/a" for title in titles) for side in range(len(names)))
    totals = (f" {f} of {t} | |" for f, t in zip(found, tried, strict=True))
    return "\n".join([*lines, "| defects, of what could be tried |" + "".join(totals)])


def unexpected(names: Sequence[str], seen: Mapping[str, Sequence[Seen]]) -> list[str]:
    """Titles of the rows in which our own miner, the side called ``ours``, shows a defect."""
    ours = names.index("ours")
    return [title for title, cells in seen.items() if cells[ours].defect == "yes"]


def as_data(names: Sequence[str], seen: Mapping[str, Sequence[Seen]]) -> list[dict[str, Any]]:
    """The table for JSON."""
    return [
        {"attack": title, **{name: asdict(cell) for name, cell in zip(names, cells, strict=True)}}
        for title, cells in seen.items()
    ]
