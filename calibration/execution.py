"""Running graphs that are being calibrated, on the CPU through ONNX Runtime."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from uare_rt.errors import BackendError
from uare_rt.machine import available_cores

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from uare_rt.calibration.graph import Graph

__all__ = ["Executor", "each"]

_ERRORS_ONLY = 3
Item = TypeVar("Item")
Made = TypeVar("Made")


def each(make: Callable[[Item], Made], items: Iterable[Item]) -> list[Made]:
    """Make something of every item, in order, on all cores.

    Graphs of small pictures gain little from two threads in each operator and much from a sample in each thread.
    """
    with ThreadPoolExecutor(available_cores()) as pool:
        return list(pool.map(make, items))


class Executor:
    """A graph, loaded for repeated runs.

    Args:
        graph: in float32, see `uare_rt.calibration.rounding.rounded` for graphs of half precision.
        outputs: names of the tensors to give back; None gives the graph's outputs.
        threads: of every run; one where `each` runs it.

    Raises:
        BackendError: ONNX Runtime refuses it.
    """

    def __init__(self, graph: Graph, outputs: Sequence[str] | None = None, *, threads: int = 1) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        # Everything stays as written: no fusion of Q/DQ into integer kernels, whose rounding is another.
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        # Threads that wait for work must not burn the cores that a build shares with whatever else runs.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.intra_op_num_threads = threads
        options.log_severity_level = _ERRORS_ONLY
        options.enable_mem_pattern = False
        try:
            self._session = ort.InferenceSession(
                graph.model().SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime's exceptions share no base below Exception
            raise BackendError(
                f"graph {graph.name}: ONNX Runtime refuses it: {' '.join(str(error).split())[:300]}"
            ) from error
        self._inputs = {value.name for value in self._session.get_inputs()}
        self.outputs = tuple(outputs or (value.name for value in self._session.get_outputs()))

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """One run; feeds that the graph does not have are left out.

        Raises:
            BackendError: it failed.
        """
        try:
            values = self._session.run(
                list(self.outputs), {name: value for name, value in feeds.items() if name in self._inputs}
            )
        except Exception as error:
            raise BackendError(f"ONNX Runtime failed: {' '.join(str(error).split())[:300]}") from error
        return dict(zip(self.outputs, values, strict=True))
