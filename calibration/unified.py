"""Precision of the large model's graphs, one graph at a time, with weights that are never all in memory.

Matrix products (linear layers and attention) compute in 16 bits between casts; all else stays in float32: norms,
softmax, rotations, sums. So do the graphs of the image autoencoder, whole: float16 is too narrow for its values,
opset 20 has no convolution in BF16, and they run once where the decoder runs fifty times. The 16 bits are BF16, which
has the range of float32, unless `fp16` is asked for. The linear layers inside the transformers may go further:

- ``int8``: W8A8, one scale per output channel and per input tensor, from observed ranges;
- ``int4``: weights alone, symmetric, one scale per group of 128 inputs of an output channel (opset 21).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, BinaryIO, Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from uare_rt.calibration.observers import LEVELS, scale_of
from uare_rt.calibration.weights import round_weight
from uare_rt.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["GROUP", "UnifiedKind", "WeightSink", "linear_inputs", "pack_int4", "round_groups", "stays_float32", "typed"]

UnifiedKind = Literal["fp16", "bf16", "int8", "int4"]

GROUP = 128
"""Inputs of an output channel that share a scale in INT4."""

_INT4_LEVELS = 7
_CLIPPED = (1.0, 0.95, 0.9, 0.85, 0.8)  # shares of a group's largest magnitude that are tried as its range
_ALIGNMENT = 64
_INSIDE = re.compile(r"(^|\.)layers\.\d+\.")  # linear layers of a transformer, not those at its ends
_CONTRACTIONS = ("Gemm", "MatMul")


class WeightSink:
    """The new file of weights, written tensor by tensor; graphs that share a weight share its bytes.

    Args:
        source: directory of the graphs whose weights are read.
        stream: of the new file, empty.
        name: of the new file.
    """

    def __init__(self, source: Path, stream: BinaryIO, name: str) -> None:
        self._source, self._stream, self._name = source, stream, name
        self._placed: dict[tuple[str, int, str], list[TensorProto]] = {}

    def read(self, tensor: TensorProto) -> NDArray[np.generic]:
        """A weight of the source, mapped from its file and not copied.

        Raises:
            BundleError: the file does not hold it.
        """
        if tensor.data_location != TensorProto.EXTERNAL:
            return numpy_helper.to_array(tensor)
        facts = _facts(tensor)
        dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
        path = self._source / facts["location"]
        try:
            return np.memmap(path, dtype, "r", int(facts.get("offset", 0)), tuple(tensor.dims))
        except (OSError, ValueError) as error:
            raise BundleError(
                f"{path}: does not hold weight {tensor.name} ({error}); export the bundle again"
            ) from error

    def place(self, tensor: TensorProto, form: str, parts: Mapping[str, tuple[NDArray[np.generic], int]]) -> None:
        """Write the parts of a weight in a form."""
        self._placed[_place(tensor, form)] = [
            self._write(name, np.ascontiguousarray(array), kind) for name, (array, kind) in parts.items()
        ]

    def placed(self, tensor: TensorProto, form: str) -> list[TensorProto] | None:
        """Where the parts of a weight lie; None if that form was not written yet."""
        return self._placed.get(_place(tensor, form))

    def _write(self, name: str, array: NDArray[np.generic], kind: int) -> TensorProto:
        raw, dims = array.reshape(-1).view(np.uint8), list(array.shape)
        if kind == TensorProto.INT4:  # two to a byte
            dims[-1] *= 2
        self._stream.write(bytes(-self._stream.tell() % _ALIGNMENT))
        start = self._stream.tell()
        self._stream.write(memoryview(raw))
        proto = TensorProto(name=name, dims=dims, data_type=kind, data_location=TensorProto.EXTERNAL)
        for field, value in (("location", self._name), ("offset", start), ("length", raw.nbytes)):
            proto.external_data.add(key=field, value=str(value))
        return proto


def linear_inputs(model: onnx.ModelProto) -> dict[str, str]:
    """For every linear layer inside the transformers, by name of its weight, the tensor it reads."""
    weights = _weights(model)
    return {weights[node.input[1]].name: node.input[0] for node in model.graph.node if _is_inside(node, weights)}


def stays_float32(model: onnx.ModelProto) -> bool:
    """Whether a graph is one of the autoencoder's."""
    return any(node.op_type == "Conv" for node in model.graph.node)


def typed(
    model: onnx.ModelProto,
    kind: UnifiedKind,
    sink: WeightSink,
    ranges: Mapping[str, float] | None = None,
    *,
    rounded: bool = False,
) -> onnx.ModelProto:
    """Bring one graph to a precision.

    Args:
        model: a float32 graph of `uare_rt.export`, its weights outside; not changed.
        kind: the precision.
        sink: of weights.
        ranges: for ``int8`` the largest magnitude of every tensor of `linear_inputs`; layers whose input has none
            (0: it was never used) keep their weights alone in INT8.
        rounded: write what ONNX Runtime computes on a CPU instead: the same values rounded in the same places, between
            operators in float32.

    Returns:
        A new graph of the same inputs and outputs.
    """
    writer = _Writer(model, kind, sink, ranges or {}, rounded)
    return writer.run()


def round_groups(weight: NDArray[np.float32], group: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """A weight in INT4: the range of every group that costs least square error.

    Args:
        weight: float32 [out, in]; in is a multiple of ``group``.
        group: neighbours in a row that share a scale.

    Returns:
        Levels -7..7, int8 [out, in], and scales, float32 [out, in / group].
    """
    parts = weight.reshape(len(weight), -1, group)
    largest = np.abs(parts).max(axis=-1)
    best = np.zeros(parts.shape, np.int8)
    scales, least = np.zeros(largest.shape, np.float32), np.full(largest.shape, np.inf, np.float32)
    for share in _CLIPPED:
        step = scale_of(largest * (share * LEVELS / _INT4_LEVELS))
        levels = np.clip(np.rint(parts / step[..., None]), -_INT4_LEVELS, _INT4_LEVELS)
        error = ((levels * step[..., None] - parts) ** 2).sum(axis=-1)
        better = error < least
        best[better], scales[better], least[better] = levels[better].astype(np.int8), step[better], error[better]
    return best.reshape(weight.shape), scales


def pack_int4(levels: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Two neighbours to a byte, the first in its lower half, as ONNX has it: int8 [..., 2 n] -> uint8 [..., n]."""
    bits = levels.view(np.uint8) & 0x0F
    return np.asarray(bits[..., ::2] | (bits[..., 1::2] << 4), np.uint8)


class _Writer:
    def __init__(
        self, model: onnx.ModelProto, kind: UnifiedKind, sink: WeightSink, ranges: Mapping[str, float], rounded: bool
    ) -> None:
        self._model, self._kind, self._sink, self._ranges, self._rounded = model, kind, sink, ranges, rounded
        self._half = TensorProto.FLOAT16 if kind == "fp16" else TensorProto.BFLOAT16
        self._weights = _weights(model)
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: dict[str, TensorProto] = {}
        self._done: dict[str, str] = {}

    def run(self) -> onnx.ModelProto:
        graph, codec = self._model.graph, stays_float32(self._model)
        for node in graph.node:
            if node.op_type in _CONTRACTIONS and not codec:
                self._contraction(node)
            else:
                self._nodes.append(node)
        kept = _alive(self._nodes, {value.name for value in graph.output})
        self._keep_weights(kept)
        result = onnx.ModelProto()
        result.CopyFrom(self._model)
        del result.graph.node[:], result.graph.initializer[:]
        result.graph.node.extend(kept)
        result.graph.initializer.extend(self._initializers.values())
        if self._kind == "int4" and not codec:
            result.opset_import[0].version = 21  # blocked Q/DQ
        return result

    def _keep_weights(self, nodes: Iterable[onnx.NodeProto]) -> None:
        """Weights of everything else, in the type they have."""
        read = {name for node in nodes for name in node.input}
        for tensor in self._model.graph.initializer:
            if tensor.name not in read or tensor.name in self._initializers:
                continue
            if tensor.data_location != TensorProto.EXTERNAL:
                self._initializers[tensor.name] = tensor
            else:
                self._add(tensor, "same", lambda t=tensor: {t.name: (self._sink.read(t), t.data_type)})

    def _contraction(self, node: onnx.NodeProto) -> None:
        inside = _is_inside(node, self._weights)
        inputs = list(node.input)
        if inside and self._kind in ("int8", "int4"):
            tensor = self._weights[node.input[1]]
            inputs[1] = self._quantised(tensor)
            top = self._ranges.get(node.input[0], 0.0)
            inputs[0] = (
                self._activation(node.input[0], top) if self._kind == "int8" and top else self._narrow(inputs[0])
            )
            inputs[2:] = [self._narrow(name) for name in inputs[2:]]
        else:
            inputs = [self._narrow(name) for name in inputs]
        changed = onnx.NodeProto()
        changed.CopyFrom(node)
        del changed.input[:]
        changed.input.extend(inputs)
        result, changed.output[0] = node.output[0], f"{node.output[0]}.sum"
        self._nodes.append(changed)
        self._widen(changed.output[0], result)

    def _narrow(self, name: str) -> str:
        """A tensor in 16 bits."""
        if name not in self._done:
            narrow = f"{name}.half"
            if name in self._weights:
                tensor = self._weights[name]
                form = f"{tensor.name}.{self._half}"
                kind = helper.tensor_dtype_to_np_dtype(self._half)
                self._add(tensor, str(self._half), lambda: {form: (self._sink.read(tensor).astype(kind), self._half)})
                narrow = form if not self._rounded else self._cast(form, f"{form}.exact", TensorProto.FLOAT)
            elif self._rounded:
                self._cast(name, f"{narrow}.bits", self._half)
                self._cast(f"{narrow}.bits", narrow, TensorProto.FLOAT)
            else:
                self._cast(name, narrow, self._half)
            self._done[name] = narrow
        return self._done[name]

    def _widen(self, name: str, wide: str) -> None:
        if self._rounded:  # the sum was in float32: round it
            self._cast(name, f"{name}.bits", self._half)
            name = f"{name}.bits"
        self._cast(name, wide, TensorProto.FLOAT)

    def _cast(self, name: str, target: str, kind: int) -> str:
        self._nodes.append(helper.make_node("Cast", [name], [target], f"{target}.cast", to=kind))
        return target

    def _activation(self, name: str, top: float) -> str:
        """A pair of Q and DQ behind the tensor in 16 bits."""
        pair = f"{name}.int8.real"
        if pair not in self._done:
            kind = TensorProto.FLOAT if self._rounded else self._half
            dtype = helper.tensor_dtype_to_np_dtype(kind)
            scale = scale_of(top).astype(helper.tensor_dtype_to_np_dtype(self._half)).astype(dtype)
            self._small(f"{name}.int8.scale", scale)
            self._small(f"{name}.int8.zero", np.zeros((), np.int8))
            narrow, parameters = self._narrow(name), [f"{name}.int8.scale", f"{name}.int8.zero"]
            quantise = helper.make_node("QuantizeLinear", [narrow, *parameters], [f"{name}.int8"], f"{name}.quantize")
            real = helper.make_node("DequantizeLinear", [f"{name}.int8", *parameters], [pair], f"{name}.dequantize")
            self._nodes += [quantise, real]
            self._done[pair] = pair
        return pair

    def _quantised(self, tensor: TensorProto) -> str:
        """A linear layer's weight [out, in] in INT8 or INT4, behind a DequantizeLinear."""
        group = min(GROUP, tensor.dims[1])
        four = self._kind == "int4" and tensor.dims[1] % group == 0 and group % 2 == 0
        form = "int4" if four else "int8"
        name = f"{tensor.name}.{form}"
        self._add(tensor, f"{form}.{self._half}", lambda: self._levels(tensor, name, group if four else 0))
        scale = f"{name}.scale"
        if self._rounded:
            scale = self._cast(scale, f"{scale}.wide", TensorProto.FLOAT)
        blocks = {"axis": 1, "block_size": group} if four else {"axis": 0}
        node = helper.make_node("DequantizeLinear", [name, scale], [f"{name}.real"], f"{name}.dequantize", **blocks)
        self._nodes.append(node)
        return f"{name}.real"

    def _levels(self, tensor: TensorProto, name: str, group: int) -> dict[str, tuple[NDArray[np.generic], int]]:
        weight = self._sink.read(tensor).astype(np.float32)
        dtype = helper.tensor_dtype_to_np_dtype(self._half)
        if group:
            levels, scales = round_groups(weight, group)
            packed: NDArray[np.generic] = pack_int4(levels)
            stored = TensorProto.INT4
        else:
            found = round_weight(weight, 0)
            packed, scales, stored = found.levels, found.scales, TensorProto.INT8
        return {name: (packed, stored), f"{name}.scale": (scales.astype(dtype), self._half)}

    def _add(
        self, tensor: TensorProto, form: str, make: Callable[[], Mapping[str, tuple[NDArray[np.generic], int]]]
    ) -> None:
        parts = self._sink.placed(tensor, form)
        if parts is None:
            self._sink.place(tensor, form, make())
            parts = self._sink.placed(tensor, form) or []
        self._initializers.update((part.name, part) for part in parts)

    def _small(self, name: str, value: NDArray[np.generic]) -> None:
        self._initializers[name] = numpy_helper.from_array(np.asarray(value), name)


def _weights(model: onnx.ModelProto) -> dict[str, TensorProto]:
    """Weights by the name that contractions read them by: their own, or that of their cast to float32."""
    outside = {t.name: t for t in model.graph.initializer if t.data_location == TensorProto.EXTERNAL}
    # A reshape that keeps the shape has them widened no earlier than they are needed.
    held = {node.output[0]: outside.get(node.input[0]) for node in model.graph.node if node.op_type == "Reshape"}
    read = outside | {name: tensor for name, tensor in held.items() if tensor is not None}
    casts = {
        node.output[0]: read[node.input[0]]
        for node in model.graph.node
        if node.op_type == "Cast" and node.input[0] in read
    }
    return outside | casts


def _alive(nodes: list[onnx.NodeProto], wanted: set[str]) -> list[onnx.NodeProto]:
    """Nodes, in their order, that a wanted value depends on."""
    alive, wanted = [], set(wanted)
    for node in reversed(nodes):
        if wanted & set(node.output):
            alive.append(node)
            wanted.update(node.input)
    return alive[::-1]


def _is_inside(node: onnx.NodeProto, weights: Mapping[str, TensorProto]) -> bool:
    return node.op_type == "Gemm" and node.input[1] in weights and bool(_INSIDE.search(weights[node.input[1]].name))


def _facts(tensor: TensorProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in tensor.external_data}


def _place(tensor: TensorProto, form: str) -> tuple[str, int, str]:
    facts = _facts(tensor)
    return tensor.name if not facts else facts["location"], int(facts.get("offset", 0)), form
