"""A CUDA driver that records every call and breaks off where CUDA would be misused, and an engine that runs on it.

Work is queued on its stream and done when the stream is waited for, so that a buffer that is read, changed or freed too
early shows. Nothing here needs a GPU; what it cannot show is that TensorRT and CUDA behave as these rules say.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

DOUBLE = "restored is twice the frame"


class Misuse(AssertionError):
    """A rule of CUDA was broken."""


class RecordingDriver:
    def __init__(self, capability: str = "sm86", graphs: bool = True) -> None:
        self.calls: list[str] = []
        self.memory: dict[int, NDArray[np.uint8]] = {}
        self.pinned: dict[int, NDArray[np.uint8]] = {}
        self.streams: dict[int, list[Callable[[], None]]] = {0: []}
        self.graphs: dict[int, list[Callable[[], None]]] = {}
        self.capturing: dict[int, list[Callable[[], None]]] = {}
        self._freed: set[int] = set()
        self._next, self._capability, self._graphs_work = 0x1000, capability, graphs

    def _handle(self, size: int = 1) -> int:
        handle, self._next = self._next, self._next + size + 0x100
        return handle

    def _not_capturing(self, what: str) -> None:
        if self.capturing:
            raise Misuse(f"{what} while a stream is being captured")

    def _device(self, pointer: int, size: int) -> NDArray[np.uint8]:
        if pointer in self._freed:
            raise Misuse(f"use of freed memory {pointer:#x}")
        if pointer not in self.memory:
            raise Misuse(f"{pointer:#x} is no device memory")
        if size > self.memory[pointer].size:
            raise Misuse(f"{size} bytes do not fit the {self.memory[pointer].size} at {pointer:#x}")
        return self.memory[pointer]

    def _host(self, buffer: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
        if buffer.ctypes.data not in self.pinned:
            raise Misuse("an asynchronous copy from or to memory that is not pinned")
        if size > buffer.size:
            raise Misuse(f"{size} bytes do not fit the {buffer.size} on the host")
        return buffer

    def enqueue(self, stream: int, name: str, work: Callable[[], None]) -> None:
        if stream not in self.streams:
            raise Misuse(f"{name} on a stream that does not exist")
        if stream == 0:
            raise Misuse(f"{name} on the default stream")
        self.calls.append(name)
        self.capturing.get(stream, self.streams[stream]).append(work)

    def capability(self) -> str:
        return self._capability

    def allocate(self, size: int) -> int:
        self._not_capturing("allocation")
        pointer = self._handle(size)
        self.memory[pointer] = np.full(size, 0xA5, np.uint8)
        return pointer

    def free(self, pointer: int) -> None:
        self._not_capturing("free")
        if any(self.streams.values()):
            raise Misuse("memory is freed while work is under way")
        if pointer in self._freed:
            raise Misuse(f"double free of {pointer:#x}")
        self._device(pointer, 0)
        del self.memory[pointer]
        self._freed.add(pointer)

    def allocate_host(self, size: int) -> NDArray[np.uint8]:
        self._not_capturing("allocation")
        buffer = np.full(size, 0x5A, np.uint8)
        self.pinned[buffer.ctypes.data] = buffer
        return buffer

    def free_host(self, buffer: NDArray[np.uint8]) -> None:
        if self.pinned.pop(buffer.ctypes.data, None) is None:
            raise Misuse("double free of pinned memory")

    def create_stream(self) -> int:
        stream = self._handle()
        self.streams[stream] = []
        return stream

    def destroy_stream(self, stream: int) -> None:
        if self.streams.pop(stream, None) is None:
            raise Misuse("a stream is destroyed twice")

    def upload(self, target: int, source: NDArray[np.uint8], size: int, stream: int) -> None:
        memory, host = self._device(target, size), self._host(source, size)
        self.enqueue(stream, "upload", lambda: memory.__setitem__(slice(size), host[:size]))

    def download(self, target: NDArray[np.uint8], source: int, size: int, stream: int) -> None:
        memory, host = self._device(source, size), self._host(target, size)
        self.enqueue(stream, "download", lambda: host.__setitem__(slice(size), memory[:size]))

    def copy(self, target: int, source: int, size: int, stream: int) -> None:
        to, origin = self._device(target, size), self._device(source, size)
        self.enqueue(stream, "copy", lambda: to.__setitem__(slice(size), origin[:size]))

    def wait_for(self, stream: int, other: int) -> None:
        if other not in self.streams:
            raise Misuse("waiting for a stream that does not exist")
        self._not_capturing("waiting for another stream")
        before, self.streams[other] = self.streams[other], []
        self.enqueue(stream, "wait", lambda: [work() for work in before] and None)

    def synchronise(self, stream: int) -> None:
        self._not_capturing("synchronise")
        self.calls.append("synchronise")
        while self.streams[stream]:
            self.streams[stream].pop(0)()

    def begin_capture(self, stream: int) -> None:
        self._not_capturing("a second capture")
        self.calls.append("capture")
        self.capturing[stream] = []

    def end_capture(self, stream: int) -> int:
        recorded = self.capturing.pop(stream)
        if not self._graphs_work:
            return 0
        graph = self._handle()
        self.graphs[graph] = recorded
        return graph

    def launch(self, graph: int, stream: int) -> None:
        if graph not in self.graphs:
            raise Misuse("launch of a graph that does not exist")
        work = list(self.graphs[graph])
        self.enqueue(stream, "launch", lambda: [step() for step in work] and None)

    def destroy_graph(self, graph: int) -> None:
        if self.graphs.pop(graph, None) is None:
            raise Misuse("a graph is destroyed twice")

    def check_nothing_left(self) -> None:
        assert (self.memory, self.pinned, self.graphs, set(self.streams)) == ({}, {}, {}, {0})


class FakeContext:
    """Doubles `frame` into `restored`; demands what TensorRT demands."""

    def __init__(self, driver: RecordingDriver, engine: FakeEngine) -> None:
        self._driver, self._engine = driver, engine
        self._shape: tuple[int, ...] | None = None
        self._addresses: dict[str, int] = {}
        self._enqueued = False

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        low, _, high = self._engine.profile
        fits = len(shape) == 4 and all(a <= b <= c for a, b, c in zip(low, shape, high, strict=True))
        self._shape, self._enqueued = (tuple(shape) if fits else None), False
        return fits

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        assert self._shape is not None
        return self._shape

    def set_tensor_address(self, name: str, address: int) -> None:
        self._addresses[name] = address

    def execute_async_v3(self, stream: int) -> bool:
        if stream in self._driver.capturing and not self._enqueued:
            raise Misuse("captured before the shape was run once")
        if self._engine.fails:
            self._engine.error_recorder.report_error(1, "no kernel\nfor this")
            return False
        self._enqueued = True
        size = 4 * int(np.prod(self._shape))
        source = self._driver._device(self._addresses["frame"], size)
        target = self._driver._device(self._addresses["restored"], size)

        def work() -> None:
            target[:size].view(np.float32)[...] = 2 * source[:size].view(np.float32)

        self._driver.enqueue(stream, "engine", work)
        return True


class FakeEngine:
    num_io_tensors = 2
    profile = ((1, 3, 16, 16), (1, 3, 32, 32), (1, 3, 64, 64))

    def __init__(self, driver: RecordingDriver, recorder: Any = None) -> None:
        self._driver, self.error_recorder, self.fails = driver, recorder, False
        self.contexts = 0

    def get_tensor_name(self, index: int) -> str:
        return ("frame", "restored")[index]

    def get_tensor_mode(self, name: str) -> str:
        return "in" if name == "frame" else "out"

    def get_tensor_dtype(self, name: str) -> str:
        return "float32"

    def get_tensor_profile_shape(self, name: str, index: int) -> Any:
        return self.profile

    def create_execution_context(self) -> FakeContext:
        self.contexts += 1
        return FakeContext(self._driver, self)


class FakeTensorRt:
    """As much of the module as running needs."""

    __name__ = "tensorrt"
    __version__ = "10.16.1"

    class TensorIOMode:
        INPUT, OUTPUT = "in", "out"

    class IErrorRecorder:
        pass

    class Logger:
        ERROR = 1

        def __init__(self, severity: int) -> None:
            pass

    def __init__(self, driver: RecordingDriver) -> None:
        self.driver, self.loaded = driver, []

    @staticmethod
    def nptype(kind: str) -> type[np.float32]:
        return np.float32

    def Runtime(self, logger: Any) -> Any:
        module = self

        class Runtime:
            error_recorder: Any = None

            def deserialize_cuda_engine(self, content: bytes) -> FakeEngine | None:
                module.loaded.append(content)
                return FakeEngine(module.driver, self.error_recorder) if content.startswith(b"engine") else None

        return Runtime()
