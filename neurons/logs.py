"""Logging of a process: structlog renders what the packages send to the standard library's loggers.

Only entry points call :func:`configure`; modules use ``logging.getLogger(__name__)`` and know nothing of this one.
No line holds a key, a signature, a body or an endpoint's secret, whatever a message or a traceback would have said:
variables of frames are never shown, and every value goes through :mod:`neurons.redact`.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from typing import Any, Literal

import structlog
from structlog.tracebacks import ExceptionDictTransformer

from neurons.redact import redact_values

__all__ = ["configure"]

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
    if style == "console" or (style == "auto" and terminal):
        render = [structlog.processors.format_exc_info, _redact_fields, _Console(colours=terminal)]
    else:
        tracebacks = structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False))
        render = [tracebacks, _redact_fields, structlog.processors.JSONRenderer()]
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers = [handler]
    wanted = logging.getLevelNamesMapping()[level.upper()]
    root.setLevel(max(wanted, logging.INFO))
    for name in _OURS:
        logging.getLogger(name).setLevel(wanted)
    # Uvicorn reports every malformed request at warning: a stranger must not be able to fill the disk.
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    logging.getLogger("watchfiles").setLevel(logging.WARNING)  # it counts every write; what came of it is said by us


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
