"""The few calls to CUDA's runtime that running an engine takes, through ``cuda-bindings``.

One narrow class, so that tests can put a driver in its place that holds the runner to CUDA's rules.
"""

from __future__ import annotations

import ctypes
import importlib
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from uare_rt.backends.base import one_line
from uare_rt.errors import BackendError, BackendUnavailableError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["CudaDriver", "Driver"]


class Driver(Protocol):
    """Memory, streams and graphs of one device. Pointers and handles are integers; 0 is none."""

    def capability(self) -> str:
        """Compute capability of the device, for example ``sm87``."""
        ...

    def allocate(self, size: int) -> int:
        """Device memory of some bytes."""
        ...

    def free(self, pointer: int) -> None:
        """Give device memory back."""
        ...

    def allocate_host(self, size: int) -> NDArray[np.uint8]:
        """Pinned host memory, uint8 [size]; copies from and to it do not wait."""
        ...

    def free_host(self, buffer: NDArray[np.uint8]) -> None:
        """Give pinned memory back."""
        ...

    def create_stream(self) -> int:
        """A stream that does not wait for the default one."""
        ...

    def destroy_stream(self, stream: int) -> None:
        """Give a stream back."""
        ...

    def upload(self, target: int, source: NDArray[np.uint8], size: int, stream: int) -> None:
        """Copy pinned memory to the device, in the order of the stream."""
        ...

    def download(self, target: NDArray[np.uint8], source: int, size: int, stream: int) -> None:
        """Copy device memory to pinned memory, in the order of the stream."""
        ...

    def copy(self, target: int, source: int, size: int, stream: int) -> None:
        """Copy within the device, in the order of the stream."""
        ...

    def wait_for(self, stream: int, other: int) -> None:
        """Let a stream wait for all that another one was given so far."""
        ...

    def synchronise(self, stream: int) -> None:
        """Wait until a stream has done all its work."""
        ...

    def begin_capture(self, stream: int) -> None:
        """Record what follows on a stream instead of running it."""
        ...

    def end_capture(self, stream: int) -> int:
        """End the recording; an executable graph, or 0 if it could not be recorded."""
        ...

    def launch(self, graph: int, stream: int) -> None:
        """Run a recorded graph."""
        ...

    def destroy_graph(self, graph: int) -> None:
        """Give a graph back."""
        ...


class CudaDriver:
    """CUDA on device 0.

    Raises:
        BackendUnavailableError: there is no CUDA device or no ``cuda-bindings``.
    """

    def __init__(self) -> None:
        try:
            self._cuda: Any = importlib.import_module("cuda.bindings.runtime")
        except ImportError as error:
            raise BackendUnavailableError(
                f'cuda-bindings is not installed ({one_line(error)}): pip install "uare-rt[cuda]"'
            ) from error
        try:
            count = self._call("cudaGetDeviceCount")
        except (BackendError, RuntimeError) as error:
            raise BackendUnavailableError(f"no CUDA device answers: {one_line(error)}") from error
        if not count:
            raise BackendUnavailableError("no CUDA device is here")
        self._graphs: dict[int, Any] = {}

    def capability(self) -> str:
        """See `Driver`."""
        kind = self._cuda.cudaDeviceAttr
        major = self._call("cudaDeviceGetAttribute", kind.cudaDevAttrComputeCapabilityMajor, 0)
        minor = self._call("cudaDeviceGetAttribute", kind.cudaDevAttrComputeCapabilityMinor, 0)
        return f"sm{major}{minor}"

    def allocate(self, size: int) -> int:
        """See `Driver`."""
        return int(self._call("cudaMalloc", size))

    def free(self, pointer: int) -> None:
        """See `Driver`."""
        self._call("cudaFree", pointer)

    def allocate_host(self, size: int) -> NDArray[np.uint8]:
        """See `Driver`."""
        pointer = int(self._call("cudaMallocHost", size))
        return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(pointer))

    def free_host(self, buffer: NDArray[np.uint8]) -> None:
        """See `Driver`."""
        self._call("cudaFreeHost", buffer.ctypes.data)

    def create_stream(self) -> int:
        """See `Driver`."""
        return int(self._call("cudaStreamCreateWithFlags", self._cuda.cudaStreamNonBlocking))

    def destroy_stream(self, stream: int) -> None:
        """See `Driver`."""
        self._call("cudaStreamDestroy", stream)

    def upload(self, target: int, source: NDArray[np.uint8], size: int, stream: int) -> None:
        """See `Driver`."""
        self._copy(target, source.ctypes.data, size, "cudaMemcpyHostToDevice", stream)

    def download(self, target: NDArray[np.uint8], source: int, size: int, stream: int) -> None:
        """See `Driver`."""
        self._copy(target.ctypes.data, source, size, "cudaMemcpyDeviceToHost", stream)

    def copy(self, target: int, source: int, size: int, stream: int) -> None:
        """See `Driver`."""
        self._copy(target, source, size, "cudaMemcpyDeviceToDevice", stream)

    def wait_for(self, stream: int, other: int) -> None:
        """See `Driver`."""
        event = self._call("cudaEventCreateWithFlags", self._cuda.cudaEventDisableTiming)
        try:
            self._call("cudaEventRecord", event, other)
            self._call("cudaStreamWaitEvent", stream, event, 0)
        finally:
            self._call("cudaEventDestroy", event)

    def synchronise(self, stream: int) -> None:
        """See `Driver`."""
        self._call("cudaStreamSynchronize", stream)

    def begin_capture(self, stream: int) -> None:
        """See `Driver`."""
        mode = self._cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("cudaStreamBeginCapture", stream, mode)

    def end_capture(self, stream: int) -> int:
        """See `Driver`."""
        try:
            graph = self._call("cudaStreamEndCapture", stream)
            executable = self._call("cudaGraphInstantiate", graph, 0)
            self._call("cudaGraphDestroy", graph)
        except BackendError:
            self._cuda.cudaGetLastError()  # a refused capture is no failure: the engine runs without a graph
            return 0
        self._graphs[int(executable)] = executable
        return int(executable)

    def launch(self, graph: int, stream: int) -> None:
        """See `Driver`."""
        self._call("cudaGraphLaunch", self._graphs[graph], stream)

    def destroy_graph(self, graph: int) -> None:
        """See `Driver`."""
        self._call("cudaGraphExecDestroy", self._graphs.pop(graph))

    def _copy(self, target: int, source: int, size: int, kind: str, stream: int) -> None:
        self._call("cudaMemcpyAsync", target, source, size, getattr(self._cuda.cudaMemcpyKind, kind), stream)

    def _call(self, name: str, *arguments: Any) -> Any:
        status, *values = getattr(self._cuda, name)(*arguments)
        if int(status):
            _, text = self._cuda.cudaGetErrorString(status)
            reason = text.decode() if isinstance(text, bytes) else str(text)
            raise BackendError(f"CUDA: {name} failed: {reason}")
        return values[0] if values else None
