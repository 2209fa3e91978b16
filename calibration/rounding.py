"""What a graph of half precision computes, found out on a CPU.

ONNX Runtime has no arithmetic in float16 on CPUs: it casts to float32 and removes the rounding in between. Here every
tensor that the typed graph holds in float16 is rounded to float16 after the node that computes it, and nodes sum in
float32, as tensor cores do with float32 accumulators. A value beyond 65504 becomes infinite, as it would on a device.
"""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper

from uare_rt.calibration.graph import LAYOUT, Graph

__all__ = ["rounded"]

# Of values that are float16 numbers already, these give float16 numbers again.
_EXACT = LAYOUT | {"Abs", "LessOrEqual", "Max", "Min", "Neg", "Pad", "Relu", "Where"}


def rounded(graph: Graph) -> Graph:
    """Rewrite a typed graph so that ONNX Runtime on a CPU computes its rounding.

    Args:
        graph: of `to_half`, with or without Q/DQ; not changed.

    Returns:
        A new graph in float32 of the same inputs, outputs and node names, with explicit rounding.
    """
    result = graph.copy()
    half = {name for name, kind in result.types.items() if kind == TensorProto.FLOAT16}
    for name, value in result.constants.items():
        if value.dtype == np.float16:
            half.add(name)
            result.constants[name] = value.astype(np.float32)
    nodes = []
    for node in result.nodes:
        for attribute in node.attribute:
            if attribute.t.data_type == TensorProto.FLOAT16:
                array = np.frombuffer(attribute.t.raw_data, np.float16) if attribute.t.raw_data else None
                values = array if array is not None else np.array(attribute.t.int32_data, np.uint16).view(np.float16)
                tensor = helper.make_tensor(attribute.t.name, TensorProto.FLOAT, attribute.t.dims, np.float32(values))
                attribute.t.CopyFrom(tensor)
            elif node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT16:
                attribute.i = TensorProto.FLOAT
        nodes.append(node)
        if node.op_type in _EXACT or (node.op_type == "Resize" and _mode(node) == b"nearest"):
            continue
        for index, name in enumerate(node.output):
            if name in half:
                node.output[index] = f"{name}.exact"
                nodes.append(helper.make_node("Cast", [f"{name}.exact"], [f"{name}.rounded"], to=TensorProto.FLOAT16))
                nodes.append(helper.make_node("Cast", [f"{name}.rounded"], [name], to=TensorProto.FLOAT))
    result.nodes = nodes
    return Graph(result.model())


def _mode(node: object) -> bytes:
    return next((attribute.s for attribute in node.attribute if attribute.name == "mode"), b"nearest")  # type: ignore[attr-defined]
