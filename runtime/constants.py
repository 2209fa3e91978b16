"""Inputs of an ONNX graph made constants of it, so that whoever runs it can fold what depends on nothing else.

With a constant quality context the modulation of the restore graphs folds into the weights of the convolutions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from uare_rt.errors import BundleError
from uare_rt.protobuf import fields, packed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

__all__ = ["with_constants"]

# Field numbers of onnx.proto3.
_MODEL_GRAPH = 7
_GRAPH_INITIALIZER, _GRAPH_INPUT = 5, 11
_VALUE_NAME = 1
_TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_NAME, _TENSOR_RAW = 1, 2, 8, 9
_FLOAT = 1


def with_constants(model: bytes, constants: Mapping[str, NDArray[np.float32]]) -> bytes:
    """An ONNX model in which some inputs are constants.

    Args:
        model: content of an ONNX file.
        constants: float32 values by the names of inputs.

    Returns:
        Content of an ONNX file without these inputs. Names of external weight files are kept as they are.

    Raises:
        BundleError: the model cannot be read, or lacks one of the inputs.
    """
    try:
        return b"".join(_model(memoryview(model), constants))
    except (IndexError, ValueError) as error:
        raise BundleError(f"the graph cannot be read as ONNX ({error}); export the bundle again") from error


def _model(model: memoryview, constants: Mapping[str, NDArray[np.float32]]) -> Iterator[bytes]:
    for number, value in fields(model):
        if number == _MODEL_GRAPH and isinstance(value, memoryview):
            yield packed(number, b"".join(_graph(value, constants)))
        else:
            yield packed(number, value)


def _graph(graph: memoryview, constants: Mapping[str, NDArray[np.float32]]) -> Iterator[bytes]:
    left = dict(constants)
    for number, value in fields(graph):
        name = _name(value) if number == _GRAPH_INPUT and isinstance(value, memoryview) else None
        if name not in left:
            yield packed(number, value)
        else:
            yield packed(_GRAPH_INITIALIZER, _tensor(name, left.pop(name)))
    if left:
        raise BundleError(f"the graph has no input {', '.join(left)}; export the bundle again")


def _name(value: memoryview) -> str:
    return next((str(v, "utf-8") for n, v in fields(value) if n == _VALUE_NAME and isinstance(v, memoryview)), "")


def _tensor(name: str, value: NDArray[np.float32]) -> bytes:
    dims = (packed(_TENSOR_DIMS, side) for side in value.shape)
    content = np.ascontiguousarray(value, "<f4").tobytes()
    return b"".join(
        (*dims, packed(_TENSOR_TYPE, _FLOAT), packed(_TENSOR_NAME, name.encode()), packed(_TENSOR_RAW, content))
    )
