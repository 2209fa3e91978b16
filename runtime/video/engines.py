"""Where parts are restored: processes on this machine, one for each device, or the workers of a Ray cluster."""

from __future__ import annotations

import os
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any, Protocol

from uare_rt.errors import BackendError, MissingExtraError, UareError, UsageError
from uare_rt.video.parts import PartTask, restore_part

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from uare_rt.video.parts import PartResult

__all__ = ["Engine", "LocalEngine", "RayEngine", "gpu_count"]

_TRIES = 4
"""Times that a part is begun before its workers' deaths are taken for its own fault."""


class Engine(Protocol):
    """Runs tasks somewhere, several at a time; a task whose worker dies is begun again elsewhere."""

    def run(self, tasks: Iterable[tuple[int, PartTask]]) -> Iterator[tuple[int, PartResult]]:
        """Run numbered tasks, taken as there is room for them.

        Yields:
            Number and result, in the order in which they end.

        Raises:
            UareError: a task failed.
            BackendError: a task's workers died again and again.
        """

    def close(self) -> None:
        """End the workers, whatever they do."""


def gpu_count() -> int:
    """CUDA devices that this process may use."""
    import ctypes

    count = ctypes.c_int(0)
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    return count.value if driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 else 0


class LocalEngine:
    """Processes on this machine.

    Args:
        workers: how many; where there are several GPUs, each takes the next one.

    Raises:
        UsageError: there is not at least one.
    """

    def __init__(self, workers: int) -> None:
        if workers < 1:
            raise UsageError(f"workers {workers} is out of range; choose 1 or more")
        self._workers = workers
        self._pool: ProcessPoolExecutor | None = None

    def run(self, tasks: Iterable[tuple[int, PartTask]]) -> Iterator[tuple[int, PartResult]]:
        """See `Engine.run`."""
        waiting = iter(tasks)
        again: list[tuple[int, PartTask]] = []
        tries: dict[int, int] = {}
        running: dict[Future[PartResult], tuple[int, PartTask, ProcessPoolExecutor]] = {}
        while True:
            while len(running) < self._workers:
                task = again.pop() if again else next(waiting, None)
                if task is None:
                    break
                tries[task[0]] = tries.get(task[0], 0) + 1
                future, pool = self._submit(task[1])
                running[future] = (*task, pool)
            if not running:
                return
            ended, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in ended:
                number, ours, pool = running.pop(future)
                try:
                    yield number, future.result()
                except BrokenProcessPool:
                    # One death ends the whole pool; the parts of the others are begun again too.
                    if tries[number] >= _TRIES:
                        raise BackendError(
                            f"{ours.source}: the process that restores part {number} died {_TRIES} times; "
                            "memory may be short, try fewer workers"
                        ) from None
                    again.append((number, ours))
                    if pool is self._pool:
                        self._drop_pool()

    def processes(self) -> Sequence[int]:
        """Process ids of the workers there are now."""
        return list(getattr(self._pool, "_processes", None) or {})

    def close(self) -> None:
        """See `Engine.close`."""
        for worker in list((getattr(self._pool, "_processes", None) or {}).values()):
            worker.kill()
        self._drop_pool()

    def _submit(self, task: PartTask) -> tuple[Future[PartResult], ProcessPoolExecutor]:
        try:
            pool = self._opened()
            return pool.submit(restore_part, task), pool
        except BrokenProcessPool:
            self._drop_pool()
            pool = self._opened()
            return pool.submit(restore_part, task), pool

    def _opened(self) -> ProcessPoolExecutor:
        if self._pool is None:
            context = get_context("spawn")  # a fork would share the state of inference libraries
            numbers = context.Queue()
            for number in range(self._workers):
                numbers.put(number)
            self._pool = ProcessPoolExecutor(
                self._workers, mp_context=context, initializer=_take_device, initargs=(numbers, gpu_count())
            )
        return self._pool

    def _drop_pool(self) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=False, cancel_futures=True)


def _take_device(numbers: Any, gpus: int) -> None:
    """In a new worker: keep to one GPU, and leave Ctrl-C to the parent."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if gpus:
        mine = numbers.get() % gpus
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        names = visible.split(",") if visible else [str(i) for i in range(gpus)]
        os.environ["CUDA_VISIBLE_DEVICES"] = names[mine]


class RayEngine:
    """The workers of a Ray cluster.

    Args:
        address: of the cluster, as Ray takes it (``auto``, ``host:6379``, ``ray://host:10001``), or ``local`` for one
            that is started on this machine and ends with this object.
        cpus: that a task asks for.
        gpus: that a task asks for.

    Raises:
        MissingExtraError: Ray is not installed.
        BackendError: the cluster cannot be reached.
    """

    def __init__(self, address: str, *, cpus: float = 1, gpus: float = 0) -> None:
        try:
            import ray
        except ModuleNotFoundError:
            raise MissingExtraError("ray", "ray") from None
        self._ray: Any = ray
        try:
            # One that is started for this run needs no page to look at.
            here = {"include_dashboard": False} if address == "local" else {}
            ray.init(address=address, ignore_reinit_error=True, log_to_driver=False, logging_level="error", **here)
        except Exception as error:  # Ray raises what it likes, plain exceptions too
            raise BackendError(f"--ray {address}: no cluster can be reached there ({_line(error)})") from error
        # A worker that dies takes nothing with it: Ray begins its task again on another.
        self._task: Any = ray.remote(restore_part).options(num_cpus=cpus, num_gpus=gpus, max_retries=_TRIES - 1)
        self._asked = {"CPU": cpus, "GPU": gpus}

    def run(self, tasks: Iterable[tuple[int, PartTask]]) -> Iterator[tuple[int, PartResult]]:
        """See `Engine.run`."""
        ray, waiting = self._ray, iter(tasks)
        running: dict[Any, int] = {}
        try:
            while True:
                # Some more than can run at once, so that no worker waits; not all, since each holds a state.
                while len(running) < self._slots() + 2:
                    task = next(waiting, None)
                    if task is None:
                        break
                    running[self._task.remote(task[1])] = task[0]
                if not running:
                    return
                (ended,), _ = ray.wait(list(running), num_returns=1)
                number = running.pop(ended)
                yield number, self._result(ended, number)
        finally:
            for reference in running:
                ray.cancel(reference, force=True)

    def close(self) -> None:
        """See `Engine.close`."""
        self._ray.shutdown()

    def _slots(self) -> int:
        there = self._ray.cluster_resources()
        return max(1, int(min(there.get(name, 0) / asked for name, asked in self._asked.items() if asked)))

    def _result(self, reference: Any, number: int) -> PartResult:
        exceptions = self._ray.exceptions
        try:
            result: PartResult = self._ray.get(reference)
        except exceptions.RayTaskError as error:
            cause = error.cause
            raise cause if isinstance(cause, UareError) else BackendError(f"part {number}: {_line(error)}") from error
        except exceptions.RayError as error:
            raise BackendError(f"part {number}: its workers died {_TRIES} times ({_line(error)})") from error
        return result


def _line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
