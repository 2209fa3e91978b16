"""Batches made ahead in their own processes, in step order whatever the number of workers."""

from __future__ import annotations

import contextlib
import multiprocessing
import queue
from typing import TYPE_CHECKING

import cv2

from uare_rt.errors import UareError
from uare_rt.training.samples import Batch, PhotoStore, make_batch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from multiprocessing.queues import Queue
    from pathlib import Path
    from types import TracebackType

    from uare_rt.training.recipe import Recipe

__all__ = ["Loader"]

_AHEAD = 4  # batches each worker may hold ready
_POLL_SECONDS = 5.0


def _work(paths: Sequence[Path], recipe: Recipe, steps: range, out: Queue[Batch | Exception]) -> None:
    cv2.setNumThreads(1)
    photos = PhotoStore(paths)
    try:
        for step in steps:
            _hand_over(make_batch(photos, recipe, step), out)
    except KeyboardInterrupt:
        out.cancel_join_thread()
    except Exception as error:
        out.put(error)


def _hand_over(batch: Batch, out: Queue[Batch | Exception]) -> None:
    parent = multiprocessing.parent_process()
    while parent is None or parent.is_alive():
        with contextlib.suppress(queue.Full):
            return out.put(batch, timeout=_POLL_SECONDS)
    out.cancel_join_thread()  # the training was killed: nobody will ever read
    raise SystemExit(1)


class Loader:
    """Iterates over the batches of steps ``first`` to ``recipe.steps - 1``.

    Args:
        paths: photos, see `uare_rt.training.samples.find_photos`.
        recipe: the recipe.
        first: step to begin with.
        workers: processes; 0 makes batches in this one.
    """

    def __init__(self, paths: Sequence[Path], recipe: Recipe, first: int, workers: int) -> None:
        self._paths, self._recipe, self._first = paths, recipe, first
        context = multiprocessing.get_context("spawn")
        self._queues: list[Queue[Batch | Exception]] = [context.Queue(_AHEAD) for _ in range(workers)]
        self._processes = [
            context.Process(
                target=_work,
                args=(paths, recipe, range(first + index, recipe.steps, workers), out),
                daemon=True,
            )
            for index, out in enumerate(self._queues)
        ]

    def __enter__(self) -> Loader:
        for process in self._processes:
            process.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.join()

    def __iter__(self) -> Iterator[Batch]:
        if not self._processes:
            photos = PhotoStore(self._paths)
            for step in range(self._first, self._recipe.steps):
                yield make_batch(photos, self._recipe, step)
            return
        for step in range(self._first, self._recipe.steps):
            yield self._receive((step - self._first) % len(self._processes))

    def _receive(self, index: int) -> Batch:
        while True:
            try:
                item = self._queues[index].get(timeout=_POLL_SECONDS)
            except queue.Empty:
                if not self._processes[index].is_alive():
                    raise UareError(
                        f"loader process {index} ended with code {self._processes[index].exitcode}; "
                        "it may have run out of memory: try fewer --workers"
                    ) from None
                continue
            if isinstance(item, Exception):
                raise item
            return item
