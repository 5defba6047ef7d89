"""Thumbnails: small, bounded, and never in the way of who offers them."""

from __future__ import annotations

import io
import threading
import weakref

import numpy as np
import pytest
from PIL import Image

from detectors.types import U8, Media
from neurons import thumbnails as module
from neurons.thumbnails import MOST_WAITING, SIDE, Thumbnails, shrink
from tests.detectors.fixtures_media import photo


@pytest.fixture
def kept() -> Thumbnails:
    return Thumbnails(3)


def grey(level: int, height: int = 40, width: int = 60) -> Media:
    return Media(np.full((height, width, 3), level, np.uint8))


def level_of(jpeg: bytes | None) -> int:
    assert jpeg is not None
    return int(np.asarray(Image.open(io.BytesIO(jpeg))).mean().round())


def held_shrink(monkeypatch: pytest.MonkeyPatch) -> tuple[threading.Event, threading.Event]:
    """Lets the thread wait inside a shrink; (it has begun, it may go on)."""
    began, go = threading.Event(), threading.Event()

    def held(pixels: U8) -> U8:
        began.set()
        assert go.wait(10)
        return shrink(pixels)

    monkeypatch.setattr(module, "shrink", held)
    return began, go


@pytest.mark.parametrize(
    ("height", "width", "shape"), [(480, 640, (120, 160)), (4000, 125, (160, 5)), (40, 60, (40, 60))]
)
def test_the_longest_side_is_bounded_and_nothing_grows(height: int, width: int, shape: tuple[int, int]) -> None:
    small = shrink(photo(height, width))
    assert small.shape == (*shape, 3)
    assert max(small.shape) <= SIDE


def test_a_small_picture_is_copied_not_referred_to() -> None:
    pixels = photo(20, 20)
    assert not np.shares_memory(shrink(pixels), pixels)


def test_of_a_video_the_middle_frame_is_kept(kept: Thumbnails) -> None:
    frames = np.stack([np.full((32, 32, 3), level, np.uint8) for level in (10, 120, 240)])
    kept.offer("v", Media(frames))
    assert kept.settle()
    assert level_of(kept.jpeg("v")) == pytest.approx(120, abs=2)


def test_only_the_last_are_kept(kept: Thumbnails) -> None:
    for k in range(5):
        kept.offer(str(k), grey(40 * k))
        assert kept.settle()
    assert [kept.has(str(k)) for k in range(5)] == [False, False, True, True, True]
    assert kept.jpeg("0") is None
    assert level_of(kept.jpeg("4")) == pytest.approx(160, abs=2)


def test_pixels_give_way_to_the_jpeg_once_it_was_looked_at(kept: Thumbnails) -> None:
    kept.offer("a", Media(photo(160, 160)))
    assert kept.settle()
    assert kept.held_bytes() == 160 * 160 * 3
    first = kept.jpeg("a")
    assert first is not None
    assert kept.held_bytes() == len(first)
    assert kept.jpeg("a") is first


def test_nothing_keeps_the_media_alive_afterwards(kept: Thumbnails) -> None:
    pixels = photo(300, 300)
    gone = weakref.ref(pixels)
    kept.offer("a", Media(pixels))
    assert kept.settle()
    del pixels
    assert gone() is None


def test_what_comes_too_fast_is_dropped_at_once(monkeypatch: pytest.MonkeyPatch, kept: Thumbnails) -> None:
    """The thread is held inside a shrink; whoever offers is not."""
    began, go = held_shrink(monkeypatch)
    kept.offer("first", grey(0))
    assert began.wait(10)
    for k in range(MOST_WAITING + 5):
        kept.offer(str(k), grey(1))
    assert kept.dropped == 5
    go.set()
    assert kept.settle(10)
    assert kept.held_bytes() == 3 * 40 * 60 * 3


def test_what_waits_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch, kept: Thumbnails) -> None:
    monkeypatch.setattr(module, "MOST_WAITING_BYTES", 10_000)
    began, go = held_shrink(monkeypatch)
    kept.offer("large", grey(0, 200, 200))  # alone, so it is taken
    assert began.wait(10)
    kept.offer("small", grey(0, 8, 8))
    assert kept.dropped == 1
    go.set()
    assert kept.settle(10)
    kept.offer("small", grey(0, 8, 8))
    assert kept.settle(10)
    assert kept.has("small")


def test_a_picture_that_cannot_be_shrunk_takes_no_other_with_it(
    monkeypatch: pytest.MonkeyPatch, kept: Thumbnails
) -> None:
    monkeypatch.setattr(module, "shrink", lambda pixels: (_ for _ in ()).throw(MemoryError))
    kept.offer("bad", grey(0))
    assert kept.settle()
    monkeypatch.undo()
    kept.offer("good", grey(9))
    assert kept.settle()
    assert not kept.has("bad")
    assert kept.has("good")


def test_none_wanted_means_no_pixels_and_no_thread() -> None:
    before = threading.active_count()
    none = Thumbnails(0)
    none.offer("a", grey(1))
    assert threading.active_count() == before
    assert none.held_bytes() == 0
    assert none.jpeg("a") is None


def test_closing_lets_go_of_everything(kept: Thumbnails) -> None:
    kept.offer("a", grey(1))
    assert kept.settle()
    kept.close()
    kept.offer("b", grey(1))
    assert kept.held_bytes() == 0
    assert kept.jpeg("a") is None
