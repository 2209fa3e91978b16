"""Stages that overlap: generators in threads of their own, with bounded queues between them.

A slow stage holds the others back, so memory does not grow with the length of the clip. A failure anywhere
aborts every queue; waiting stages wake at once, and the first failure is raised to the caller.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["Cancelled", "Channel", "Stage", "StageTime", "run_stages"]

T = TypeVar("T")


class Cancelled(Exception):
    """Another stage has failed; this one must stop. Never leaves this module."""


@dataclass(frozen=True)
class Stage:
    """One step of a pipeline.

    Attributes:
        name: for reports and threads.
        run: takes what the stage before yields and yields what the next one takes. The first stage is given
            nothing, what the last one yields is dropped.
    """

    name: str
    run: Callable[[Iterator[Any]], Iterator[Any]]


@dataclass(frozen=True)
class StageTime:
    """Where the wall time of a stage went.

    Attributes:
        name: of the stage.
        items: it yielded.
        busy: seconds at work.
        starved: seconds waiting for the stage before.
        blocked: seconds waiting for room in the queue behind.
    """

    name: str
    items: int
    busy: float
    starved: float
    blocked: float


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
        self.starved = 0.0
        self.blocked = 0.0

    def put(self, item: T) -> None:
        """Add an item, waiting for room; raises `Cancelled` after `abort`."""
        with self._changed:
            began = time.perf_counter()
            self._changed.wait_for(lambda: self._aborted or len(self._items) < self._capacity)
            self.blocked += time.perf_counter() - began
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
                began = time.perf_counter()
                self._changed.wait_for(lambda: self._aborted or self._ended or bool(self._items))
                self.starved += time.perf_counter() - began
                if self._aborted:
                    raise Cancelled
                if not self._items:
                    return
                item = self._items.popleft()
                self._changed.notify_all()
            yield item


def run_stages(
    stages: Sequence[Stage], *, here: str, capacity: int = 2, on_abort: Callable[[], None] | None = None
) -> tuple[StageTime, ...]:
    """Run stages until the first has no more to give and the last has taken everything.

    When a stage raises, the others are stopped, all threads are joined, and that first exception is raised here.

    Args:
        stages: in order, at least two.
        here: name of the stage that runs in the caller's thread, so that Ctrl-C arrives there.
        capacity: items held between two stages.
        on_abort: called once on failure, to wake stages that wait for something else than a queue.

    Returns:
        Where the time of each stage went, in order.
    """
    channels: list[Channel[Any]] = [Channel(capacity) for _ in stages[1:]]
    failures: list[BaseException] = []
    times: dict[str, tuple[int, float]] = {}

    def abort() -> None:
        for channel in channels:
            channel.abort()
        if on_abort is not None:
            on_abort()

    def work(index: int) -> None:
        before = channels[index - 1] if index else None
        after = channels[index] if index < len(channels) else None
        began, count = time.perf_counter(), 0
        items = stages[index].run(iter(before if before is not None else ()))
        try:
            for item in items:
                if after is not None:
                    after.put(item)
                count += 1
        finally:
            # A generator must end in its own thread: what it holds open may belong to it.
            close = getattr(items, "close", None)
            if close is not None:
                close()
        if after is not None:
            after.end()
        times[stages[index].name] = (count, time.perf_counter() - began)

    def guarded(index: int) -> None:
        try:
            work(index)
        except Cancelled:
            pass
        # Whatever it is, it is raised again in the caller's thread.
        except BaseException as error:
            failures.append(error)
            abort()

    names = [stage.name for stage in stages]
    threads = [
        threading.Thread(target=guarded, args=(index,), name=f"uare-{name}", daemon=True)
        for index, name in enumerate(names)
        if name != here
    ]
    for thread in threads:
        thread.start()
    try:
        guarded(names.index(here))
        for thread in threads:
            thread.join()
    finally:
        if any(thread.is_alive() for thread in threads):
            abort()
        for thread in threads:
            thread.join()
    if failures:
        raise failures[0]
    return tuple(_stage_time(index, names, times, channels) for index in range(len(stages)))


def _stage_time(
    index: int, names: list[str], times: dict[str, tuple[int, float]], channels: list[Channel[Any]]
) -> StageTime:
    count, total = times[names[index]]
    starved = channels[index - 1].starved if index else 0.0
    blocked = channels[index].blocked if index < len(channels) else 0.0
    return StageTime(names[index], count, max(total - starved - blocked, 0.0), starved, blocked)
