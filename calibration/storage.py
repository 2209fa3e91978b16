"""Writing typed graphs: names that lead back to layers, and one weight file for all graphs."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Mapping

    from uare_rt.calibration.graph import Graph

__all__ = ["WEIGHT_FILE", "name_after_layers", "pack", "weight_bytes"]

WEIGHT_FILE = "weights.bin"
_STORED_OUTSIDE = 1024  # bytes; smaller constants stay in the graph
_ALIGNMENT = 64
_WEIGHTS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.INT8)


def name_after_layers(graph: Graph, sources: Mapping[str, str]) -> None:
    """Rename nodes to ``layer/node``, so that a compiler's errors and layer lists name the layer.

    Args:
        graph: changed in place.
        sources: layer of a node by its name, see `Graph.sources`; nodes that were added belong to their reader.
    """
    readers = graph.consumers()
    layers: dict[str, str] = {}
    for node in reversed(graph.nodes):
        behind = (reader.name for output in node.output for reader in readers.get(output, ()))
        layer = sources.get(node.name) or next((layers[name] for name in behind if layers.get(name)), "")
        layers[node.name] = layer
    for node in graph.nodes:
        if layers[node.name]:
            node.name = f"{layers[node.name]}/{node.name}"


def pack(graphs: Mapping[str, Graph]) -> tuple[dict[str, bytes], bytes]:
    """Serialise graphs with their weights in one file, equal tensors once.

    Args:
        graphs: by name.

    Returns:
        The ONNX files by graph name, and the content of `WEIGHT_FILE`.
    """
    blob, places = bytearray(), {}
    models = {}
    for name, graph in graphs.items():
        model = graph.model()
        for tensor in model.graph.initializer:
            array = numpy_helper.to_array(tensor)
            raw = np.ascontiguousarray(array).tobytes()
            if len(raw) < _STORED_OUTSIDE:
                continue
            key = hashlib.sha256(raw).digest()
            if key not in places:
                blob.extend(bytes(-len(blob) % _ALIGNMENT))
                places[key] = len(blob)
                blob.extend(raw)
            outside = TensorProto(
                name=tensor.name, dims=tensor.dims, data_type=tensor.data_type, data_location=TensorProto.EXTERNAL
            )
            for field, value in (("location", WEIGHT_FILE), ("offset", places[key]), ("length", len(raw))):
                outside.external_data.add(key=field, value=str(value))
            tensor.CopyFrom(outside)
        model.producer_name, model.producer_version = "uare-rt", ""
        onnx.checker.check_model(graph.model(), full_check=True)
        models[name] = model.SerializeToString(deterministic=True)
    return models, bytes(blob)


def weight_bytes(graphs: Mapping[str, Graph]) -> int:
    """Bytes of all constants of the graphs that are no integers of shapes, equal ones counted once."""
    seen: dict[bytes, int] = {}
    for graph in graphs.values():
        for tensor in graph.model().graph.initializer:
            if tensor.data_type in _WEIGHTS:
                array = numpy_helper.to_array(tensor)
                seen[hashlib.sha256(array.tobytes()).digest()] = array.nbytes
    return sum(seen.values())
