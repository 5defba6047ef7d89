from __future__ import annotations

import base64
import os
import timeit
import tracemalloc
import zlib

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from neurons.wire.base import Refusal
from neurons.wire.encoding import (
    MAX_VALUES,
    b85_decode,
    b85_encode,
    decode_base64,
    deflate_base85,
    inflate_base85,
    parse_object,
)

ALPHABET = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~"


@given(st.binary(max_size=300))
def test_base85_equals_the_standard_library(raw: bytes) -> None:
    assert b85_encode(raw) == base64.b85encode(raw)
    assert b85_decode(base64.b85encode(raw)) == raw


@settings(max_examples=500)
@given(st.binary(max_size=24) | st.lists(st.sampled_from(list(ALPHABET)), max_size=24).map(bytes))
@example(b"~")
@example(b"|NsC0")  # 2**32 - 1
@example(b"|NsC1")  # 2**32
@example(b"~~~~~")
@example(b"|NsC00000|NsC1")
@example(b"abc de")
@example(b"abcd\xff")
def test_base85_takes_and_refuses_what_the_standard_library_does(text: bytes) -> None:
    try:
        expected = base64.b85decode(text)
    except ValueError:
        with pytest.raises(ValueError, match="base85"):
            b85_decode(text)
    else:
        assert b85_decode(text) == expected


@pytest.mark.parametrize("size", [5 * 2**17 - 5, 5 * 2**17, 5 * 2**17 + 3])
def test_base85_over_several_blocks(size: int) -> None:
    raw = (bytes(range(256)) * (size // 256 + 1))[: size * 4 // 5]
    assert b85_decode(base64.b85encode(raw)) == raw


def test_base85_overflow_in_a_later_block_is_found() -> None:
    with pytest.raises(ValueError, match="2\\*\\*32"):
        b85_decode(b"0" * (5 * 2**17) + b"~~~~~")


def test_base85_is_fast() -> None:
    text = base64.b85encode(bytes(range(256)) * 4096)
    assert min(timeit.repeat(lambda: b85_decode(text), number=1, repeat=5)) < 0.05  # 1 MiB; the library takes 0.08


@given(st.binary(min_size=1, max_size=300))
def test_base64_round_trip(raw: bytes) -> None:
    assert decode_base64(base64.b64encode(raw).decode("ascii")) == raw


@pytest.mark.parametrize(
    "text", ["A", "AB", "ABC", "AB==CD==", "=", "QUJD====", "QU JD", "QU-_", "QUJD\n", "é", "\ud800"]
)
def test_broken_base64_is_refused(text: str) -> None:
    with pytest.raises(Refusal, match="422 encoding"):
        decode_base64(text)


@given(st.binary(min_size=1, max_size=2000))
def test_inflate_round_trip(raw: bytes) -> None:
    assert inflate_base85(deflate_base85(raw)) == raw


@given(st.text(max_size=50))
def test_any_text_is_inflated_or_refused(text: str) -> None:
    try:
        expected = zlib.decompress(base64.b85decode(text))
    except (ValueError, zlib.error):
        expected = b""
    if expected:
        assert inflate_base85(text) == expected
    else:
        with pytest.raises(Refusal, match="422"):
            inflate_base85(text)


def packed(raw: bytes) -> str:
    return base64.b85encode(raw).decode("ascii")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "422 empty"),
        ("a b", "422 encoding: the video is not base85"),
        ("é", "422 encoding: the video is not base85"),
        (packed(b"no zlib"), "422 encoding: the video is not a zlib"),
        (packed(zlib.compress(b"x" * 99)[:-1]), "422 truncated"),
        (packed(zlib.compress(b"x" * 99)[:5]), "422 truncated"),
        (packed(zlib.compress(b"x") + b"more"), "422 encoding: something follows"),
        (packed(zlib.compress(b"")), "422 empty"),
        (packed(zlib.compress(bytes(1001))), "413 too_large"),
    ],
)
def test_broken_video_is_refused(text: str, expected: str) -> None:
    with pytest.raises(Refusal, match=expected):
        inflate_base85(text, limit=1000)


def test_a_small_body_does_not_become_the_largest_video() -> None:
    """64 MiB out of 80 KB of text kept the processor busy for a fifth of a second, within every limit there was."""
    bomb = packed(zlib.compress(bytes(60 * 2**20)))
    with pytest.raises(Refusal, match=f"413 too_large: the video inflates to more than {8 * 2**20} bytes"):
        inflate_base85(bomb)
    still = os.urandom(32_000) * 144  # the longest clip of one frame, in which zlib finds all it can
    assert len(deflate_base85(still)) * 20 < len(still)
    assert inflate_base85(deflate_base85(still)) == still
    moving = os.urandom(9 * 2**20)
    assert inflate_base85(packed(zlib.compress(moving, 1))) == moving


def test_zlib_bomb_costs_no_more_than_the_limit() -> None:
    bomb = packed(zlib.compress(bytes(200 * 2**20)))
    tracemalloc.start()
    try:
        with pytest.raises(Refusal, match="413"):
            inflate_base85(bomb, limit=2**20)
        assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    finally:
        tracemalloc.stop()


def test_json_tree_is_bounded_before_it_is_built() -> None:
    body = b'{"x":[' + b"[]," * 500_000 + b"[]]}"
    tracemalloc.start()
    try:
        with pytest.raises(Refusal, match="too_complex"):
            parse_object(body)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("depth", [1, 7, 8])
def test_json_depth_that_is_allowed(depth: int) -> None:
    parse_object(b'{"a":' * depth + b"1" + b"}" * depth)


@pytest.mark.parametrize("depth", [9, 100, 1000, MAX_VALUES - 1, 1_000_000])
def test_json_depth_that_is_not(depth: int) -> None:
    with pytest.raises(Refusal, match="422"):
        parse_object(b'{"a":' * depth + b"1" + b"}" * depth)


def test_media_may_contain_every_letter_of_its_alphabet() -> None:
    text = (ALPHABET * 2000).decode("ascii")
    assert parse_object(b'{"video":"' + text.encode() + b'"}') == {"video": text}
