"""Quantisation as pairs of QuantizeLinear and DequantizeLinear, where TensorRT fuses them.

A pair stands in front of the input of a convolution or matrix product, one for all layers that read the tensor;
weights are stored in INT8 with one scale per output channel behind a DequantizeLinear. Nothing stands between a
convolution and its activation. A branch that is added to a convolution's result is quantised with it.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
from onnx import helper

from uare_rt.calibration.observers import scale_of
from uare_rt.calibration.weights import RoundedWeight, round_weight

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import onnx

    from uare_rt.calibration.graph import Graph
    from uare_rt.calibration.layers import Layer

__all__ = ["place"]


def place(
    graph: Graph,
    layers: Iterable[Layer],
    ranges: Mapping[str, float],
    weights: Mapping[str, RoundedWeight] = MappingProxyType({}),
    *,
    stored: Iterable[Layer] = (),
) -> Graph:
    """Write Q/DQ pairs for the chosen layers.

    Args:
        graph: in float32; not changed.
        layers: to run in INT8; all their inputs need a range above 0.
        ranges: largest magnitude to represent, by tensor.
        weights: rounded weights by name of the layer; others are rounded to the nearest step.
        stored: further layers whose weights alone are kept in INT8.

    Returns:
        A new graph.
    """
    result = graph.copy()
    nodes = {node.name: node for node in result.nodes}
    consumers = result.consumers()
    pairs: dict[str, str] = {}
    for layer in layers:
        node = nodes[layer.name]
        if layer.residual is not None:
            (reader,) = consumers[node.output[0]]
            _rewire(reader, layer.residual, _pair(result, layer.residual, ranges, pairs))
        for name in layer.inputs:
            _rewire(node, name, _pair(result, name, ranges, pairs))
        if layer.weight is not None:
            _store(result, node, layer, weights.get(layer.name))
    for layer in stored:
        _store(result, nodes[layer.name], layer, weights.get(layer.name))
    return result


def _pair(graph: Graph, name: str, ranges: Mapping[str, float], pairs: dict[str, str]) -> str:
    if name in pairs:
        return pairs[name]
    prefix = f"{name}.int8"
    graph.constants[f"{prefix}.scale"] = scale_of(ranges[name])
    graph.constants[f"{prefix}.zero"] = np.zeros((), np.int8)
    parameters = [f"{prefix}.scale", f"{prefix}.zero"]
    pair = [
        helper.make_node("QuantizeLinear", [name, *parameters], [prefix], f"{prefix}.quantize"),
        helper.make_node("DequantizeLinear", [prefix, *parameters], [f"{prefix}.real"], f"{prefix}.dequantize"),
    ]
    first = next(node for node in graph.nodes if name in node.input)
    graph.insert(first, pair)
    pairs[name] = f"{prefix}.real"
    return pairs[name]


def _rewire(node: onnx.NodeProto, old: str, new: str) -> None:
    for index, name in enumerate(node.input):
        if name == old:
            node.input[index] = new


def _store(graph: Graph, node: onnx.NodeProto, layer: Layer, known: RoundedWeight | None) -> None:
    assert layer.weight is not None
    prefix = f"{layer.weight}.int8"
    real = f"{prefix}.{node.name}"
    weight = known or round_weight(np.asarray(graph.constants[layer.weight], np.float32), layer.axis)
    if prefix not in graph.constants:
        graph.constants[prefix], graph.constants[f"{prefix}.scale"] = weight.levels, weight.scales
        graph.constants[f"{prefix}.zero"] = np.zeros(len(weight.scales), np.int8)
    if weight.shift is not None and layer.bias is not None:
        graph.constants[f"{layer.bias}.int8.{node.name}"] = graph.constants[layer.bias] + weight.shift
        _rewire(node, layer.bias, f"{layer.bias}.int8.{node.name}")
    graph.insert(
        node,
        [
            helper.make_node(
                "DequantizeLinear",
                [prefix, f"{prefix}.scale", f"{prefix}.zero"],
                [real],
                f"{real}.dequantize",
                axis=layer.axis,
            )
        ],
    )
    _rewire(node, layer.weight, real)
