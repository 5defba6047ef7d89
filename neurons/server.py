"""The axon: one ASGI application for every wire. Reads bounded bodies, verifies, checks access, queues, answers.

Plain ASGI, no framework: a challenge is one route, and routing, validation and response classes would cost more than
everything else that happens here. A stranger learns nothing: no route list, no version, no signature of ours.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from detectors.errors import DetectorError, MediaError, MediaReason
from detectors.types import Prediction
from neurons.access import Decision
from neurons.bodies import BodyLimits, Budget, Gone, Receive, Share, read_body, too_many
from neurons.gate import Gate
from neurons.limits import RateLimited, RateLimits
from neurons.scheduler import CallerGone, Overloaded, Scheduler, Ticket
from neurons.seen import ANSWERED, Observer, Trace, log_seen, tier_of
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

__all__ = ["App", "build_app"]

_log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]

_CHALLENGES = frozenset((*SYNAPSES, *RAW, SEGMENT))
_INLINE_BYTES = 256 * 1024  # below this, checking and unpacking a body takes well under a millisecond
_DRAIN_S = 2.0  # how long the rest of a refused body is read, so that its sender sees the refusal, not a reset


def build_app(
    *,
    wires: Mapping[str, Wire],
    access: Callable[[str], Decision],
    scheduler: Scheduler,
    hotkey: str,
    uid: int | None = None,
    limits: BodyLimits | None = None,
    rates: RateLimits | None = None,
    observers: Sequence[Observer] = (),
) -> App:
    """Puts the application together.

    Args:
        wires: the three dialects by name, from ``neurons.wire.build``.
        access: whether a hotkey may ask, and with what priority; asked of claimed and of proven ones.
        scheduler: takes the challenges; the application closes it when the server shuts down.
        hotkey: our ss58 address, for ``GET /miner_info``.
        uid: our number in the subnet, None where it is unknown.
        limits: see :class:`~neurons.bodies.BodyLimits`.
        rates: see :class:`~neurons.limits.RateLimits`.
        observers: told of every request to a challenge path once it has ended, after the log.
    """
    gate, limits = Gate(access, rates), limits or BodyLimits()
    return App(wires, gate, scheduler, hotkey=hotkey, uid=uid, limits=limits, observers=(log_seen, *observers))


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
        observers: Sequence[Observer] = (),
    ) -> None:
        self._wires = wires
        self._gate = gate
        self._scheduler = scheduler
        self._limits = limits
        self._hotkey = hotkey
        self._info = miner_info_response(hotkey, uid)
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="unpack")
        self._in_flight = 0
        self._budget = Budget(limits.max_buffered_bytes)
        self._observers = tuple(observers)

    @property
    def scheduler(self) -> Scheduler:
        """What the challenges wait in."""
        return self._scheduler

    @property
    def in_flight(self) -> int:
        """Requests between a complete body and the answer."""
        return self._in_flight

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
        wire = self._wires[wire_name(head.headers)]
        share = Share(self._budget)
        trace = Trace(wire.name, head.path, head.received_ns)
        early: Response | None = None
        try:
            self._gate.knock(head.client)
            foreseen = self._gate.foresee(wire, head)
            if self._in_flight >= self._limits.max_in_flight:
                raise too_many()
            body = await read_body(head.headers, receive, share if foreseen is None else None, self._limits)
            trace.stage("body", trace.started)
            if foreseen is not None:
                await _send(send, _refused(wire, foreseen, head, trace))
                return
            request = Request(head.method, head.target, head.headers, body, head.received_ns, head.client, trace.id)
            if self._in_flight >= self._limits.max_in_flight:
                await _send(send, _refused(wire, too_many(), request, trace))
                return
            # Only who has sent everything takes one of these places: a slow body must not keep others out.
            self._in_flight += 1
            try:
                await _send(send, await self._answer(wire, request, receive, trace))
            finally:
                self._in_flight -= 1
        except Refusal as refusal:
            early = _refused(wire, refusal, head, trace)
        except (Gone, CallerGone):
            _log.debug("the caller hung up")
        except Exception:  # noqa: BLE001 - the request's edge: a bug costs this request, not the server
            _log.exception("a request failed", extra={"request": trace.id})
            trace.outcome, trace.status = "bug", 500
            await _send(send, json_response(500, {"message": "internal error"}), close=True)
        finally:
            share.release()
            trace.end(self._observers)
        if early is not None:
            await _refuse_early(receive, send, early)

    async def _answer(self, wire: Wire, request: Request, receive: Receive, trace: Trace) -> Response:
        """The answer to a complete request.

        Raises:
            CallerGone: the peer closed the connection while its challenge waited.
        """
        try:
            challenge, timeout_s, priority = await self._unpacked(wire, request, trace)
            ticket = self._scheduler.submit(challenge, priority=priority, timeout_s=timeout_s, stages=trace.stages)
            watch = asyncio.ensure_future(_watch(receive, ticket))
            try:
                outcome = await ticket
            finally:
                # After the answer the watch ends by itself; cancelling it is for the ways out that send none.
                if not ticket.done():
                    watch.cancel()
            if not isinstance(outcome, Prediction):
                raise _refusal_of(outcome)
            trace.stages.update(outcome.stages)
            trace.prediction, trace.outcome, trace.status = outcome, ANSWERED, 200
            response = wire.encode(outcome, challenge, request, time.monotonic() - trace.started)
            return _with_weights(response, outcome) if _log.isEnabledFor(logging.DEBUG) else response
        except Refusal as refusal:
            if _log.isEnabledFor(logging.DEBUG):
                _log.debug("refused %s on %s: %s", refusal.reason, wire.name, refusal.detail)
            return _refused(wire, refusal, request, trace)

    async def _unpacked(self, wire: Wire, request: Request, trace: Trace) -> tuple[Challenge, float | None, float]:
        """The challenge, how long its caller still waits (None: it does not say), and its priority."""
        began = time.monotonic()
        # A video synapse is a zlib stream: how much there is to do shows only when it is done.
        if len(request.body) <= _INLINE_BYTES and SYNAPSES.get(request.path) != "video":
            challenge, caller, decision = self._unpack(wire, request)
        else:
            loop = asyncio.get_running_loop()
            challenge, caller, decision = await loop.run_in_executor(self._pool, self._unpack, wire, request)
        trace.hotkey, trace.tier = caller.hotkey, tier_of(decision.reason)
        trace.modality, trace.label = challenge.modality, challenge.testnet_label
        spent = trace.stage("verify", began) - trace.started
        timeout_s = None if caller.timeout_s is None else caller.timeout_s - spent
        return challenge, timeout_s, decision.priority

    def _unpack(self, wire: Wire, request: Request) -> tuple[Challenge, Caller, Decision]:
        """Who asks, may they, what do they ask: everything between the body and the queue. Any thread.

        Raises:
            Refusal: one of the three went wrong.
        """
        caller, decision = self._gate.admit(wire, request)
        return wire.decode(request), caller, decision


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


def _refusal_of(error: DetectorError) -> Refusal:
    """The caller's fault is a 4xx that names the reason, ours a 500 that names nothing."""
    if isinstance(error, MediaError):
        status = 413 if error.reason is MediaReason.TOO_LARGE else 422
        return Refusal(status, str(error.reason), f"{error.reason}: {error.detail}")
    return Refusal(500, "detector", "the detector failed on this media")


def _refused(wire: Wire, refusal: Refusal, request: Request, trace: Trace | None = None) -> Response:
    if trace is not None:
        trace.outcome, trace.status = refusal.reason, refusal.status
    response = wire.refuse(refusal, request)
    if isinstance(refusal, Overloaded | RateLimited):
        headers = {**response.headers, "retry-after": str(refusal.retry_after_s)}
        return Response(response.status, response.body, headers)
    return response


def _with_weights(response: Response, prediction: Prediction) -> Response:
    """Says what gave the answer: the detector as a whole, then the weights that took part."""
    keys = dict.fromkeys((prediction.detector, *prediction.weights.values()))
    return Response(response.status, response.body, {**response.headers, "x-weights": " ".join(filter(None, keys))})


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
