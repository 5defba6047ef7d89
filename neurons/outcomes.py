"""Every word that :attr:`neurons.seen.Seen.outcome` can be: a closed set, so that metrics labelled with it stay few."""

from __future__ import annotations

from typing import Final

from detectors.errors import MediaReason
from neurons.seen import ANSWERED, GONE

__all__ = ["FAILED", "LATE", "OUTCOMES"]

LATE: Final = frozenset({"late", "overloaded"})
"""The deadline was or would have been missed: the judge overran, or the queue was too long."""

FAILED: Final = frozenset({"bug", "detector"})
"""Our own fault, whatever was sent."""

_ACCESS = ("deny_list", "own_hotkey", "stale_metagraph", "not_registered", "no_permit", "low_stake")
_LOAD = ("queue_full", "closing", "buffers", "in_flight", "address_rate", "hotkey_rate")
_REQUEST = (
    "altered_body",
    "bad_signature",
    "content_coding",
    "content_type",
    "future_nonce",
    "malformed_header",
    "method",
    "missing_header",
    "not_json",
    "prediction",
    "replayed_nonce",
    "slow_body",
    "stale_nonce",
    "too_complex",
    "unknown_route",
    "unknown_version",
    "unsigned_body",
    "wrong_receiver",
)

OUTCOMES: Final = frozenset({ANSWERED, GONE, *LATE, *FAILED, *_ACCESS, *_LOAD, *_REQUEST, *map(str, MediaReason)})
