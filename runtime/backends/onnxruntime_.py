"""ONNX Runtime: the CPU default, and its CUDA and TensorRT execution providers where installed.

Optimising a graph for a processor takes longer than most runs of it, so the result is kept in the user's cache.
"""

from __future__ import annotations

import hashlib
import importlib
import logging
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from uare_rt.backends.base import Capability, one_line
from uare_rt.backends.codec_graph import CODEC_REVISION, Codec
from uare_rt.backends.codec_reading import read_codec
from uare_rt.backends.engine_cache import KEPT_GRAPHS, MOST_KEPT, EngineCache, engine_key, graph_directory
from uare_rt.backends.onnxruntime_codec import CodecSession
from uare_rt.backends.onnxruntime_modulated import BLOCKS, REVISION, modulate, set_aside
from uare_rt.compiled import compiled_variant, library_digest, library_problem
from uare_rt.errors import BackendError, BackendUnavailableError
from uare_rt.machine import available_cores, cpu_identity
from uare_rt.manifest import HALF_WEIGHTS
from uare_rt.onnx_parts import OnnxModel

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from uare_rt.bundle import GraphFile

__all__ = ["OnnxRuntimeBackend"]

_CPU = "CPUExecutionProvider"
_ERRORS_ONLY = 3
_FP32 = "fp32"
_PROOF = (1, 80, 112)  # pictures, rows and columns of a frame that windows do not fit into
_LIKENESS = 1e-4  # of what was made of a graph to what it gives itself, of values around [0, 1]
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class OnnxRuntimeBackend:
    """ONNX Runtime with one execution provider; what that provider cannot run falls to the CPU.

    Attributes:
        name: of the backend.
        provider: ONNX Runtime's name of the execution provider.
    """

    name: str
    provider: str
    worth_sizing = None  # frames that change in size are as fast
    precisions = ()

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
        reason = f"{self.provider} on {device}"
        if self.provider == _CPU:
            reason += f"; float32 restoration: {library_problem() or f'compiled layers ({compiled_variant()})'}"
        return Capability(self.name, True, reason, ort.__version__, (device,))

    @property
    def runs_parts(self) -> bool:
        """On the CPU; see ``Backend.runs_parts``."""
        return self.provider == _CPU

    def load(self, graph: GraphFile, *, threads: int | None, beside: int = 1) -> _Session:
        """Load a graph; see ``Backend.load``."""
        ort = _import()
        providers = [self.provider] if self.provider == _CPU else [self.provider, _CPU]
        try:
            if graph.spec.precision == HALF_WEIGHTS:
                session = _mapped_session(ort, graph, threads, providers)
            elif self.provider == _CPU and graph.content is not None and graph.size <= MOST_KEPT:
                session = _kept_session(ort, graph, threads, beside)
            else:
                session = _plain_session(ort, graph, threads, providers)
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


def _plain_session(ort: Any, graph: GraphFile, threads: int | None, providers: list[str]) -> Any:
    if graph.part is None:
        return ort.InferenceSession(str(graph.path), options(ort, threads), providers=providers)
    return ort.InferenceSession(_part(graph).to_bytes(), options(ort, threads, graph), providers=providers)


def _part(graph: GraphFile) -> OnnxModel:
    model = OnnxModel(graph.path.read_bytes())
    if graph.part is not None:
        (model.keep_behind if graph.part.behind else model.keep_before)(graph.part.value)
    return model


def _mapped_session(ort: Any, graph: GraphFile, threads: int | None, providers: list[str]) -> Any:
    """A session whose 16-bit weights stay pages of the mapped file: each is widened when it is used, then let go."""
    chosen = options(ort, threads)
    return ort.InferenceSession(str(graph.path), chosen, providers=providers, disabled_optimizers=["ConstantFolding"])


def _kept_session(ort: Any, graph: GraphFile, threads: int | None, beside: int) -> Any:
    """A session of the optimised graph in the cache; the first one puts it there."""
    facts = {
        "onnx": hashlib.sha256(graph.path.read_bytes()).hexdigest(),
        "part": graph.part,
        "revision": [REVISION, CODEC_REVISION],
        "compiled": [compiled_variant(), library_digest()],
        "bundle": graph.content,
        "backend": f"onnxruntime {ort.__version__}",
        "processor": cpu_identity(),
    }
    try:
        cache = EngineCache(graph_directory(), most=KEPT_GRAPHS, quiet=True)
        content = cache.get(engine_key(facts), lambda: _optimised(ort, graph, threads))
    except Exception:  # a full disk, say; what is wrong with the graph itself shows again here
        return _plain_session(ort, graph, threads, [_CPU])
    return _ready_session(ort, content, threads, beside)


def _optimised(ort: Any, graph: GraphFile, threads: int | None) -> bytes:
    """The graph as it is run here: as a codec, or in ONNX Runtime's own format."""
    try:
        content = as_codec(ort, graph, threads)
    except (BackendError, MemoryError, OSError):  # may be gone the next time, but what is made now is kept
        raise
    except Exception as error:  # a graph that is built otherwise, in ways that nobody thought of too
        _log.debug("%s is no codec: %s", graph.path, error)
        content = None
    if content is not None:
        return content
    try:
        content = with_modulated_weights(ort, graph, threads)
    except Exception as error:  # nothing that is needed: the graph as it is runs too
        _log.debug("%s: its modulation stays where it is (%s)", graph.path, one_line(error))
    if content is not None:
        return _saved(ort, content, _ready_options(ort, threads))
    return _saved(ort, _part(graph).to_bytes(), options(ort, threads, graph))


def as_codec(ort: Any, graph: GraphFile, threads: int | None) -> bytes | None:
    """The graph for compiled layers; None where there are none, or where they give something else.

    Raises:
        BundleError: the graph cannot be read, or has no such part.
        NotACodecError: it is built otherwise. ONNX Runtime's own errors pass through.
    """
    if graph.spec.precision != _FP32 or compiled_variant() is None:
        return None

    def optimised(model: bytes) -> bytes:
        return _saved(ort, model, options(ort, threads, graph))

    content = read_codec(_part(graph), graph.path.parent, optimised).to_bytes()
    return content if _alike(ort, graph, content, threads) else None


def with_modulated_weights(ort: Any, graph: GraphFile, threads: int | None) -> bytes | None:
    """The graph optimised as ONNX, its modulation moved into weights; None where that cannot be, or does not hold.

    Raises:
        BundleError: the graph cannot be read, or has no such part. ONNX Runtime's own errors pass through.
    """
    if graph.spec.precision != _FP32:
        return None
    model = _part(graph)
    modulations = set_aside(model, next(iter(model.inputs)))
    if not modulations:
        return None
    with tempfile.TemporaryDirectory() as folder:
        bare = save_optimised(ort, model.to_bytes(), Path(folder, "graph.onnx"), options(ort, threads, graph))
    for block in BLOCKS:
        modulated = OnnxModel(bare)
        if modulate(modulated, modulations, block):
            content = modulated.to_bytes()
            if _alike(ort, graph, content, threads):
                return content
    return None


def save_optimised(ort: Any, model: bytes, path: Path, chosen: Any) -> bytes:
    """Have a model optimised and written, as ONNX or, with the suffix ``.ort``, in ONNX Runtime's own format."""
    chosen.optimized_model_filepath = str(path)
    chosen.add_session_config_entry("session.save_model_format", path.suffix[1:].upper())
    ort.InferenceSession(model, chosen, providers=[_CPU])
    return path.read_bytes()


def _saved(ort: Any, model: bytes, chosen: Any) -> bytes:
    """A model optimised, in ONNX Runtime's own format."""
    with tempfile.TemporaryDirectory() as folder:
        return save_optimised(ort, model, Path(folder, "graph.ort"), chosen)


def _alike(ort: Any, graph: GraphFile, content: bytes, threads: int | None) -> bool:
    """Whether what was made of a graph gives what it gives itself, for a small frame and some context, to rounding."""
    as_exported = options(ort, threads, graph)
    as_exported.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    plain = ort.InferenceSession(_part(graph).to_bytes(), as_exported, providers=[_CPU])
    rng = np.random.default_rng(0)
    feed = {}
    for value in plain.get_inputs():
        open_sides = iter(_PROOF)
        shape = [side if isinstance(side, int) else next(open_sides) for side in value.shape]
        feed[value.name] = rng.random(shape, dtype=np.float32)
    (expected,), (got,) = plain.run(None, feed), _ready_session(ort, content, threads).run(None, feed)
    scale = max(1.0, float(np.abs(expected).max()))
    return bool(np.abs(got - expected).max() <= _LIKENESS * scale)


def _ready_session(ort: Any, content: bytes, threads: int | None, beside: int = 1) -> Any:
    def opened(model: bytes) -> Any:
        return ort.InferenceSession(model, _ready_options(ort, threads), providers=[_CPU])

    codec = Codec.from_bytes(content)
    return opened(content) if codec is None else CodecSession(codec, opened, threads or available_cores(), beside)


def _ready_options(ort: Any, threads: int | None) -> Any:
    """For what is optimised already."""
    ready = options(ort, threads)
    ready.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ready


def options(ort: Any, threads: int | None, graph: GraphFile | None = None) -> Any:
    """Settings of a session; with the graph where the model comes from memory: its weights lie beside its file."""
    made = ort.SessionOptions()
    if graph is not None:
        made.add_session_config_entry("session.model_external_initializers_file_folder_path", str(graph.path.parent))
    made.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    made.intra_op_num_threads = threads or available_cores()
    made.inter_op_num_threads = 1
    made.log_severity_level = _ERRORS_ONLY
    # Frames come in several sizes: a memory plan per size would only pile up.
    made.enable_mem_pattern = False
    # Threads spin while a run is under way (faster), and sleep between runs (decoders need the cores).
    made.add_session_config_entry("session.force_spinning_stop", "1")
    return made


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
