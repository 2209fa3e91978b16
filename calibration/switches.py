"""One graph in which every layer can be switched to INT8 and back between runs, whole or its weights only.

Sensitivity needs as many measurements as there are layers, and loading a graph costs more than running it. The
switches are inputs of the graph; what a layer computes with its switch on is what `qdq.place` would make of it.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from uare_rt.calibration.execution import Executor
from uare_rt.calibration.observers import scale_of
from uare_rt.calibration.weights import RoundedWeight, round_weight

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from typing import Any

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
        places = {node.name: tuple(node.input) for node in original.nodes}
        for layer in layers:
            switch, node = self._switches[layer.name], nodes[layer.name]
            for name in (switch, *filter(None, (self._weights.get(layer.name),))):
                result.inputs.append(helper.make_tensor_value_info(name, TensorProto.BOOL, []))
            if layer.residual is not None:
                _switch_residual(result, consumers, node, switch, layer.residual, ranges[layer.residual])
            branches = _Branches(result, node, switch, places[layer.name])
            quantised = {name: ranges[name] for name in layer.inputs}
            others: dict[str, NDArray[np.floating]] = {}
            if layer.weight is not None:
                weight = weights.get(layer.name) or round_weight(
                    np.asarray(original.constants[layer.weight], np.float32), layer.axis
                )
                others[layer.weight] = weight.real(layer.axis)
                if layer.bias is not None and weight.shift is not None:
                    others[layer.bias] = original.constants[layer.bias] + weight.shift
            real = branches.make("real", {}, {})
            if layer.weight is not None:
                stored = branches.make("stored", {}, others)
                real = branches.choose(f"{switch}.weight", stored, real)
            branches.replace(branches.make("int8", quantised, others), real)
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


class _Branches:
    """What a layer computes, in versions of which only the chosen one runs.

    Args:
        graph: whose node becomes a choice between versions.
        node: the layer's.
        switch: name of the switch that chooses INT8.
        sources: the node's inputs before casts to half precision, which Q/DQ would read directly.
    """

    def __init__(self, graph: Graph, node: onnx.NodeProto, switch: str, sources: Sequence[str]) -> None:
        self._graph, self._node, self._switch, self._sources = graph, node, switch, sources

    def make(
        self, name: str, ranges: Mapping[str, float], others: Mapping[str, NDArray[np.floating]]
    ) -> onnx.GraphProto:
        """One version.

        Args:
            name: distinguishes it from the others.
            ranges: of the inputs that it quantises.
            others: constants that it has in place of the node's.
        """
        prefix = f"{self._switch}.{name}"
        node = onnx.NodeProto()
        node.CopyFrom(self._node)
        node.name = node.output[0] = f"{prefix}.out"
        before: list[onnx.NodeProto] = []
        constants: dict[str, NDArray[np.generic]] = {}
        for index, (tensor, source) in enumerate(zip(self._node.input, self._sources, strict=True)):
            if source in ranges:
                pair, values = _pair(f"{prefix}.{index}", source, ranges[source])
                before += pair
                constants |= values
                node.input[index] = pair[-1].output[0]
            elif tensor in self._graph.constants:  # a graph drops those that only branches read
                value = np.asarray(others.get(source, self._graph.constants[tensor]))
                rounds = source in others and tensor != source
                node.input[index] = f"{prefix}.{index}"
                constants[node.input[index]] = np.asarray(value.astype(np.float16) if rounds else value, np.float32)
        return _branch(prefix, [*before, node], constants)

    def choose(self, switch: str, then: onnx.GraphProto, otherwise: onnx.GraphProto) -> onnx.GraphProto:
        """A version that is one of two."""
        output = f"{switch}.chosen"
        return _branch(output, [_if(switch, output, then, otherwise)], {})

    def replace(self, int8: onnx.GraphProto, real: onnx.GraphProto) -> None:
        """Put the choice in the node's place."""
        at = next(index for index, node in enumerate(self._graph.nodes) if node is self._node)
        self._graph.nodes[at] = _if(self._switch, self._node.output[0], int8, real)


def _pair(prefix: str, source: str, largest: float) -> tuple[list[onnx.NodeProto], dict[str, NDArray[np.generic]]]:
    """Q/DQ with the rounding to half precision behind it, and its constants."""
    parameters = [f"{prefix}.scale", f"{prefix}.zero"]
    nodes = [
        helper.make_node("QuantizeLinear", [source, *parameters], [f"{prefix}.q"]),
        helper.make_node("DequantizeLinear", [f"{prefix}.q", *parameters], [f"{prefix}.exact"]),
        helper.make_node("Cast", [f"{prefix}.exact"], [f"{prefix}.half"], to=TensorProto.FLOAT16),
        helper.make_node("Cast", [f"{prefix}.half"], [f"{prefix}.real"], to=TensorProto.FLOAT),
    ]
    return nodes, dict(zip(parameters, (scale_of(largest), np.zeros((), np.int8)), strict=True))


def _branch(
    name: str, nodes: Sequence[onnx.NodeProto], constants: Mapping[str, NDArray[np.generic]]
) -> onnx.GraphProto:
    output = helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)
    values = [numpy_helper.from_array(np.asarray(value), key) for key, value in constants.items()]
    return helper.make_graph(nodes, name, [], [output], values)


def _if(switch: str, output: str, then: onnx.GraphProto, otherwise: onnx.GraphProto) -> onnx.NodeProto:
    return helper.make_node("If", [switch], [output], f"{output}.if", then_branch=then, else_branch=otherwise)


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
    index = next(i for i, name in enumerate(reader.input) if name != result)
    prefix, tensor = f"{switch}.residual", reader.input[index]
    pair, constants = _pair(prefix, source, largest)
    same = helper.make_node("Identity", [tensor], [f"{prefix}.same"])
    graph.insert(
        reader, [_if(switch, f"{prefix}.out", _branch(prefix, pair, constants), _branch(f"{prefix}.off", [same], {}))]
    )
    reader.input[index] = f"{prefix}.out"
