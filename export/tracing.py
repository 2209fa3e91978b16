"""From a PyTorch module to an optimised ONNX graph of opset 20."""

from __future__ import annotations

import io
import logging
import warnings
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING

import onnx
import torch
from onnx import numpy_helper

from uare_rt.errors import UareError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

    from uare_rt.export.graphs import NanoGraph

__all__ = ["IR_VERSION", "OPSET", "check_opset", "trace"]

OPSET = 20  # the newest that TensorRT 10.3 (JetPack 6.2) parses
IR_VERSION = 10
_TRACE_SIZE = (2, 176, 224)
_TOO_NEW = {"Attention", "RMSNormalization", "RotaryEmbedding", "TensorScatter", "Swish"}


def trace(graph: NanoGraph) -> onnx.ModelProto:
    """Trace and optimise one graph; dynamic axes are named as in the manifest.

    Raises:
        UareError: PyTorch could not trace it, or the result needs more than opset 20.
    """
    example = graph.example(torch.Generator().manual_seed(0), _TRACE_SIZE)
    with _quiet():
        program = torch.onnx.export(
            graph.module,
            example,
            dynamo=True,
            opset_version=OPSET,
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            dynamic_shapes=graph.dynamic_shapes(),
            optimize=True,
            verbose=False,
        )
    if program is None:
        raise UareError(f"graph {graph.name}: PyTorch gave no ONNX program")
    model = program.model_proto
    _name_axes(model, graph)
    _name_weights(model, graph.module)
    for made, name in graph.values.items():
        _name_value(model, made, name)
    model.graph.name = graph.name
    model.producer_name, model.producer_version = "uare-rt", ""
    del model.metadata_props[:]
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        del value.metadata_props[:]
    # Shapes of intermediate values are inferred by every consumer; the traced ones only cost space.
    del model.graph.value_info[:]
    check_opset(model)
    onnx.checker.check_model(model, full_check=True)
    return model


def check_opset(model: onnx.ModelProto) -> None:
    """Refuse what TensorRT 10.3 cannot parse: newer opsets, IR versions, operators and types.

    Raises:
        UareError: naming everything that is too new.
    """
    faults = [f"opset {o.domain or 'ai.onnx'} {o.version}" for o in model.opset_import if o.domain or o.version > OPSET]
    if model.ir_version > IR_VERSION:
        faults.append(f"IR version {model.ir_version}")
    if model.functions:
        faults.append("local functions")
    faults += sorted({f"operator {n.op_type}" for n in model.graph.node if n.op_type in _TOO_NEW or n.domain})
    allowed = {
        onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.INT64, onnx.TensorProto.INT32,
        onnx.TensorProto.BFLOAT16, onnx.TensorProto.BOOL, onnx.TensorProto.INT8, onnx.TensorProto.UINT8,
    }  # fmt: skip
    faults += sorted({f"type of {t.name}" for t in model.graph.initializer if t.data_type not in allowed})
    if faults:
        raise UareError(f"graph {model.graph.name}: beyond opset {OPSET} and IR {IR_VERSION}: {', '.join(faults)}")


def _name_axes(model: onnx.ModelProto, graph: NanoGraph) -> None:
    scale = next((s for s in (4, 2) if graph.name.endswith(f"x{s}")), 1)
    for value in (*model.graph.input, *model.graph.output):
        labels = graph.axes.get(value.name, graph.axes.get("frame", {}) if value.name == "restored" else {})
        for axis, label in labels.items():
            prefix = f"{scale}*" if value.name == "restored" and scale > 1 and label != "N" else ""
            value.type.tensor_type.shape.dim[axis].dim_param = prefix + label


def _name_weights(model: onnx.ModelProto, module: nn.Module) -> None:
    """Give weights that lost their parameter's name while they were traced its name again.

    With ``_T`` behind it where the graph holds the transposed matrix.
    """
    kept = {tensor.name for tensor in model.graph.initializer}
    names: dict[bytes, list[str]] = {}
    for name, parameter in module.named_parameters():
        if parameter.ndim == 2 and name not in kept:
            values = parameter.detach().numpy()
            names.setdefault(values.tobytes(), []).append(name)
            names.setdefault(values.T.tobytes(), []).append(f"{name}_T")
    renamed = {}
    for tensor in model.graph.initializer:
        if "." not in tensor.name and tensor.data_type == onnx.TensorProto.FLOAT:
            possible = names.get(numpy_helper.to_array(tensor).tobytes())
            if possible:  # equal values may have any of their names
                renamed[tensor.name] = tensor.name = possible.pop(0)
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = renamed.get(name, name)


def _name_value(model: onnx.ModelProto, weight: str, name: str) -> None:
    """Name the value that the node with a weight reads first."""
    reader = next(node for node in model.graph.node if weight in node.input)
    old = reader.input[0]
    for node in model.graph.node:
        for names in (node.input, node.output):
            for index, value in enumerate(names):
                if value == old:
                    names[index] = name


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter prints progress and warns about its own internals."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
