"""The closed set of outcomes holds every word that the code can end a request with."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from detectors.errors import MediaReason
from neurons.outcomes import FAILED, LATE, OUTCOMES

ROOT = Path(__file__).resolve().parents[2]
_REASON_AT = {"Refusal": 1, "Overloaded": 0, "RateLimited": 0, "Decision": 1}  # which argument names the reason


def _said() -> Iterator[tuple[str, str]]:
    """(file, literal reason) of every refusal in the package."""
    for path in sorted((ROOT / "neurons").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _REASON_AT):
                continue
            for part in ast.walk(node.args[_REASON_AT[node.func.id]]) if len(node.args) > 1 else ():
                if isinstance(part, ast.Constant) and isinstance(part.value, str):
                    yield path.name, part.value


_MEANS_ALLOWED = {"registered", "allow_list", "offline", "unregistered_allowed"}  # of a Decision; no refusal


def test_every_reason_in_the_code_is_known() -> None:
    said = {(file, reason) for file, reason in _said() if reason not in _MEANS_ALLOWED}
    assert len(said) > 30
    assert sorted(pair for pair in said if pair[1] not in OUTCOMES) == []


def test_nothing_is_known_that_no_code_says() -> None:
    said = {reason for _, reason in _said()}
    own = {"answered", "gone", "bug", *map(str, MediaReason)}  # the server's own, and what media are refused for
    assert sorted(OUTCOMES - said - own) == []


def test_the_special_ones_are_outcomes() -> None:
    assert LATE | FAILED < OUTCOMES
    assert not LATE & FAILED
