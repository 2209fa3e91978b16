"""Running a graph on calibration samples and noting what every tensor held."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto, helper

from uare_rt.calibration.execution import Executor
from uare_rt.calibration.layers import macs
from uare_rt.calibration.observers import Histogram
from uare_rt.calibration.weights import Moments

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from uare_rt.calibration.graph import Graph
    from uare_rt.calibration.layers import Layer

__all__ = ["Observations", "observe"]


@dataclass(frozen=True)
class Observations:
    """What was seen.

    Attributes:
        largest: for every floating-point tensor its largest finite magnitude.
        histograms: for every tensor that INT8 might quantise.
        macs: for every layer by name its multiplications in one run.
        moments: for every layer with weights by name, of its input.
    """

    largest: Mapping[str, float]
    histograms: Mapping[str, Histogram]
    macs: Mapping[str, int]
    moments: Mapping[str, Moments]


def observe(
    graph: Graph, layers: Sequence[Layer], samples: Iterable[Mapping[str, NDArray[np.float32]]]
) -> Observations:
    """Run a float32 graph on samples.

    Args:
        graph: not changed.
        layers: whose inputs get histograms.
        samples: inputs of the graph, by name.

    Raises:
        BackendError: ONNX Runtime fails.
    """
    watched = list(dict.fromkeys(name for layer in layers for name in (*layer.inputs, *_residuals(layer))))
    nodes = {node.name: node for node in graph.nodes}
    results = [nodes[layer.name].output[0] for layer in layers]
    probe = graph.copy()
    floats = [
        name for node in probe.nodes for name in node.output if name and probe.types.get(name) == TensorProto.FLOAT
    ]
    magnitudes = {_add_magnitude(probe, name): name for name in floats}
    given = {value.name for value in probe.outputs}
    extra = [name for name in dict.fromkeys((*watched, *results)) if name not in given and name in floats]
    probe.outputs += [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in (*extra, *magnitudes)]
    inputs = {value.name for value in graph.inputs}
    wanted = [name for name in (*watched, *results) if name not in inputs]
    executor = Executor(probe, tuple(dict.fromkeys((*wanted, *magnitudes))))
    largest = dict.fromkeys(floats, 0.0)
    histograms = {name: Histogram() for name in watched}
    weighted = {
        layer.name: (layer.inputs[0], Moments(layer, nodes[layer.name], graph.constants[layer.weight]))
        for layer in layers
        if layer.weight is not None
    }
    counts: dict[str, int] = {}
    for feeds in samples:
        values = {**feeds, **executor.run(feeds)}
        for output, name in magnitudes.items():
            largest[name] = max(largest[name], float(values[output]))
        for name in inputs & set(feeds):
            largest[name] = max(largest.get(name, 0.0), float(np.abs(feeds[name]).max()))
        for name, histogram in histograms.items():
            histogram.add(values[name])
        for name, moments in weighted.values():
            moments.add(values[name])
        if not counts:
            shapes = {name: value.shape for name, value in (*values.items(), *graph.constants.items())}
            counts = {layer.name: macs(nodes[layer.name], shapes) for layer in layers}
    return Observations(largest, histograms, counts, {name: moments for name, (_, moments) in weighted.items()})


def _residuals(layer: Layer) -> tuple[str, ...]:
    return () if layer.residual is None else (layer.residual,)


def _add_magnitude(graph: Graph, name: str) -> str:
    """Nodes for the largest finite magnitude; masks add minus infinity on purpose."""
    out = f"{name}.largest"
    graph.constants["magnitude.zero"] = np.zeros((), np.float32)
    graph.nodes += [
        helper.make_node("Abs", [name], [f"{out}.abs"]),
        helper.make_node("IsInf", [name], [f"{out}.inf"]),
        helper.make_node("Where", [f"{out}.inf", "magnitude.zero", f"{out}.abs"], [f"{out}.finite"]),
        helper.make_node("ReduceMax", [f"{out}.finite"], [out], keepdims=0),
    ]
    return out
