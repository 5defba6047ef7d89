"""Reads request bodies within bounds: of one, of all at once, of time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

from neurons.scheduler import Overloaded
from neurons.wire.base import Refusal

__all__ = ["BodyLimits", "Budget", "Gone", "Receive", "Share", "read_body", "too_many"]

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

_SMALL_BODY = 1024 * 1024
_CHUNK_OVERHEAD = 256  # what a held chunk costs beside its bytes: a body of one-byte chunks is not a cheap way in


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """What requests may cost before anything is known of them.

    Attributes:
        max_body_bytes: of one body; more is 413.
        max_buffered_bytes: of all bodies held at once; more is 503.
        body_timeout_s: from the headers to the end of the body; later is 408.
        max_in_flight: requests between a complete body and the answer; more is 503.
    """

    max_body_bytes: int = 32 * 1024 * 1024
    max_buffered_bytes: int = 512 * 1024 * 1024
    body_timeout_s: float = 10.0
    max_in_flight: int = 4096


class Gone(Exception):  # noqa: N818 - nobody is left to answer
    """The peer closed the connection before its request was complete."""


class Budget:
    """Bytes of request bodies held at once, over all requests."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0


class Share:
    """What one request holds of the budget."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._held = 0

    def take(self, count: int) -> None:
        """Counts more bytes, or refuses them. A quarter is kept for small bodies: large ones cannot shut them out."""
        limit = self._budget.limit
        if self._held + count > _SMALL_BODY:
            limit = limit * 3 // 4
        if self._budget.used + count > limit:
            raise Overloaded("buffers", "too many large requests at once", 1)
        self._budget.used += count
        self._held += count

    def release(self) -> None:
        self._budget.used -= self._held
        self._held = 0


def too_many() -> Overloaded:
    """The refusal of a request beyond ``max_in_flight``."""
    return Overloaded("in_flight", "too many requests at once", 1)


async def read_body(headers: Mapping[str, str], receive: Receive, share: Share | None, limits: BodyLimits) -> bytes:
    """Reads a body within all limits.

    Args:
        headers: of the request.
        receive: gives the body's chunks.
        share: what the request may hold of the budget. None drops what is read: a request whose refusal is
            settled costs no memory, and its connection can be used again.
        limits: see :class:`BodyLimits`.

    Raises:
        Refusal: 413, 408 or 503; the body has not been read to its end.
        Gone: the peer closed the connection.
    """
    declared = headers.get("content-length", "0")
    if declared.isascii() and declared.isdigit() and int(declared) > limits.max_body_bytes:
        raise Refusal(413, "too_large", f"the body may have {limits.max_body_bytes} bytes")
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(limits.body_timeout_s):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Gone
                chunk: bytes = message.get("body", b"")
                if chunk:
                    size += len(chunk)
                    if size > limits.max_body_bytes:
                        raise Refusal(413, "too_large", f"the body may have {limits.max_body_bytes} bytes")
                    if share is not None:
                        share.take(len(chunk) + _CHUNK_OVERHEAD)
                        chunks.append(chunk)
                if not message.get("more_body", False):
                    break
    except TimeoutError:
        raise Refusal(408, "slow_body", f"the body took longer than {limits.body_timeout_s:g} s") from None
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)
