"""Scoring a stream of items: decode and augment in threads, judge in chunks, keep figures only.

What is in memory at any time is a few views and some hundred bytes a scored one; the number of items does not matter.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from detectors.datasets import Item
from detectors.evaluation.judges import Judge
from detectors.evaluation.scores import Answer, Recorder, Scores, dump_line
from detectors.evaluation.views import GRID, Cell, Unusable, View, Views

__all__ = ["Outcome", "at_most", "score", "score_grid"]

Made = View | Unusable

_CHUNK = 16  # views judged at once
_CHUNK_BYTES = 48 << 20  # or this many bytes of pixels


@dataclass(slots=True)
class Outcome:
    """What a run found.

    Attributes:
        scores: by detector's name, in the judges' order.
        unusable: files that no view could be made of, by key.
        milliseconds: mean time a view, by detector's name.
        seconds: of the whole run.
    """

    scores: dict[str, Scores]
    unusable: dict[str, Unusable] = field(default_factory=dict)
    milliseconds: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0


def at_most(items: Iterable[Item], most: int | None, key: Callable[[Item], int]) -> list[Item]:
    """At most so many items of each source, chosen by `key` (smallest first), in the given order."""
    listed = list(items)
    if most is None:
        return listed
    by_source: dict[str, list[Item]] = {}
    for item in listed:
        by_source.setdefault(item.source, []).append(item)
    kept = {id(item) for members in by_source.values() for item in sorted(members, key=key)[:most]}
    return [item for item in listed if id(item) in kept]


def score(
    judges: Sequence[Judge],
    items: Iterable[Item],
    views: Views,
    *,
    number: int = 1,
    workers: int = 2,
    predictions: Path | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Outcome:
    """Shows `number` views of each item to every judge.

    Args:
        judges: names unique, at least one.
        items: consumed lazily.
        views: makes the views.
        number: views an item, at least 1.
        workers: threads that decode and augment.
        predictions: where every answer goes as a line of JSON as soon as it is known; None for nowhere.
        progress: called with the number of views judged so far.
    """
    started = time.perf_counter()
    recorder = Recorder([judge.name for judge in judges])
    outcome = Outcome({})

    def jobs() -> Iterator[Callable[[], list[Made]]]:
        for item in items:
            for k in range(number):
                yield partial(_one, views, item, k)

    sink = predictions.open("w", encoding="utf-8") if predictions is not None else None
    try:
        for chunk in _chunks(_made(jobs(), workers), outcome.unusable):
            answers = _ask(judges, chunk, outcome.milliseconds)
            for k, view in enumerate(chunk):
                said = {name: values[k] for name, values in answers.items()}
                recorder.add(view.seen, said)
                if sink is not None:
                    sink.write(dump_line(view.seen, said))
            progress(len(recorder))
    finally:
        if sink is not None:
            sink.close()
    outcome.scores = _finished(judges, recorder, predictions)
    outcome.milliseconds = {name: spent / max(1, len(recorder)) for name, spent in outcome.milliseconds.items()}
    outcome.seconds = time.perf_counter() - started
    return outcome


def score_grid(
    judges: Sequence[Judge],
    items: Iterable[Item],
    views: Views,
    *,
    cells: Sequence[Cell] = GRID,
    workers: int = 2,
    progress: Callable[[int], None] = lambda _: None,
) -> dict[str, dict[str, Scores]]:
    """Scores every item in every cell of the robustness grid: scores by detector and cell.

    Judges that must see everything before they answer are not asked: each cell would be another fit.
    """
    names = [judge.name for judge in judges]
    recorders = {cell.name: Recorder(names) for cell in cells}

    def jobs() -> Iterator[Callable[[], list[Made]]]:
        for item in items:
            yield partial(_cells, views, item, cells)

    done = 0
    for chunk in _chunks(_made(jobs(), workers), {}):
        answers = _ask(judges, chunk, {})
        for k, view in enumerate(chunk):
            recorders[view.cell].add(view.seen, {name: values[k] for name, values in answers.items()})
        done += len(chunk)
        progress(done)
    return {name: {cell: recorder.scores(name) for cell, recorder in recorders.items()} for name in names}


def _one(views: Views, item: Item, number: int) -> list[Made]:
    return [views.view(item, number)]


def _cells(views: Views, item: Item, cells: Sequence[Cell]) -> list[Made]:
    return list(views.grid(item, cells))


def _made(jobs: Iterable[Callable[[], list[Made]]], workers: int) -> Iterator[Made]:
    """Runs jobs in threads, results in order, never more than twice as many under way as there are workers."""
    waiting: deque[Future[list[Made]]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="views") as pool:
        try:
            for job in jobs:
                waiting.append(pool.submit(job))
                if len(waiting) >= 2 * workers:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        finally:
            for left in waiting:
                left.cancel()


def _chunks(made: Iterable[Made], unusable: dict[str, Unusable]) -> Iterator[list[View]]:
    """Views in bounded chunks; what is unusable is put aside."""
    chunk: list[View] = []
    held = 0
    for view in made:
        if isinstance(view, Unusable):
            unusable.setdefault(view.key, view)
            continue
        chunk.append(view)
        held += view.media.pixels.nbytes
        if len(chunk) >= _CHUNK or held >= _CHUNK_BYTES:
            yield chunk
            chunk, held = [], 0
    if chunk:
        yield chunk


def _ask(judges: Sequence[Judge], chunk: Sequence[View], spent: dict[str, float]) -> dict[str, list[Answer]]:
    found = {}
    for judge in judges:
        started = time.perf_counter()
        found[judge.name] = judge.answers(chunk)
        spent[judge.name] = spent.get(judge.name, 0.0) + (time.perf_counter() - started) * 1e3
    return found


def _finished(judges: Sequence[Judge], recorder: Recorder, predictions: Path | None) -> dict[str, Scores]:
    """Every judge's final scores; the dump is brought up to date where one of them answered late."""
    scores: dict[str, Scores] = {}
    late: dict[str, Scores] = {}
    for judge in judges:
        recorded = recorder.scores(judge.name)
        scores[judge.name] = judge.finish(recorded)
        if scores[judge.name] is not recorded:
            late[judge.name] = scores[judge.name]
    if late and predictions is not None:
        _amend(predictions, late)
    return scores


def _amend(path: Path, late: Mapping[str, Scores]) -> None:
    """Writes late answers into a dump, line by line."""
    fresh = path.with_name(f".{path.name}.tmp")
    columns = {name: (scores.probabilities, scores.answered) for name, scores in late.items()}
    with path.open(encoding="utf-8") as old, fresh.open("w", encoding="utf-8") as new:
        for number, line in enumerate(old):
            row = json.loads(line)
            for name, (values, known) in columns.items():
                row["answers"][name]["p"] = values[number].tolist() if known[number] else None
            new.write(json.dumps(row, allow_nan=False) + "\n")
    fresh.replace(path)
