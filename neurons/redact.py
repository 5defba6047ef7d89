"""Takes out of a text what must not stand in a log: keys, signatures, media, the secret part of an address.

The last line of defence, where text leaves the process. The first is not to put such things into messages at all.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

__all__ = ["redact", "redact_values"]

_SHORTEST = 47  # characters of the shortest thing that is cut, twelve words of three letters; addresses aside
_KEPT = 8  # characters of what is cut that stay, so that two lines about one thing can be matched
_PATH_SHARE = 16  # a run with a slash in every so many characters is a path, not base64, where it is one in 64

# Providers put the customer's key into the user part, the path or the query of their nodes' addresses.
_URL = re.compile(
    r"\b(?P<scheme>wss?|https?)://(?:[^\s/@'\"<>]*@)?(?P<host>[^\s/?#'\"<>()\x1b]*)(?P<rest>[^\s'\"<>()\x1b]*)"
)
_BYTES = re.compile(r"\bb(?P<quote>['\"])(?P<body>(?:\\.|(?!(?P=quote))[^\\]){48,})(?P=quote)?")
_HEX = re.compile(r"(?:0x)?[0-9a-fA-F]{64,}")  # a seed, a key, a signature; also a sha256, which nobody misses
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{64,}={0,2}")
_LONG = re.compile(r"\S{300,}")  # base85, and whatever else is as long as a body
_MNEMONIC = re.compile(r"\b(?:[a-z]{3,8} ){11,}[a-z]{3,8}\b")


def redact(text: str) -> str:
    """`text` without secrets.

    Cut are: user part, path, query and fragment of ``ws``, ``wss``, ``http`` and ``https`` addresses; runs of 64 or
    more hexadecimal digits or base64 characters (paths of files stay) and of 300 or more characters without a space;
    byte strings of 48 or more characters; 12 or more words in a row that could be a mnemonic.
    """
    if len(text) < _SHORTEST and "://" not in text:  # nearly every value of a log line
        return text
    text = _URL.sub(_address, text)
    text = _BYTES.sub("<bytes>", text)
    text = _HEX.sub(lambda found: _cut(found[0], "hexadecimal digits"), text)
    text = _BASE64.sub(_unless_path, text)
    text = _LONG.sub(lambda found: _cut(found[0], "characters"), text)
    return _MNEMONIC.sub("<words>", text)


def redact_values(value: Any) -> Any:
    """The same for everything inside dicts and lists; bytes and objects that JSON does not know become text."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"
    if isinstance(value, Mapping):
        return {redact(str(key)): redact_values(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [redact_values(item) for item in value]
    return redact(repr(value))


def _address(found: re.Match[str]) -> str:
    rest = "/***" if found["rest"].strip("/.,;:") else found["rest"]
    return f"{found['scheme']}://{found['host']}{rest}"


def _unless_path(found: re.Match[str]) -> str:
    run = found[0]
    return run if run.count("/") * _PATH_SHARE > len(run) else _cut(run, "characters")


def _cut(run: str, unit: str) -> str:
    start = run[: _KEPT + 2 * run.startswith("0x")]
    return f"{start}...({len(run)} {unit})"
