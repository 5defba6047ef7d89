from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from detectors import media
from detectors.hub.near import DISTANCE, groups, near_pairs, phash
from tests.detectors.hub.local import parts


def bits(a: int | None, b: int | None) -> int:
    assert a is not None
    assert b is not None
    return (a ^ b).bit_count()


def test_the_hash_survives_scaling_and_compression_and_tells_pictures_apart() -> None:
    pictures = parts(12, 160)
    hashes = [phash(picture) for picture in pictures]
    moved = []
    for picture, code in zip(pictures, hashes, strict=True):
        small = np.asarray(Image.fromarray(picture).resize((96, 96), Image.Resampling.BILINEAR))
        moved.append(bits(code, phash(media.decode_image(media.encode_jpeg(small, quality=75)).pixels)))
    assert np.mean(np.array(moved) <= DISTANCE) > 0.9, moved
    apart = [bits(hashes[i], hashes[j]) for i in range(12) for j in range(i)]
    assert min(apart) > DISTANCE


def test_a_flat_picture_has_no_hash() -> None:
    noise = np.random.default_rng(0).integers(126, 130, (64, 64, 3), dtype=np.uint8)
    assert phash(np.zeros((64, 64, 3), np.uint8)) is None
    assert phash(noise) is None


@given(
    st.lists(st.integers(0, 2**64 - 1), max_size=6),
    st.lists(st.tuples(st.integers(0, 5), st.lists(st.integers(0, 63), max_size=6)), max_size=12),
    st.integers(0, 8),
)
def test_the_pairs_are_exactly_those_within_the_distance(
    seeds: list[int], flips: list[tuple[int, list[int]]], distance: int
) -> None:
    hashes = list(seeds)
    for which, where in flips:  # near ones are rare among random numbers, so they are made
        if seeds:
            hashes.append(seeds[which % len(seeds)] ^ sum(1 << bit for bit in set(where)))
    expected = [
        (i, j) for i in range(len(hashes)) for j in range(i + 1, len(hashes)) if bits(hashes[i], hashes[j]) <= distance
    ]
    assert near_pairs(hashes, distance) == expected


def test_a_distance_that_the_bands_do_not_cover_is_refused() -> None:
    with pytest.raises(ValueError, match="distance"):
        near_pairs([1], 16)


def test_a_crowded_band_is_compared_in_chunks() -> None:
    rng = np.random.default_rng(3)
    upper = rng.integers(0, 2**20, 2600).astype(np.uint64)
    hashes = [int(value) << 13 for value in np.unique(upper)]  # all agree in the lowest band
    values = np.array(hashes, np.uint64)
    close = np.bitwise_count(values[:, None] ^ values[None, :]) <= 2
    expected = [(i, j) for i, j in np.argwhere(close).tolist() if i < j]
    assert len(hashes) > 2500
    assert near_pairs(hashes, 2) == expected


def test_copies_cost_no_pairs() -> None:
    assert groups(50_000, [7] * 50_000) == [0] * 50_000


def test_groups_join_over_steps_and_by_identity() -> None:
    #                0    1 near 0  2 near 1  3 none 4 far      5
    hashes = [0, 0b1111, 0b11111111, None, 0xFFFF << 40, None]
    assert groups(6, hashes) == [0, 0, 0, 3, 4, 5]
    assert groups(6, hashes, [[None, "a", None, "b", "a", "b"]]) == [0, 0, 0, 3, 0, 3]
    assert groups(0, []) == []
