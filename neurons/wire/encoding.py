"""Transport encodings, bounded: base64, base85 with zlib, and JSON whose size as a tree is known before it is parsed.

Everything a stranger sends goes through here, so each function says what it costs at most and refuses in the wire's
own terms (:class:`~neurons.wire.base.Refusal`), never with an exception of the standard library.
"""

from __future__ import annotations

import binascii
import contextlib
import zlib
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import orjson
from pydantic_core import SchemaValidator, ValidationError, core_schema

from neurons.wire.base import Refusal

__all__ = [
    "MAX_INFLATED",
    "b85_decode",
    "b85_encode",
    "decode_base64",
    "deflate_base85",
    "inflate_base85",
    "parse_object",
]

MAX_INFLATED: Final = 64 * 2**20  # bytes; 144 frames of 450 KB
# zlib looks back 32 KiB, so it only shortens frames that are smaller, and 144 of those (detectors.media's most) have no
# 5 MB. Above this size honest frames hardly shrink, and a bomb is refused before it has cost a tenth of a second.
_FREE_INFLATED: Final = 8 * 2**20
_MAX_RATIO: Final = 16
MAX_VALUES: Final = 4096  # of one JSON body; the largest honest synapse has about fifty
MAX_DEPTH: Final = 8  # a synapse nests twice

_ALPHABET: Final = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~"
_INVALID: Final = 255
_BLOCK: Final = 5 * 2**17  # characters decoded at a time: the working set stays in the cache


_JSON_BASE64: Final = SchemaValidator(core_schema.bytes_schema(), core_schema.CoreConfig(val_json_bytes="base64"))


def _tables() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    letters = np.frombuffer(_ALPHABET, np.uint8)
    values = np.full(256, _INVALID, np.uint8)
    values[letters] = np.arange(85, dtype=np.uint8)
    return letters, values


_LETTERS, _VALUES = _tables()


def b85_decode(text: bytes) -> bytes:
    """Base85 in the alphabet of RFC 1924, as Python's ``base64.b85encode`` writes it, some fifty times as fast.

    Args:
        text: any length; a last group of fewer than five characters stands for fewer than four bytes.

    Raises:
        ValueError: a character outside the alphabet, or a group above 2**32 − 1.
    """
    padding = -len(text) % 5
    if padding:
        text += b"~" * padding
    codes = np.frombuffer(text, np.uint8)
    out = np.empty(len(text) // 5, ">u4")
    for start in range(0, len(codes), _BLOCK):
        digits = _VALUES[codes[start : start + _BLOCK]]
        if (digits == _INVALID).any():
            raise ValueError("a character outside the base85 alphabet")
        groups = digits.reshape(-1, 5)
        # Four digits fit 32 bits; only the fifth can overflow, so only the last step needs 64.
        high = groups[:, 0].astype(np.uint32)
        for column in (1, 2, 3):
            high *= 85
            high += groups[:, column]
        total = high.astype(np.uint64)
        total *= 85
        total += groups[:, 4]
        if total.size and int(total.max()) > 0xFFFFFFFF:
            raise ValueError("a base85 group above 2**32 - 1")
        out[start // 5 : start // 5 + len(total)] = total
    raw = out.tobytes()
    return raw[:-padding] if padding else raw


def b85_encode(data: bytes) -> bytes:
    """The inverse of :func:`b85_decode`, equal to ``base64.b85encode`` without padding."""
    padding = -len(data) % 4
    words = np.frombuffer(data + b"\0" * padding, ">u4").astype(np.uint32)
    digits = np.empty((len(words), 5), np.uint8)
    for column in (4, 3, 2, 1, 0):
        words, digits[:, column] = np.divmod(words, 85)
    text = _LETTERS[digits].tobytes()
    return text[:-padding] if padding else text


def deflate_base85(payload: bytes) -> str:
    """What a validator puts into a video synapse: zlib, then base85."""
    return b85_encode(zlib.compress(payload)).decode("ascii")


def decode_base64(text: str) -> bytes:
    """Strict base64: no line breaks, no foreign characters, padding where it belongs.

    Raises:
        Refusal: 422 ``empty`` or ``encoding``.
    """
    if len(text) % 4 == 0 and "-" not in text and "_" not in text and "\\" not in text:
        # pydantic's decoder is twice as fast as the standard library's. It also takes the URL alphabet, missing
        # padding and JSON escapes, which the line above keeps away; what it refuses, the strict one judges below.
        with contextlib.suppress(ValidationError):
            quick: bytes = _JSON_BASE64.validate_json(f'"{text}"')
            if quick:
                return quick
    try:
        if text.endswith("==="):  # more than there ever is; the strict mode lets it pass after a whole group
            raise ValueError("too much padding")
        raw = binascii.a2b_base64(text, strict_mode=True)
    except ValueError as error:
        raise Refusal(422, "encoding", "the image is not base64") from error
    if not raw:
        raise Refusal(422, "empty", "the image is empty")
    return raw


def inflate_base85(text: str, limit: int = MAX_INFLATED) -> bytes:
    """Undoes base85, then zlib, to at most `limit` bytes: a bomb costs no more memory than that.

    Above 8 MiB it must also have had a sixteenth of that when it came.

    Raises:
        Refusal: 413 ``too_large`` above the limit; 422 ``empty``, ``encoding`` or ``truncated``.
    """
    if not text:
        raise Refusal(422, "empty", "the video is empty")
    try:
        packed = b85_decode(text.encode("ascii"))
    except ValueError as error:
        raise Refusal(422, "encoding", "the video is not base85") from error
    limit = min(limit, max(_FREE_INFLATED, _MAX_RATIO * len(packed)))
    stream = zlib.decompressobj()
    try:
        raw = stream.decompress(packed, limit + 1)
    except zlib.error as error:
        raise Refusal(422, "encoding", "the video is not a zlib stream") from error
    if len(raw) > limit:
        raise Refusal(413, "too_large", f"the video inflates to more than {limit} bytes")
    if not stream.eof:
        raise Refusal(422, "truncated", "the video's zlib stream ends early")
    if stream.unused_data:
        raise Refusal(422, "encoding", "something follows the video's zlib stream")
    if not raw:
        raise Refusal(422, "empty", "the video is empty")
    return raw


def parse_object(body: bytes) -> dict[str, Any]:
    """Parses a JSON object of at most :data:`MAX_VALUES` values, nested at most :data:`MAX_DEPTH` deep.

    A few bytes of JSON can become a hundred times as many in memory (``[[],[],…``). Every value needs a comma, a
    colon or a bracket of its own, so counting those in the raw bytes, media included, bounds the tree before it is
    built. Base64 and base85 contain none of the three that are counted.

    Raises:
        Refusal: 422 ``not_json`` or ``too_complex``.
    """
    if not _holds_at_most(body, MAX_VALUES):
        raise Refusal(422, "too_complex", f"the body holds more than {MAX_VALUES} values")
    try:
        parsed = orjson.loads(body)  # its own recursion is limited, so no depth can hurt it
    except orjson.JSONDecodeError as error:
        raise Refusal(422, "not_json", "the body is not JSON") from error
    if not isinstance(parsed, dict):
        raise Refusal(422, "not_json", "the body is not a JSON object")
    level: list[Any] = [parsed]
    for _ in range(MAX_DEPTH):
        level = [child for node in level for child in _children(node)]
        if not level:
            return parsed
    raise Refusal(422, "too_complex", f"the body is nested more than {MAX_DEPTH} deep")


def _holds_at_most(body: bytes, most: int) -> bool:
    """Whether the marks of values number at most `most`.

    Leaps from one to the next with ``find``: in a body that is nearly all media that is twenty times as fast as
    ``count``, which looks at every byte in turn.
    """
    found = 0
    for mark in (b",", b":", b"["):
        at = body.find(mark)
        while at >= 0:
            found += 1
            if found > most:
                return False
            at = body.find(mark, at + 1)
    return True


def _children(node: Any) -> list[Any]:
    """The containers directly inside `node`."""
    values = node.values() if isinstance(node, dict) else node
    return [value for value in values if isinstance(value, dict | list)]
