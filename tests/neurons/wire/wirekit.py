"""Keys, a fixed time and signed requests, shared by the tests of the wires."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import pytest

from detectors.types import Modality
from neurons import keys
from neurons.wire.base import Answer, Refusal, Request, Wire
from neurons.wire.client import challenge_request
from neurons.wire.replay import ReplayGuard

NOW = 1_760_000_000_000_000_000
SECOND = 1_000_000_000
UUID = "0b0a6b1e-5a0c-11f0-8000-000000000001"
IMAGE = b"\xff\xd8 no pixels are looked at here \xff\xd9"


@functools.cache
def alice() -> keys.Hotkey:
    return keys.from_uri("//Alice")


@functools.cache
def bob() -> keys.Hotkey:
    """The miner."""
    return keys.from_uri("//Bob")


def make(kind: Callable[..., Wire], **options: object) -> Wire:
    """A wire of Bob's with an empty memory and a standing clock."""
    return kind(bob().ss58_address, ReplayGuard(), clock=lambda: NOW, **options)


def signed(
    wire: str, *, now_ns: int = NOW, modality: Modality = "image", payload: bytes = IMAGE, answer: Answer = "float"
) -> Request:
    """What Alice sends to Bob at `now_ns`; it arrives at NOW."""
    request = challenge_request(
        wire,
        key=alice(),
        receiver=bob().ss58_address,
        modality=modality,
        payload=payload,
        timeout_s=9.0,
        uuid=UUID,
        answer=answer,
        now_ns=now_ns,
    )
    return dataclasses.replace(request, received_ns=NOW)


def altered(request: Request, **headers: str | None) -> Request:
    """The request with headers replaced or added, or removed where the value is None."""
    merged = {**request.headers, **{name: value for name, value in headers.items() if value is not None}}
    kept = {name: value for name, value in merged.items() if headers.get(name, "") is not None}
    return dataclasses.replace(request, headers=kept)


def refused(step: Callable[[Request], object], request: Request) -> tuple[int, str]:
    """(status, reason) of the refusal."""
    with pytest.raises(Refusal) as caught:
        step(request)
    refusal = caught.value
    # Whatever goes back to a stranger is plain text of ours: no signature, no route, nothing of theirs.
    assert refusal.detail.isprintable()
    assert refusal.detail.isascii()
    assert "0x" not in refusal.detail
    assert "Synapse" not in refusal.detail
    return refusal.status, refusal.reason
