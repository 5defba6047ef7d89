"""What several tests of the neurons need."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

_CONFIGURED = (None, "neurons", "detectors", "uvicorn")


@pytest.fixture
def restored_logging() -> Iterator[None]:
    """Puts back what a miner that runs in this process does to the loggers."""
    loggers = [logging.getLogger(name) for name in _CONFIGURED]
    before = [(logger.handlers[:], logger.level) for logger in loggers]
    yield
    for logger, (handlers, level) in zip(loggers, before, strict=True):
        logger.handlers = handlers
        logger.setLevel(level)
