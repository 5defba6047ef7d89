"""What several tests of the neurons need."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from neurons import keys, logs

_CONFIGURED = (None, "neurons", "detectors", "uvicorn")


@pytest.fixture(scope="module")
def wallets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of wallets with one hotkey, of the wallet ``miner``; no coldkey."""
    folder = tmp_path_factory.mktemp("wallets")
    keys.create_throwaway(folder, "miner")
    return folder


@pytest.fixture
def restored_logging() -> Iterator[None]:
    """Puts back what a miner that runs in this process does to the loggers."""
    loggers = [logging.getLogger(name) for name in _CONFIGURED]
    before = [(logger.handlers[:], logger.level) for logger in loggers]
    writer = logs._quick
    yield
    logs._quick = writer
    for logger, (handlers, level) in zip(loggers, before, strict=True):
        logger.handlers = handlers
        logger.setLevel(level)
