"""Batches in order, prepared while the network computes: by a thread, or by processes where the recipe has workers."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing.process import BaseProcess

from detectors.training.samples import Batch, Pool

__all__ = ["feed"]

_AHEAD = 3  # batches in preparation, at least


def feed(pool: Pool, first: int, steps: int, part: slice = slice(None)) -> Iterator[tuple[int, Batch]]:
    """Yields (step, batch) for `first` to `steps`, exclusive; what is in a batch does not depend on who prepares it.

    Args:
        pool: source of the batches; its recipe's `workers` prepare them. A gate lives in this process, so a gated
            pool has threads. OpenCV and Pillow leave the interpreter lock while they work, much of the rest does not.
        first: step to begin with.
        steps: of the whole run.
        part: which pairs of each batch.
    """
    workers = pool.recipe.workers
    by_process = workers > 1 and pool.gate is None
    executor: Executor
    if by_process:
        # Spawned: a fork would inherit locks that OpenMP's and OpenCV's threads hold.
        context = multiprocessing.get_context("spawn")
        executor = ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(pool,))
    else:
        executor = ThreadPoolExecutor(workers, thread_name_prefix="samples")
    waiting: deque[Future[Batch]] = deque()
    upcoming = first
    try:
        for step in range(first, steps):
            while upcoming < min(steps, step + max(_AHEAD, workers + 1)):
                job = executor.submit(_prepared, upcoming, part) if by_process else None
                waiting.append(job if job is not None else executor.submit(pool.batch, upcoming, part))
                upcoming += 1
            yield step, waiting.popleft().result()
    finally:
        executor.shutdown(cancel_futures=True)


_POOL: list[Pool] = []  # of a worker process, which serves one pool for its whole life


def _begin(pool: Pool) -> None:
    """Takes the pool, leaves the cores to the other workers, and does not outlive a parent that was killed."""
    import cv2  # noqa: PLC0415 - only in workers

    cv2.setNumThreads(1)
    _POOL.append(pool)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


def _prepared(step: int, part: slice) -> Batch:
    return _POOL[0].batch(step, part)
