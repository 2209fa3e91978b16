"""Finds what the kernels can do in exported ONNX graphs and puts one node in its place.

The node's meaning travels with the graph as a local function made of the nodes it replaced: any ONNX runtime still
runs the graph, `revert` gives the plain one back, and `for_tensorrt` takes the functions off, so that the parser looks
for the plugins of `uare_rt.kernels.tensorrt_plugins`. The plain graph stays what is shipped.

Recognised: the modulation behind a convolution, ``leaky_relu((1 + scale) x + shift)``, and the generator's attention in
windows with a shared context. Casts between their nodes are taken along.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from uare_rt.errors import MissingExtraError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

try:
    import onnx
    from onnx import helper, inliner, numpy_helper
except ImportError as error:
    raise MissingExtraError("onnx", "export") from error

__all__ = ["DOMAIN", "PATTERNS", "count", "for_tensorrt", "fuse", "revert"]

DOMAIN = "uare_rt"
_LEAK = 0.1


class _Mismatch(Exception):
    """A node does not begin the pattern that is looked for."""


class _Match(NamedTuple):
    inputs: tuple[str, ...]
    output: str


class _Graph:
    """Who makes and who reads every value of a graph, and the nodes that a match has seen."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.nodes = list(graph.node)
        self.makers = {name: node for node in self.nodes for name in node.output}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.nodes:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        for node in self.nodes:
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                self.constants[node.output[0]] = node.attribute[0].t
        self.seen: list[onnx.NodeProto] = []

    def value(self, name: str) -> Any:
        """A constant as an array."""
        if name not in self.constants:
            raise _Mismatch
        return numpy_helper.to_array(self.constants[name])

    def back(self, name: str, op_type: str) -> onnx.NodeProto:
        """The node of a type that makes a value, casts passed over."""
        node = self.makers.get(name)
        while node is not None and node.op_type == "Cast":
            self.seen.append(node)
            node = self.makers.get(node.input[0])
        return self._is(node, op_type)

    def forth(self, name: str, op_type: str) -> onnx.NodeProto:
        """The one node, of a type, that reads a value, casts passed over."""
        readers = self.readers.get(name, [])
        while len(readers) == 1 and readers[0].op_type == "Cast":
            self.seen.append(readers[0])
            readers = self.readers.get(readers[0].output[0], [])
        return self._is(readers[0] if len(readers) == 1 else None, op_type)

    def split(self, node: onnx.NodeProto, op_type: str) -> tuple[str, str]:
        """Of a node's two inputs, the one that a node of a type makes, and the other."""
        for one, other in (node.input[:2], reversed(node.input[:2])):
            try:
                self.back(one, op_type)
            except _Mismatch:
                continue
            return one, other
        raise _Mismatch

    def constant(self, node: onnx.NodeProto, expected: float) -> str:
        """Of a node's two inputs, the one that is not the expected scalar constant."""
        for one, other in (node.input[:2], reversed(node.input[:2])):
            if one in self.constants and self.value(one).size == 1 and float(self.value(one)) == expected:
                return str(other)
        raise _Mismatch

    def _is(self, node: onnx.NodeProto | None, op_type: str) -> onnx.NodeProto:
        if node is None or node.op_type != op_type:
            raise _Mismatch
        self.seen.append(node)
        return node


def _modulation(graph: _Graph, last: onnx.NodeProto) -> _Match:
    """``LeakyRelu(Add(Mul(conv, Add(scale, 1)), shift))``."""
    slope = next((attribute.f for attribute in last.attribute if attribute.name == "alpha"), 0.01)
    if abs(slope - _LEAK) > 1e-6:
        raise _Mismatch
    graph.seen.append(last)
    shifted = graph.back(last.input[0], "Add")
    product, shift = graph.split(shifted, "Mul")
    scaled = graph.back(product, "Mul")
    values, factor = graph.split(scaled, "Conv")
    graph.seen = [node for node in graph.seen if node.op_type != "Conv"]
    scale = graph.constant(graph.back(factor, "Add"), 1.0)
    return _Match((values, scale, shift), last.output[0])


def _window_attention(graph: _Graph, softmax: onnx.NodeProto) -> _Match:
    """Scores of a context and of own keys with a mask, one softmax, and both products with values."""
    graph.seen.append(softmax)
    scores = graph.back(softmax.input[0], "Concat")
    far = graph.back(scores.input[0], "MatMul")
    context_k = graph.back(far.input[1], "Transpose").input[0]
    masked = graph.back(graph.back(scores.input[1], "Reshape").input[0], "Add")
    hidden, shaped = graph.split(masked, "Where")
    near = graph.back(graph.back(shaped, "Reshape").input[0], "MatMul")
    k = graph.back(near.input[1], "Transpose").input[0]
    q = graph.back(graph.back(near.input[0], "Mul").input[0], "Reshape").input[0]
    choice = graph.back(hidden, "Where")
    mask = graph.back(choice.input[0], "Not").input[0]
    shape = graph.back(graph.back(choice.input[2], "Expand").input[1], "Shape")
    if shape.input[0] != mask or far.input[0] != near.input[0]:
        raise _Mismatch
    slices = graph.readers.get(softmax.output[0], [])
    casts = [node for node in slices if node.op_type == "Cast"]
    if len(slices) == 1 and casts:
        graph.seen += casts
        slices = graph.readers.get(casts[0].output[0], [])
    if [node.op_type for node in slices] != ["Slice", "Slice"]:
        raise _Mismatch
    graph.seen += slices
    prefix, own = sorted(slices, key=lambda node: int(graph.value(node.input[1])[0]))
    old, new = graph.forth(prefix.output[0], "MatMul"), graph.forth(own.output[0], "MatMul")
    total = graph.forth(new.output[0], "Add")
    if graph.forth(old.output[0], "Add") is not total:
        raise _Mismatch
    last = graph.forth(total.output[0], "Reshape")
    return _Match((q, k, new.input[1], context_k, old.input[1], mask), last.output[0])


PATTERNS: dict[str, tuple[str, Callable[[_Graph, onnx.NodeProto], _Match]]] = {
    "Modulation": ("LeakyRelu", _modulation),
    "WindowAttention": ("Softmax", _window_attention),
}


def fuse(model: onnx.ModelProto, patterns: Iterable[str] = tuple(PATTERNS)) -> onnx.ModelProto:
    """Replace patterns by nodes of `DOMAIN`, each with a local function that says what it means.

    Args:
        model: a plain graph; left as it is.
        patterns: which of `PATTERNS`.

    Returns:
        A copy with the nodes; one without any where nothing was found.

    Raises:
        UsageError: no such pattern.
    """
    unknown = [name for name in patterns if name not in PATTERNS]
    if unknown:
        raise UsageError(f"pattern {', '.join(unknown)} is not one of {', '.join(PATTERNS)}")
    fused = onnx.ModelProto()
    fused.CopyFrom(model)
    graph = _Graph(fused.graph)
    functions: dict[bytes, onnx.FunctionProto] = {}
    for name in patterns:
        begin, matcher = PATTERNS[name]
        for node in [node for node in graph.nodes if node.op_type == begin]:
            graph.seen = []
            try:
                match = matcher(graph, node)
            except _Mismatch:
                continue
            function = _function(graph, match, name, model.opset_import)
            key = function.SerializeToString(deterministic=True)
            same = sum(known.name.startswith(name) for known in functions.values())
            if key not in functions:
                function.name = name if not same else f"{name}{same + 1}"
                functions[key] = function
            new = helper.make_node(functions[key].name, list(match.inputs), [match.output], domain=DOMAIN)
            place = next(i for i, old in enumerate(fused.graph.node) if match.output in old.output)
            del fused.graph.node[place]
            fused.graph.node.insert(place, new)
    if functions:
        fused.functions.extend(functions.values())
        fused.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    _prune(fused.graph)
    return fused


def _function(graph: _Graph, match: _Match, name: str, opsets: Any) -> onnx.FunctionProto:
    """The nodes of a match as a function, under names that are the same wherever the pattern is."""
    names = {value: f"input_{index}" for index, value in enumerate(match.inputs)}
    members = {id(node) for node in graph.seen}
    body = []

    def write(value: str) -> None:
        """Everything that a value needs, then the node that makes it: an order that does not depend on the graph's."""
        if value in names:
            return
        node = graph.makers.get(value)
        if node is None or id(node) not in members:
            names[value] = f"value_{len(names)}"
            # What no node of the pattern makes and is no input is a constant.
            body.append(helper.make_node("Constant", [], [names[value]], value=_nameless(graph, value)))
            return
        for needed in node.input:
            write(needed)
        names[value] = "output" if value == match.output else f"value_{len(names)}"
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.name = ""
        del copy.input[:], copy.output[:]
        copy.input.extend(names[needed] for needed in node.input)
        copy.output.append(names[value])
        body.append(copy)

    write(match.output)
    inputs = [f"input_{index}" for index in range(len(match.inputs))]
    return helper.make_function(DOMAIN, name, inputs, ["output"], body, list(opsets))


def _nameless(graph: _Graph, value: str) -> onnx.TensorProto:
    tensor = onnx.TensorProto()
    tensor.CopyFrom(graph.constants[value])
    tensor.name = ""
    return tensor


def _prune(graph: onnx.GraphProto) -> None:
    """Take out what nobody reads any more."""
    while True:
        read = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
        unread = [index for index, node in enumerate(graph.node) if not read.intersection(node.output)]
        if not unread:
            break
        for index in reversed(unread):
            del graph.node[index]
    for index in reversed(range(len(graph.initializer))):
        if graph.initializer[index].name not in read:
            del graph.initializer[index]


def revert(model: onnx.ModelProto) -> onnx.ModelProto:
    """The plain graph of one that `fuse` made."""
    plain = inliner.inline_local_functions(model)
    kept = [opset for opset in plain.opset_import if opset.domain != DOMAIN]
    del plain.opset_import[:]
    plain.opset_import.extend(kept)
    return plain


def for_tensorrt(model: onnx.ModelProto) -> onnx.ModelProto:
    """A graph of `fuse` without the functions, its nodes named for the plugins. Not run here with TensorRT."""
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    del bare.functions[:]
    for node in bare.graph.node:
        if node.domain == DOMAIN:
            node.op_type = node.op_type.rstrip("0123456789")
            node.attribute.append(helper.make_attribute("plugin_namespace", DOMAIN))
            node.attribute.append(helper.make_attribute("plugin_version", "1"))
    return bare


def count(model: onnx.ModelProto) -> Counter[str]:
    """How many nodes of `DOMAIN` a graph has, by pattern."""
    return Counter(node.op_type.rstrip("0123456789") for node in model.graph.node if node.domain == DOMAIN)
