"""Logging of a process: structlog renders what the packages send to the standard library's loggers.

Only entry points call :func:`configure`; modules use ``logging.getLogger(__name__)`` and know nothing of this one.
No line holds a key, a signature, a body or an endpoint's secret, whatever a message or a traceback would have said:
variables of frames are never shown, and every value goes through :mod:`neurons.redact`.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

import orjson
import structlog
from structlog.tracebacks import ExceptionDictTransformer

from neurons.redact import redact_values

__all__ = ["configure", "plain"]

_PLAIN = "plain_fields"
_PACE_S = 0.05
_MOST_LINES = 50_000
_quick: _Writer | None = None  # where plain lines go without a record, if anywhere

_OURS = ("neurons", "detectors")
_COLOURS = {"debug": "\x1b[2m", "warning": "\x1b[33m", "error": "\x1b[31m", "critical": "\x1b[31;1m"}
_PLAIN = "\x1b[0m"

Style = Literal["auto", "console", "json"]
"""``console`` for people, ``json`` for collectors; ``auto`` is console where standard error is a terminal."""


def configure(level: str = "info", style: Style = "auto") -> None:
    """Sends every record at or above `level` to standard error, one line each (and, on a console, tracebacks).

    Other packages never log below ``info``: at ``debug`` the chain's client and its websockets write every frame and
    the address of the node, with the operator's key in it.

    Args:
        level: ``debug``, ``info``, ``warning`` or ``error``.
        style: see :data:`Style`.
    """
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    terminal = sys.stderr.isatty()
    render: list[structlog.typing.Processor]
    people = style == "console" or (style == "auto" and terminal)
    if people:
        render = [structlog.processors.format_exc_info, _redact_fields, _Console(colours=terminal)]
    else:
        tracebacks = structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False))
        render = [tracebacks, _redact_fields, structlog.processors.JSONRenderer()]
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _spread, *render],
    )
    handler = _Writer(sys.stderr)
    handler.setFormatter(formatter)
    global _quick  # noqa: PLW0603 - one process, one standard error; the standard library's loggers are no less global
    _quick = None if people else handler
    # What no line of ours shows need not be looked up for each: two thirds of what a record costs.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    root = logging.getLogger()
    root.handlers = [handler]
    wanted = logging.getLevelNamesMapping()[level.upper()]
    root.setLevel(max(wanted, logging.INFO))
    for name in _OURS:
        logging.getLogger(name).setLevel(wanted)
    # Uvicorn reports every malformed request at warning: a stranger must not be able to fill the disk.
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    logging.getLogger("watchfiles").setLevel(logging.WARNING)  # it counts every write; what came of it is said by us


def plain(logger: logging.Logger, level: int, event: str, fields: Mapping[str, Any]) -> None:
    """Logs an event whose fields hold nothing to redact: for the one line that every answer costs.

    Where collectors read, it is made without a record and without structlog, and written within a twentieth of a
    second together with its like: a write for each would hand the interpreter to another thread for each.

    Args:
        logger: the module's own; its level has been asked.
        level: of :mod:`logging`.
        event: what happened, in a word.
        fields: numbers, names out of closed sets and of the operator's own configuration, proven addresses. Nothing
            that a stranger chose.
    """
    handler = _quick
    if handler is None:
        logger.log(level, event, extra={_PLAIN: fields})
        return
    head = {"event": event, "level": logging.getLevelName(level).lower(), "logger": logger.name}
    line = orjson.dumps({**head, "timestamp": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}", **fields}).decode()
    handler.soon(f"{line}\n")


class _Writer(logging.StreamHandler[TextIO]):
    """Standard error, with lines that may wait for each other; every record, and the end, writes them first."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._lines: deque[str] = deque(maxlen=_MOST_LINES)  # whoever reads may have stopped: the latest are kept
        self._some = threading.Event()
        self._thread: threading.Thread | None = None

    def soon(self, line: str) -> None:
        """Any thread; never blocks on the stream."""
        self._lines.append(line)
        if not self._some.is_set():
            self._some.set()
            if self._thread is None:
                self._thread = threading.Thread(target=self._write_on, name="log", daemon=True)
                self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._write()
        super().emit(record)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):  # closed, or nobody reads any more: a log never ends anything
            self._write()
            super().flush()

    def _write_on(self) -> None:
        while self._some.wait():
            time.sleep(_PACE_S)
            self._some.clear()
            self.flush()

    def _write(self) -> None:
        with self.lock or contextlib.nullcontext():
            text = "".join(self._lines.popleft() for _ in range(len(self._lines)))
            if text:
                self.stream.write(text)


def _spread(_: Any, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Plain fields as if each had been given by itself."""
    event.update(event.pop(_PLAIN, {}))
    return event


def _redact_fields(_: Any, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    return {key: redact_values(value) for key, value in event.items()}


class _Console:
    """``04:15:18.314 info neurons.seen answered request=3f9c01-1a p_fake=0.75 ...``, then the traceback if any.

    Fields stand in the order in which they were given. Much of what structlog's own renderer does is not wanted in a
    line that is written for every request: it sorts them, pads them, and quotes mappings as Python does.
    """

    def __init__(self, *, colours: bool) -> None:
        self._colours = _COLOURS if colours else {}

    def __call__(self, _: Any, __: str, event: structlog.typing.EventDict) -> str:
        traceback = event.pop("exception", None)
        clock = str(event.pop("timestamp", ""))[11:23]  # of 2026-11-21T04:15:18.314187Z
        level = str(event.pop("level", ""))
        words = [clock, f"{level:<7}", str(event.pop("logger", "")), str(event.pop("event", ""))]
        words += [f"{key}={_shown(value)}" for key, value in event.items()]
        line = _one_line(" ".join(words))
        colour = self._colours.get(level)
        if colour is not None:
            line = f"{colour}{line}{_PLAIN}"
        return line if traceback is None else f"{line}\n{traceback}"


def _shown(value: Any) -> str:
    """A field's value without spaces around its parts; text with spaces in it is quoted."""
    if isinstance(value, Mapping):
        return ",".join(f"{key}:{_shown(item)}" for key, item in value.items()) or "-"
    if isinstance(value, list):  # what redacted values know of sequences
        return ",".join(map(_shown, value)) or "-"
    text = str(value)
    return text if text and " " not in text else repr(text)


def _one_line(text: str) -> str:
    """`text` without line ends and terminal sequences: a caller's words may be in it."""
    return text if text.isprintable() else repr(text)[1:-1]
