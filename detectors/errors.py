"""The detectors' exception tree.

    DetectorError
    ├── MediaError            the caller's bytes are not usable media; carries a short machine-readable reason
    ├── ConfigError           an operator's file or flag is wrong; the text names the key and the fix
    ├── WeightsError          a weights file, card or pointer is missing, altered or does not fit
    └── PredictionError       a model produced something that is not a probability

``neurons`` turns a :class:`MediaError` into a 4xx and everything else into a 5xx.
"""

from __future__ import annotations

from enum import StrEnum

__all__ = ["ConfigError", "DetectorError", "MediaError", "MediaReason", "PredictionError", "WeightsError"]


class DetectorError(Exception):
    """Base of every error that this package raises on purpose."""


class MediaReason(StrEnum):
    """Why media was refused. The values are stable: they go out on the wire and into exit reports."""

    EMPTY = "empty"
    ENCODING = "encoding"  # base64, base85 or zlib layer is broken
    UNDECODABLE = "undecodable"  # not an image or video, or damaged beyond use
    TRUNCATED = "truncated"
    TOO_SMALL = "too_small"
    TOO_LARGE = "too_large"  # pixels, bytes, or bytes after decompression
    FRAMES = "frames"  # no frame, too many, or frames of different sizes
    UNSUPPORTED = "unsupported"


class MediaError(DetectorError):
    """Media that cannot be judged.

    Args:
        reason: which check failed.
        detail: one sentence for a person, without any of the caller's bytes in it.
    """

    def __init__(self, reason: MediaReason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class ConfigError(DetectorError):
    """A configuration that cannot be used; the message names the key and what would be right."""


class WeightsError(DetectorError):
    """Weights that cannot be loaded; the message names the file and what does not fit."""


class PredictionError(DetectorError):
    """A detector produced a value that is not a finite probability."""
