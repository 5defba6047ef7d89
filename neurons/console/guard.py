"""ASGI middleware before every page of the console: host, session, origin, size and time of bodies, headers.

Nothing behind it has to remember any of that; only the secret of a form is looked at where the form is read.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, MutableMapping
from http.cookies import CookieError, SimpleCookie
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import parse_qs

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from neurons.console.security import Sessions

__all__ = ["SESSION", "UPLOAD_PATH", "Guard", "comes_from_here", "cookie_name"]

SESSION: Final = "console.session"
"""Where the session lies in the scope of a request."""
UPLOAD_PATH: Final = "/analyse"
"""The one path that takes large bodies."""

_OPEN = ("/login", "/healthz")  # and /static/
_SMALL_BODY = 64 * 1024
_FORM_ROOM = 64 * 1024  # what a form has around its file
_BODY_S = 60.0
_LOCAL = frozenset(("localhost", "127.0.0.1", "::1"))

_HEADERS: Final[Mapping[str, str]] = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    # Not no-referrer: then browsers send forms with `Origin: null`, and ours could not be told from others.
    "referrer-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}


class Guard:
    """See the module's docstring.

    Args:
        app: what is guarded.
        sessions: the signed-in browsers.
        hosts: further names and addresses that the console may be called by; loopback's and the address that a
            connection came in at always may.
        max_upload_bytes: of a file to :data:`UPLOAD_PATH`.
    """

    def __init__(self, app: ASGIApp, sessions: Sessions, hosts: Iterable[str], max_upload_bytes: int) -> None:
        self._app = app
        self._sessions = sessions
        self._hosts = _LOCAL | {_bare(host) for host in hosts if not _is_everywhere(host)}
        self._max_upload = max_upload_bytes + _FORM_ROOM

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One event of ASGI; only HTTP and the server's start and end are known here."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._request(scope, receive, _Headed(send, _is_static(scope["path"])))

    async def _request(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(scope["headers"])}
        if not self._is_ours(headers.get("host", ""), scope):
            await _say(send, 421, "this console is not called by that name")
            return
        method, path = scope["method"], scope["path"]
        if method not in ("GET", "HEAD", "POST"):
            await _say(send, 405, "only GET and POST are served")
            return
        session = self._sessions.find(_cookie(headers.get("cookie", ""), cookie_name(scope)))
        if session is None and not _is_open(scope):
            await _turn_away(send, method, path)
            return
        scope[SESSION] = session
        if method == "POST":
            if not comes_from_here(headers):
                await _say(send, 403, "this form was sent by another site")
                return
            most = self._max_upload if path == UPLOAD_PATH else _SMALL_BODY
            length = headers.get("content-length", "0")
            if not length.isascii() or not length.isdigit() or int(length) > most:
                await _say(send, 413, f"at most {most} bytes are taken")
                return
            receive = _Bounded(receive, most)
        await self._app(scope, receive, send)

    def _is_ours(self, host: str, scope: Scope) -> bool:
        name = _bare(host)
        if name in self._hosts:
            return True
        # The address that the connection came in at: nobody can make a browser believe a *name* means that.
        server = scope.get("server") or ("", 0)
        return _is_address(name) and not _is_everywhere(name) and name == _bare(str(server[0]))


class _Headed:
    """Sends what every answer carries."""

    def __init__(self, send: Send, lasting: bool) -> None:
        self._send = send
        self._lasting = lasting

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            own = {name.lower() for name, _ in message.get("headers", ())}
            added = {**_HEADERS, "cache-control": "max-age=3600" if self._lasting else "no-store"}
            more = [(n.encode(), v.encode()) for n, v in added.items() if n.encode() not in own]
            message = {**message, "headers": [*message.get("headers", ()), *more]}
        await self._send(message)


class _Bounded:
    """Reads a body up to its bound and its time."""

    def __init__(self, receive: Receive, most: int) -> None:
        self._receive = receive
        self._left = most
        self._complete = False
        self._ends = time.monotonic() + _BODY_S

    async def __call__(self) -> MutableMapping[str, Any]:
        if self._complete:
            return await self._receive()
        try:
            async with asyncio.timeout(max(0.0, self._ends - time.monotonic())):
                message = await self._receive()
        except TimeoutError:
            raise HTTPException(408, "the body took too long") from None
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            raise HTTPException(413, "the body is too large")
        self._complete = not message.get("more_body", False)
        return message


def comes_from_here(headers: Mapping[str, str]) -> bool:
    """Whether a browser says that one of our own pages, or its user, sent the request.

    What says nothing at all is no browser that could be misled.
    """
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return False
    origin = headers.get("origin")
    if origin is None:
        return True
    _, separator, host = origin.partition("://")
    return bool(separator) and host == headers.get("host", "")


def cookie_name(scope: Scope) -> str:
    """Cookies know no ports: two miners on one machine would sign each other out under one name."""
    return f"console-{(scope.get('server') or ('', 0))[1] or 0}"


def _cookie(header: str, name: str) -> str | None:
    try:
        found = SimpleCookie(header).get(name)
    except CookieError:
        return None
    return None if found is None else found.value


def _is_static(path: str) -> bool:
    return path.startswith("/static/")


def _is_open(scope: Scope) -> bool:
    if scope["path"] == "/" and scope["method"] == "GET":  # signing in by address
        return bool(parse_qs(scope["query_string"].decode("latin-1")).get("token"))
    return scope["path"] in _OPEN or _is_static(scope["path"])


async def _turn_away(send: Send, method: str, path: str) -> None:
    if method == "POST" or path.startswith(("/part/", "/thumbnail/")):
        await _say(send, 401, "not signed in, or no longer; open /login")
        return
    await send({"type": "http.response.start", "status": 303, "headers": [(b"location", b"/login")]})
    await send({"type": "http.response.body", "body": b""})


async def _say(send: Send, status: int, text: str) -> None:
    """Answers at once. What is left of a body the server reads and drops, so that a browser sees the answer."""
    body = f"{text}\n".encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _bare(host: str) -> str:
    """The name or address without its port and brackets, lower case."""
    host = host.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0] if host.count(":") == 1 else host


def _is_everywhere(host: str) -> bool:
    """0.0.0.0 is bound to, not called; browsers that let a page call it mean this machine."""
    return _is_address(_bare(host)) and ip_address(_bare(host)).is_unspecified


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
