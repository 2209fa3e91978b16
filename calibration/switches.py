"""One graph in which every layer can be switched to INT8 and back between runs, whole or its weights only.

Sensitivity needs as many measurements as there are layers, and loading a graph costs more than running it. The
switches are inputs of the graph; what a layer computes with its switch on is what `qdq.place` would make of it.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto, helper

from uare_rt.calibration.execution import Executor
from uare_rt.calibration.observers import scale_of
from uare_rt.calibration.weights import RoundedWeight, round_weight

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from typing import Any

    import onnx
    from numpy.typing import NDArray

    from uare_rt.calibration.graph import Graph
    from uare_rt.calibration.layers import Layer

__all__ = ["Switchable"]


class Switchable:
    """A graph with a switch per layer.

    Args:
        graph: in float32 with explicit rounding, see `uare_rt.calibration.rounding.rounded`; not changed.
        original: the float32 graph that the layers were found in.
        layers: what can be switched.
        ranges: largest magnitude to represent, by tensor of `original`.
        weights: see `uare_rt.calibration.qdq.place`.
    """

    def __init__(
        self,
        graph: Graph,
        original: Graph,
        layers: Sequence[Layer],
        ranges: Mapping[str, float],
        weights: Mapping[str, RoundedWeight] = MappingProxyType({}),
    ) -> None:
        self._switches = {layer.name: f"switch.{index}" for index, layer in enumerate(layers)}
        self._weights = {x.name: f"{self._switches[x.name]}.weight" for x in layers if x.weight is not None}
        result = graph.copy()
        nodes = {node.name: node for node in result.nodes}
        consumers = result.consumers()
        places = {node.name: node.input for node in original.nodes}
        for layer in layers:
            switch, node = self._switches[layer.name], nodes[layer.name]
            for name in (switch, *filter(None, (self._weights.get(layer.name),))):
                result.inputs.append(helper.make_tensor_value_info(name, TensorProto.BOOL, []))
            if layer.residual is not None:
                _switch_residual(result, consumers, node, switch, layer.residual, ranges[layer.residual])
            for index, name in enumerate(places[layer.name]):
                if name in layer.inputs:
                    _switch(result, node, index, switch, name, ranges[name])
                elif name == layer.weight:
                    weight = weights.get(layer.name) or round_weight(
                        np.asarray(original.constants[name], np.float32), layer.axis
                    )
                    _switch_constant(result, node, index, f"{switch}.weight", name, weight.real(layer.axis))
                    if layer.bias is not None and weight.shift is not None:
                        shifted = original.constants[layer.bias] + weight.shift
                        _switch_constant(result, node, 2, f"{switch}.weight", layer.bias, shifted)
        self._executor = Executor(result)
        self.outputs = self._executor.outputs

    def run(
        self, feeds: Mapping[str, NDArray[Any]], int8: Collection[str] = (), stored: Collection[str] = ()
    ) -> dict[str, NDArray[Any]]:
        """Run with some layers in INT8.

        Args:
            feeds: inputs of the graph.
            int8: names of the layers that are switched on.
            stored: names of the layers of which only the weights are in INT8.
        """
        switches = {switch: np.array(name in int8) for name, switch in self._switches.items()}
        switches |= {switch: np.array(name in int8 or name in stored) for name, switch in self._weights.items()}
        return self._executor.run({**feeds, **switches})


def _switch(graph: Graph, node: onnx.NodeProto, index: int, switch: str, source: str, largest: float) -> None:
    """Put a switch before an input; `source` is the tensor before a cast, which Q/DQ would read directly."""
    tensor, prefix = node.input[index], f"{switch}.{node.name}.{index}"
    graph.constants[f"{prefix}.scale"] = scale_of(largest)
    graph.constants[f"{prefix}.zero"] = np.zeros((), np.int8)
    parameters = [f"{prefix}.scale", f"{prefix}.zero"]
    graph.insert(
        node,
        [
            helper.make_node("QuantizeLinear", [source, *parameters], [f"{prefix}.q"]),
            helper.make_node("DequantizeLinear", [f"{prefix}.q", *parameters], [f"{prefix}.exact"]),
            helper.make_node("Cast", [f"{prefix}.exact"], [f"{prefix}.half"], to=TensorProto.FLOAT16),
            helper.make_node("Cast", [f"{prefix}.half"], [f"{prefix}.real"], to=TensorProto.FLOAT),
            helper.make_node("Where", [switch, f"{prefix}.real", tensor], [f"{prefix}.out"]),
        ],
    )
    node.input[index] = f"{prefix}.out"


def _switch_residual(
    graph: Graph,
    consumers: Mapping[str, list[onnx.NodeProto]],
    node: onnx.NodeProto,
    switch: str,
    source: str,
    largest: float,
) -> None:
    result = node.output[0]
    while (reader := consumers[result][0]).op_type == "Cast":  # the rounding of the convolution's result
        result = reader.output[0]
    _switch(graph, reader, next(i for i, name in enumerate(reader.input) if name != result), switch, source, largest)


def _switch_constant(
    graph: Graph, node: onnx.NodeProto, index: int, switch: str, source: str, other: NDArray[np.floating]
) -> None:
    """Switch between a constant and another one; `source` is its name before a cast to half precision."""
    constant, prefix = node.input[index], f"{switch}.{node.name}.{index}"
    half = constant != source
    graph.constants[f"{prefix}.other"] = np.asarray(other.astype(np.float16) if half else other, np.float32)
    graph.insert(node, [helper.make_node("Where", [switch, f"{prefix}.other", constant], [f"{prefix}.out"])])
    node.input[index] = f"{prefix}.out"
