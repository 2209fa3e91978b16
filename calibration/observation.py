"""Running a graph on calibration samples and noting what every tensor held."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto, helper

from uare_rt.calibration.execution import Executor
from uare_rt.calibration.layers import macs
from uare_rt.calibration.observers import Histogram
from uare_rt.calibration.weights import Moments, is_collected
from uare_rt.machine import available_cores

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from uare_rt.calibration.graph import Graph
    from uare_rt.calibration.layers import Layer

__all__ = ["Known", "Observations", "observe"]


@dataclass(frozen=True)
class Observations:
    """What was seen.

    Attributes:
        largest: for every floating-point tensor its largest finite magnitude.
        histograms: for every tensor that INT8 might quantise.
        macs: for every layer by name its multiplications in one run.
        moments: of a layer's input by the layer's name, see `uare_rt.calibration.weights.is_collected`.
    """

    largest: Mapping[str, float]
    histograms: Mapping[str, Histogram]
    macs: Mapping[str, int]
    moments: Mapping[str, Moments]


@dataclass
class Known:
    """What other graphs have shown on the same samples, by `Graph.digests` of the tensor or of the layer's result."""

    largest: dict[bytes, float] = field(default_factory=dict)
    histograms: dict[bytes, Histogram] = field(default_factory=dict)
    macs: dict[bytes, int] = field(default_factory=dict)
    moments: dict[bytes, Moments] = field(default_factory=dict)


def observe(
    graph: Graph,
    layers: Sequence[Layer],
    samples: Iterable[Mapping[str, NDArray[np.float32]]],
    known: Known | None = None,
) -> Observations:
    """Run a float32 graph on samples.

    Args:
        graph: not changed.
        layers: whose inputs get histograms.
        samples: inputs of the graph, by name.
        known: of graphs that share a part with this one and saw the same samples; gets what is new.

    Raises:
        BackendError: ONNX Runtime fails.
    """
    known = known or Known()
    digests = graph.digests()
    nodes = {node.name: node for node in graph.nodes}
    results = {layer.name: nodes[layer.name].output[0] for layer in layers}
    watched = list(dict.fromkeys(name for layer in layers for name in (*layer.inputs, *_residuals(layer))))
    floats = [name for node in graph.nodes for name in node.output if graph.types.get(name) == TensorProto.FLOAT]
    floats += [value.name for value in graph.inputs]
    largest = {name: 0.0 for name in floats if digests[name] not in known.largest}
    histograms = {name: Histogram() for name in watched if digests[name] not in known.histograms}
    moments = {
        layer.name: Moments(layer, nodes[layer.name], graph.constants[layer.weight])
        for layer in layers
        if is_collected(layer, nodes[layer.name]) and digests[results[layer.name]] not in known.moments
    }
    reads = {layer.name: layer.inputs[0] for layer in layers if layer.name in moments}
    probe = _Probe(graph, largest, [*histograms, *reads.values(), *_shaped(graph, layers, known, digests)])
    for feeds in samples:
        values = probe.run(feeds)
        for name, top in probe.magnitudes(values):
            largest[name] = max(largest[name], top)
        for name, histogram in histograms.items():
            histogram.add(values[name])
        for name, seen in moments.items():
            seen.add(values[reads[name]])
        shapes = {name: value.shape for name, value in (*values.items(), *graph.constants.items())}
        for name, result in results.items():
            if digests[result] not in known.macs:
                known.macs[digests[result]] = macs(nodes[name], shapes)
    known.largest.update((digests[name], top) for name, top in largest.items())
    known.histograms.update((digests[name], histogram) for name, histogram in histograms.items())
    known.moments.update((digests[results[name]], seen) for name, seen in moments.items())
    return Observations(
        {name: known.largest[digests[name]] for name in floats},
        {name: known.histograms[digests[name]] for name in watched},
        {name: known.macs[digests[result]] for name, result in results.items()},
        {x.name: known.moments[digests[results[x.name]]] for x in layers if is_collected(x, nodes[x.name])},
    )


class _Probe:
    """A graph that gives away some of its tensors, and the largest magnitudes of others."""

    def __init__(self, graph: Graph, largest: Iterable[str], wanted: Iterable[str]) -> None:
        probe = graph.copy()
        self._inputs = {value.name for value in graph.inputs}
        self._largest = {_add_magnitude(probe, name): name for name in largest}
        given = {value.name for value in probe.outputs}
        tensors = [name for name in dict.fromkeys(wanted) if name not in self._inputs and name not in graph.constants]
        probe.outputs += [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
            for name in (*tensors, *self._largest)
            if name not in given
        ]
        self._executor = Executor(probe, (*tensors, *self._largest), threads=available_cores())

    def run(self, feeds: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
        return {**feeds, **self._executor.run(feeds)}

    def magnitudes(self, values: Mapping[str, NDArray[np.float32]]) -> Iterable[tuple[str, float]]:
        return ((name, float(values[output])) for output, name in self._largest.items())


def _shaped(graph: Graph, layers: Sequence[Layer], known: Known, digests: Mapping[str, bytes]) -> list[str]:
    """Tensors whose shapes tell what a layer costs."""
    nodes = {node.name: node for node in graph.nodes}
    new = [nodes[layer.name] for layer in layers if digests[nodes[layer.name].output[0]] not in known.macs]
    return [name for node in new for name in (*node.input[:2], node.output[0])]


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
