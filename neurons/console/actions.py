"""What the buttons of the console do. Every outcome is a sentence for the operator; nothing is raised."""

from __future__ import annotations

import logging

from detectors.errors import DetectorError
from detectors.store import Store
from neurons.console.bridge import Ops
from neurons.console.security import Told
from neurons.operations import ShadowPlan

__all__ = ["MOST_SHADOWED", "activate", "rollback", "start_shadow", "stop_shadow"]

_log = logging.getLogger(__name__)

MOST_SHADOWED = 100_000
"""Challenges that one shadow may see."""


def activate(ops: Ops, key: str) -> Told:
    """Points the store at ``NAME@VERSION`` and wakes the miner up."""
    name, _, version = key.partition("@")
    try:
        card = Store(ops.store).activate(name, version)
    except (DetectorError, OSError) as error:
        return Told(False, f"Not activated: {error}")
    _log.info("console: activated %s", card.key)
    return Told(True, f"{card.key} is active in the store. {_look(ops)}")


def rollback(ops: Ops) -> Told:
    """Points the store back to what was active before and wakes the miner up."""
    try:
        pointer = Store(ops.store).rollback()
    except (DetectorError, OSError) as error:
        return Told(False, f"Not rolled back: {error}")
    active = ", ".join(f"{name}@{version}" for name, version in sorted(pointer.items()))
    _log.info("console: rolled back to %s", active)
    return Told(True, f"Rolled back; active in the store: {active}. {_look(ops)}")


def start_shadow(ops: Ops, key: str, count: str, *, promote: bool) -> Told:
    """Lets a candidate see live traffic without answering."""
    if ops.shadows is None:
        return Told(False, "This miner runs no shadow.")
    if not count.isascii() or not count.isdigit() or not 1 <= int(count) <= MOST_SHADOWED:
        return Told(False, f"Not started: the number of challenges must be from 1 to {MOST_SHADOWED}.")
    try:
        card = Store(ops.store).card(key)
        ops.shadows.start(ShadowPlan(card.key, int(count), promote))
    except (DetectorError, OSError, ValueError) as error:
        return Told(False, f"Not started: {error}")
    _log.info("console: shadow of %s over %s challenges", card.key, count)
    return Told(True, f"{card.key} runs in the shadow over {count} challenges.")


def stop_shadow(ops: Ops) -> Told:
    """Ends the shadow; its report stays."""
    if ops.shadows is None:
        return Told(False, "This miner runs no shadow.")
    ops.shadows.stop()
    _log.info("console: shadow stopped")
    return Told(True, "The shadow was stopped.")


def _look(ops: Ops) -> str:
    if ops.reloads is None:
        return "This miner does not follow its store: it takes it up at its next start."
    ops.reloads.look()
    return "The miner checks it now; what it made of it stands below."
