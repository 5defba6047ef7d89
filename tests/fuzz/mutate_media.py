"""Mutations that know how images and videos are built, so that they reach what lies behind the first check."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Iterator, Sequence

__all__ = ["boxes", "jpeg", "png", "riff"]

_SIDES = (0, 1, 7, 8, 255, 256, 2000, 4096, 16383, 16384, 65535)


def _segments(data: bytes) -> list[bytes]:
    """A JPEG in pieces: SOI, then each segment (a scan with its entropy-coded data), in order."""
    pieces = [data[:2]]
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        code = data[at + 1]
        if code == 0xD9:
            break
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if code == 0xDA:
            while end + 1 < len(data) and not (data[end] == 0xFF and data[end + 1] not in (0, *range(0xD0, 0xD8))):
                end += 1
        if end <= at:
            break
        pieces.append(data[at:end])
        at = end
    return [*pieces, data[at:]]


def jpeg(rng: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    """Segments dropped, doubled, swapped, lengths and sizes tampered with, markers and thumbnails planted."""
    pieces = _segments(data)
    at = rng.randrange(len(pieces))
    draw = rng.randrange(9)
    if draw == 0:
        pieces.insert(at, pieces[at])
    elif draw == 1:
        del pieces[at]
    elif draw == 2:
        to = rng.randrange(len(pieces))
        pieces[at], pieces[to] = pieces[to], pieces[at]
    elif draw == 3 and len(pieces[at]) >= 4:
        size = rng.choice((0, 1, 2, len(pieces[at]) - 1, len(pieces[at]) - 3, 0xFFFF, rng.randrange(1 << 16)))
        pieces[at] = pieces[at][:2] + struct.pack(">H", size & 0xFFFF) + pieces[at][4:]
    elif draw == 4:
        pieces = [_resized(rng, piece) for piece in pieces]
    elif draw == 5:
        code = rng.randrange(1, 0xFF)
        pieces.insert(at, bytes((0xFF, code)) + rng.choice((b"", b"\0\2", b"\0\1", rng.randbytes(6))))
    elif draw == 6:
        thumbnail = rng.choice(seeds)[:60_000] if seeds else b"\xff\xd8\xff\xd9"
        pieces.insert(1, b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail)
    elif draw == 7:
        scans = [piece for piece in pieces if piece[:2] == b"\xff\xda"]
        if scans:
            pieces[-1:-1] = [rng.choice(scans)] * rng.choice((1, 8, 39, 40, 41, 300))
    else:
        pieces.insert(at, rng.choice((b"\xff\xd8", b"\xff\xd9", b"\xff\xd0", b"\xff" * 40, bytes(40))))
    return b"".join(pieces)


def _resized(rng: random.Random, piece: bytes) -> bytes:
    if len(piece) < 9 or piece[0] != 0xFF or piece[1] not in (0xC0, 0xC1, 0xC2):
        return piece
    return piece[:5] + struct.pack(">HH", rng.choice(_SIDES), rng.choice(_SIDES)) + piece[9:]


def _chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """A PNG's chunks as (kind, body)."""
    found = []
    at = 8
    while at + 12 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        if size > len(data):
            break
        found.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + size]))
        at += 12 + size
    return found


def png(rng: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    """Chunks dropped, doubled, altered inside, sizes and zlib streams tampered with; the checksums hold again."""
    chunks = _chunks(data)
    if not chunks or not data.startswith(b"\x89PNG"):
        return data
    at = rng.randrange(len(chunks))
    kind, body = chunks[at]
    draw = rng.randrange(7)
    if draw == 0:
        chunks.insert(rng.randrange(len(chunks) + 1), chunks[at])
    elif draw == 1:
        del chunks[at]
    elif draw == 2 and body:
        where = rng.randrange(len(body))
        chunks[at] = (kind, body[:where] + rng.randbytes(rng.randint(0, 3)) + body[where + 1 :])
    elif draw == 3 and chunks[0][0] == b"IHDR":
        size = struct.pack(">II", rng.choice(_SIDES), rng.choice(_SIDES))
        chunks[0] = (b"IHDR", size + bytes((rng.choice((1, 2, 4, 8, 16, 3)), rng.choice((0, 2, 3, 4, 6, 1)), 0, 0, 0)))
    elif draw == 4:
        bomb = zlib.compress(bytes(rng.choice((1, 1 << 16, 1 << 24))))
        text = rng.choice((b"zTXt", b"iCCP", b"iTXt", b"IDAT"))
        head = b"" if text == b"IDAT" else b"x\0\0" if text != b"iTXt" else b"x\0\1\0\0\0"
        chunks.insert(1, (text, head + bomb))
    elif draw == 5:
        chunks.insert(
            1, (rng.choice((b"acTL", b"fcTL", b"fdAT", b"tRNS", b"PLTE", b"eXIf", b"cHRM")), rng.randbytes(26))
        )
    else:
        rng.shuffle(chunks)
    pieces = (struct.pack(">I", len(b)) + k + b + struct.pack(">I", zlib.crc32(k + b)) for k, b in chunks)
    return data[:8] + b"".join(pieces)


def riff(rng: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    """A WebP's or AVI's chunks dropped, doubled, altered; the outer length holds again, mostly."""
    if data[:4] != b"RIFF":
        return data
    chunks = []
    at = 12
    while at + 8 <= len(data):
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        chunks.append(bytearray(data[at : at + 8 + size + size % 2]))
        at += 8 + size + size % 2
    if not chunks:
        return data
    at = rng.randrange(len(chunks))
    draw = rng.randrange(5)
    if draw == 0:
        chunks.insert(rng.randrange(len(chunks) + 1), chunks[at])
    elif draw == 1:
        del chunks[at]
    elif draw == 2:
        chunks[at][4:8] = rng.choice((b"\0\0\0\0", b"\xff\xff\xff\xff", rng.randbytes(4)))
    elif draw == 3 and len(chunks[at]) > 18:
        chunks[at][12:18] = rng.choice((b"\xff" * 6, bytes(6), rng.randbytes(6)))  # where VP8X keeps its canvas
    else:
        rng.shuffle(chunks)
    body = data[8:12] + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body) if rng.random() < 0.9 else rng.randrange(1 << 32)) + body


_PARENTS = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"dinf", b"udta", b"meta")


def _walk(data: bytes, start: int, end: int) -> Iterator[tuple[int, int, bytes]]:
    """(offset, size, kind) of an MP4's boxes, parents before children."""
    at = start
    while at + 8 <= end:
        size = int.from_bytes(data[at : at + 4], "big")
        if size < 8 or at + size > end:
            return
        kind = data[at + 4 : at + 8]
        yield at, size, kind
        if kind in _PARENTS:
            yield from _walk(data, at + 8, at + size)
        at += size


def boxes(rng: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    """An MP4's boxes doubled, dropped, renamed, their sizes and the numbers of their tables tampered with."""
    found = list(_walk(data, 0, len(data)))
    if not found:
        return data
    at, size, kind = rng.choice(found)
    out = bytearray(data)
    draw = rng.randrange(6)
    if draw == 0:
        out[at:at] = data[at : at + size] * rng.choice((1, 2, 50))
    elif draw == 1:
        del out[at : at + size]
    elif draw == 2:
        out[at : at + 4] = struct.pack(
            ">I", rng.choice((0, 1, 7, 8, size - 1, size + 1, size + 8, 0x7FFFFFFF, 0xFFFFFFFF))
        )
    elif draw == 3:
        out[at + 4 : at + 8] = rng.choice(
            (b"free", b"moov", b"trak", b"stsd", b"dref", b"cmov", rng.randbytes(4), kind)
        )
    elif size >= 16:
        for _ in range(rng.randint(1, 3)):  # entry counts, sample sizes, offsets, durations, widths and heights
            where = at + 8 + 4 * rng.randrange((size - 8) // 4)
            value = rng.choice((0, 1, 2, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, rng.randrange(1 << 32)))
            struct.pack_into(">I", out, where, value)
    return bytes(out)
