"""Where the shipped files are: ``configs/`` and ``weights/`` beside the two packages, or under DEEPFAKE_MINER_HOME."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["configs", "home", "weights"]


def home() -> Path:
    """The folder that holds ``configs/`` and ``weights/``."""
    chosen = os.environ.get("DEEPFAKE_MINER_HOME")
    return Path(chosen) if chosen else Path(__file__).resolve().parents[1]


def configs() -> Path:
    return home() / "configs"


def weights() -> Path:
    return home() / "weights"
