"""Logging of a process: structlog renders what the packages send to the standard library's loggers.

Only entry points call :func:`configure`; modules use ``logging.getLogger(__name__)`` and know nothing of this one.
No line holds a key, a signature, a body or an endpoint's secret, whatever a message or a traceback would have said:
variables of frames are never shown, and every value goes through :mod:`neurons.redact`.
"""

from __future__ import annotations

import logging
import sys
from typing import Any, Literal

import structlog
from structlog.tracebacks import ExceptionDictTransformer

from neurons.redact import redact, redact_values

__all__ = ["configure"]

_OURS = ("neurons", "detectors")


def configure(level: str = "info", style: Literal["console", "json"] = "console") -> None:
    """Sends every record at or above `level` to standard error, one line each (and tracebacks).

    Other packages never log below ``info``: at ``debug`` the chain's client and its websockets write every frame and
    the address of the node, with the operator's key in it.

    Args:
        level: ``debug``, ``info``, ``warning`` or ``error``.
        style: ``console`` for people, ``json`` for collectors.
    """
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    render: list[structlog.typing.Processor]
    if style == "json":
        tracebacks = structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False))
        render = [tracebacks, _redact_fields, structlog.processors.JSONRenderer()]
    else:
        plain = structlog.dev.plain_traceback
        render = [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain), _redact_line]
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


def _redact_fields(_: Any, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    return {key: redact_values(value) for key, value in event.items()}


def _redact_line(_: Any, __: str, line: Any) -> str:
    return redact(str(line))
