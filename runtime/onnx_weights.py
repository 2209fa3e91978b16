"""The weights of an ONNX file, read without the onnx package (which is not in the base install).

Only what is needed to look at initializers is decoded: protobuf fields of ModelProto.graph,
GraphProto.initializer and TensorProto, by their numbers in onnx.proto3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from uare_rt.errors import BundleError
from uare_rt.protobuf import fields, submessages

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["nonfinite_weights"]

_MODEL_GRAPH, _GRAPH_INITIALIZER = 7, 5
_TENSOR_TYPE, _TENSOR_FLOATS, _TENSOR_NAME, _TENSOR_RAW, _TENSOR_EXTERNAL = 2, 4, 8, 9, 13
_FLOAT, _FLOAT16, _DOUBLE, _BFLOAT16 = 1, 10, 11, 16
# For each float type: an integer of its width, and the exponent bits, all set in NaN and infinity only.
_EXPONENT: dict[int, tuple[type[np.unsignedinteger], int]] = {
    _FLOAT: (np.uint32, 0x7F800000),
    _FLOAT16: (np.uint16, 0x7C00),
    _DOUBLE: (np.uint64, 0x7FF0000000000000),
    _BFLOAT16: (np.uint16, 0x7F80),
}


def nonfinite_weights(model: Path, locate: Callable[[str], Path]) -> str | None:
    """The name of the first weight with a NaN or infinity, or None.

    Args:
        model: an ONNX file.
        locate: gives the path of an external weight file by its location in the ONNX file.

    Raises:
        BundleError: the file is not readable as ONNX.
    """
    mapped: dict[str, NDArray[np.uint8]] = {}
    try:
        data = memoryview(model.read_bytes())
        for graph in submessages(data, _MODEL_GRAPH):
            for tensor in submessages(graph, _GRAPH_INITIALIZER):
                name, bad = _check(tensor, mapped, locate)
                if bad:
                    return name
    except (IndexError, OSError, ValueError) as error:
        raise BundleError(f"{model} cannot be read as ONNX ({error}); export the bundle again") from error
    return None


def _check(tensor: memoryview, mapped: dict[str, NDArray[np.uint8]], locate: Callable[[str], Path]) -> tuple[str, bool]:
    kind, name = 0, ""
    content: memoryview | NDArray[np.uint8] | bytes = b""
    external: dict[str, str] = {}
    for number, value in fields(tensor):
        if number == _TENSOR_TYPE and isinstance(value, int):
            kind = value
        elif isinstance(value, memoryview):
            if number == _TENSOR_NAME:
                name = str(value, "utf-8")
            elif number in (_TENSOR_RAW, _TENSOR_FLOATS):
                content = value
            elif number == _TENSOR_EXTERNAL:
                pair = {n: str(v, "utf-8") for n, v in fields(value) if isinstance(v, memoryview)}
                external[pair.get(1, "")] = pair.get(2, "")
    if kind not in _EXPONENT:
        return name, False
    if external:
        location = external.get("location", "")
        if location not in mapped:
            mapped[location] = np.memmap(locate(location), dtype=np.uint8, mode="r")
        start = int(external.get("offset", 0))
        length = int(external.get("length", len(mapped[location]) - start))
        content = mapped[location][start : start + length]
    width, mask = _EXPONENT[kind]
    bits = np.frombuffer(content, dtype=width)
    return name, bool(((bits & width(mask)) == mask).any())
