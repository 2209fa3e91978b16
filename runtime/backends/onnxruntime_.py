"""ONNX Runtime: the CPU default, and its CUDA and TensorRT execution providers where installed.

Optimising a graph for a processor takes longer than most runs of it, so the result is kept in the user's cache.
"""

from __future__ import annotations

import hashlib
import importlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uare_rt.backends.base import Capability, one_line
from uare_rt.backends.engine_cache import KEPT_GRAPHS, MOST_KEPT, EngineCache, engine_key, graph_directory
from uare_rt.constants import with_constants
from uare_rt.errors import BackendError, BackendUnavailableError
from uare_rt.machine import available_cores, cpu_identity
from uare_rt.manifest import HALF_WEIGHTS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from uare_rt.bundle import GraphFile

__all__ = ["OnnxRuntimeBackend"]

_CPU = "CPUExecutionProvider"
_ERRORS_ONLY = 3
_WORTH_CONSTANTS = 1 << 19  # pixels per core


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

    @property
    def worth_constants(self) -> int | None:
        """On the CPU a megapixel or so; see ``Backend.worth_constants``."""
        return _WORTH_CONSTANTS * available_cores() if self.provider == _CPU else None

    def load(self, graph: GraphFile, *, threads: int | None) -> _Session:
        """Load a graph; see ``Backend.load``."""
        ort = _import()
        providers = [self.provider] if self.provider == _CPU else [self.provider, _CPU]
        try:
            if graph.spec.precision == HALF_WEIGHTS:
                session = _mapped_session(ort, graph, threads, providers)
            elif graph.constants:
                session = _constant_session(ort, graph, threads, providers)
            elif self.provider == _CPU and graph.content is not None and graph.size <= MOST_KEPT:
                session = _kept_session(ort, graph, threads, providers)
            else:
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


def _constant_session(ort: Any, graph: GraphFile, threads: int | None, providers: list[str]) -> Any:
    options = _options(ort, threads)
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(graph.path.parent))
    model = with_constants(graph.path.read_bytes(), graph.constants)
    return ort.InferenceSession(model, options, providers=providers)


def _mapped_session(ort: Any, graph: GraphFile, threads: int | None, providers: list[str]) -> Any:
    """A session whose 16-bit weights stay pages of the mapped file: each is widened when it is used, then let go."""
    options = _options(ort, threads)
    return ort.InferenceSession(str(graph.path), options, providers=providers, disabled_optimizers=["ConstantFolding"])


def _kept_session(ort: Any, graph: GraphFile, threads: int | None, providers: list[str]) -> Any:
    """A session of the optimised graph in the cache; the first one puts it there."""
    facts = {
        "onnx": hashlib.sha256(graph.path.read_bytes()).hexdigest(),
        "bundle": graph.content,
        "backend": f"onnxruntime {ort.__version__}",
        "processor": cpu_identity(),
    }
    first = None

    def optimise() -> bytes:
        nonlocal first
        with tempfile.TemporaryDirectory() as folder:
            options = _options(ort, threads)
            options.optimized_model_filepath = str(Path(folder, "graph.ort"))
            options.add_session_config_entry("session.save_model_format", "ORT")
            first = ort.InferenceSession(str(graph.path), options, providers=providers)
            return Path(options.optimized_model_filepath).read_bytes()

    try:
        content = EngineCache(graph_directory(), most=KEPT_GRAPHS, quiet=True).get(engine_key(facts), optimise)
    except Exception:  # a full disk, say; what is wrong with the graph itself shows again here
        return ort.InferenceSession(str(graph.path), _options(ort, threads), providers=providers)
    if first is not None:
        return first
    options = _options(ort, threads)
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(content, options, providers=providers)


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
