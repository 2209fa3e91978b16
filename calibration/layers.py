"""The layers of a graph that could run in INT8, and what they cost."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx
    from numpy.typing import NDArray

    from uare_rt.calibration.graph import Graph

__all__ = ["Layer", "find_layers", "macs"]

_WEIGHTED = {"Conv": 0, "ConvTranspose": 1, "MatMul": -1, "Gemm": 1}


@dataclass(frozen=True)
class Layer:
    """A convolution or matrix product.

    Attributes:
        name: of its node.
        source: the module of the network it came from.
        kind: `conv`, `linear` (a product with weights) or `attention` (a product of two activations).
        inputs: tensors that INT8 would quantise: its input, or both for attention.
        residual: a tensor that is added to its result and to nothing else first, quantised with it so that
            TensorRT can add in the same kernel; None where there is none.
        weight: name of its weight constant; None for attention.
        bias: name of its bias constant, added to the result as it is; None where there is none.
        axis: output channels of the weight.
        key: identifies the weight's values, of attention how its result comes about, for layers that several graphs
            share.
    """

    name: str
    source: str
    kind: Literal["conv", "linear", "attention"]
    inputs: tuple[str, ...]
    residual: str | None = None
    weight: str | None = None
    bias: str | None = None
    axis: int = 0
    key: str = ""


def find_layers(graph: Graph) -> list[Layer]:
    """Every convolution and matrix product of a float32 graph, in order."""
    sources, consumers, producers = graph.sources(), graph.consumers(), graph.producers()
    digests = graph.digests()
    found = []
    for node in graph.nodes:
        if node.op_type not in _WEIGHTED:
            continue
        source, first, second = sources[node.name], node.input[0], node.input[1]
        if second in graph.constants and first not in graph.constants:
            weight = graph.constants[second]
            kind: Literal["conv", "linear"] = "conv" if node.op_type.startswith("Conv") else "linear"
            residual = _residual(node, graph, consumers, producers) if kind == "conv" else None
            channels, bias = _channels(node, weight), _bias(node, graph)
            found.append(Layer(node.name, source, kind, (first,), residual, second, bias, channels, _digest(weight)))
        elif first not in graph.constants and second not in graph.constants:
            key = digests[node.output[0]].hex()[:16]
            found.append(Layer(node.name, source, "attention", (first, second), key=key))
    return found


def macs(node: onnx.NodeProto, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Multiplications of one run of a node.

    Args:
        node: a convolution or matrix product.
        shapes: of its inputs and output.
    """
    out, weight = shapes[node.output[0]], shapes[node.input[1]]
    if node.op_type == "Conv":
        return int(np.prod(out)) * int(np.prod(weight[1:]))
    if node.op_type == "ConvTranspose":
        return int(np.prod(shapes[node.input[0]])) * int(np.prod(weight[1:]))
    transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    return int(np.prod(out)) * (weight[-1] if transposed else weight[-2] if len(weight) > 1 else weight[0])


def _channels(node: onnx.NodeProto, weight: NDArray[np.generic]) -> int:
    if node.op_type == "Gemm":
        return 0 if any(attribute.name == "transB" and attribute.i for attribute in node.attribute) else 1
    return _WEIGHTED[node.op_type] % weight.ndim


def _bias(node: onnx.NodeProto, graph: Graph) -> str | None:
    scaled = any(attribute.name in ("alpha", "beta") and attribute.f != 1 for attribute in node.attribute)
    known = len(node.input) > 2 and node.input[2] in graph.constants
    return node.input[2] if known and not scaled else None


def _residual(
    node: onnx.NodeProto,
    graph: Graph,
    consumers: Mapping[str, list[onnx.NodeProto]],
    producers: Mapping[str, onnx.NodeProto],
) -> str | None:
    readers = consumers.get(node.output[0], [])
    if len(readers) != 1 or readers[0].op_type != "Add":
        return None
    other = next((name for name in readers[0].input if name != node.output[0]), None)
    if other is None or other in graph.constants:
        return None
    if readers[0].output[0] in {value.name for value in graph.outputs}:
        return None  # the picture itself
    # What is derived from the modulation is one number per channel, not a branch of the network.
    maker = producers.get(other)
    return None if maker is None or maker.op_type in ("Split", "Unsqueeze", "Reshape") else other


def _digest(weight: NDArray[np.generic]) -> str:
    return hashlib.sha256(np.ascontiguousarray(weight).tobytes() + str(weight.shape).encode()).hexdigest()[:16]
