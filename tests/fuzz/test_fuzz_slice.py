"""A slice of ``make fuzz``: every target for a second or so, in a process of its own, with a fixed seed."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.engine import Target, judged
from tests.fuzz.supervise import Tally, campaign
from tests.fuzz.table import all_targets

SECONDS = 36.0  # of all targets together; the worker's start comes on top
COUNT = 4000  # inputs a target at most: a fast machine is done earlier
LEAST = 25  # inputs of a slow target on a busy machine; the fast ones see hundreds of times as many

TARGETS = {target.name: target for target in all_targets()}


@pytest.fixture(scope="module")
def tallies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tally]:
    shares = {name: target.share for name, target in TARGETS.items()}
    return campaign(shares, seconds=SECONDS, out=tmp_path_factory.mktemp("fuzz"), seed=20, count=COUNT)


@pytest.mark.parametrize("name", TARGETS)
def test_every_input_gives_a_result_or_the_documented_refusal(name: str, tallies: dict[str, Tally]) -> None:
    tally = tallies[name]
    assert not tally.findings, "\n".join(f"{f.stem}: {f.detail}\n{f.data[:500]!r}" for f in tally.findings.values())
    assert tally.inputs >= LEAST
    # A target that is always refused, or never, does not look where the faults are.
    assert 0 < tally.accepted < tally.inputs
    assert sum(tally.refused.values()) == tally.inputs - tally.accepted


@pytest.mark.parametrize(
    "target", [t for t in TARGETS.values() if not t.name.startswith("http-")], ids=lambda t: t.name
)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=300))
def test_any_bytes(target: Target, data: bytes) -> None:
    """The same without seeds, by hypothesis, which shrinks what it finds."""
    verdict = judged(target, data)
    assert verdict.finding is None, verdict.finding.detail
