"""Overlapped stages: a thread that reads, the caller's own thread that works, a thread that writes.

Stages talk through bounded channels, so a slow one holds the others back and memory does not grow with
the length of the clip. A failure anywhere aborts every channel; waiting stages wake at once.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["Cancelled", "Channel", "run_overlapped"]

T = TypeVar("T")
S = TypeVar("S")
R = TypeVar("R")


class Cancelled(Exception):
    """Another stage has failed; this one must stop. Never leaves this module."""


class Channel(Generic[T]):
    """A bounded queue between two threads that can be ended or aborted.

    Args:
        capacity: items it holds before `put` waits.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._ended = False
        self._aborted = False

    def put(self, item: T) -> None:
        """Add an item, waiting for room; raises `Cancelled` after `abort`."""
        with self._changed:
            self._changed.wait_for(lambda: self._aborted or len(self._items) < self._capacity)
            if self._aborted:
                raise Cancelled
            self._items.append(item)
            self._changed.notify_all()

    def end(self) -> None:
        """Say that nothing follows."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def abort(self) -> None:
        """Drop everything and wake both sides with `Cancelled`."""
        with self._changed:
            self._aborted = True
            self._items.clear()
            self._changed.notify_all()

    def __iter__(self) -> Iterator[T]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._aborted or self._ended or bool(self._items))
                if self._aborted:
                    raise Cancelled
                if not self._items:
                    return
                item = self._items.popleft()
                self._changed.notify_all()
            yield item


def run_overlapped(read: Iterable[S], work: Callable[[S], R], write: Callable[[R], None], *, capacity: int = 4) -> None:
    """Pull items from ``read``, pass each through ``work`` and hand the results to ``write``, in order.

    ``read`` is iterated and ``write`` is called in threads of their own; ``work`` runs in the caller's, so
    that Ctrl-C arrives there. Returns when everything was written. When a stage raises, the others are
    stopped, both threads are joined, and that first exception is raised here.

    Args:
        read: source of items.
        work: what to do with each.
        write: takes each result.
        capacity: items held between two stages.
    """
    before: Channel[S] = Channel(capacity)
    after: Channel[R] = Channel(capacity)
    failures: list[BaseException] = []

    def abort() -> None:
        before.abort()
        after.abort()

    def guarded(stage: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            try:
                stage()
            except Cancelled:
                pass
            # Whatever it is, it is raised again in the caller's thread.
            except BaseException as error:
                failures.append(error)
                abort()

        return run

    def reading() -> None:
        for item in read:
            before.put(item)
        before.end()

    def writing() -> None:
        for result in after:
            write(result)

    threads = [
        threading.Thread(target=guarded(reading), name="uare-read", daemon=True),
        threading.Thread(target=guarded(writing), name="uare-write", daemon=True),
    ]
    for thread in threads:
        thread.start()
    try:
        for item in before:
            after.put(work(item))
        after.end()
        for thread in threads:
            thread.join()
    except Cancelled:
        pass
    finally:
        if any(thread.is_alive() for thread in threads):
            abort()
        for thread in threads:
            thread.join()
    if failures:
        raise failures[0]
