"""What the operator's commands and a miner's :class:`neurons.shadow.Shadow` write to each other; light to import."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from neurons.operations import ShadowPlan

__all__ = ["MOST", "TOPIC", "order_of", "plan_of"]

TOPIC = "shadow"
"""Of the order and of the notices; a notice is ``{"order": ID or null, "report": ShadowReport or null}``."""
MOST = 1_000_000
"""Challenges in one plan: the figures of each judged one are kept in memory."""

_KINDS: Mapping[str, type] = {"key": str, "count": int, "promote": bool, "profile": str}


def order_of(plan: ShadowPlan | None) -> dict[str, Any]:
    """The order to run `plan`, or to stop where it is None; each with an id of its own."""
    return {"id": os.urandom(8).hex(), "plan": None if plan is None else asdict(plan)}


def plan_of(order: Mapping[str, Any]) -> ShadowPlan | None:
    """What an order asks for; None: to stop.

    Raises:
        ValueError: it is none of :func:`order_of`, or asks for no or too many challenges.
    """
    if "plan" not in order:
        raise ValueError("no plan in it")
    raw = order["plan"]
    if raw is None:
        return None
    # type(), because a bool is an int to isinstance
    if not isinstance(raw, dict) or {name: type(value) for name, value in raw.items()} != _KINDS:
        raise ValueError(f"a plan has {', '.join(_KINDS)}, each of its own kind")
    if not 1 <= raw["count"] <= MOST:
        raise ValueError(f"count must be between 1 and {MOST}")
    return ShadowPlan(**raw)
