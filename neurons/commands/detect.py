"""``deepfake-miner detect``: files in, a line each out, and heat maps where they are asked for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import typer

from detectors import camo as camo_module
from detectors import media as decoders
from detectors.errors import ConfigError, MediaError
from detectors.files import publish
from detectors.heatmap import HeatMap, fitted, heat_map
from detectors.overlay import overlay, strip
from detectors.types import U8, Detector, Media, Prediction

__all__ = ["detect"]

_STRIP_SIDE = 160  # pixels: longer side of one frame in a video's strip


def detect(files: Sequence[Path], *, as_json: bool, camo: Path | None, merge: str | None, heatmap: Path | None) -> int:
    """Judges files and says what was found; returns how many are not readable media.

    Args:
        files: images and videos.
        as_json: one object a line in place of text.
        camo, merge: see :func:`detectors.camo.load`.
        heatmap: folder for a PNG of each file; made where it is missing.

    Raises:
        ConfigError: the folder cannot be made or written, or the configuration is wrong.
        WeightsError: weights do not load.
    """
    pictures = None if heatmap is None else _Pictures(heatmap)
    detector = camo_module.load(camo, merge=merge)
    unreadable = 0
    for path in files:
        try:
            media = decoders.decode(path)
        except MediaError as error:
            unreadable += 1
            _show(path, {"path": str(path), "error": error.reason.value, "detail": error.detail}, as_json=as_json)
            continue
        prediction = detector.predict([media])[0]
        row = _row(path, prediction)
        if pictures is not None:
            row["heatmap"] = str(pictures.write(path, detector, media, prediction))
        _show(path, row, as_json=as_json)
    return unreadable


class _Pictures:
    """The folder of heat maps, each input's under a name of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._taken: set[str] = set()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"--heatmap: {error}") from error

    def write(self, path: Path, detector: Detector, media: Media, prediction: Prediction) -> Path:
        """Draws one file's heat map and returns where it is."""
        still = media.modality == "image"
        found = heat_map(
            detector, media, size=None if still else fitted(media.size, _STRIP_SIDE), prediction=prediction
        )
        drawn = _drawn(media, found)
        target = self._folder / f"{self._name(path)}.heatmap.png"
        _, png = cv2.imencode(".png", np.ascontiguousarray(drawn[..., ::-1]))
        try:
            publish(target, png.tobytes())
        except OSError as error:
            raise ConfigError(f"--heatmap: {error}") from error
        return target

    def _name(self, path: Path) -> str:
        """The file's name without its suffix; with a number where another input has taken it."""
        name, number = path.stem, 1
        while name in self._taken:
            number += 1
            name = f"{path.stem}-{number}"
        self._taken.add(name)
        return name


def _drawn(media: Media, found: HeatMap) -> U8:
    if media.modality == "image":
        return overlay(media.pixels, found.maps[0])
    return strip(media.frames[list(found.frames)], found.maps, found.scores, side=_STRIP_SIDE)


def _row(path: Path, prediction: Prediction) -> dict[str, Any]:
    real, synthetic, semisynthetic = prediction.probabilities
    return {
        "path": str(path),
        "class": prediction.label.name.lower(),
        "p_fake": prediction.p_fake,
        "probabilities": {"real": real, "synthetic": synthetic, "semisynthetic": semisynthetic},
        "route": list(prediction.route),
        "experts": dict(prediction.experts),
        "weights": dict(prediction.weights),
        "milliseconds": round(prediction.milliseconds, 1),
    }


def _show(path: Path, row: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(row))
    elif "error" in row:
        typer.echo(f"{path}: unreadable ({row['error']}): {row['detail']}", err=True)
    else:
        route = " > ".join(row["route"])
        drawn = f", {row['heatmap']}" if "heatmap" in row else ""
        typer.echo(f"{path}: {row['class']}, P(fake) {row['p_fake']:.3f}, {row['milliseconds']:.0f} ms, {route}{drawn}")
