"""Mutations of bytes that know nothing of their meaning: flips, cuts, splices, tampered lengths, repeated blocks."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Sequence

__all__ = ["blind", "havoc", "mixed", "pick"]

Mutator = Callable[[random.Random, bytes, Sequence[bytes]], bytes]

_EXTREMES = (0, 1, 2, 7, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_FORMATS = (">H", "<H", ">I", "<I", ">Q", "<Q")


def pick(rng: random.Random, size: int) -> int:
    """A position; every second time near the start, where headers are."""
    return rng.randrange(min(size, 256)) if rng.random() < 0.5 else rng.randrange(size)


def blind(rng: random.Random, _data: bytes = b"", _seeds: Sequence[bytes] = ()) -> bytes:
    """Bytes without any structure, mostly short."""
    return rng.randbytes(int(2 ** rng.uniform(0, 12)) - 1)


def _flip(rng: random.Random, data: bytearray) -> None:
    data[pick(rng, len(data))] ^= 1 << rng.randrange(8)


def _poke(rng: random.Random, data: bytearray) -> None:
    data[pick(rng, len(data))] = rng.choice((0, 1, 0x7F, 0x80, 0xFE, 0xFF, rng.randrange(256)))


def _cut(rng: random.Random, data: bytearray) -> None:
    at = pick(rng, len(data))
    del data[at : at + int(2 ** rng.uniform(0, 8))]


def _truncate(rng: random.Random, data: bytearray) -> None:
    del data[rng.randrange(len(data)) :]


def _insert(rng: random.Random, data: bytearray) -> None:
    at = pick(rng, len(data) + 1)
    size = rng.randint(1, 16)
    data[at:at] = rng.choice((bytes(size), b"\xff" * size, rng.randbytes(size)))


def _length(rng: random.Random, data: bytearray) -> None:
    """An extreme number, or one a little off what stands there, where a length field may be."""
    kind = rng.choice(_FORMATS)
    width = struct.calcsize(kind)
    if len(data) < width:
        return
    at = pick(rng, len(data) - width + 1)
    top = (1 << 8 * width) - 1
    now = int(struct.unpack_from(kind, data, at)[0])
    value = rng.choice((rng.choice(_EXTREMES), now + rng.choice((-8, -2, -1, 1, 2, 8)), len(data), top - now))
    struct.pack_into(kind, data, at, value & top)


def _repeat(rng: random.Random, data: bytearray) -> None:
    at = pick(rng, len(data))
    block = bytes(data[at : at + int(2 ** rng.uniform(0, 8))])
    data[at:at] = block * rng.choice((1, 1, 2, 8, 64))


def _move(rng: random.Random, data: bytearray) -> None:
    start, to, size = pick(rng, len(data)), pick(rng, len(data)), rng.randint(1, 64)
    data[to : to + size] = data[start : start + size]


_OPERATIONS = (_flip, _flip, _poke, _poke, _cut, _truncate, _insert, _length, _length, _repeat, _move)


def havoc(rng: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    """One to eight of the above, and sometimes the tail of another seed."""
    found = bytearray(data)
    if seeds and rng.random() < 0.1:
        other = rng.choice(seeds)
        found[rng.randrange(len(found) + 1) :] = other[rng.randrange(len(other) + 1) :]
    for _ in range(rng.choice((1, 1, 2, 3, 5, 8))):
        if not found:
            return bytes(found)
        rng.choice(_OPERATIONS)(rng, found)
    return bytes(found)


def mixed(*aware: Mutator, share: float = 0.5) -> Mutator:
    """Structure-aware mutations for `share` of the inputs, bytes for the others, and 2 % without any structure."""

    def mutate(rng: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
        draw = rng.random()
        if draw < 0.02:
            return blind(rng)
        if aware and draw < 0.02 + share:
            data = rng.choice(aware)(rng, data, seeds)
            return data if rng.random() < 0.7 else havoc(rng, data, seeds)
        return havoc(rng, data, seeds)

    return mutate
