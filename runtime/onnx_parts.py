"""ONNX files taken apart and put together again, without the onnx package (which is not in the base install).

Only what is needed for that is decoded: protobuf fields of ModelProto.graph, GraphProto and NodeProto, by their numbers
in onnx.proto3. Everything else is carried over as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from uare_rt.errors import BundleError
from uare_rt.protobuf import fields, floats, packed, submessages, varint

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["Node", "OnnxModel", "makes_value"]

_MODEL_GRAPH = 7
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_INPUT, _GRAPH_OUTPUT, _GRAPH_VALUES = 1, 5, 11, 12, 13
_NODE_INPUT, _NODE_OUTPUT, _NODE_TYPE, _NODE_ATTRIBUTE, _NODE_DOMAIN = 1, 2, 4, 5, 7
_ATTRIBUTE_NAME, _ATTRIBUTE_TYPE = 1, 20
_ATTRIBUTE_FLOAT, _ATTRIBUTE_INT, _ATTRIBUTE_STRING, _ATTRIBUTE_INTS = 2, 3, 4, 8
_A_FLOAT, _AN_INT, _A_STRING, _SOME_INTS = 1, 2, 3, 7  # types of attributes
_VALUE_NAME, _VALUE_TYPE = 1, 2
_TYPE_TENSOR, _TENSOR_ELEMENT, _TENSOR_SHAPE, _SHAPE_DIM, _DIM_VALUE, _DIM_NAME = 1, 1, 2, 1, 1, 2
_TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_NAME, _TENSOR_RAW, _TENSOR_EXTERNAL = 1, 2, 8, 9, 13
_ENTRY_KEY, _ENTRY_VALUE = 1, 2
_FLOAT, _INT64, _FLOAT16 = 1, 7, 10
_ARRAYS = {_FLOAT: "<f4", _FLOAT16: "<f2"}


class Node(NamedTuple):
    """One operator.

    Attributes:
        type: for example ``Conv``.
        domain: of the operator, empty for ONNX's own.
        inputs: names of values, empty where an input is left out.
        outputs: names of values.
        rest: its other fields, as they stand in the file.
    """

    type: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    rest: bytes = b""

    @classmethod
    def parse(cls, message: memoryview) -> Node:
        """From the content of a NodeProto."""
        texts: dict[int, list[str]] = {_NODE_INPUT: [], _NODE_OUTPUT: [], _NODE_TYPE: [], _NODE_DOMAIN: []}
        rest = []
        for number, value in fields(message):
            if number in texts and isinstance(value, memoryview):
                texts[number].append(str(value, "utf-8"))
            else:
                rest.append(packed(number, value))
        kind, domain = ("".join(texts[number]) for number in (_NODE_TYPE, _NODE_DOMAIN))
        return cls(kind, domain, tuple(texts[_NODE_INPUT]), tuple(texts[_NODE_OUTPUT]), b"".join(rest))

    def attributes(self) -> dict[str, int | float | str | tuple[int, ...]]:
        """Its attributes that are whole numbers from 0, floats, texts or lists of whole numbers."""
        found: dict[str, int | float | str | tuple[int, ...]] = {}
        for message in submessages(memoryview(self.rest), _NODE_ATTRIBUTE):
            numbers = dict(fields(message))
            name, kind = _text(message, _ATTRIBUTE_NAME), numbers.get(_ATTRIBUTE_TYPE)
            whole = numbers.get(_ATTRIBUTE_INT, 0)
            if kind == _A_FLOAT:
                found[name] = next(floats(message, _ATTRIBUTE_FLOAT), 0.0)
            elif kind == _AN_INT and isinstance(whole, int):
                found[name] = whole
            elif kind == _A_STRING:
                found[name] = _text(message, _ATTRIBUTE_STRING)
            elif kind == _SOME_INTS:
                found[name] = tuple(_integers(message, _ATTRIBUTE_INTS))
        return found

    def to_bytes(self) -> bytes:
        """As the content of a NodeProto."""
        texts = [(_NODE_INPUT, name) for name in self.inputs] + [(_NODE_OUTPUT, name) for name in self.outputs]
        texts += [(_NODE_TYPE, self.type), *([(_NODE_DOMAIN, self.domain)] if self.domain else [])]
        return b"".join(packed(number, text.encode()) for number, text in texts) + self.rest


class OnnxModel:
    """An ONNX file whose graph can be changed.

    Names of external weight files are kept as they are.

    Args:
        content: of the file.

    Attributes:
        nodes: in the order in which they run.
        initializers: contents of TensorProto, by name.
        inputs: contents of ValueInfoProto, by name.
        outputs: the same.

    Raises:
        BundleError: it cannot be read.
    """

    def __init__(self, content: bytes) -> None:
        self.nodes: list[Node] = []
        self.initializers: dict[str, bytes] = {}
        self.inputs: dict[str, bytes] = {}
        self.outputs: dict[str, bytes] = {}
        self._rest, self._graph_rest = b"", b""
        try:
            self._read(memoryview(content))
        except (IndexError, ValueError) as error:
            raise BundleError(f"the graph cannot be read as ONNX ({error}); export the bundle again") from error
        if not self.nodes:
            raise BundleError("the graph cannot be read as ONNX (it has no operators); export the bundle again")

    def _read(self, model: memoryview) -> None:
        self._rest = _others(model, {_MODEL_GRAPH})
        kept = {
            _GRAPH_INITIALIZER: (self.initializers, _TENSOR_NAME),
            _GRAPH_INPUT: (self.inputs, _VALUE_NAME),
            _GRAPH_OUTPUT: (self.outputs, _VALUE_NAME),
        }
        for graph in submessages(model, _MODEL_GRAPH):
            self._graph_rest += _others(graph, {_GRAPH_NODE, _GRAPH_VALUES, *kept})
            for number, value in fields(graph):
                if number == _GRAPH_NODE and isinstance(value, memoryview):
                    self.nodes.append(Node.parse(value))
                elif number in kept and isinstance(value, memoryview):
                    found, name = kept[number]
                    found[_text(value, name)] = bytes(value)

    def to_bytes(self) -> bytes:
        """The content of a file."""
        graph = [packed(_GRAPH_NODE, node.to_bytes()) for node in self.nodes]
        for number, messages in (
            (_GRAPH_INITIALIZER, self.initializers),
            (_GRAPH_INPUT, self.inputs),
            (_GRAPH_OUTPUT, self.outputs),
        ):
            graph += [packed(number, message) for message in messages.values()]
        return self._rest + packed(_MODEL_GRAPH, b"".join((*graph, self._graph_rest)))

    def makers(self) -> dict[str, Node]:
        """The node that makes each value."""
        return {name: node for node in self.nodes for name in node.outputs}

    def readers(self) -> dict[str, list[Node]]:
        """The nodes that read each value."""
        found: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.inputs):
                found.setdefault(name, []).append(node)
        return found

    def needed(self, wanted: Iterable[str], given: Collection[str] = ()) -> set[str]:
        """All values that some depend on, themselves included; of what is ``given`` nothing further."""
        makers, found, open_ = self.makers(), set[str](), list(wanted)
        while open_:
            name = open_.pop()
            if name not in found:
                found.add(name)
                if name in makers and name not in given:
                    open_ += makers[name].inputs
        return found

    def keep_before(self, value: str) -> None:
        """Keep what makes a value, which becomes the only output; it has the type and shape of the first input.

        Raises:
            BundleError: there is no such value.
        """
        self._cut(self.inputs, {value: _renamed(self._first_input(), value)})

    def keep_behind(self, value: str) -> None:
        """Keep what a value is needed for; it takes the place of the first input, whose type and shape it has.

        Raises:
            BundleError: there is no such value, or the first input is needed for more than its shape.
        """
        first = next(iter(self.inputs), "")
        self.nodes = [
            node._replace(inputs=(value,)) if node.type == "Shape" and node.inputs == (first,) else node
            for node in self.nodes
        ]
        others = dict(list(self.inputs.items())[1:])
        self._cut({value: _renamed(self._first_input(), value), **others}, self.outputs)

    def keep_between(self, inputs: Mapping[str, Sequence[int | str]], outputs: Iterable[str]) -> None:
        """Keep what makes some values out of others.

        Args:
            inputs: names and shapes, open sides by name, of values that may be given from now on; those that are inputs
                already stay as they are, others are float32.
            outputs: names of the values that are asked for, float32 of any shape.

        Raises:
            BundleError: there is no such value, or they need more than is given.
        """
        given = {name: self.inputs.get(name) or _float_value(name, shape) for name, shape in inputs.items()}
        self._cut(given, {name: _float_value(name) for name in outputs})

    def _first_input(self) -> bytes:
        return next(iter(self.inputs.values()), b"")

    def _cut(self, inputs: Mapping[str, bytes], outputs: Mapping[str, bytes]) -> None:
        makers = self.makers()
        for value in (*inputs, *outputs):
            if value not in makers and value not in self.inputs:
                raise BundleError(f"the graph has no value {value}; export the bundle again")
        needed = self.needed(outputs, inputs)
        made = {name for name in needed if name and name not in inputs}
        self.nodes = [node for node in self.nodes if made.intersection(node.outputs)]
        self.initializers = {name: tensor for name, tensor in self.initializers.items() if name in needed}
        self.inputs = {name: info for name, info in inputs.items() if name in needed}
        self.outputs = dict(outputs)
        lacking = needed - self.makers().keys() - self.inputs.keys() - self.initializers.keys() - {""}
        if lacking:
            raise BundleError(
                f"what makes {', '.join(outputs)} needs {', '.join(sorted(lacking))} too; export the bundle again"
            )

    def rewire(self, change: Callable[[Node], Sequence[Node]]) -> None:
        """Replace every node by what ``change`` gives, then order all so that each value is made before it is read.

        Raises:
            BundleError: some value is never made.
        """
        left = [new for node in self.nodes for new in change(node)]
        ready = {"", *self.inputs, *self.initializers}
        self.nodes = []
        while left:
            late = []
            for node in left:
                if ready.issuperset(node.inputs):
                    self.nodes.append(node)
                    ready.update(node.outputs)
                else:
                    late.append(node)
            if len(late) == len(left):
                raise BundleError(f"the graph lacks what {late[0].type} {late[0].outputs[0]} reads; export it again")
            left = late

    def add_output(self, name: str) -> None:
        """Make a value of float32, of any shape, an output."""
        self.outputs[name] = _float_value(name)

    def add_integers(self, name: str, values: Sequence[int]) -> None:
        """Add a constant, int64 [len(values)]."""
        header = packed(_TENSOR_DIMS, len(values)) + packed(_TENSOR_TYPE, _INT64) + packed(_TENSOR_NAME, name.encode())
        self.initializers[name] = header + packed(_TENSOR_RAW, np.asarray(values, "<i8").tobytes())

    def shape(self, initializer: str) -> tuple[int, ...]:
        """Of an initializer."""
        return tuple(_dims(memoryview(self.initializers[initializer])))

    def array(self, initializer: str, folder: Path) -> NDArray[np.generic]:
        """The values of an initializer of 16 or 32-bit floats; those of an external one lie in a file in a folder.

        Raises:
            BundleError: it is of another type, or its values are not there.
        """
        kind, raw, place = 0, memoryview(b""), dict[str, str]()
        for number, value in fields(memoryview(self.initializers[initializer])):
            if number == _TENSOR_TYPE and isinstance(value, int):
                kind = value
            elif number == _TENSOR_RAW and isinstance(value, memoryview):
                raw = value
            elif number == _TENSOR_EXTERNAL and isinstance(value, memoryview):
                place[_text(value, _ENTRY_KEY)] = _text(value, _ENTRY_VALUE)
        if kind not in _ARRAYS:
            raise BundleError(f"{initializer} holds no 16 or 32-bit floats; export the bundle again")
        try:
            if place:
                with (folder / place["location"]).open("rb") as file:
                    file.seek(int(place.get("offset", 0)))
                    raw = memoryview(file.read(int(place["length"])))
            return np.frombuffer(raw, _ARRAYS[kind]).reshape(self.shape(initializer))
        except (KeyError, OSError, ValueError) as error:
            raise BundleError(
                f"the values of {initializer} cannot be read ({error}); export the bundle again"
            ) from error

    def reshape(self, initializer: str, shape: Sequence[int]) -> None:
        """Declare another shape for the values of an initializer, as many as before."""
        tensor = memoryview(self.initializers[initializer])
        dims = b"".join(packed(_TENSOR_DIMS, side) for side in shape)
        self.initializers[initializer] = dims + _others(tensor, {_TENSOR_DIMS})


def _float_value(name: str, shape: Sequence[int | str] | None = None) -> bytes:
    """The content of a ValueInfoProto: float32 of a shape, its open sides by name; of any shape if None."""
    tensor = packed(_TENSOR_ELEMENT, _FLOAT)
    if shape is not None:
        sides = (
            packed(_DIM_VALUE, side) if isinstance(side, int) else packed(_DIM_NAME, side.encode()) for side in shape
        )
        tensor += packed(_TENSOR_SHAPE, b"".join(packed(_SHAPE_DIM, side) for side in sides))
    return packed(_VALUE_NAME, name.encode()) + packed(_VALUE_TYPE, packed(_TYPE_TENSOR, tensor))


def makes_value(content: bytes, name: str) -> bool:
    """Whether a node of an ONNX file has an output of that name.

    Looked for as the bytes that it would be: taking the file apart takes longer than loading it otherwise does.

    Args:
        content: of the file; nothing is raised where it is none.
        name: of the value.
    """
    return packed(_NODE_OUTPUT, name.encode()) in content


def _others(message: memoryview, numbers: Collection[int]) -> bytes:
    """All fields but some, as they stand."""
    return b"".join(packed(number, value) for number, value in fields(message) if number not in numbers)


def _text(message: memoryview, wanted: int) -> str:
    return next((str(v, "utf-8") for n, v in fields(message) if n == wanted and isinstance(v, memoryview)), "")


def _renamed(value: bytes, name: str) -> bytes:
    return packed(_VALUE_NAME, name.encode()) + _others(memoryview(value), {_VALUE_NAME})


def _dims(tensor: memoryview) -> Iterator[int]:
    return _integers(tensor, _TENSOR_DIMS)


def _integers(message: memoryview, wanted: int) -> Iterator[int]:
    """The whole numbers of a field, each by itself or, as protobuf's own libraries write them, packed."""
    for number, value in fields(message):
        if number != wanted:
            continue
        if isinstance(value, int):
            yield value
        else:
            at = 0
            while at < len(value):
                found, at = varint(value, at)
                yield found
