"""ONNX Runtime: the CPU default, and its CUDA and TensorRT execution providers where installed."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from uare_rt.backends.base import Capability, one_line
from uare_rt.errors import BackendError, BackendUnavailableError
from uare_rt.machine import available_cores

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from uare_rt.bundle import GraphFile

__all__ = ["OnnxRuntimeBackend"]

_CPU = "CPUExecutionProvider"
_ERRORS_ONLY = 3


@dataclass(frozen=True)
class OnnxRuntimeBackend:
    """ONNX Runtime with one execution provider; what that provider cannot run falls to the CPU.

    Attributes:
        name: of the backend.
        provider: ONNX Runtime's name of the execution provider.
    """

    name: str
    provider: str

    def probe(self) -> Capability:
        """Whether ONNX Runtime is installed with the provider."""
        try:
            ort = _import()
        except BackendUnavailableError as error:
            return Capability(self.name, False, str(error))
        present = ort.get_available_providers()
        if self.provider not in present:
            reason = f"this onnxruntime has no {self.provider}, only {', '.join(present)}"
            return Capability(self.name, False, reason, ort.__version__)
        device = "CPU" if self.provider == _CPU else "GPU"
        return Capability(self.name, True, f"{self.provider} on {device}", ort.__version__, (device,))

    def load(self, graph: GraphFile, *, threads: int | None) -> _Session:
        """Load a graph; see ``Backend.load``."""
        ort = _import()
        providers = [self.provider] if self.provider == _CPU else [self.provider, _CPU]
        try:
            session = ort.InferenceSession(str(graph.path), _options(ort, threads), providers=providers)
        except Exception as error:  # ONNX Runtime's exceptions share no base below Exception
            raise BackendError(
                f"{self.name} cannot load graph {graph.name!r} ({graph.path}): {one_line(error)}"
            ) from error
        if self.provider not in session.get_providers():
            raise BackendUnavailableError(
                f"{self.name}: {self.provider} is listed but did not start; check the driver and its libraries"
            )
        return _Session(session, self.name, graph.name)


class _Session:
    def __init__(self, session: Any, backend: str, graph: str) -> None:
        self._session = session
        self._backend = backend
        self._graph = graph
        self._outputs = [output.name for output in session.get_outputs()]

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        session = self._session
        if session is None:
            raise BackendError(f"{self._backend}: graph {self._graph!r} was closed")
        try:
            values = session.run(self._outputs, dict(inputs), _run_options())
        except Exception as error:
            raise BackendError(f"{self._backend} failed in graph {self._graph!r}: {one_line(error)}") from error
        return dict(zip(self._outputs, values, strict=True))

    def close(self) -> None:
        self._session = None


def _options(ort: Any, threads: int | None) -> Any:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = threads or available_cores()
    options.inter_op_num_threads = 1
    options.log_severity_level = _ERRORS_ONLY
    # Frames come in several sizes: a memory plan per size would only pile up.
    options.enable_mem_pattern = False
    # Threads spin while a run is under way (faster), and sleep between runs (decoders need the cores).
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return options


def _run_options() -> Any:
    import onnxruntime as ort

    options = ort.RunOptions()
    options.log_severity_level = _ERRORS_ONLY
    return options


def _import() -> Any:
    try:
        ort = importlib.import_module("onnxruntime")
        ort.set_default_logger_severity(_ERRORS_ONLY)
    except Exception as error:  # a broken installation fails in many ways, all of them a reason
        raise BackendUnavailableError(
            f"onnxruntime cannot be imported ({one_line(error)}): pip install onnxruntime"
        ) from error
    return ort
