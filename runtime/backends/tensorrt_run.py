"""Running an engine: buffers, streams, CUDA graphs.

Everything is allocated once per shape: device memory for every tensor and pinned host memory for the copies. The first
run of a shape is launched call by call, as TensorRT demands before a capture; the second is recorded into a CUDA graph,
and all further ones launch that. Shapes that were not used for longest make room for new ones.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from uare_rt.backends.base import one_line
from uare_rt.backends.device_arrays import DeviceArray, DeviceMemory, device_memory
from uare_rt.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from uare_rt.backends.cuda_driver import Driver

__all__ = ["EngineRunner"]

_SHAPES_KEPT = 4


@dataclass
class _Buffer:
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    device: int
    host: NDArray[np.uint8]
    is_input: bool

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


@dataclass
class _Plan:
    """One execution context with its buffers: a graph remembers the addresses and the shapes it was recorded with."""

    context: Any
    buffers: dict[str, _Buffer]
    runs: int = 0
    graph: int = 0


class EngineRunner:
    """An engine, ready to run. One run at a time; several threads may ask.

    Args:
        trt: the module `tensorrt` or `tensorrt_rtx`.
        engine: its `ICudaEngine`.
        driver: CUDA.
        name: of the graph, for messages.
    """

    def __init__(self, trt: Any, engine: Any, driver: Driver, name: str) -> None:
        self._trt, self._driver, self._name = trt, driver, name
        self._engine: Any = engine
        self._lock = threading.Lock()
        self._plans: OrderedDict[tuple[tuple[int, ...], ...], _Plan] = OrderedDict()
        self._stream = driver.create_stream()
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        modes = {name: engine.get_tensor_mode(name) for name in names}
        self._inputs = [name for name in names if modes[name] == trt.TensorIOMode.INPUT]
        self._outputs = [name for name in names if modes[name] == trt.TensorIOMode.OUTPUT]

    def run(self, inputs: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
        """Run on named arrays; see ``Executable.run``.

        Args:
            inputs: NumPy arrays, or arrays on the device (``__cuda_array_interface__`` or DLPack), which are copied
                there in the order of their own stream; arrays of other libraries on the CPU come through DLPack.

        Raises:
            BackendError: the engine was closed, a shape is outside its profile, or it failed.
        """
        with self._lock:
            with self._computed(inputs) as plan:
                results = {name: plan.buffers[name] for name in self._outputs}
                for buffer in results.values():
                    self._driver.download(buffer.host, buffer.device, buffer.size, self._stream)
            return {name: b.host.view(b.dtype).reshape(b.shape).copy() for name, b in results.items()}

    def run_on_device(self, inputs: Mapping[str, Any]) -> dict[str, DeviceArray]:
        """As `run`, with results that stay on the device: nothing crosses to the host.

        Args:
            inputs: as for `run`.

        Raises:
            BackendError: as for `run`, or the device has no memory left.
        """
        results = {}
        with self._lock, self._computed(inputs) as plan:
            for name in self._outputs:
                # A recorded graph writes where it did when it was recorded, so results move once, within the device.
                buffer = plan.buffers[name]
                pointer = self._driver.allocate(buffer.size)
                results[name] = DeviceArray(buffer.shape, buffer.dtype, pointer, self._driver.free)
                self._driver.copy(pointer, buffer.device, buffer.size, self._stream)
        return results

    def close(self) -> None:
        """Give back everything on the device; a run that is under way finishes first."""
        with self._lock:
            if self._engine is None:
                return
            self._driver.synchronise(self._stream)
            while self._plans:
                self._drop(self._plans.popitem()[1])
            self._driver.destroy_stream(self._stream)
            self._engine = None

    @contextmanager
    def _computed(self, inputs: Mapping[str, Any]) -> Iterator[_Plan]:
        """The plan for some inputs, with its run under way; when the block ends, all that it queued is done."""
        if self._engine is None:
            raise BackendError(f"{self._trt.__name__}: graph {self._name!r} was closed")
        given = {name: self._given(inputs, name) for name in self._inputs}
        plan = self._plan(tuple(value.shape for value in given.values()))
        try:
            for name, value in given.items():
                self._feed(plan.buffers[name], value, name)
            self._execute(plan)
            yield plan
        finally:  # also after a failure: copies under way still use these buffers and the caller's
            self._driver.synchronise(self._stream)

    def _given(self, inputs: Mapping[str, Any], name: str) -> NDArray[Any] | DeviceMemory:
        if name not in inputs:
            raise BackendError(f"graph {self._name!r}: input {name} is missing")
        value = inputs[name]
        if isinstance(value, np.ndarray):
            return value
        try:
            on_device = device_memory(value, self._stream)
        except BackendError as error:
            raise BackendError(f"graph {self._name!r}: input {name} {error}") from None
        if on_device is not None:
            return on_device
        return np.from_dlpack(value) if hasattr(value, "__dlpack__") else np.asarray(value)

    def _feed(self, buffer: _Buffer, given: NDArray[Any] | DeviceMemory, name: str) -> None:
        if given.dtype != buffer.dtype:
            raise BackendError(f"graph {self._name!r}: input {name} is {given.dtype}, the engine takes {buffer.dtype}")
        if isinstance(given, DeviceMemory):
            if given.stream not in (None, self._stream):
                self._driver.wait_for(self._stream, given.stream)
            self._driver.copy(buffer.device, given.pointer, buffer.size, self._stream)
            return
        # The last run has been waited for, so nothing reads this memory any more.
        buffer.host.view(buffer.dtype).reshape(buffer.shape)[...] = given
        self._driver.upload(buffer.device, buffer.host, buffer.size, self._stream)

    def _execute(self, plan: _Plan) -> None:
        if plan.runs == 1 and _capturable(plan.context, self._stream):
            plan.graph = self._record(plan.context)
        if plan.graph:
            self._driver.launch(plan.graph, self._stream)
        elif not plan.context.execute_async_v3(self._stream):
            raise BackendError(f"{self._trt.__name__} failed in graph {self._name!r}: {self._recorded()}")
        plan.runs += 1

    def _record(self, context: Any) -> int:
        """Record one run; 0 where that is not possible."""
        done = False
        self._driver.begin_capture(self._stream)
        try:
            done = context.execute_async_v3(self._stream)
        finally:
            graph = self._driver.end_capture(self._stream)
        if graph and not done:
            self._driver.destroy_graph(graph)
        return graph if done else 0

    def _plan(self, shapes: tuple[tuple[int, ...], ...]) -> _Plan:
        if shapes in self._plans:
            self._plans.move_to_end(shapes)
            return self._plans[shapes]
        while len(self._plans) >= _SHAPES_KEPT:
            self._drop(self._plans.popitem(last=False)[1])
        plan = _Plan(self._engine.create_execution_context(), {})
        if plan.context is None:
            raise BackendError(f"{self._trt.__name__} has no memory for graph {self._name!r}: {self._recorded()}")
        try:
            for name, shape in zip(self._inputs, shapes, strict=True):
                self._set_shape(plan.context, name, shape)
            for name in (*self._inputs, *self._outputs):
                plan.buffers[name] = self._buffer(plan.context, name)
                plan.context.set_tensor_address(name, plan.buffers[name].device)
        except BaseException:
            self._drop(plan)
            raise
        self._plans[shapes] = plan
        return plan

    def _set_shape(self, context: Any, name: str, shape: tuple[int, ...]) -> None:
        if context.set_input_shape(name, shape):
            return
        low, _, high = self._engine.get_tensor_profile_shape(name, 0)
        raise BackendError(
            f"graph {self._name!r}: input {name} has shape {list(shape)}, this engine takes {list(low)} to "
            f"{list(high)}; build it with a wider --profile"
        )

    def _buffer(self, context: Any, name: str) -> _Buffer:
        shape = tuple(int(side) for side in context.get_tensor_shape(name))
        dtype = np.dtype(self._trt.nptype(self._engine.get_tensor_dtype(name)))
        size = max(1, int(np.prod(shape, dtype=np.int64)) * dtype.itemsize)
        device = self._driver.allocate(size)
        try:
            host = self._driver.allocate_host(size)
        except BaseException:
            self._driver.free(device)
            raise
        return _Buffer(shape, dtype, device, host, name in self._inputs)

    def _drop(self, plan: _Plan) -> None:
        if plan.graph:
            self._driver.destroy_graph(plan.graph)
        plan.context = None
        for buffer in plan.buffers.values():
            self._driver.free(buffer.device)
            self._driver.free_host(buffer.host)
        plan.buffers = {}

    def _recorded(self) -> str:
        recorder = getattr(self._engine, "error_recorder", None)
        if recorder is None or not recorder.num_errors():
            return "no reason given"
        text = str(recorder.get_error_desc(0))
        recorder.clear()
        return one_line(Exception(text))


def _capturable(context: Any, stream: int) -> bool:
    """Whether a run can be recorded; TensorRT-RTX knows, TensorRT finds out by trying."""
    known = getattr(context, "is_stream_capturable", None)
    return True if known is None else bool(known(stream))
