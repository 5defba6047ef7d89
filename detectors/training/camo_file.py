"""Numbers into ``camo.yaml``, its comments and everything else untouched."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from detectors.camo_config import CurveConfig, load_config
from detectors.errors import ConfigError
from detectors.training.merge_fit import Fitted

__all__ = ["changes", "put", "write"]

Changes = Mapping[tuple[str, ...], Any]


def changes(images: Fitted, videos: Fitted | None, *, own_weights: bool) -> dict[tuple[str, ...], Any]:
    """What fits come to as keys and values; None removes a key.

    Args:
        images: of images.
        videos: of videos, or None where they take the images' numbers.
        own_weights: whether the videos' weights, spread and experts' curves are their own.
    """
    found: dict[tuple[str, ...], Any] = {
        ("merge_slope",): None,
        ("merge_intercept",): None,
        ("merge_calibration",): _plain(images.merge),
        ("merge_spread",): round(images.spread, 4) or None,
        ("gate_calibration",): {name: _plain(part) for name, part in images.gates.items()} or None,
        ("video", "merge_slope"): None,
        ("video", "merge_intercept"): None,
        ("video", "merge_calibration"): None if videos is None else _plain(videos.merge),
        ("video", "merge_spread"): None,
        ("video", "gate_calibration"): None,
    }
    for name, weight, part in zip(images.names, images.weights, images.experts, strict=True):
        found["experts", name, "weight"] = round(weight, 4)
        found["experts", name, "calibration"] = None if part.method == "identity" else _plain(part)
        found["experts", name, "video_calibration"] = None
        # An expert without a single frame among the videos counts for nothing there.
        found["experts", name, "video_weight"] = 0.0 if own_weights else None
    if videos is None or not own_weights:
        return found
    found["video", "merge_spread"] = round(videos.spread, 4)
    found["video", "gate_calibration"] = {name: _plain(part) for name, part in videos.gates.items()} or None
    for name, weight, part in zip(videos.names, videos.weights, videos.experts, strict=True):
        found["experts", name, "video_weight"] = round(weight, 4)
        inherits = found.get(("experts", name, "calibration"))
        found["experts", name, "video_calibration"] = (
            _plain(part) if inherits is not None or part.method != "identity" else None
        )
    return found


def write(path: Path, wanted: Changes) -> None:
    """Changes the file, or leaves it as it is where the result would not be a usable configuration.

    Raises:
        ConfigError: a key's parent is not there, or the result is refused.
    """
    text = path.read_text(encoding="utf-8")
    for keys, value in wanted.items():
        text = put(text, keys, value)
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_text(text, encoding="utf-8")
        load_config(part)
        os.replace(part, path)  # noqa: PTH105 - atomic on both ends
    finally:
        part.unlink(missing_ok=True)


def put(text: str, keys: tuple[str, ...], value: Any) -> str:
    """YAML text with one key of its block mappings set, added at the end of its block, or (None) removed.

    A comment behind a replaced value stays; a value written as a block of its own is replaced whole.

    Raises:
        ConfigError: a parent is no block mapping of the text.
    """
    lines = text.splitlines()
    start, end, indent = 0, len(lines), 0
    for depth, key in enumerate(keys[:-1]):
        at = _find(lines, key, start, end, indent)
        if at is None or _value(lines[at], key, indent):
            if value is None:
                return text
            raise ConfigError(f"camo.yaml: no block `{'.'.join(keys[: depth + 1])}:` to put `{keys[-1]}` in")
        start, end = at + 1, _block_end(lines, at, end, indent)
        inner = [_indent(line) for line in lines[start:end] if _counts(line)]
        indent = inner[0] if inner else indent + 2
    at = _find(lines, keys[-1], start, end, indent)
    if at is None:
        if value is not None:
            last = max([k + 1 for k in range(start, end) if _counts(lines[k])], default=start)
            lines.insert(last, f"{' ' * indent}{keys[-1]}: {_flow(value)}")
    else:
        comment = _comment(lines[at])
        new = [] if value is None else [f"{' ' * indent}{keys[-1]}: {_flow(value)}{comment}"]
        lines[at : _block_end(lines, at, end, indent)] = new
    return "\n".join(lines) + "\n"


def _plain(part: CurveConfig) -> dict[str, Any]:
    said = part.model_dump()
    return {name: value for name, value in said.items() if name != "knots" or value}


def _flow(value: Any) -> str:
    """JSON is YAML; without quotes it reads as the rest of the file does."""
    return json.dumps(value).replace('"', "")


def _counts(line: str) -> bool:
    return bool(line.strip()) and not line.lstrip().startswith("#")


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _find(lines: list[str], key: str, start: int, end: int, indent: int) -> int | None:
    wanted = f"{' ' * indent}{key}:"
    return next((k for k in range(start, end) if lines[k].startswith(wanted)), None)


def _value(line: str, key: str, indent: int) -> str:
    return line[indent + len(key) + 1 :].partition(" #")[0].strip()


def _comment(line: str) -> str:
    before, mark, after = line.partition(" #")
    spaces = len(before) - len(before.rstrip())
    return f"{' ' * (spaces + 1)}#{after}" if mark else ""


def _block_end(lines: list[str], at: int, end: int, indent: int) -> int:
    """The line behind the key's last deeper one."""
    last = at + 1
    for k in range(at + 1, end):
        if _counts(lines[k]):
            if _indent(lines[k]) <= indent:
                break
            last = k + 1
    return last
