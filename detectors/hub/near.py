"""Near duplicates: a perceptual hash of every picture, and the groups of those that lie close together.

The hash is the DCT hash of Zauner (2010, "Implementation and benchmarking of perceptual image hash functions", 3.2.1):
the sign of the 64 lowest frequencies of a 32 x 32 thumbnail against their median.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

import cv2
import numpy as np
import numpy.typing as npt
from scipy.fft import dctn

from detectors.types import U8

__all__ = ["DISTANCE", "groups", "near_pairs", "phash"]

DISTANCE = 4
"""Of 64 bits: at most so many differ between near duplicates. Re-encoding and scaling mostly move fewer."""

_SIDE = 32
_KEPT = 8
_FLAT = 3.0  # grey levels of standard deviation below which the hash is of noise
_CHUNK = 2048


def phash(picture: U8) -> int | None:
    """The 64-bit hash of RGB ``uint8 [H, W, 3]``; None for a picture that is flat, whose hash would say nothing."""
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    small = np.asarray(cv2.resize(grey, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA), np.float64)
    if small.std() < _FLAT:
        return None
    low = np.asarray(dctn(small, norm="ortho"))[:_KEPT, :_KEPT].ravel()
    return int.from_bytes(np.packbits(low > np.median(low)).tobytes(), "big")


def near_pairs(hashes: Sequence[int], distance: int = DISTANCE) -> list[tuple[int, int]]:
    """All pairs (i, j), i < j, of 64-bit hashes that differ in at most `distance` bits, sorted.

    Cut into distance + 1 bands, two such hashes agree in at least one of them (pigeonhole), so that only hashes with
    an equal band are compared: the result is exact, the cost far below all pairs.

    Raises:
        ValueError: the distance is outside [0, 15].
    """
    if not 0 <= distance <= 15:
        raise ValueError(f"distance must be in [0, 15], not {distance}")
    values = np.array(hashes, np.uint64)
    edges = np.linspace(0, 64, distance + 2).astype(int)
    found: set[tuple[int, int]] = set()
    for low, high in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        band = (values >> np.uint64(low)) & np.uint64((1 << (high - low)) - 1)
        order = np.argsort(band, kind="stable")
        starts = np.flatnonzero(np.diff(band[order], prepend=band[order][:1] + np.uint64(1)))
        for members in np.split(order, starts[1:]) if len(order) else []:
            if len(members) > 1:
                found.update(_within(values, np.sort(members), distance))
    return sorted(found)


def groups(count: int, hashes: Sequence[int | None], identities: Iterable[Sequence[Hashable]] = ()) -> list[int]:
    """The group of each of `count` items: the smallest index in it.

    Args:
        count: of items.
        hashes: one an item; items without stand alone.
        identities: any number of sequences with one value an item; items with equal values that are not None belong
            together (the same prompt, the same video).
    """
    parent = list(range(count))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    def join(i: int, j: int) -> None:
        a, b = sorted((root(i), root(j)))
        parent[b] = a

    for identity in identities:
        first: dict[Hashable, int] = {}
        for index, value in enumerate(identity):
            if value is not None:
                join(first.setdefault(value, index), index)
    equal: dict[int, int] = {}  # so that a thousand copies of a picture are not half a million pairs
    for index, value in enumerate(hashes):
        if value is not None:
            join(equal.setdefault(value, index), index)
    distinct = list(equal)
    for a, b in near_pairs(distinct):
        join(equal[distinct[a]], equal[distinct[b]])
    return [root(i) for i in range(count)]


def _within(values: npt.NDArray[np.uint64], members: npt.NDArray[np.intp], distance: int) -> list[tuple[int, int]]:
    """Pairs among a bucket's members (ascending indices), compared in chunks to bound memory."""
    pairs: list[tuple[int, int]] = []
    for start in range(0, len(members), _CHUNK):
        part = members[start : start + _CHUNK]
        for other in range(start, len(members), _CHUNK):
            against = members[other : other + _CHUNK]
            close = np.bitwise_count(values[part][:, None] ^ values[against][None, :]) <= distance
            rows, columns = np.nonzero(close)
            left, right = part[rows], against[columns]
            keep = left < right
            pairs += zip(left[keep].tolist(), right[keep].tolist(), strict=True)
    return pairs
