"""Half precision as casts in the graph, for strongly typed networks of every TensorRT.

What loses too much in 16 bits stays in float32:

- values that were observed near or beyond the range of float16, with everything that computes or reads them;
- the statistics of norms (mean of squares, root) and softmax;
- the picture itself: arithmetic between a picture that comes in or goes out and the first or last convolution
  (float16 has 11 bits, a picture up to 16).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from uare_rt.calibration.graph import CONTRACTIONS, LAYOUT, Graph

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx

__all__ = ["LARGEST_HALF", "HalfPlan", "plan_half", "to_half"]

LARGEST_HALF = 65504.0
_BFLOAT16_OPSET = 22  # the first whose convolutions take it
_HEADROOM = 2.0  # other pictures than the observed ones reach further

# Inputs that stay float32 whatever the node computes in.
_FLOAT32_INPUTS = {"Resize": (1, 2)}
_SHAPES = frozenset({"Shape", "Size"})
_REDUCTIONS = frozenset({"ReduceMean", "ReduceSum", "ReduceSumSquare", "ReduceL2"})
_STEPS_OF_NORMS = frozenset({"Add", "Div", "Mul", "Pow", "Reciprocal", "Sqrt"})


@dataclass(frozen=True)
class HalfPlan:
    """Which nodes compute in float32, and why; all others compute in 16 bits.

    Attributes:
        reasons: for a node's name `overflow`, `norm`, `softmax` or `picture`.
        kind: ONNX type of the others, FLOAT16 or BFLOAT16.
    """

    reasons: Mapping[str, str]
    kind: int = TensorProto.FLOAT16


def plan_half(
    graph: Graph,
    largest: Mapping[str, float],
    limit: float = LARGEST_HALF / _HEADROOM,
    kind: int = TensorProto.FLOAT16,
) -> HalfPlan:
    """Choose the nodes that stay in float32.

    Args:
        graph: in float32.
        largest: largest finite magnitude observed of every floating-point tensor.
        limit: magnitudes above it count as out of range; BFLOAT16 has the range of float32.
        kind: ONNX type of the other nodes, FLOAT16 or BFLOAT16.
    """
    if kind == TensorProto.BFLOAT16:
        limit = np.inf
    producers, consumers = graph.producers(), graph.consumers()
    reasons: dict[str, str] = {}
    pictures = {value.name for value in graph.inputs if _is_picture(value)}
    for node in graph.nodes:
        floats = [name for name in (*node.input, *node.output) if name and graph.is_float(name)]
        if not floats or node.op_type in _SHAPES:
            continue
        if any(_magnitude(graph, name, largest) > limit for name in floats):
            reasons[node.name] = "overflow"
        elif node.op_type in ("Softmax", "LogSoftmax"):
            reasons[node.name] = "softmax"
        elif node.op_type not in CONTRACTIONS and any(name in pictures for name in node.input):
            pictures.update(node.output)
            reasons[node.name] = "picture"
    for node in graph.nodes:
        if node.op_type in _REDUCTIONS and graph.is_float(node.output[0]):
            for member in _norm(node, producers, consumers, graph):
                reasons.setdefault(member.name, "norm")
    for value in graph.outputs:
        for node in _last_arithmetic(value.name, producers):
            if graph.is_float(node.output[0]):
                reasons.setdefault(node.name, "picture")
    return HalfPlan(reasons, kind)


def _is_picture(value: onnx.ValueInfoProto) -> bool:
    shape = value.type.tensor_type.shape.dim
    return len(shape) == 4 and shape[1].dim_value == 3 and value.type.tensor_type.elem_type == TensorProto.FLOAT


def _magnitude(graph: Graph, name: str, largest: Mapping[str, float]) -> float:
    if name in graph.constants:
        finite = np.abs(graph.constants[name][np.isfinite(graph.constants[name])])
        return float(finite.max()) if finite.size else 0.0
    return largest.get(name, 0.0)


def _norm(
    reduction: onnx.NodeProto,
    producers: Mapping[str, onnx.NodeProto],
    consumers: Mapping[str, list[onnx.NodeProto]],
    graph: Graph,
) -> list[onnx.NodeProto]:
    """The reduction, the squares it averages, and what becomes of its result until it meets another tensor."""
    found = [reduction]
    squares = producers.get(reduction.input[0])
    if squares is not None and squares.op_type in ("Pow", "Mul") and consumers[squares.output[0]] == [reduction]:
        found.append(squares)
    node = reduction
    while len(readers := consumers.get(node.output[0], [])) == 1:
        node = readers[0]
        others = [name for name in node.input if name not in found[-1].output and name not in graph.constants]
        if node.op_type not in _STEPS_OF_NORMS or (others and found[-1] is not squares):
            break
        found.append(node)
    return found


def _last_arithmetic(output: str, producers: Mapping[str, onnx.NodeProto]) -> list[onnx.NodeProto]:
    """The node that computes an output, and the layout nodes behind it; none if a contraction computes it."""
    chain = []
    node = producers.get(output)
    while node is not None and node.op_type not in CONTRACTIONS:
        chain.append(node)
        if node.op_type not in LAYOUT:
            return chain
        node = producers.get(node.input[0])
    return []


def to_half(graph: Graph, plan: HalfPlan) -> Graph:
    """Write the casts: a graph of 16 bits with float32 inputs and outputs.

    Args:
        graph: in float32, with or without Q/DQ; not changed.
        plan: what stays in float32.

    Returns:
        A new graph.
    """
    result = graph.copy()
    if plan.kind == TensorProto.BFLOAT16:
        result.raise_opset(_BFLOAT16_OPSET)
    writer = _CastWriter(result, plan)
    writer.run()
    return result


class _CastWriter:
    def __init__(self, graph: Graph, plan: HalfPlan) -> None:
        self._graph, self._full, self._half = graph, plan.reasons, plan.kind
        self._types = {name: kind for name, kind in graph.types.items() if kind == TensorProto.FLOAT}
        self._types |= {name: TensorProto.FLOAT for name, value in graph.constants.items() if value.dtype == np.float32}
        self._floats = set(self._types)
        self._consumers = graph.consumers()
        self._cast: dict[tuple[str, int], str] = {}
        self._nodes: list[onnx.NodeProto] = []

    def run(self) -> None:
        graph = self._graph
        outputs = {value.name for value in graph.outputs}
        for node in graph.nodes:
            kind = self._computes_in(node)
            fixed = _FLOAT32_INPUTS.get(node.op_type, ())
            for index, name in enumerate(node.input):
                if name in self._floats and node.op_type not in ("Cast", *_SHAPES):
                    node.input[index] = self._as(name, TensorProto.FLOAT if index in fixed else kind)
            if kind == self._half:
                _retype_attributes(node, kind)
            self._nodes.append(node)
            for index, name in enumerate(node.output):
                if name not in self._floats:
                    continue
                self._types[name] = kind
                if name in outputs and kind != TensorProto.FLOAT:
                    node.output[index] = f"{name}.half"
                    self._nodes.append(_cast(node.output[index], name, TensorProto.FLOAT))
                    self._types[name] = TensorProto.FLOAT
        graph.nodes = self._nodes
        graph.types.update(self._types)

    def _computes_in(self, node: onnx.NodeProto) -> int:
        if node.op_type == "QuantizeLinear":  # quantises what is there: no cast in between
            return self._types.get(node.input[0], TensorProto.FLOAT)
        if node.op_type == "DequantizeLinear":
            readers = self._consumers.get(node.output[0], [])
            full = bool(readers) and all(reader.name in self._full for reader in readers)
        else:
            full = node.name in self._full
        return TensorProto.FLOAT if full else self._half

    def _as(self, name: str, kind: int) -> str:
        if self._types[name] == kind:
            return name
        known = self._cast.get((name, kind))
        if known is not None:
            return known
        other = f"{name}.{'half' if kind == self._half else 'full'}"
        if name in self._graph.constants:
            value = self._graph.constants[name]
            with np.errstate(over="ignore"):  # a plan that lets this happen gets the infinity it asked for
                self._graph.constants[other] = value.astype(helper.tensor_dtype_to_np_dtype(kind))
        else:
            self._nodes.append(_cast(name, other, kind))
        self._types[other] = kind
        self._cast[name, kind] = other
        return other


def _cast(source: str, target: str, kind: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [source], [target], f"{target}.cast", to=kind)


def _retype_attributes(node: onnx.NodeProto, kind: int) -> None:
    """Nodes that make floats from something else state the type in an attribute."""
    for attribute in node.attribute:
        if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
            attribute.i = kind
        elif attribute.type == AttributeProto.TENSOR and attribute.t.data_type == TensorProto.FLOAT:
            value = np.frombuffer(attribute.t.raw_data, np.float32) if attribute.t.raw_data else attribute.t.float_data
            narrow = value.astype(helper.tensor_dtype_to_np_dtype(kind)).reshape(attribute.t.dims)
            attribute.t.CopyFrom(numpy_helper.from_array(narrow, attribute.t.name))
