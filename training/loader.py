"""Batches made ahead in their own processes, in step order whatever the number of workers."""

from __future__ import annotations

import multiprocessing
import os
import queue
import threading
from typing import TYPE_CHECKING

import cv2

from uare_rt.errors import UareError
from uare_rt.training.samples import Batch, PhotoStore, make_batch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from multiprocessing.connection import Connection
    from pathlib import Path
    from types import TracebackType

    from uare_rt.training.recipe import Recipe

__all__ = ["Loader"]

_AHEAD = 4  # batches each worker may hold ready


def _work(paths: Sequence[Path], recipe: Recipe, steps: range, out: Connection) -> None:
    cv2.setNumThreads(1)
    photos = PhotoStore(paths)
    ready: queue.Queue[Batch | Exception | None] = queue.Queue(_AHEAD)
    sender = threading.Thread(target=_send, args=(ready, out), daemon=True)
    sender.start()
    try:
        for step in steps:
            ready.put(make_batch(photos, recipe, step))
    except KeyboardInterrupt:
        return
    except Exception as error:
        ready.put(error)
    ready.put(None)
    sender.join()


def _send(ready: queue.Queue[Batch | Exception | None], out: Connection) -> None:
    try:
        while (item := ready.get()) is not None:
            out.send(item)
    except OSError:
        os._exit(1)  # the training was killed: nobody will ever read


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
        self._pipes = [context.Pipe(duplex=False) for _ in range(workers)]
        self._processes = [
            context.Process(
                target=_work, args=(paths, recipe, range(first + index, recipe.steps, workers), out), daemon=True
            )
            for index, (_, out) in enumerate(self._pipes)
        ]

    def __enter__(self) -> Loader:
        for process, (_, out) in zip(self._processes, self._pipes, strict=True):
            process.start()
            out.close()  # held by the process alone, so that its end is seen here
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            process.terminate()
        for process, (batches, _) in zip(self._processes, self._pipes, strict=True):
            process.join()
            batches.close()

    def __iter__(self) -> Iterator[Batch]:
        if not self._processes:
            photos = PhotoStore(self._paths)
            for step in range(self._first, self._recipe.steps):
                yield make_batch(photos, self._recipe, step)
            return
        for step in range(self._first, self._recipe.steps):
            yield self._receive((step - self._first) % len(self._processes))

    def _receive(self, index: int) -> Batch:
        process = self._processes[index]
        try:
            item: Batch | Exception = self._pipes[index][0].recv()
        except (EOFError, OSError):
            process.join()
            raise UareError(
                f"loader process {index} ended with code {process.exitcode}; "
                "it may have run out of memory: try fewer --workers"
            ) from None
        if isinstance(item, Exception):
            raise item
        return item
