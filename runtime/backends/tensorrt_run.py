"""Running an engine: buffers, streams, CUDA graphs.

Everything is allocated once per shape: device memory for every tensor and pinned host memory for the copies. The first
run of a shape is launched call by call, as TensorRT demands before a capture; the second is recorded into a CUDA graph,
and all further ones launch that. Shapes that were not used for longest make room for new ones.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from uare_rt.backends.base import one_line
from uare_rt.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from uare_rt.backends.cuda_driver import Driver

__all__ = ["EngineRunner"]

_SHAPES_KEPT = 4
_CPU, _CUDA = 1, 2  # device types of DLPack


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
            inputs: NumPy arrays, or arrays on the device (``__cuda_array_interface__``), which are copied there in
                the order of their own stream; arrays of other libraries on the CPU come through DLPack.

        Raises:
            BackendError: the engine was closed, a shape is outside its profile, or it failed.
        """
        with self._lock:
            if self._engine is None:
                raise BackendError(f"{self._trt.__name__}: graph {self._name!r} was closed")
            given = {name: _Given(inputs, name, self._name) for name in self._inputs}
            plan = self._plan(tuple(given[name].shape for name in self._inputs))
            results = [(name, plan.buffers[name]) for name in self._outputs]
            try:
                for name in self._inputs:
                    self._feed(plan.buffers[name], given[name], name)
                self._execute(plan)
                for _, buffer in results:
                    self._driver.download(buffer.host, buffer.device, buffer.size, self._stream)
            finally:  # also after a failure: copies under way still use these buffers and the caller's
                self._driver.synchronise(self._stream)
            return {name: buffer.host.view(buffer.dtype).reshape(buffer.shape).copy() for name, buffer in results}

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

    def _feed(self, buffer: _Buffer, given: _Given, name: str) -> None:
        if given.dtype != buffer.dtype:
            raise BackendError(f"graph {self._name!r}: input {name} is {given.dtype}, the engine takes {buffer.dtype}")
        if given.pointer:
            if given.stream != self._stream:
                self._driver.wait_for(self._stream, given.stream)
            self._driver.copy(buffer.device, given.pointer, buffer.size, self._stream)
            return
        assert given.array is not None
        # The last run has been waited for, so nothing reads this memory any more.
        buffer.host.view(buffer.dtype).reshape(buffer.shape)[...] = given.array
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


class _Given:
    """An input as it was given: on the host, or on the device with the stream that fills it."""

    def __init__(self, inputs: Mapping[str, Any], name: str, graph: str) -> None:
        if name not in inputs:
            raise BackendError(f"graph {graph!r}: input {name} is missing")
        value = inputs[name]
        self.array: NDArray[Any] | None = None
        self.pointer, self.stream = 0, 0
        interface = getattr(value, "__cuda_array_interface__", None)
        if interface is None:
            self.array = _on_host(value, name, graph)
            self.shape, self.dtype = self.array.shape, self.array.dtype
            return
        if interface.get("strides") is not None:
            raise BackendError(f"graph {graph!r}: input {name} is not contiguous on the device; make a contiguous copy")
        self.shape = tuple(int(side) for side in interface["shape"])
        self.dtype = np.dtype(interface["typestr"])
        self.pointer = int(interface["data"][0])
        self.stream = int(interface.get("stream") or 0)


def _on_host(value: Any, name: str, graph: str) -> NDArray[Any]:
    if isinstance(value, np.ndarray):
        return value
    device = getattr(value, "__dlpack_device__", lambda: (_CPU, 0))()[0]
    if device == _CUDA:
        raise BackendError(f"graph {graph!r}: input {name} is on the device but has no __cuda_array_interface__")
    return np.from_dlpack(value) if hasattr(value, "__dlpack__") else np.asarray(value)


def _capturable(context: Any, stream: int) -> bool:
    """Whether a run can be recorded; TensorRT-RTX knows, TensorRT finds out by trying."""
    known = getattr(context, "is_stream_capturable", None)
    return True if known is None else bool(known(stream))
