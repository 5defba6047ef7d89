"""Uvicorn, run from our process: bound to exactly one address, guarded against slow headers, ended gracefully."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any, cast

import uvicorn
import uvloop
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from neurons.limits import address_key
from neurons.server import App

__all__ = ["Listen", "Server", "freeze_heap", "serve", "serving"]

_LOOK_AGAIN_S = 0.01
_MAX_HEADER_BYTES = 64 * 1024  # the parser itself sets no bound


@dataclass(frozen=True, slots=True)
class Listen:
    """Where and how patiently to listen.

    Attributes:
        ip: address to bind, exactly this one.
        port: to bind; 0 takes a free one.
        header_timeout_s: a connection whose headers are not complete by then is closed.
        keep_alive_s: a connection that sends nothing between requests for this long is closed.
        max_connections: open at once; further ones are closed as they come.
        max_per_address: of those, from one address (:func:`neurons.limits.address_key`), so that one peer that opens
            connections and says nothing does not take all of them.
        grace_s: time to finish running requests after SIGTERM or SIGINT.
    """

    ip: str = "127.0.0.1"
    port: int = 0
    header_timeout_s: float = 5.0
    keep_alive_s: float = 75.0
    max_connections: int = 8192
    max_per_address: int = 1024
    grace_s: float = 10.0


class _Config(uvicorn.Config):
    """Carries our options to the protocol, which uvicorn constructs itself."""

    listen: Listen
    open_by_address: Counter[bytes]


class _GuardedProtocol(HttpToolsProtocol):
    """Closes connections that dawdle over their headers and refuses headers without end; uvicorn does neither."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._listen = cast(_Config, self.config).listen
        self._open = cast(_Config, self.config).open_by_address
        self._address = b""
        self._alarm: asyncio.TimerHandle | None = None
        self._header_bytes = 0
        self._read = 0
        self._in_headers = False
        self._in_body = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._address = address_key(self.client[0] if self.client else "")
        self._open[self._address] += 1
        own = self._open[self._address]
        if len(self.connections) > self._listen.max_connections or own > self._listen.max_per_address:
            transport.close()
            return
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        self._open[self._address] -= 1
        if not self._open[self._address]:
            del self._open[self._address]
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._read = len(data)
        super().data_received(data)
        if self._in_headers:
            # Counted by what came, not by header: a request in one piece pays nothing for this.
            self._header_bytes += len(data)
            if self._header_bytes > _MAX_HEADER_BYTES and not self.transport.is_closing():
                self.send_400_response("Headers too long.")
                return
        # Uvicorn stops its keep-alive clock at the first byte, even at a stray line break: from there ours runs.
        if self._alarm is None and (self._in_headers or self._is_idle()):
            self._arm()

    def on_body(self, body: bytes) -> None:
        cycle = self.cycle
        if cycle.body or cycle.response_complete:
            super().on_body(body)
            return
        # Uvicorn copies every chunk into a bytearray and out again; handing the chunk itself on saves both copies,
        # a tenth of a 60 KB request's processor time.
        cycle.body = cast(bytearray, body)
        if len(body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        cycle.message_event.set()

    def _is_idle(self) -> bool:
        """No request is being received or answered."""
        cycle = cast(RequestResponseCycle | None, self.cycle)  # None before the first request, whatever its type says
        return not self._in_body and (cycle is None or cycle.response_complete)

    def on_message_begin(self) -> None:
        self._header_bytes = 0
        self._in_headers = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        if self.parser.get_http_version() not in ("1.0", "1.1"):
            raise ValueError("no version of HTTP that is served")  # the parser's caller makes a 400 of it
        if self._read > _MAX_HEADER_BYTES and sum(len(n) + len(v) for n, v in self.headers) > _MAX_HEADER_BYTES:
            raise ValueError("headers that came in one piece and are too long all the same")
        self._in_headers = False
        self._in_body = True
        self._disarm()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_body = False
        super().on_message_complete()

    def _arm(self) -> None:
        self._alarm = self.loop.call_later(self._listen.header_timeout_s, self._look_again)

    def _look_again(self) -> None:
        """Timers come before sockets: what arrived while the loop was busy is read first, then it is judged."""
        self._alarm = self.loop.call_later(_LOOK_AGAIN_S, self._too_slow)

    def _disarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _too_slow(self) -> None:
        self._alarm = None
        if not self.transport.is_closing():
            self.transport.close()


class Server(uvicorn.Server):
    """Serves one :class:`App`. Binds in the constructor, so that the address is known before anything runs.

    Args:
        app: the application.
        listen: where and how patiently.
        on_ready: called with the bound (ip, port) once connections are accepted.

    Raises:
        OSError: the address cannot be bound.
    """

    def __init__(self, app: App, listen: Listen, on_ready: Callable[[str, int], None] | None = None) -> None:
        family = socket.AF_INET6 if ":" in listen.ip else socket.AF_INET
        self._socket = socket.create_server((listen.ip, listen.port), family=family, backlog=2048)
        self.address: tuple[str, int] = self._socket.getsockname()[:2]
        self._application = app
        self._on_ready = on_ready
        self._signals = 0
        self.ready = asyncio.Event()
        config = _Config(
            cast(Any, app),
            http=_GuardedProtocol,
            ws="none",
            lifespan="on",
            log_config=None,
            log_level="error",
            access_log=False,
            server_header=False,
            proxy_headers=False,  # an address in a header is nobody's identity
            timeout_keep_alive=cast(int, listen.keep_alive_s),
            timeout_graceful_shutdown=cast(int, listen.grace_s),
        )
        config.listen = listen
        config.open_by_address = Counter()
        super().__init__(config)

    async def run_until_stopped(self) -> None:
        """Serves until SIGTERM, SIGINT or :meth:`stop`; then finishes what runs, within the grace period."""
        try:
            await self.serve(sockets=[self._socket])
        finally:
            self._socket.close()

    def stop(self) -> None:
        """Stops admitting at once and shuts down gracefully. Safe in a signal handler."""
        self._application.stop_admitting()
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()
        if self._on_ready is not None:
            self._on_ready(*self.address)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal ends gracefully, the second at once: whoever sends it does not want to wait for anything."""
        self._signals += 1
        if self._signals > 1:
            os._exit(128 + sig)
        self.stop()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn's, but the signal is not raised again afterwards: a graceful end is exit code 0."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {sig: signal.signal(sig, self.handle_exit) for sig in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for sig, handler in before.items():
                signal.signal(sig, handler)


def freeze_heap() -> None:
    """Keeps the collector's pauses short: models and modules live as long as the process, it need not look at them."""
    gc.collect()
    gc.freeze()


def serve(app: App, listen: Listen, on_ready: Callable[[str, int], None] | None = None) -> None:
    """Blocks until the server was told to stop and has finished.

    Raises:
        OSError: the address cannot be bound.
    """
    server = Server(app, listen, on_ready)
    freeze_heap()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(server.run_until_stopped())


@contextlib.asynccontextmanager
async def serving(app: App, listen: Listen | None = None) -> AsyncIterator[tuple[str, int]]:
    """Serves on the running loop for as long as the block lasts; gives (ip, port)."""
    server = Server(app, listen or Listen())
    task = asyncio.ensure_future(server.run_until_stopped())
    try:
        await server.ready.wait()
        yield server.address
    finally:
        server.stop()
        await task
