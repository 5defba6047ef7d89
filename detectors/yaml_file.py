"""YAML that people write: read strictly, and with one error for everything that can be wrong with it.

PyYAML lets its own parsing errors through (``!!float ''`` is an IndexError, ``0b_`` a ValueError, ``!!bool maybe`` a
KeyError), recurses as deep as a document is nested, and of two equal keys keeps the last.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from detectors.errors import ConfigError

__all__ = ["parse_yaml", "read_yaml"]

_MAX_NODES = 100_000  # once aliases are written out: nine lines of them make a hundred million
_MAX_DEPTH = 100  # of brackets, known before the parser looks: its time grows with the square of it
_MAX_BITS = 1024  # of a number: Python refuses to print one of some thousand digits in a message
_BRACKETS = re.compile(r"[\[\]{}]")


def read_yaml(path: Path) -> Any:
    """Reads a file.

    Returns:
        Whatever it holds, None for nothing.

    Raises:
        ConfigError: the file cannot be read, or as :func:`parse_yaml`; names neither the file nor its folder.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read: {error}") from error
    return parse_yaml(text)


def parse_yaml(text: str) -> Any:
    """Parses a document.

    Raises:
        ConfigError: not YAML, a key that is there twice, a tag beyond plain data, or more than could be meant: nested
            too deep, aliases that grow without end, a number of hundreds of digits.
    """
    depth = 0
    for bracket in _BRACKETS.finditer(text):
        depth = depth + 1 if bracket[0] in "[{" else max(0, depth - 1)
        if depth > _MAX_DEPTH:
            raise ConfigError("not YAML: nested too deep")
    try:
        found = yaml.load(text, _UniqueKeys)  # noqa: S506 - a SafeLoader
    except RecursionError as error:
        raise ConfigError("not YAML: nested too deep") from error
    except (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
        raise ConfigError(f"not YAML: {' '.join(str(error).split())[:500]}") from error
    _check_size(found)
    return found


def _check_size(document: Any) -> None:
    """Refuses what is small as text and large, or without end, as data."""
    nodes, level = 0, [document]
    while level:
        nodes += len(level)
        if nodes > _MAX_NODES:
            raise ConfigError(f"not YAML for a configuration: more than {_MAX_NODES} values, aliases written out")
        below: list[Any] = []
        for node in level:
            if isinstance(node, int) and node.bit_length() > _MAX_BITS:
                raise ConfigError("not YAML for a configuration: a number of hundreds of digits")
            if isinstance(node, dict):
                below += [*node, *node.values()]
            elif isinstance(node, list | tuple | set):
                below += node
            if nodes + len(below) > _MAX_NODES:
                break
        level = below


class _UniqueKeys(yaml.SafeLoader):
    """YAML lets the last of two equal keys win; an expert written twice is a mistake."""


def _unique(loader: _UniqueKeys, node: yaml.MappingNode) -> dict[Hashable, Any]:
    loader.flatten_mapping(node)
    found: dict[Hashable, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if key in found:
            raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is there twice", key_node.start_mark)
        found[key] = loader.construct_object(value_node, deep=True)
    return found


_UniqueKeys.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique)
