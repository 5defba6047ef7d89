"""The console as an application: pages, the fragments that keep them live, and the forms behind their buttons."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import AsyncIterator, Callable, Iterable
from importlib import resources
from typing import Annotated, Any, Final, TypeAlias

from fastapi import Depends, FastAPI, Request
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import FormParser, MultiPartException, MultiPartParser
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response

from detectors.errors import DetectorError, MediaError
from neurons.console import actions, views
from neurons.console.analysis import Analyst, Busy
from neurons.console.bridge import Ops
from neurons.console.guard import SESSION, UPLOAD_PATH, Guard, comes_from_here, cookie_name
from neurons.console.security import Door, Session, Sessions, Told

__all__ = ["create_app"]

_TYPES: Final = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}
_PAGES: Final[dict[str, Callable[[Ops], dict[str, Any]]]] = {
    "overview": views.overview,
    "challenges": views.challenges,
    "weights": views.weights,
    "access": views.access,
}
_LONGEST_NAME = 120


def create_app(
    ops: Ops, token: str, *, hosts: Iterable[str] = (), clock: Callable[[], float] = time.monotonic
) -> FastAPI:
    """Puts the console together.

    Args:
        ops: the miner.
        token: what signs an operator in; see :func:`neurons.console.security.load_token`.
        hosts: names and addresses it may be called by besides those of loopback and the address that a connection
            came in at.
        clock: monotonic seconds, of sessions and attempts.
    """
    console = _Console(ops, token, clock)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        console.analyst.close()

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan, redirect_slashes=False)
    app.add_middleware(Guard, sessions=console.sessions, hosts=tuple(hosts), max_upload_bytes=ops.max_upload_bytes)
    app.add_exception_handler(HTTPException, console.failed)
    app.add_exception_handler(Exception, _bug)
    for path, handler, method in (
        ("/", console.front, "GET"),
        ("/login", console.login_page, "GET"),
        ("/login", console.login, "POST"),
        ("/logout", console.logout, "POST"),
        ("/healthz", console.healthz, "GET"),
        ("/static/{name}", console.static, "GET"),
        ("/part/{name}", console.part, "GET"),
        ("/thumbnail/{name}", console.thumbnail, "GET"),
        ("/challenges", console.challenges, "GET"),
        ("/weights", console.weights, "GET"),
        ("/access", console.access, "GET"),
        ("/weights/activate", console.activate, "POST"),
        ("/weights/rollback", console.rollback, "POST"),
        ("/weights/shadow", console.shadow, "POST"),
        ("/weights/shadow/stop", console.shadow_stop, "POST"),
        (UPLOAD_PATH, console.analyse_page, "GET"),
        (UPLOAD_PATH, console.analyse, "POST"),
    ):
        app.add_api_route(path, handler, methods=[method])
    return app


class _InMemory(MultiPartParser):
    """What is dropped on the page never touches the disk; its size is bounded before."""

    spool_max_size = 1 << 40


async def _form(request: Request) -> FormData:
    """A form, within the bounds of the guard.

    Raises:
        HTTPException: 400, it cannot be read.
    """
    try:
        if request.headers.get("content-type", "").startswith("multipart/form-data"):
            return await _InMemory(request.headers, request.stream(), max_files=1, max_fields=8).parse()
        return await FormParser(request.headers, request.stream(), max_fields=8).parse()
    except (MultiPartException, KeyError, ValueError) as error:
        raise HTTPException(400, "the form cannot be read") from error


async def _own_form(request: Request) -> AsyncIterator[FormData]:
    """A form of one of this session's own pages; closed once it was answered.

    Raises:
        HTTPException: 403, its secret is missing or another's; 400, it cannot be read.
    """
    form = await _form(request)
    try:
        if not _session(request).holds(_text(form, "csrf")):
            raise HTTPException(403, "this form is of another session; load the page again")
        yield form
    finally:
        await form.close()


OwnForm: TypeAlias = Annotated[FormData, Depends(_own_form)]


class _Console:
    """The handlers. Those that block are plain functions, which run on threads of the console's own loop."""

    def __init__(self, ops: Ops, token: str, clock: Callable[[], float]) -> None:
        self._ops = ops
        self.sessions = Sessions(clock=clock)
        self._door = Door(token, self.sessions, clock)
        self.analyst = Analyst(ops.detector, ops.explainer)
        self._templates = views.environment()
        self._static = _static_files()
        self._assets = hashlib.sha256(b"".join(self._static.values())).hexdigest()[:8]

    # Signing in and out

    def front(self, request: Request) -> Response:
        token = request.query_params.get("token")
        if not token:
            return self._live_page(request, "overview")
        if not comes_from_here(dict(request.headers)):  # a link on somebody's page; it costs no attempt
            return RedirectResponse("/login", 303)
        return self._sign_in(request, token)

    def login_page(self, request: Request) -> Response:
        if request.scope.get(SESSION) is not None:
            return RedirectResponse("/", 303)
        return self._page(request, "login.html", problem="")

    async def login(self, request: Request) -> Response:
        form = await _form(request)
        token = _text(form, "token")
        await form.close()
        return await run_in_threadpool(self._sign_in, request, token)

    def _sign_in(self, request: Request, token: str) -> Response:
        opened = self._door.knock(token, request.client.host if request.client else "")
        if isinstance(opened, float):
            problem = f"Too many attempts; try again in {opened:.0f} seconds."
            answer = self._page(request, "login.html", 429, problem=problem)
            answer.headers["retry-after"] = str(max(1, round(opened)))
            return answer
        if opened is None:
            return self._page(request, "login.html", 403, problem="That is not the token.")
        response = RedirectResponse("/", 303)
        response.set_cookie(
            cookie_name(request.scope),
            opened,
            max_age=int(self.sessions.lifetime_s),
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
        return response

    def logout(self, request: Request, _: OwnForm) -> Response:
        name = cookie_name(request.scope)
        self.sessions.end(request.cookies.get(name))
        response = RedirectResponse("/login", 303)
        response.delete_cookie(name, httponly=True, samesite="strict")
        return response

    # Pages

    def challenges(self, request: Request) -> Response:
        return self._live_page(request, "challenges")

    def weights(self, request: Request) -> Response:
        return self._live_page(request, "weights")

    def access(self, request: Request) -> Response:
        return self._live_page(request, "access")

    def part(self, request: Request, name: str) -> Response:
        """The live part of a page, for its script."""
        if name not in _PAGES:
            raise HTTPException(404, "there is no such page")
        return self._page(request, f"_{name}.html", keep_told=True, **_PAGES[name](self._ops))

    def thumbnail(self, name: str) -> Response:
        found = self._ops.recent.thumbnail(name)
        if found is None:
            raise HTTPException(404, "that picture is gone")
        return Response(found, media_type="image/jpeg")

    def healthz(self) -> Response:
        serving = self._ops.health().serving
        return PlainTextResponse("serving\n" if serving else "not serving\n", 200 if serving else 503)

    def static(self, name: str) -> Response:
        if name not in self._static:  # a table, not a folder: there is no path to play with
            raise HTTPException(404, "there is no such file")
        return Response(self._static[name], media_type=_TYPES[name.rpartition(".")[2]])

    # Buttons

    def activate(self, request: Request, form: OwnForm) -> Response:
        return self._done(request, actions.activate(self._ops, _text(form, "key")))

    def rollback(self, request: Request, _: OwnForm) -> Response:
        return self._done(request, actions.rollback(self._ops))

    def shadow(self, request: Request, form: OwnForm) -> Response:
        promote = _text(form, "promote") == "yes"
        told = actions.start_shadow(self._ops, _text(form, "key"), _text(form, "count"), promote=promote)
        return self._done(request, told)

    def shadow_stop(self, request: Request, _: OwnForm) -> Response:
        return self._done(request, actions.stop_shadow(self._ops))

    def _done(self, request: Request, told: Told) -> Response:
        _session(request).tell(told.good, told.text)
        return RedirectResponse("/weights", 303)

    # Analysing

    def analyse_page(self, request: Request) -> Response:
        return self._page(request, "analyse.html", result=None, problem="", **self._analyse_facts())

    async def analyse(self, request: Request, form: OwnForm) -> Response:
        file = form.get("file")
        template = "_result.html" if request.headers.get("x-part") == "1" else "analyse.html"
        status, result, problem = 200, None, ""
        if not isinstance(file, UploadFile) or not file.size:
            status, problem = 422, "Choose an image or a video first."
        elif file.size > self._ops.max_upload_bytes:
            status, problem = 413, "That file is too large."
        else:
            name = (file.filename or "unnamed")[-_LONGEST_NAME:]
            try:
                result = await self.analyst.analyse(name, await file.read())
            except Busy:
                status, problem = 503, "Another file is being analysed; try again."
            except MediaError as error:
                status = 422
                problem = f"{name} cannot be judged ({error.reason}): {error.detail}"
            except DetectorError as error:
                status, problem = 500, f"The detector failed on {name}: {error}"
        return await run_in_threadpool(
            self._page, request, template, status, result=result, problem=problem, **self._analyse_facts()
        )

    def _analyse_facts(self) -> dict[str, Any]:
        return {"max_upload_bytes": self._ops.max_upload_bytes}

    # Answers

    async def failed(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101 - what it is registered for
        return self._page(
            request, "error.html", error.status_code, keep_told=True, status=error.status_code, text=error.detail
        )

    def _live_page(self, request: Request, name: str) -> Response:
        return self._page(request, f"{name}.html", **_PAGES[name](self._ops))

    def _page(
        self, request: Request, template: str, status: int = 200, /, *, keep_told: bool = False, **values: Any
    ) -> Response:
        session: Session | None = request.scope.get(SESSION)
        told = [] if session is None or keep_told else session.take()
        common = {"csrf": session.csrf if session else "", "told": told, "assets": self._assets}
        return HTMLResponse(self._templates.get_template(template).render(**common, **values), status)


async def _bug(_: Request, __: Exception) -> Response:
    """The server logs what it was; the page does not tell."""
    return PlainTextResponse("a bug of ours; the log says more\n", 500, {"cache-control": "no-store"})


def _session(request: Request) -> Session:
    session: Session | None = request.scope.get(SESSION)
    if session is None:  # the guard lets nobody without one come this far
        raise HTTPException(401, "not signed in")
    return session


def _text(form: FormData, name: str) -> str:
    value = form.get(name)
    return value if isinstance(value, str) else ""


def _static_files() -> dict[str, bytes]:
    folder = resources.files("neurons.console") / "static"
    return {item.name: item.read_bytes() for item in folder.iterdir() if item.name.rpartition(".")[2] in _TYPES}
