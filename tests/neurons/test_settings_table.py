"""The README's table of settings is what the settings class gives."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from neurons.settings import MinerSettings, load
from neurons.settings_table import COMMAND, END, START, main, placed, table

ROOT = Path(__file__).resolve().parents[2]


def test_the_readme_has_the_table() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert placed(text) == text, f"write it anew: {COMMAND}"


def test_every_flag_of_the_table_is_taken_and_its_default_changes_nothing() -> None:
    rows = [line.split(" | ") for line in table().splitlines()[2:]]
    flags: list[str] = []
    for first, default, *_ in rows:
        flag, value = first.strip("| `"), default.strip("` ")
        if value == "true":
            flags.append(flag)
        elif value == "false":
            flags.append(flag.replace("--", "--no-", 1))
        elif value:
            flags += [flag, value]
    assert len(rows) == sum(len(v) if isinstance(v, dict) else 1 for v in MinerSettings().model_dump().values())
    assert load(flags, {}) == MinerSettings()


def test_the_command_writes_it(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"above\n{START}\nold\n{END}\nbelow\n", encoding="utf-8")
    assert shlex.split(COMMAND)[:3] == ["python", "-m", "neurons.settings_table"]
    assert main([str(page)]) == 0
    assert page.read_text(encoding="utf-8") == f"above\n{START}\n{table()}\n{END}\nbelow\n"
    assert main([]) == 2


@pytest.mark.parametrize("text", ["", START, f"{END}{START}", f"{START}{END}{END}", f"{START}{START}{END}"])
def test_a_page_without_its_two_marks_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="once each"):
        placed(text)
