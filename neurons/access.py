"""May this caller ask? One pure function over what is known of a hotkey.

It is asked twice (:mod:`neurons.gate`): of the hotkey that a request claims, before anything dear is done for it, and
of the hotkey that a signature proved. The answer to the first question is told to nobody.
"""

from __future__ import annotations

from dataclasses import dataclass

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
        offline: there is no metagraph; any valid signature may, apart from `deny` and `own`.
        own: the miner's hotkey, None where it is not to be looked at. A miner never asks itself: who asks in its name
            has a copy of its key or sends back what it once signed, and neither is served.
    """

    force_validator_permit: bool = True
    allow_non_registered: bool = False
    min_stake: float = 0.0
    allow: frozenset[str] = frozenset()
    deny: frozenset[str] = frozenset()
    offline: bool = False
    own: str | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """The verdict.

    Attributes:
        allowed: whether the challenge is served.
        reason: short and stable, for metrics and the refusal: ``allow_list``, ``offline``, ``registered``,
            ``unregistered_allowed``; or ``deny_list``, ``own_hotkey``, ``stale_metagraph``, ``not_registered``,
            ``no_permit``, ``low_stake``.
        priority: the stake that orders the queue; 0 for who has none.
    """

    allowed: bool
    reason: str
    priority: float = 0.0

    @property
    def known(self) -> bool:
        """Whether the caller is served for what it is: a key that anybody can make up never is."""
        return self.reason in ("allow_list", "registered")


def decide(  # noqa: PLR0911 - one way out a rule
    hotkey: str, standing: Standing | None, rules: AccessRules, *, fresh: bool = True
) -> Decision:
    """Applies the rules in this order: age, deny list, own hotkey, allow list, offline, registration, permit, stake.

    Args:
        hotkey: ss58 address in bittensor's own spelling.
        standing: of that hotkey, None where it is not registered.
        rules: the operator's policy.
        fresh: whether the metagraph that `standing` was taken from is recent enough to be trusted. With an old one
            nobody is served on its word, not even as unregistered, and everybody but the allow list hears the same: the
            answer may then be given without a proof, because it says nothing of the hotkey.
    """
    listed = hotkey in rules.allow and hotkey not in rules.deny and hotkey != rules.own
    if not (fresh or rules.offline or listed):
        return Decision(False, "stale_metagraph")
    if hotkey in rules.deny:
        return Decision(False, "deny_list")
    if hotkey == rules.own:
        return Decision(False, "own_hotkey")
    if listed or rules.offline:
        return Decision(True, "allow_list" if listed else "offline", 0.0 if standing is None else standing.stake)
    if standing is None:
        allowed = rules.allow_non_registered
        return Decision(allowed, "unregistered_allowed" if allowed else "not_registered")
    if rules.force_validator_permit and not standing.validator_permit:
        return Decision(False, "no_permit")
    if standing.stake < rules.min_stake:
        return Decision(False, "low_stake")
    return Decision(True, "registered", standing.stake)
