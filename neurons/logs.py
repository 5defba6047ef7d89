"""Logging of a process: structlog renders what the packages send to the standard library's loggers.

Only entry points call :func:`configure`; modules use ``logging.getLogger(__name__)`` and know nothing of this one.
"""

from __future__ import annotations

import logging
import sys
from typing import Literal

import structlog

__all__ = ["configure"]


def configure(level: str = "info", style: Literal["console", "json"] = "console") -> None:
    """Sends every record at or above `level` to standard error, one line each.

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
        render = [structlog.processors.dict_tracebacks, structlog.processors.JSONRenderer()]
    else:
        render = [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    # Uvicorn reports every malformed request at warning: a stranger must not be able to fill the disk.
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
