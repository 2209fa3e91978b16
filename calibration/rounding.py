"""What a graph of half precision computes, found out on a CPU.

ONNX Runtime has no arithmetic in 16 bits on CPUs: it casts to float32 and removes the rounding in between. Here every
tensor that the typed graph holds in float16 or bfloat16 is rounded to it after the node that computes it, and nodes sum
in float32, as tensor cores do with float32 accumulators. In float16 a value beyond 65504 becomes infinite, as it would
on a device.
"""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from uare_rt.calibration.graph import LAYOUT, Graph

__all__ = ["rounded"]

_HALF = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
# Of values that are 16-bit numbers already, these give such numbers again.
_EXACT = LAYOUT | {"Abs", "LessOrEqual", "Max", "Min", "Neg", "Pad", "Relu", "Where"}


def rounded(graph: Graph) -> Graph:
    """Rewrite a typed graph so that ONNX Runtime on a CPU computes its rounding.

    Args:
        graph: of `to_half`, with or without Q/DQ; not changed.

    Returns:
        A new graph in float32 of the same inputs, outputs and node names, with explicit rounding.
    """
    result = graph.copy()
    half = {name: kind for name, kind in result.types.items() if kind in _HALF}
    for name, value in result.constants.items():
        kind = helper.np_dtype_to_tensor_dtype(value.dtype)
        if kind in _HALF:
            half[name] = kind
            result.constants[name] = value.astype(np.float32)
    nodes = []
    for node in result.nodes:
        for attribute in node.attribute:
            if attribute.t.data_type in _HALF:
                wide = numpy_helper.to_array(attribute.t).astype(np.float32)
                attribute.t.CopyFrom(numpy_helper.from_array(wide, attribute.t.name))
            elif node.op_type == "Cast" and attribute.name == "to" and attribute.i in _HALF:
                attribute.i = TensorProto.FLOAT
        nodes.append(node)
        if node.op_type in _EXACT or (node.op_type == "Resize" and _mode(node) == b"nearest"):
            continue
        for index, name in enumerate(node.output):
            if name in half:
                node.output[index] = f"{name}.exact"
                nodes.append(helper.make_node("Cast", [f"{name}.exact"], [f"{name}.rounded"], to=half[name]))
                nodes.append(helper.make_node("Cast", [f"{name}.rounded"], [name], to=TensorProto.FLOAT))
    result.nodes = nodes
    return Graph(result.model())


def _mode(node: object) -> bytes:
    return next((attribute.s for attribute in node.attribute if attribute.name == "mode"), b"nearest")  # type: ignore[attr-defined]
