"""What fuzzing has found, kept: ``cases/TARGET--WHAT-IT-IS.bin``, each now a result or the documented refusal."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.engine import judged
from tests.fuzz.table import all_targets

CASES = sorted((Path(__file__).parent / "cases").glob("*.bin"))
TARGETS = {target.name: target for target in all_targets()}


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_case(path: Path) -> None:
    target = TARGETS[path.name.partition("--")[0]]
    try:
        verdict = judged(target, path.read_bytes())
    finally:
        target.close()
    assert verdict.finding is None, verdict.finding.detail
    assert verdict.outcome is not None


def test_there_are_cases() -> None:
    assert len(CASES) >= 20
    assert sum(path.stat().st_size for path in CASES) < 200_000
