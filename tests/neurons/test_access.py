"""Access: every combination of what is known and what the operator wants, against a table written by hand."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, fields

import pytest

from neurons.access import AccessRules, Decision, Standing, decide

HOTKEY = "alice"
FLOOR = 100.0
STANDINGS = (
    None,
    *(Standing(7, permit, stake) for permit in (False, True) for stake in (0.0, 99.999, FLOOR, 1e9)),
)


@dataclass(frozen=True)
class Facts:
    """All that a decision can depend on."""

    denied: bool
    ourselves: bool
    listed: bool
    offline: bool
    fresh: bool
    registered: bool
    strangers: bool
    permit_wanted: bool
    permit: bool
    floor: bool
    poor: bool


# The specification: the first row that fits decides. One letter a fact, in the order of Facts: y, n, or - for either.
SPECIFICATION = [
    ("n n y - - - - - - - -", "allow_list"),
    ("- - - n n - - - - - -", "stale_metagraph"),
    ("y - - - - - - - - - -", "deny_list"),
    ("n y - - - - - - - - -", "own_hotkey"),
    ("n n n y - - - - - - -", "offline"),
    ("n n n n y n n - - - -", "not_registered"),
    ("n n n n y n y - - - -", "unregistered_allowed"),
    ("n n n n y y - y n - -", "no_permit"),
    ("n n n n y y - n - y y", "low_stake"),
    ("n n n n y y - y y y y", "low_stake"),
    ("n n n n y y - - - - -", "registered"),
]
SERVED = {"allow_list", "offline", "registered", "unregistered_allowed"}


def matches(row: str, facts: Facts) -> bool:
    letters = row.split()
    values = [getattr(facts, field.name) for field in fields(Facts)]
    assert len(letters) == len(values)
    return all(letter == "-" or (letter == "y") is value for letter, value in zip(letters, values, strict=True))


def combinations() -> list[tuple[Facts, Standing | None, AccessRules]]:
    found = []
    for standing, switches in itertools.product(STANDINGS, itertools.product((False, True), repeat=8)):
        denied, ourselves, listed, offline, fresh, strangers, permit_wanted, floor = switches
        facts = Facts(
            denied=denied,
            ourselves=ourselves,
            listed=listed,
            offline=offline,
            fresh=fresh,
            registered=standing is not None,
            strangers=strangers,
            permit_wanted=permit_wanted,
            permit=standing is not None and standing.validator_permit,
            floor=floor,
            poor=standing is None or standing.stake < FLOOR,
        )
        rules = AccessRules(
            force_validator_permit=permit_wanted,
            allow_non_registered=strangers,
            min_stake=FLOOR if floor else 0.0,
            allow=frozenset({HOTKEY, "carol"} if listed else {"bob"}),
            deny=frozenset({HOTKEY, "carol"} if denied else {"bob"}),
            offline=offline,
            own=HOTKEY if ourselves else "miner",
        )
        found.append((facts, standing, rules))
    return found


TABLE = combinations()


def test_the_table_is_complete_and_every_row_of_the_specification_is_reached() -> None:
    assert len(TABLE) == 9 * 2**8
    # 9 standings are 5 kinds: none, and permit or not with a poor or a rich stake.
    assert len({facts for facts, _, _ in TABLE}) == 5 * 2**8
    reached = set()
    for facts, _, _ in TABLE:
        fitting = [index for index, (row, _) in enumerate(SPECIFICATION) if matches(row, facts)]
        assert fitting, facts
        reached.add(fitting[0])
    assert reached == set(range(len(SPECIFICATION)))


def test_truth_table() -> None:
    for facts, standing, rules in TABLE:
        reason = next(reason for row, reason in SPECIFICATION if matches(row, facts))
        served = reason in SERVED
        stake = standing.stake if served and standing is not None else 0.0
        assert decide(HOTKEY, standing, rules, fresh=facts.fresh) == Decision(served, reason, stake), facts


def test_nothing_but_its_arguments_decides() -> None:
    for facts, standing, rules in TABLE[::37]:
        answers = {decide(HOTKEY, standing, rules, fresh=facts.fresh) for _ in range(3)}
        assert len(answers) == 1


@pytest.mark.parametrize("reason", sorted(SERVED))
def test_only_who_cannot_be_made_up_is_known(reason: str) -> None:
    assert Decision(True, reason).known is (reason in ("allow_list", "registered"))


@pytest.mark.parametrize("spelling", ["ALICE", "alice ", " alice", "ａlice", "аlice", "alice\x00", ""])
def test_lists_hold_exactly_one_spelling(spelling: str) -> None:
    """No other spelling is let in by the allow list; that none gets round the deny list is for the proof to see to."""
    assert decide(spelling, None, AccessRules(allow=frozenset({HOTKEY}))).reason == "not_registered"
