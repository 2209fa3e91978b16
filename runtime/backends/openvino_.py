"""OpenVINO, through its own API, on the processor.

Compiling a graph takes about a second, so the result is kept in the user's cache.
"""

from __future__ import annotations

import hashlib
import importlib
import queue
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from uare_rt.backends.base import Capability, one_line
from uare_rt.backends.engine_cache import KEPT_GRAPHS, MOST_KEPT, engine_key, graph_directory, trim
from uare_rt.errors import BackendError, BackendUnavailableError
from uare_rt.machine import available_cores, cpu_identity

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from uare_rt.bundle import GraphFile

__all__ = ["OpenVinoBackend"]

_NAME = "openvino"
# Pixels per core: compiling for one size takes some 0.4 s, and spares a sixth of a run, a third in bfloat16.
_WORTH_SIZING = 3 << 20
_INT8, _BF16 = "int8", "bf16"


class OpenVinoBackend:
    """OpenVINO on the CPU, in float32 unless a graph asks for bfloat16; graphs in INT8 where it adds up as proven."""

    name = _NAME
    runs_parts = True

    @property
    def worth_sizing(self) -> int | None:
        """Some megapixels; see ``Backend.worth_sizing``."""
        return _WORTH_SIZING * available_cores()

    @property
    def precisions(self) -> tuple[str, ...]:
        """bfloat16 where the processor multiplies it (AMX, AVX-512); see ``Backend.precisions``."""
        return (_BF16,) if self.probe().available and "BF16" in _capabilities() else ()

    def probe(self) -> Capability:
        """Whether OpenVINO is installed and finds its CPU plugin."""
        try:
            ov = _import()
            devices = tuple(ov.Core().available_devices)
        except BackendUnavailableError as error:
            return Capability(_NAME, False, str(error))
        except Exception as error:  # a broken installation fails in many ways, all of them a reason
            return Capability(_NAME, False, f"OpenVINO does not start: {one_line(error)}")
        if "CPU" not in devices:
            return Capability(_NAME, False, "OpenVINO finds no CPU plugin; reinstall openvino", ov.__version__, devices)
        return Capability(_NAME, True, "OpenVINO on CPU", ov.__version__, devices)

    def load(self, graph: GraphFile, *, threads: int | None, beside: int = 1) -> _Compiled:
        """Load a graph; see ``Backend.load``."""
        ov = _import()
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": (threads or available_cores()) * beside,
            "NUM_STREAMS": beside,
        }
        if beside > 1:
            settings["ENABLE_CPU_PINNING"] = False  # threads that decode and encode take their turns on these cores
        try:
            core = ov.Core()
            settings |= _arithmetic(graph)
            if graph.shape is None and graph.part is None:
                compiled = core.compile_model(str(graph.path), "CPU", settings | _cache(ov, graph))
            else:
                cached = {} if graph.shape is not None else _cache(ov, graph)  # sizes come and go
                compiled = core.compile_model(_model(ov, core, graph), "CPU", settings | cached)
        except Exception as error:
            raise BackendError(f"{_NAME} cannot load graph {graph.name!r} ({graph.path}): {one_line(error)}") from error
        return _Compiled(compiled, graph)


@cache
def _capabilities() -> tuple[str, ...]:
    return tuple(_import().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))


def _arithmetic(graph: GraphFile) -> dict[str, str]:
    """How to compute: OpenVINO would take bfloat16 wherever the processor has it, which costs quality.

    In graphs in INT8 roundings stay as a build proved them, sums are in float32: OpenVINO's own INT8 saturates without
    VNNI, and with it moves roundings (26 dB from the graph on random weights).
    """
    hint = {"INFERENCE_PRECISION_HINT": "bf16" if graph.spec.precision == _BF16 else "f32"}
    return hint | ({"LP_TRANSFORMS_MODE": "NO"} if graph.spec.precision == _INT8 else {})


def _model(ov: Any, core: Any, graph: GraphFile) -> Any:
    """The part of a graph that is meant, for the shape that is meant."""
    model = core.read_model(str(graph.path))
    results, parameters = model.get_results(), model.get_parameters()
    if graph.part is not None:
        value = _value(model, graph.part.value)
        if graph.part.behind:
            first = parameters[0]
            given = ov.opset8.parameter(first.get_partial_shape(), first.get_element_type(), graph.part.value)
            shapes = [r for r in first.output(0).get_target_inputs() if r.get_node().get_type_name() == "ShapeOf"]
            for reader in (*value.get_target_inputs(), *shapes):
                reader.replace_source_output(given.output(0))
            value.set_names(set())
            given.output(0).set_names({graph.part.value})
            parameters = [given, *parameters[1:]]
        else:
            results = [ov.opset8.result(value)]
    if graph.shape is not None:
        parameters[0].set_partial_shape(ov.PartialShape(list(graph.shape)))
    made = ov.Model(results, _needed(results, parameters), graph.name)
    made.validate_nodes_and_infer_types()
    return made


def _value(model: Any, name: str) -> Any:
    for node in model.get_ordered_ops():
        for output in node.outputs():
            if name in output.get_names():
                return output
    raise BackendError(f"it has no value {name}; export the bundle again")


def _needed(results: list[Any], parameters: list[Any]) -> list[Any]:
    """The parameters that results depend on."""
    seen: set[str] = set()
    open_ = list(results)
    while open_:
        node = open_.pop()
        if node.get_name() not in seen:
            seen.add(node.get_name())
            open_ += [source.get_source_output().get_node() for source in node.inputs()]
    return [parameter for parameter in parameters if parameter.get_name() in seen]


def _cache(ov: Any, graph: GraphFile) -> dict[str, str]:
    """Settings that keep the compiled graph, in a folder of its own: OpenVINO does not look at external weights."""
    if graph.content is None or graph.size > MOST_KEPT:
        return {}
    onnx = hashlib.sha256(graph.path.read_bytes()).hexdigest()
    facts: dict[str, object] = {
        "onnx": onnx,
        "part": graph.part,
        "bundle": graph.content,
        "backend": f"{_NAME} {ov.__version__}",
        "processor": cpu_identity(),
    }
    key = engine_key(facts | _arithmetic(graph))
    folder = graph_directory() / f"{_NAME}-{key}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        folder.touch()  # used now: others make room first
    except OSError:
        return {}
    trim(graph_directory(), KEPT_GRAPHS)
    return {"CACHE_DIR": str(folder), "CACHE_MODE": "OPTIMIZE_SPEED"}


class _Compiled:
    def __init__(self, compiled: Any, graph: GraphFile) -> None:
        self._compiled = compiled
        self._graph = graph.name
        self._outputs = [output.name for output in graph.spec.outputs]
        if graph.part is not None and not graph.part.behind:
            self._outputs = [graph.part.value]
        # A request serves one run at a time; there come to be as many as threads ever ran at once.
        self._idle: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        compiled = self._compiled
        if compiled is None:
            raise BackendError(f"{_NAME}: graph {self._graph!r} was closed")
        try:
            request = self._idle.get_nowait()
        except queue.Empty:
            request = compiled.create_infer_request()
        try:
            # Outputs belong to the request and change with its next run, so they are copied.
            results = request.infer(dict(inputs), share_inputs=True)
            outputs = {name: np.array(results[name]) for name in self._outputs}
        except Exception as error:
            raise BackendError(f"{_NAME} failed in graph {self._graph!r}: {one_line(error)}") from error
        self._idle.put(request)
        return outputs

    def close(self) -> None:
        self._compiled = None
        self._idle = queue.SimpleQueue()


def _import() -> Any:
    try:
        return importlib.import_module("openvino")
    except ModuleNotFoundError as error:
        raise BackendUnavailableError('openvino is not installed: pip install "uare-rt[openvino]"') from error
    except Exception as error:
        raise BackendUnavailableError(f"openvino cannot be imported ({one_line(error)}); reinstall it") from error
