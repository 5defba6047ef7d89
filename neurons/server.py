"""The axon: one ASGI application for every wire. Reads bounded bodies, verifies, checks access, queues, answers.

Plain ASGI, no framework: a challenge is one route, and routing, validation and response classes would cost more than
everything else that happens here. A stranger learns nothing: no route list, no version, no signature of ours.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from detectors.errors import DetectorError, MediaError, MediaReason
from detectors.types import Prediction
from neurons.access import Decision
from neurons.gate import Gate
from neurons.limits import RateLimited, RateLimits
from neurons.scheduler import CallerGone, Overloaded, Scheduler, Ticket
from neurons.wire.base import Caller, Challenge, Refusal, Request, Response, Wire
from neurons.wire.routes import (
    INFO,
    RAW,
    SEGMENT,
    SYNAPSES,
    json_response,
    miner_info_response,
    root_response,
    wire_name,
)

__all__ = ["App", "BodyLimits", "build_app"]

_log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_CHALLENGES = frozenset((*SYNAPSES, *RAW, SEGMENT))
_INLINE_BYTES = 256 * 1024  # below this, checking and unpacking a body takes well under a millisecond
_DRAIN_S = 2.0  # how long the rest of a refused body is read, so that its sender sees the refusal, not a reset
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
    max_in_flight: int = 1024


class _Gone(Exception):  # noqa: N818 - nobody is left to answer
    """The peer closed the connection before its request was complete."""


def build_app(
    *,
    wires: Mapping[str, Wire],
    access: Callable[[str], Decision],
    scheduler: Scheduler,
    hotkey: str,
    uid: int | None = None,
    limits: BodyLimits | None = None,
    rates: RateLimits | None = None,
) -> App:
    """Puts the application together.

    Args:
        wires: the three dialects by name, from ``neurons.wire.build``.
        access: whether a hotkey may ask, and with what priority; asked of claimed and of proven ones.
        scheduler: takes the challenges; the application closes it when the server shuts down.
        hotkey: our ss58 address, for ``GET /miner_info``.
        uid: our number in the subnet, None where it is unknown.
        limits: see :class:`BodyLimits`.
        rates: see :class:`~neurons.limits.RateLimits`.
    """
    return App(wires, Gate(access, rates), scheduler, hotkey=hotkey, uid=uid, limits=limits or BodyLimits())


class App:
    """The ASGI application; see :func:`build_app`."""

    def __init__(
        self,
        wires: Mapping[str, Wire],
        gate: Gate,
        scheduler: Scheduler,
        *,
        hotkey: str,
        uid: int | None,
        limits: BodyLimits,
    ) -> None:
        self._wires = wires
        self._gate = gate
        self._scheduler = scheduler
        self._limits = limits
        self._hotkey = hotkey
        self._info = miner_info_response(hotkey, uid)
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="unpack")
        self._in_flight = 0
        self._budget = _Budget(limits.max_buffered_bytes)

    def renumber(self, uid: int | None) -> None:
        """Says from now on that `uid` is our number in the subnet: it changes when the hotkey registers again."""
        self._info = miner_info_response(self._hotkey, uid)

    def stop_admitting(self) -> None:
        """Refuses new challenges with 503 from now on. Safe in a signal handler."""
        self._scheduler.stop_admitting()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection event of ASGI: a request, or the server's start and end."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            head = _head(scope)
            if head.method == "POST" and head.path in _CHALLENGES:
                await self._post(head, receive, send)
            else:
                # Nobody reads the body of such a request: with one, the connection cannot be used again.
                has_body = "content-length" in head.headers or "transfer-encoding" in head.headers
                await _send(send, self._page(head), close=has_body)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        # The server has waited for its requests already; what still runs belongs to nobody.
        await self._scheduler.aclose(0.0)
        self._pool.shutdown(wait=False, cancel_futures=True)
        await send({"type": "lifespan.shutdown.complete"})

    def _page(self, head: Request) -> Response:
        """Everything that is not a challenge: the bare status, the verified caller's ``/miner_info``, or nothing."""
        wire = self._wires[wire_name(head.headers)]
        try:
            self._gate.knock(head.client)
            if head.method == "GET" and head.path == "/":
                return root_response()
            if head.method == "GET" and head.path == INFO:
                foreseen = self._gate.foresee(wire, head)
                if foreseen is not None:
                    raise foreseen
                self._gate.admit(wire, head)
                return self._info
            # Also for GET on a challenge's path: 405 would tell a stranger that the path is there.
            raise Refusal(404, "unknown_route", "there is nothing at this path")
        except Refusal as refusal:
            return _refused(wire, refusal, head)

    async def _post(self, head: Request, receive: Receive, send: Send) -> None:
        started = time.monotonic()
        wire = self._wires[wire_name(head.headers)]
        share = _Share(self._budget)
        early: Response | None = None
        try:
            self._gate.knock(head.client)
            foreseen = self._gate.foresee(wire, head)
            body = await self._body(head.headers, receive, share if foreseen is None else None)
            if foreseen is not None:
                await _send(send, _refused(wire, foreseen, head))
                return
            request = Request(head.method, head.target, head.headers, body, head.received_ns, head.client)
            if self._in_flight >= self._limits.max_in_flight:
                await _send(send, _refused(wire, _too_many(), request))
                return
            # Only who has sent everything takes one of these places: a slow body must not keep others out.
            self._in_flight += 1
            try:
                await _send(send, await self._answer(wire, request, receive, started))
            finally:
                self._in_flight -= 1
        except Refusal as refusal:
            early = _refused(wire, refusal, head)
        except (_Gone, CallerGone):
            _log.debug("the caller hung up")
        except Exception:  # noqa: BLE001 - the request's edge: a bug costs this request, not the server
            _log.exception("a request failed")
            await _send(send, json_response(500, {"message": "internal error"}), close=True)
        finally:
            share.release()
        if early is not None:
            await _refuse_early(receive, send, early)

    async def _body(self, headers: Mapping[str, str], receive: Receive, share: _Share | None) -> bytes:
        """Reads the body within all limits.

        Args:
            headers: of the request.
            receive: gives the body's chunks.
            share: what the request may hold of the budget. None drops what is read: a request whose refusal is
                settled costs no memory, and its connection can be used again.

        Raises:
            Refusal: 413, 408 or 503; the body has not been read to its end.
            _Gone: the peer closed the connection.
        """
        limits = self._limits
        if self._in_flight >= limits.max_in_flight:
            raise _too_many()
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
                        raise _Gone
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

    async def _answer(self, wire: Wire, request: Request, receive: Receive, started: float) -> Response:
        """The answer to a complete request.

        Raises:
            CallerGone: the peer closed the connection while its challenge waited.
        """
        try:
            # A video synapse is a zlib stream: how much there is to do shows only when it is done.
            if len(request.body) <= _INLINE_BYTES and SYNAPSES.get(request.path) != "video":
                challenge, caller, priority = self._unpack(wire, request)
            else:
                loop = asyncio.get_running_loop()
                challenge, caller, priority = await loop.run_in_executor(self._pool, self._unpack, wire, request)
            spent = time.monotonic() - started
            timeout_s = None if caller.timeout_s is None else caller.timeout_s - spent
            ticket = self._scheduler.submit(challenge, priority=priority, timeout_s=timeout_s)
            watch = asyncio.ensure_future(_watch(receive, ticket))
            try:
                outcome = await ticket
            finally:
                # After the answer the watch ends by itself; cancelling it is for the ways out that send none.
                if not ticket.done():
                    watch.cancel()
            if isinstance(outcome, Prediction):
                return wire.encode(outcome, challenge, request, time.monotonic() - started)
            raise _refusal_of(outcome)
        except Refusal as refusal:
            if _log.isEnabledFor(logging.DEBUG):
                _log.debug("refused %s on %s: %s", refusal.reason, wire.name, refusal.detail)
            return _refused(wire, refusal, request)

    def _unpack(self, wire: Wire, request: Request) -> tuple[Challenge, Caller, float]:
        """Who asks, may they, what do they ask: everything between the body and the queue. Any thread.

        Raises:
            Refusal: one of the three went wrong.
        """
        caller, priority = self._gate.admit(wire, request)
        return wire.decode(request), caller, priority


class _Budget:
    """Bytes of request bodies held at once, over all requests."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0


class _Share:
    """What one request holds of the budget."""

    def __init__(self, budget: _Budget) -> None:
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


def _head(scope: Scope) -> Request:
    """The request without its body.

    Header names are lower case already; of a repeated header the first counts, so that no later copy can overrule
    what a proxy checked.
    """
    received_ns = time.time_ns()
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(scope["headers"])}
    target: str = scope["raw_path"].decode("latin-1")
    if scope["query_string"]:
        target = f"{target}?{scope['query_string'].decode('latin-1')}"
    client = scope.get("client")
    return Request(scope["method"], target, headers, b"", received_ns, client[0] if client else "")


async def _watch(receive: Receive, ticket: Ticket) -> None:
    """Drops the challenge when the caller hangs up."""
    while (await receive())["type"] != "http.disconnect":
        pass
    if not ticket.done():
        ticket.set_exception(CallerGone())


def _too_many() -> Overloaded:
    return Overloaded("in_flight", "too many requests at once", 1)


def _refusal_of(error: DetectorError) -> Refusal:
    """The caller's fault is a 4xx that names the reason, ours a 500 that names nothing."""
    if isinstance(error, MediaError):
        status = 413 if error.reason is MediaReason.TOO_LARGE else 422
        return Refusal(status, str(error.reason), f"{error.reason}: {error.detail}")
    return Refusal(500, "detector", "the detector failed on this media")


def _refused(wire: Wire, refusal: Refusal, request: Request) -> Response:
    response = wire.refuse(refusal, request)
    if isinstance(refusal, Overloaded | RateLimited):
        headers = {**response.headers, "retry-after": str(refusal.retry_after_s)}
        return Response(response.status, response.body, headers)
    return response


async def _send(send: Send, response: Response, *, close: bool = False, more: bool = False) -> None:
    headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in response.headers.items()]
    headers.append((b"content-length", str(len(response.body)).encode("ascii")))
    if close:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": response.body, "more_body": more})


async def _refuse_early(receive: Receive, send: Send, response: Response) -> None:
    """Answers before the body is complete, then reads on for a moment and closes.

    Closing at once would reset the connection under a peer that is still sending, and it would never see the answer.
    """
    await _send(send, response, close=True, more=True)
    try:
        async with asyncio.timeout(_DRAIN_S):
            while (message := await receive())["type"] != "http.disconnect" and message.get("more_body", False):
                pass
    except TimeoutError:
        pass
    await send({"type": "http.response.body", "body": b"", "more_body": False})
