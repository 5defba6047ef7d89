"""The console's own server: a thread and a loop of its own, so that no page ever holds up an answer of the axon's."""

from __future__ import annotations

import asyncio
import threading
from typing import cast

from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from neurons.console.address import address
from neurons.httpd import Listen, Server
from neurons.server import App

__all__ = ["ConsoleServer", "serve_console"]

_START_S = 10.0
_GRACE_S = 1.5
_CLOSE_S = 3.0


class _Served:
    """What the server asks of an application besides ASGI."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)

    def stop_admitting(self) -> None:
        """A console has no queue."""


class ConsoleServer:
    """A running console; see :func:`serve_console`."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="console", daemon=True)

    @property
    def port(self) -> int:
        """That it listens at."""
        return self._server.address[1]

    @property
    def url(self) -> str:
        """Of its front page, without the token."""
        return address(*self._server.address)

    def start(self) -> None:
        """Returns once it answers.

        Raises:
            OSError: it did not come up.
        """
        self._thread.start()
        if not self._ready.wait(_START_S) or not self._thread.is_alive():
            raise OSError("the console did not come up; the log says why")

    def close(self) -> None:
        """Finishes what runs, for two seconds at most, and gives the port back. Any thread; more than once is fine."""
        self._server.stop()
        if self._thread.is_alive():
            self._thread.join(_CLOSE_S)

    def _run(self) -> None:
        try:
            asyncio.run(self._live())
        finally:
            self._ready.set()

    async def _live(self) -> None:
        ready = asyncio.ensure_future(self._server.ready.wait())
        ready.add_done_callback(lambda _: self._ready.set())
        try:
            await self._server.run_until_stopped()
        finally:
            ready.cancel()


def serve_console(app: FastAPI, ip: str, port: int) -> ConsoleServer:
    """Serves a console until it is closed.

    Args:
        app: from :func:`neurons.console.app.create_app`.
        ip: address to bind, exactly this one.
        port: to bind; 0 takes a free one.

    Raises:
        OSError: the address cannot be bound.
    """
    listen = Listen(ip=ip, port=port, keep_alive_s=15.0, max_connections=64, max_per_address=64, grace_s=_GRACE_S)
    console = ConsoleServer(Server(cast(App, _Served(app)), listen))
    console.start()
    return console
