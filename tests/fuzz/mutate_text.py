"""Mutations of JSON, YAML and CSV: trees with values that no honest sender writes, and lines out of place."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Sequence
from typing import Any

__all__ = ["csv", "json_text", "lines", "safetensors_header", "tree", "yaml"]

_ATOMS = (
    "null", "true", "0", "-1", "-0", "1e400", "-1e400", "1e-400", "NaN", "Infinity", "-Infinity", '""', "[]", "{}",
    "0.1", "3", "1.0", "9" * 30, "9" * 5000, "-" + "9" * 30, "1" + "0" * 400 + ".5", '"\\ud800"', '"\\udc00\\ud800"',
    '"\\u0000"', '"../../etc/passwd"', '"' + "a" * 5000 + '"', '"\u202e"', "[[]]", '{"": {"": null}}', "[null]",
    '["a", 1]', "[1, 2, 3]", "[0.1, 0.2, 0.7]", "[[0, 0.5], [1, 0.6]]", "01", "+1", "1.", "'x'", "{]", "tru", ",",
)  # fmt: skip


class _Raw:
    """Text that is written as it stands."""

    def __init__(self, text: str) -> None:
        self.text = text


def _nested(rng: random.Random) -> str:
    depth = int(2 ** rng.uniform(1, 17))
    opening, closing = rng.choice((("[", "]"), ('{"a":', "}"), ("[{", "}]")))
    return opening * depth + ("1" if opening != "[{" else "") + closing * rng.choice((depth, 0))


def _dump(node: Any) -> str:
    """JSON of a tree; a list of pairs under a dict's key may repeat keys."""
    if isinstance(node, _Raw):
        return node.text
    if isinstance(node, dict):
        return "{" + ", ".join(f"{json.dumps(key)}: {_dump(value)}" for key, value in node.items()) + "}"
    if isinstance(node, list):
        return "[" + ", ".join(map(_dump, node)) + "]"
    return json.dumps(node)


def tree(rng: random.Random, node: Any) -> Any:
    """The tree with one value replaced, dropped, renamed or moved, anywhere in it."""
    if isinstance(node, dict) and node and rng.random() < 0.8:
        found = dict(node)
        key = rng.choice(list(found))
        draw = rng.random()
        if draw < 0.1:
            del found[key]
        elif draw < 0.15:
            found[rng.choice(("", "x", key + "x", key.upper(), "__proto__", "\ud800"))] = found.pop(key)
        elif draw < 0.2:
            found[rng.choice(list(found))] = found[key]
        else:
            found[key] = tree(rng, found[key])
        return found
    if isinstance(node, list) and node and rng.random() < 0.7:
        listed = list(node)
        at = rng.randrange(len(listed))
        listed[at:at] = [listed[at]] * rng.choice((0, 0, 1, 5, 200))
        listed[at] = tree(rng, listed[at])
        return listed
    return _Raw(_nested(rng)) if rng.random() < 0.05 else _Raw(rng.choice(_ATOMS))


def json_text(rng: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    """One to three values of a JSON document changed; text that is no JSON gets its tokens shuffled."""
    try:
        node = json.loads(data)
        for _ in range(rng.choice((1, 1, 2, 3))):
            node = tree(rng, node)
        text = _dump(node)
    except (ValueError, RecursionError):
        return lines(rng, data, seeds)
    if rng.random() < 0.05:
        text = rng.choice(("\ufeff", " " * 5000, "", "//x\n")) + text + rng.choice(("", "x", "\0", "{}"))
    encoding = "utf-8" if rng.random() < 0.95 else rng.choice(("utf-16", "utf-32", "latin-1"))
    return text.encode(encoding, errors="surrogatepass" if encoding != "latin-1" else "replace")


_YAML_VALUES = (
    "~", "!!python/object/apply:os.system [true]", "!!python/name:os.system", "!!binary '@@'", "!!binary YQ==",
    "!!set {a}",
    "!!int ''", "!!int x", "!!float ''", "!!float _", "!!timestamp x", "!!bool maybe", "!!omap [a]", "!!pairs [1]",
    "!!null x", "2001-99-99", "2001-02-30 25:61:61", "2001-12-14t21:59:43.10-99:99", "0x", "0b", "0o8", "0x_", "0b_",
    "190:20:30", "1:" * 40 + "1", "1_000", "_1", ".inf", "-.inf", ".nan", "1e999", "'", '"', '"\\ud800"', '"\\xff"',
    '"\\UFFFFFFFF"', "&a [*a]", "&a {x: *a}", "*unknown", "<<", "{<<: 1}", "{<<: [1, {a: 2}]}", "{? [a]: b}",
    "{[a]: b}", "{{a: b}: c}", "{a: 1, a: 2}", "? x", "- - -", "|", ">-", "|99", "%", "@", "`", "---", "...", "[", "{",
    "!", "!<", "!e!x", "&", "*", "# only", "\t", "\ufeff", "\x07", "\x85", "9" * 5000, "yes", "NO", "=", "-1", "1e-400",
)  # fmt: skip

_LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9))


def yaml(rng: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    """A value, a key or an indentation of a YAML document changed, or something of YAML's own planted."""
    text = data.decode("utf-8", "replace").split("\n")
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(text))
        line = text[at]
        draw = rng.random()
        if draw < 0.45:
            head, colon, _ = line.partition(":")
            text[at] = f"{head}{colon} {rng.choice(_YAML_VALUES)}"
        elif draw < 0.55:
            text[at] = " " * rng.randrange(6) + line.lstrip()
        elif draw < 0.65:
            text[at:at] = [line] * rng.choice((1, 2, 40))
        elif draw < 0.75:
            del text[at]
            text = text or [""]
        elif draw < 0.85:
            head, colon, tail = line.partition(":")
            text[at] = f"{rng.choice(_YAML_VALUES)}{colon}{tail}"
        elif draw < 0.9:
            text.insert(at, _nested(rng)[:20_000])
        elif draw < 0.92:
            text.insert(
                0, rng.choice((_LAUGHS, "%YAML 9.9\n---", "%TAG ! x\n---", "- " * int(2 ** rng.uniform(1, 12))))
            )
        else:
            text[at] = line[: rng.randrange(len(line) + 1)] + rng.choice("\0\t\x07:{}[]&*!|>'\"%@`,#-?\ud7ff\xa0é")
    return "\n".join(text).encode("utf-8", "surrogatepass")


def csv(rng: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    """Fields replaced, added, dropped; quotes left open; rows repeated."""
    rows = [row.split(",") for row in data.decode("utf-8", "replace").split("\n")]
    for _ in range(rng.choice((1, 1, 2, 4))):
        row = rng.choice(rows)
        at = rng.randrange(len(row)) if row else 0
        draw = rng.randrange(6)
        values = (
            "",
            '"',
            '""',
            '"a\nb"',
            "../x",
            "/etc/passwd",
            "a\0b",
            "REAL",
            "real",
            "a" * 200_000,
            "a.jpg",
            ".",
            "x\ry",
        )
        if draw < 3 and row:
            row[at] = rng.choice(values)
        elif draw == 3:
            row.insert(at, rng.choice(values))
        elif draw == 4 and row:
            del row[at]
        else:
            rows.insert(rng.randrange(len(rows) + 1), list(row))
    return "\n".join(",".join(row) for row in rows).encode("utf-8", "replace")


def lines(rng: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    """Lines dropped, doubled, swapped."""
    found = data.split(b"\n")
    at, to = rng.randrange(len(found)), rng.randrange(len(found))
    found[at], found[to] = found[to], found[at] * rng.choice((1, 1, 2, 9))
    return b"\n".join(found)


def safetensors_header(rng: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    """The JSON at the head of a safetensors file changed and its length put right, or the length alone changed."""
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or size > len(data) - 8:
        return data
    if rng.random() < 0.2:
        wrong = rng.choice((0, 1, size - 1, size + 1, len(data), 1 << 27, (1 << 63) - 1, (1 << 64) - 1))
        return struct.pack("<Q", wrong) + data[8:]
    header = json_text(rng, data[8 : 8 + size], seeds)
    if rng.random() < 0.3:
        kinds = (
            b"BF16",
            b"F16",
            b"I64",
            b"BOOL",
            b"F8_E4M3",
            b"F8_E5M2",
            b"U64",
            b"C64",
            b"F4",
            b"F8_E8M0",
            b"F6_E2M3",
        )
        header = header.replace(b'"F32"', b'"' + rng.choice(kinds) + b'"', 1)
    return struct.pack("<Q", len(header)) + header + data[8 + size :]
