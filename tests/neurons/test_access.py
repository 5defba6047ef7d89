"""Access: the truth table over every combination of what is known and what the operator wants."""

from __future__ import annotations

import itertools

import pytest

from neurons.access import AccessRules, Decision, Standing, decide
from neurons.wire.base import Caller

ALICE = Caller("alice", "dendrite", 1)
STANDINGS = [None, *(Standing(7, permit, stake) for permit in (False, True) for stake in (0.0, 99.0, 100.0))]
BOOLS = (False, True)
TABLE = list(itertools.product(STANDINGS, *[BOOLS] * 6))


def test_the_table_is_complete() -> None:
    assert len(TABLE) == 7 * 2**6


@pytest.mark.parametrize(("standing", "permit", "strangers", "floor", "allowed", "denied", "offline"), TABLE)
def test_truth_table(
    standing: Standing | None,
    permit: bool,
    strangers: bool,
    floor: bool,
    allowed: bool,
    denied: bool,
    offline: bool,
) -> None:
    rules = AccessRules(
        force_validator_permit=permit,
        allow_non_registered=strangers,
        min_stake=100.0 if floor else 0.0,
        allow=frozenset({"alice"} if allowed else {"bob"}),
        deny=frozenset({"alice"} if denied else {"bob"}),
        offline=offline,
    )
    decision = decide(ALICE, standing, rules)

    known = standing is not None and (not permit or standing.validator_permit) and (not floor or standing.stake >= 100)
    unknown = standing is None and strangers
    assert decision.allowed is (not denied and (allowed or offline or known or unknown))
    assert decision.priority == (standing.stake if decision.allowed and standing is not None else 0.0)
    good = {"allow_list", "offline", "registered", "unregistered_allowed"}
    bad = {"deny_list", "not_registered", "no_permit", "low_stake"}
    assert decision.reason in (good if decision.allowed else bad)


@pytest.mark.parametrize(
    ("standing", "rules", "expected"),
    [
        (Standing(1, True, 5.0), AccessRules(deny=frozenset({"alice"}), allow=frozenset({"alice"})), "deny_list"),
        (None, AccessRules(allow=frozenset({"alice"})), "allow_list"),
        (None, AccessRules(offline=True), "offline"),
        (None, AccessRules(), "not_registered"),
        (Standing(1, False, 5.0), AccessRules(), "no_permit"),
        (Standing(1, True, 5.0), AccessRules(min_stake=6.0), "low_stake"),
        (Standing(1, True, 5.0), AccessRules(min_stake=5.0), "registered"),
        (None, AccessRules(allow_non_registered=True, min_stake=5.0), "unregistered_allowed"),
    ],
)
def test_the_reason_is_the_first_rule_that_decides(
    standing: Standing | None, rules: AccessRules, expected: str
) -> None:
    assert decide(ALICE, standing, rules).reason == expected


def test_a_stranger_has_no_priority() -> None:
    assert decide(ALICE, None, AccessRules(offline=True)) == Decision(True, "offline", 0.0)
