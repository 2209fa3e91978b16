"""One weight file for all graphs of a bundle.

Large fp32 weights whose values fp16 holds exactly (see `round_to_storage`) are stored so, with a cast that
every runtime folds when it loads the graph; equal tensors of different graphs are stored once.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import nn

__all__ = ["STORED_AS_HALF", "WEIGHT_FILE", "pack_weights", "round_to_storage"]

WEIGHT_FILE = "weights.bin"
STORED_AS_HALF = 1024  # fp32 tensors of at least this many elements are stored as fp16
_ALIGNMENT = 64
_LARGEST_HALF = 65504.0


def round_to_storage(model: nn.Module) -> None:
    """Round the weights that will be stored as fp16, so that PyTorch and the bundle hold the same values."""
    for parameter in model.parameters():
        if parameter.numel() >= STORED_AS_HALF:
            parameter.data = parameter.data.half().float()


def pack_weights(models: Iterable[onnx.ModelProto]) -> bytes:
    """Move the large weights of all models into one shared file, in place.

    Args:
        models: graphs with their weights inside.

    Returns:
        The content of ``WEIGHT_FILE``.
    """
    blob, places = bytearray(), {}
    for model in models:
        casts = []
        for tensor in list(model.graph.initializer):
            array = numpy_helper.to_array(tensor)
            if array.dtype != np.float32 or array.size < STORED_AS_HALF or np.abs(array).max() > _LARGEST_HALF:
                continue
            rounded = np.ascontiguousarray(array.astype(np.float16))
            if not np.array_equal(rounded.astype(np.float32), array):
                continue  # a constant that the exporter computed, not a rounded weight
            half = rounded.tobytes()
            key = hashlib.sha256(half).digest()
            if key not in places:
                blob.extend(bytes(-len(blob) % _ALIGNMENT))
                places[key] = len(blob)
                blob.extend(half)
            stored = TensorProto(
                name=f"{tensor.name}.fp16",
                dims=tensor.dims,
                data_type=TensorProto.FLOAT16,
                data_location=TensorProto.EXTERNAL,
            )
            for field, value in (("location", WEIGHT_FILE), ("offset", places[key]), ("length", len(half))):
                stored.external_data.add(key=field, value=str(value))
            casts.append(helper.make_node("Cast", [stored.name], [tensor.name], f"{tensor.name}.cast", to=1))
            model.graph.initializer.remove(tensor)
            model.graph.initializer.append(stored)
        nodes = [*casts, *model.graph.node]
        del model.graph.node[:]
        model.graph.node.extend(nodes)
    return bytes(blob)
