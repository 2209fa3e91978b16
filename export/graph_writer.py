"""Writing ONNX graphs node by node, with weights that stay in a file.

Tracing a decoder of three small layers with dynamic lengths took PyTorch's exporter minutes and gave sequence
operators that engines do not take, so the graphs of ``uare-7b`` are written out and compared with PyTorch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from uare_rt.export.tracing import IR_VERSION, OPSET, check_opset

if TYPE_CHECKING:
    from collections.abc import Sequence

    from uare_rt.export.weight_file import Weights

__all__ = ["GraphWriter"]

_TYPES = {
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "int8": TensorProto.INT8,
    "int64": TensorProto.INT64,
    "bool": TensorProto.BOOL,
}


class GraphWriter:
    """One graph under construction. Values are named by strings, as in ONNX.

    Args:
        name: of the graph.
        weights: where its weights lie.
    """

    def __init__(self, name: str, weights: Weights) -> None:
        self._name, self._weights = name, weights
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._initializers: dict[str, TensorProto] = {}
        self._values: dict[str, str] = {}
        self._holds: dict[str, str] = {}

    def input(self, name: str, dtype: str, shape: Sequence[int | str]) -> str:
        """Declare an input; a string is a dynamic dimension."""
        self._inputs.append(helper.make_tensor_value_info(name, _TYPES[dtype], shape))
        return name

    def output(self, name: str, value: str, shape: Sequence[int | str], dtype: str = "float32") -> None:
        """Give a value out under a name."""
        self._nodes.append(helper.make_node("Identity", [value], [name]))
        self._outputs.append(helper.make_tensor_value_info(name, _TYPES[dtype], shape))

    def cast(self, value: str, dtype: str) -> str:
        """A value as another type."""
        return self.op("Cast", value, to=_TYPES[dtype])

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output."""
        return self.ops(kind, 1, *inputs, **attributes)[0]

    def ops(self, kind: str, outputs: int, *inputs: str, **attributes: Any) -> list[str]:
        """Add a node with several outputs."""
        names = [f"{kind.lower()}_{len(self._nodes)}_{i}" for i in range(outputs)]
        self._nodes.append(helper.make_node(kind, inputs, names, **attributes))
        return names

    def constant(self, value: object, dtype: type[np.generic] = np.float32) -> str:
        """A small constant, stored in the graph; equal ones are stored once."""
        array = np.asarray(value, dtype)
        key = (str(array.dtype), array.shape, array.tobytes())
        if key not in self._constants:
            name = f"constant_{len(self._constants)}"
            self._constants[key] = name
            self._initializers[name] = numpy_helper.from_array(array, name)
        return self._constants[key]

    def ints(self, *values: int) -> str:
        """An int64 [n] constant, as shapes and axes are given."""
        return self.constant(values, np.int64)

    def weight(self, name: str) -> str:
        """A parameter of the model by its name there, as float32 whatever it is stored as."""
        if name not in self._values:
            tensor = self._weights.place(name)
            self._initializers[tensor.name] = tensor
            wide = tensor.data_type == TensorProto.FLOAT
            self._values[name] = tensor.name if wide else self.op("Cast", tensor.name, to=TensorProto.FLOAT)
        return self._values[name]

    def linear(self, x: str, module: str, *, bias: bool = True) -> str:
        """A linear layer of the model, [T, in] -> [T, out]."""
        tensors = [self._matrix(f"{module}.weight", x), *([self.weight(f"{module}.bias")] if bias else [])]
        return self.op("Gemm", x, *tensors, transB=1)

    def _matrix(self, name: str, x: str) -> str:
        """A matrix as float32, widened no earlier than ``x`` [T, in], which meets it, is there.

        Otherwise a runtime may widen all of a model's matrices before it uses the first: a reshape to sides of 0 keeps
        the shape, and it takes the zeros from that of ``x``.
        """
        tensor = self._weights.place(name)
        if tensor.data_type == TensorProto.FLOAT:
            return self.weight(name)
        self._initializers[tensor.name] = tensor
        if x not in self._holds:
            self._holds[x] = self.op("Mul", self.op("Shape", x), self.constant(0, np.int64))
        return self.cast(self.op("Reshape", tensor.name, self._holds[x]), "float32")

    def silu(self, x: str) -> str:
        """``x * sigmoid(x)``."""
        return self.op("Mul", x, self.op("Sigmoid", x))

    def model(self) -> onnx.ModelProto:
        """The graph, checked; its weights are external data in the weight file.

        Raises:
            UareError: it needs more than opset 20.
        """
        graph = helper.make_graph(
            self._nodes, self._name, self._inputs, self._outputs, list(self._initializers.values())
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        model.producer_name = "uare-rt"
        check_opset(model)
        return model
