"""An ONNX graph to rewrite: weights inside the model, types known, producers and consumers at hand."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from uare_rt.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

__all__ = ["CONTRACTIONS", "FLOAT_TYPES", "LAYOUT", "Graph"]

CONTRACTIONS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum"})
"""Operators that multiply and sum; all others are cheap beside them."""

LAYOUT = frozenset(
    {"Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "Identity", "Reshape", "Slice", "SpaceToDepth", "Split"}
    | {"Squeeze", "Tile", "Transpose", "Unsqueeze"}
)
"""Operators that move values and never change them."""

FLOAT_TYPES = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16})


class Graph:
    """A model with its constants as arrays. Nodes are changed in place; `model` puts everything back together.

    Args:
        model: an ONNX model whose weights are inside it.

    Attributes:
        nodes: in topological order.
        constants: initialisers by name.
        inputs: descriptions of the graph's inputs, in order.
        outputs: descriptions of the graph's outputs, in order.
        types: ONNX element type by tensor name.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self._header = onnx.ModelProto()
        self._header.CopyFrom(model)
        self._header.ClearField("graph")
        self.name = model.graph.name
        self.inputs = list(model.graph.input)
        self.outputs = list(model.graph.output)
        self.constants: dict[str, NDArray[np.generic]] = {
            tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer
        }
        self.nodes = list(model.graph.node)
        self.types = _types(model)
        self._fold_constants()
        _name_nodes(self.nodes)

    @classmethod
    def open(cls, path: Path) -> Graph:
        """Read an ONNX file with the weights it refers to.

        Raises:
            BundleError: it is not readable as ONNX.
        """
        try:
            model = onnx.load(str(path))
        except Exception as error:  # protobuf, onnx and the file system raise kinds of their own
            raise BundleError(
                f"{path} cannot be read as ONNX ({' '.join(str(error).split())[:200]}); export the bundle again"
            ) from error
        return cls(model)

    def copy(self) -> Graph:
        """An independent copy."""
        return Graph(self.model())

    def model(self) -> onnx.ModelProto:
        """The graph as an ONNX model with its weights inside; constants that nothing reads are left out."""
        model = onnx.ModelProto()
        model.CopyFrom(self._header)
        used = {name for node in self.nodes for name in node.input} | {value.name for value in self.outputs}
        graph = helper.make_graph(
            self.nodes,
            self.name,
            self.inputs,
            self.outputs,
            [
                numpy_helper.from_array(np.asarray(value), name)
                for name, value in self.constants.items()
                if name in used
            ],
        )
        model.graph.CopyFrom(graph)
        return model

    def producers(self) -> dict[str, onnx.NodeProto]:
        """For every tensor that a node computes, that node."""
        return {output: node for node in self.nodes for output in node.output if output}

    def consumers(self) -> dict[str, list[onnx.NodeProto]]:
        """For every tensor the nodes that read it, in order."""
        found: defaultdict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in self.nodes:
            for name in dict.fromkeys(node.input):
                if name:
                    found[name].append(node)
        return found

    def is_float(self, tensor: str) -> bool:
        """Whether a tensor holds floating-point numbers."""
        if tensor in self.constants:
            return self.constants[tensor].dtype.kind == "f"
        return self.types.get(tensor) in FLOAT_TYPES

    @property
    def opset(self) -> int:
        """Version of ONNX's operators that the graph is written in."""
        return next(entry.version for entry in self._header.opset_import if entry.domain in ("", "ai.onnx"))

    def raise_opset(self, version: int) -> None:
        """Declare a later version, for types that operators take from then on."""
        for entry in self._header.opset_import:
            if entry.domain in ("", "ai.onnx"):
                entry.version = max(entry.version, version)

    def insert(self, before: onnx.NodeProto, nodes: Iterable[onnx.NodeProto]) -> None:
        """Put nodes in front of another one."""
        at = next(index for index, node in enumerate(self.nodes) if node is before)
        self.nodes[at:at] = nodes

    def sources(self) -> Mapping[str, str]:
        """For every node the module of the network that it came from, as far as names of weights tell.

        A node reads it from the weight or bias it uses, or from the bias added to its result; others belong to
        the module seen last before them.
        """
        consumers = self.consumers()
        found, last = {}, ""
        for node in self.nodes:
            own = _module(node.input, self.constants)
            if not own and node.op_type in CONTRACTIONS:
                own = next(
                    (m for n in consumers.get(node.output[0], ()) if (m := _module(n.input, self.constants))), ""
                )
            last = own or last
            found[node.name] = own or last.rpartition(".")[0] or last or node.name
        return found

    def digests(self) -> dict[str, bytes]:
        """For every tensor a hash of how it comes about: equal ones hold equal values, whatever graph they are in."""
        found = {value.name: value.name.encode() for value in self.inputs}
        found |= {
            name: hashlib.sha256(
                f"{array.dtype}{array.shape}".encode() + np.ascontiguousarray(array).tobytes()
            ).digest()
            for name, array in self.constants.items()
        }
        for node in self.nodes:
            plain = onnx.NodeProto(op_type=node.op_type, domain=node.domain, attribute=node.attribute)
            made = hashlib.sha256(plain.SerializeToString(deterministic=True))
            for name in node.input:
                made.update(found[name] if name else b"-")
            for index, name in enumerate(node.output):
                found[name] = made.digest() + index.to_bytes(2, "big")
        return found

    def _fold_constants(self) -> None:
        """Turn Constant nodes and casts of constants into constants."""
        kept = []
        for node in self.nodes:
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                self.constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
            elif node.op_type == "Cast" and node.input[0] in self.constants:
                kind = helper.tensor_dtype_to_np_dtype(node.attribute[0].i)
                self.constants[node.output[0]] = self.constants[node.input[0]].astype(kind)
            else:
                kept.append(node)
        outputs = {value.name for value in self.outputs}
        if not outputs & set(self.constants):
            self.nodes = kept
        used = {name for node in self.nodes for name in node.input} | outputs
        self.constants = {name: value for name, value in self.constants.items() if name in used}


def _types(model: onnx.ModelProto) -> dict[str, int]:
    inferred = onnx.shape_inference.infer_shapes(model)
    values = (*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output)
    return {value.name: value.type.tensor_type.elem_type for value in values}


def _name_nodes(nodes: Iterable[onnx.NodeProto]) -> None:
    taken: set[str] = set()
    for index, node in enumerate(nodes):
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}_{index}"
        taken.add(node.name)


def _module(names: Iterable[str], constants: Mapping[str, object]) -> str:
    for name in names:
        if name in constants and "." in name:
            return name.removeprefix("model.").rpartition(".")[0]
    return ""
