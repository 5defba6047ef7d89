"""Streaming: lazily, in order, bounded, and nothing that one file or one answer can break."""

from __future__ import annotations

import dataclasses
import threading
import time
import tracemalloc
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detectors import media
from detectors.datasets import Dataset, Item
from detectors.evaluation.judges import DetectorJudge, load
from detectors.evaluation.run import at_most, score, score_grid
from detectors.evaluation.scores import Answer, Scores, digest, read_dump
from detectors.evaluation.views import Cell, View, Views, key_of
from tests.detectors.evaluation.made_scores import Brightness, write_files


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_files(tmp_path_factory.mktemp("pool"))


def judge() -> DetectorJudge:
    return DetectorJudge("brightness", Brightness())


def test_every_view_is_scored_once_and_what_is_broken_is_counted(pool: Dataset) -> None:
    found = score([judge()], pool, Views(pool.origin, "0"), number=2)
    scores = found.scores["brightness"]
    assert sorted(found.unusable) == ["real/one/broken.jpg", "synthetic/clips/broken.mp4"]
    assert len(scores) == 2 * (len(pool) - 2)
    assert scores.keys.tolist() == [
        digest(f"{key_of(i, pool.origin)}#{k}") for i in pool if "broken" not in i.path.name for k in (0, 1)
    ]
    assert scores.video.sum() == 4
    first = Views(pool.origin, "0").view(pool[0])
    assert isinstance(first, View)
    assert scores.p_fake[0] == pytest.approx(first.media.pixels.mean() / 255)
    assert scores.experts["mean"].tolist() == pytest.approx(scores.p_fake.tolist())
    assert found.milliseconds["brightness"] > 0


def test_threads_and_chunks_change_nothing(pool: Dataset) -> None:
    views = Views(pool.origin, "mix-2.0", 3)
    one, four = (score([judge()], pool, views, workers=w).scores["brightness"] for w in (1, 4))
    np.testing.assert_array_equal(one.probabilities, four.probabilities)
    np.testing.assert_array_equal(one.keys, four.keys)
    backwards = score([judge()], list(pool)[::-1], views).scores["brightness"]
    np.testing.assert_array_equal(one.probabilities, backwards.probabilities[::-1])


def test_a_detector_that_fails_on_one_view_answers_the_others(pool: Dataset, tmp_path: Path) -> None:
    black = tmp_path / "black.png"
    black.write_bytes(media.encode_jpeg(np.zeros((64, 64, 3), np.uint8)))
    items = [pool[3], dataclasses.replace(pool[3], path=black), pool[4]]
    scores = score([judge()], items, Views(pool.origin, "0")).scores["brightness"]
    assert scores.answered.tolist() == [True, False, True]


class Endless:
    """Items made when asked for; knows how many were asked for before the judge saw the earlier ones."""

    def __init__(self, item: Item, count: int) -> None:
        self.item, self.count = item, count
        self.given = self.judged = self.ahead = 0
        self.lock = threading.Lock()

    def __iter__(self) -> Iterator[Item]:
        for _ in range(self.count):
            with self.lock:
                self.given += 1
                self.ahead = max(self.ahead, self.given - self.judged)
            yield self.item

    name = "endless"
    about: Mapping[str, Any] = {}

    def answers(self, views: Sequence[View]) -> list[Answer]:
        time.sleep(0.001)
        self.judged += len(views)
        return [Answer((1.0, 0.0, 0.0))] * len(views)

    def finish(self, scores: Scores) -> Scores:
        return scores


def test_items_are_taken_lazily_and_memory_does_not_grow_with_their_number(pool: Dataset) -> None:
    peaks = []
    for count in (50, 600):
        endless = Endless(pool[3], count)
        tracemalloc.start()
        score([endless], endless, Views(pool.origin, "0"), workers=2)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert endless.judged == count
        assert endless.ahead <= 16 + 2 * 2 + 1  # a chunk and what the threads hold
    assert peaks[1] - peaks[0] < 10e6  # the pixels of 550 views are 108 MB


def test_a_failing_judge_ends_the_run_and_its_threads(pool: Dataset) -> None:
    class Broken(Endless):
        def answers(self, views: Sequence[View]) -> list[Answer]:
            raise RuntimeError("out of memory")

    before = threading.active_count()
    broken = Broken(pool[3], 10_000)
    with pytest.raises(RuntimeError, match="out of memory"):
        score([broken], broken, Views(pool.origin, "0"))
    assert broken.given < 100
    assert threading.active_count() == before


def test_predictions_are_streamed_and_late_answers_reach_the_file(pool: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    judges = [judge(), load("format-probe")]
    found = score(judges, pool, Views(pool.origin, "none"), predictions=path, number=1)
    dumped = read_dump(path)
    for name, scores in found.scores.items():
        np.testing.assert_array_equal(dumped[name].probabilities, scores.probabilities)
        np.testing.assert_array_equal(dumped[name].keys, scores.keys)
    assert found.scores["format-probe"].answered.any()
    assert [p.name for p in tmp_path.iterdir()] == ["p.jsonl"]


def test_the_grid_scores_every_item_in_every_cell(pool: Dataset) -> None:
    cells = (Cell(1.0, 75, 0.0, 0.0), Cell(0.5, 50, 1.5, 8.0))
    found = score_grid([judge()], pool, Views(pool.origin), cells=cells)["brightness"]
    assert {name: len(scores) for name, scores in found.items()} == {c.name: len(pool) - 2 for c in cells}
    one, two = (found[c.name] for c in cells)
    assert one.keys.tolist() == two.keys.tolist()
    assert 0 < np.abs(one.p_fake - two.p_fake).max() < 0.1


def test_at_most_some_of_each_source_whatever_the_order(pool: Dataset) -> None:
    def key(item: Item) -> int:
        return digest(key_of(item, pool.origin))

    some = at_most(pool, 2, key)
    by_source = {s: sum(i.source == s for i in some) for s in ("one", "two", "clips")}
    assert by_source == {"one": 2, "two": 2, "clips": 2}
    assert set(some) == set(at_most(list(pool)[::-1], 2, key))
    assert [i for i in pool if i in some] == some
    assert at_most(pool, None, key) == list(pool)
