"""May this caller ask? One pure function over what is known of the caller; signatures are checked before it."""

from __future__ import annotations

from dataclasses import dataclass

from neurons.wire.base import Caller

__all__ = ["AccessRules", "Decision", "Standing", "decide"]


@dataclass(frozen=True, slots=True)
class Standing:
    """What the metagraph says of a registered hotkey.

    Attributes:
        uid: its slot.
        validator_permit: whether it may set weights.
        stake: total stake in the metagraph's unit, >= 0.
    """

    uid: int
    validator_permit: bool
    stake: float


@dataclass(frozen=True, slots=True)
class AccessRules:
    """The operator's policy.

    Attributes:
        force_validator_permit: a registered hotkey needs a permit.
        allow_non_registered: hotkeys outside the metagraph may ask; they have neither permit nor stake to check.
        min_stake: least stake of a registered hotkey.
        allow: hotkeys that always may, whatever the metagraph says.
        deny: hotkeys that never may; beats `allow`.
        offline: there is no metagraph; any valid signature may, apart from `deny`.
    """

    force_validator_permit: bool = True
    allow_non_registered: bool = False
    min_stake: float = 0.0
    allow: frozenset[str] = frozenset()
    deny: frozenset[str] = frozenset()
    offline: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """The verdict.

    Attributes:
        allowed: whether the challenge is served.
        reason: short and stable, for metrics and the refusal: ``allow_list``, ``offline``, ``registered``,
            ``unregistered_allowed``; or ``deny_list``, ``not_registered``, ``no_permit``, ``low_stake``.
        priority: the stake that orders the queue; 0 for who has none.
    """

    allowed: bool
    reason: str
    priority: float = 0.0


def decide(caller: Caller, standing: Standing | None, rules: AccessRules) -> Decision:
    """Applies the rules in this order: deny list, allow list, offline, registration, permit, stake.

    Args:
        caller: proven by a signature.
        standing: of the caller's hotkey, None where it is not registered.
        rules: the operator's policy.
    """
    if caller.hotkey in rules.deny:
        return Decision(False, "deny_list")
    if caller.hotkey in rules.allow or rules.offline:
        reason = "allow_list" if caller.hotkey in rules.allow else "offline"
        return Decision(True, reason, 0.0 if standing is None else standing.stake)
    if standing is None:
        allowed = rules.allow_non_registered
        return Decision(allowed, "unregistered_allowed" if allowed else "not_registered")
    if rules.force_validator_permit and not standing.validator_permit:
        return Decision(False, "no_permit")
    if standing.stake < rules.min_stake:
        return Decision(False, "low_stake")
    return Decision(True, "registered", standing.stake)
