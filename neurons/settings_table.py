"""The table of all settings in the README, from the settings class: ``python -m neurons.settings_table`` writes it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from neurons.settings import MinerSettings, leaves

__all__ = ["COMMAND", "END", "START", "main", "placed", "table"]

COMMAND = "python -m neurons.settings_table README.md"
START, END = "<!-- settings -->", "<!-- /settings -->"


def table() -> str:
    """Markdown, one row a setting, in the order of the class: flag, default, meaning."""
    rows = ["| flag | default | what it is |", "|---|---|---|"]
    for name, field in leaves(MinerSettings):
        rows.append(f"| `--{name}` | {_shown(field.default)} | {_cell(field.description or '')} |")
    return "\n".join(rows)


def placed(text: str) -> str:
    """`text` with the table between its two markers.

    Raises:
        ValueError: it does not have each marker once, in order.
    """
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    if not (start and end) or START in rest or END in before + after:
        raise ValueError(f"needs {START} and, after it, {END}, once each")
    return f"{before}{START}\n{table()}\n{END}{after}"


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the table into the Markdown file that is named; returns the exit code."""
    given = sys.argv[1:] if argv is None else argv
    if len(given) != 1:
        sys.stderr.write(f"usage: {COMMAND}\n")
        return 2
    path = Path(given[0])
    path.write_text(placed(path.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


def _shown(default: object) -> str:
    """As one would write it in YAML; nothing where nothing is set."""
    if default is None or default == ():
        return ""
    text = str(default).lower() if isinstance(default, bool) else str(default)
    return f"`{text}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    sys.exit(main())
