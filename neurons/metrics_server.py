"""Serves the metrics, and nothing else, apart from the axon: an event loop of its own on a thread of its own.

A connection gets one answer within five seconds and is closed; what comes beyond sixteen at once is closed as it comes.
So whoever reaches the port, with however much patience, takes no thread and no memory from the miner.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from typing import Protocol

__all__ = ["Exposed", "MetricsServer", "serve_metrics"]

_log = logging.getLogger(__name__)

_WHOLE_S = 5.0  # of a connection, from its opening to its end
_HEAD_BYTES = 8192
_MOST = 16  # connections at once
_JOIN_S = 5.0
_TEXT = "text/plain; charset=utf-8"


class Exposed(Protocol):
    """What is served; :class:`neurons.telemetry.Metrics` is one. Called on the server's thread."""

    def exposition(self) -> tuple[bytes, str]:
        """All metrics and their content type."""
        ...

    def healthy(self) -> bool:
        """Whether challenges are admitted."""
        ...


class MetricsServer:
    """``GET /metrics`` and ``GET /healthz`` over HTTP. See :func:`serve_metrics`.

    Args:
        exposed: what is served.
        listener: a listening socket; the server closes it.
        whole_s: longest life of a connection.
    """

    def __init__(self, exposed: Exposed, listener: socket.socket, *, whole_s: float = _WHOLE_S) -> None:
        self._exposed = exposed
        self._listener = listener
        self._whole_s = whole_s
        self._open: set[asyncio.StreamWriter] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._ready = threading.Event()
        self.port: int = listener.getsockname()[1]
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)
        self._thread.start()
        self._ready.wait(_JOIN_S)

    def close(self) -> None:
        """Ends the thread and frees the port. Idempotent; any thread but its own."""
        loop = self._loop
        if self._thread.is_alive() and loop is not None:
            loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(_JOIN_S)

    def _run(self) -> None:
        # Not asyncio.run: the process may have installed a policy for the axon, and this loop is to be a plain one.
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        server = await asyncio.start_server(self._client, sock=self._listener, limit=_HEAD_BYTES)
        self._ready.set()
        await self._stop.wait()
        # Accepts no more, but closes only once nobody is left: asyncio of 3.11 fails on a server that is closed while
        # it accepts. Who came a moment ago finds the stop set.
        self._loop.remove_reader(self._listener)
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            for writer in self._open:
                writer.transport.abort()
            await asyncio.wait(others)
        server.close()

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._stop.is_set() or len(self._open) >= _MOST:
            writer.transport.abort()
            return
        self._open.add(writer)
        try:
            async with asyncio.timeout(self._whole_s):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(self._answer(head.decode("latin-1")))
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            writer.transport.abort()
        finally:
            self._open.discard(writer)

    def _answer(self, head: str) -> bytes:
        """The whole response to a request's head."""
        method, _, rest = head.partition("\r\n")[0].partition(" ")
        path = rest.partition(" ")[0].partition("?")[0]
        page = {"/metrics": self._metrics, "/healthz": self._health}.get(path)
        if page is None:
            return _response("404 Not Found", b"not found\n")
        if method != "GET":
            return _response("405 Method Not Allowed", b"GET only\n", "allow: GET\r\n")
        try:
            return page()
        except Exception:  # noqa: BLE001 - the scrape's edge: a bug costs this scrape, not the thread
            _log.exception("the metrics could not be read")
            return _response("500 Internal Server Error", b"internal error\n")

    def _metrics(self) -> bytes:
        body, kind = self._exposed.exposition()
        return _response("200 OK", body, kind=kind)

    def _health(self) -> bytes:
        if self._exposed.healthy():
            return _response("200 OK", b"ok\n")
        return _response("503 Service Unavailable", b"not serving\n")


def serve_metrics(metrics: Exposed, ip: str, port: int) -> MetricsServer:
    """Starts serving `metrics`; ``.port`` of what is returned is the one that was taken, ``.close()`` ends it.

    Args:
        metrics: see :class:`Exposed`.
        ip: address to bind, IPv4 or IPv6.
        port: to bind; 0 takes a free one.

    Raises:
        OSError: the address cannot be bound. A miner serves without metrics then.
    """
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    return MetricsServer(metrics, socket.create_server((ip, port), family=family))


def _response(status: str, body: bytes, more: str = "", kind: str = _TEXT) -> bytes:
    head = f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n"
    return f"{head}connection: close\r\n{more}\r\n".encode("latin-1") + body
