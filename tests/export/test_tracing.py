"""What TensorRT 10.3 cannot parse is refused; what is exported stays below it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from uare_rt.errors import UareError
from uare_rt.export.graphs import nano_graphs
from uare_rt.export.packing import pack_weights
from uare_rt.export.tracing import check_opset, trace
from uare_rt.model.weights import load_nano

if TYPE_CHECKING:
    from collections.abc import Callable


def relu_model() -> onnx.ModelProto:
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "small", value[:1], value[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def node(model: onnx.ModelProto, kind: str, domain: str = "") -> None:
    model.graph.node.append(helper.make_node(kind, ["x"], ["z"], domain=domain))


def weight(model: onnx.ModelProto, kind: int) -> None:
    model.graph.initializer.append(TensorProto(name="w", dims=[2], data_type=kind, raw_data=b"\0\0"))


def local_function(model: onnx.ModelProto) -> None:
    opset = [helper.make_opsetid("", 20)]
    model.functions.append(helper.make_function("", "f", ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"])], opset))


def test_opset_20_is_allowed() -> None:
    check_opset(relu_model())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.opset_import[0].__setattr__("version", 21), "opset ai.onnx 21"),
        (lambda m: m.opset_import.append(helper.make_opsetid("com.microsoft", 1)), "opset com.microsoft 1"),
        (lambda m: m.__setattr__("ir_version", 11), "IR version 11"),
        (lambda m: node(m, "Attention"), "operator Attention"),
        (lambda m: node(m, "RMSNormalization"), "operator RMSNormalization"),
        (lambda m: node(m, "RotaryEmbedding"), "operator RotaryEmbedding"),
        (lambda m: node(m, "FusedConv", "com.microsoft"), "operator FusedConv"),
        (lambda m: weight(m, TensorProto.INT4), "type of w"),
        (lambda m: weight(m, TensorProto.FLOAT8E4M3FN), "type of w"),
        (local_function, "local functions"),
    ],
)
def test_anything_newer_is_refused_by_name(change: Callable[[onnx.ModelProto], object], message: str) -> None:
    model = relu_model()
    change(model)
    with pytest.raises(UareError, match=message):
        check_opset(model)


@pytest.mark.parametrize("name", ["assess", "restore_x1"])
def test_the_preset_is_within_opset_20(preset_bundle: Path, name: str) -> None:
    model = onnx.load(preset_bundle / f"{name}.onnx", load_external_data=False)
    check_opset(model)
    # Not only what the check knows: every operator, at the version that opset 20 gives it.
    for made in model.graph.node:
        assert onnx.defs.get_schema(made.op_type, 20, made.domain).since_version <= 20
    assert not {"Attention", "RMSNormalization", "QuantizeLinear", "DequantizeLinear"} & {
        made.op_type for made in model.graph.node
    }


def test_larger_scales_are_traced_with_their_sizes(small_weights: Path) -> None:
    model, _ = load_nano(small_weights)
    graph = nano_graphs(model.requires_grad_(False), (4,))[1]
    proto = trace(graph)
    shapes = {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in proto.graph.output}
    assert shapes == {"restored": ["N", 3, "4*H", "4*W"]}
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    for size in ((1, 16, 80), (2, 48, 32)):
        inputs = graph.example(torch.Generator().manual_seed(2), size)
        (got,) = session.run(None, {n: t.numpy() for n, t in zip(graph.inputs, inputs, strict=True)})
        np.testing.assert_allclose(got, graph.module(*inputs), atol=2e-4)


def packable(*arrays: np.ndarray) -> onnx.ModelProto:
    model = relu_model()
    for number, array in enumerate(arrays):
        model.graph.initializer.append(numpy_helper.from_array(array, f"w{number}"))
    return model


def offsets(model: onnx.ModelProto) -> list[int]:
    found = [{e.key: e.value for e in t.external_data} for t in model.graph.initializer]
    return [int(entry["offset"]) for entry in found if entry]


def test_equal_weights_are_stored_once(rng: np.random.Generator) -> None:
    one, other = (rng.standard_normal((40, 50)).astype(np.float16).astype(np.float32) for _ in range(2))
    models = [packable(one, other), packable(other), packable(other.reshape(50, 40))]
    blob = pack_weights(models)
    assert len(blob) == 4032 + 4000  # the second begins on a multiple of 64
    assert [offsets(model) for model in models] == [[0, 4032], [4032], [4032]]
    np.testing.assert_array_equal(np.frombuffer(blob[:4000], np.float16).reshape(40, 50), one)
    # The cast brings the old name and type back.
    cast = models[1].graph.node[0]
    assert (cast.op_type, list(cast.input), list(cast.output)) == ("Cast", ["w0.fp16"], ["w0"])


def test_what_fp16_does_not_hold_stays_as_it_is(rng: np.random.Generator) -> None:
    exact = np.full((32, 32), 0.5, np.float32)
    arrays = [
        exact[:31],  # below 1024 elements
        rng.standard_normal((32, 32)).astype(np.float32),
        exact * 1e6,
        np.ones((32, 32), np.int64),
        exact,
    ]
    model = packable(*arrays)
    assert len(pack_weights([model])) == 2048
    kept = {t.name: t for t in model.graph.initializer}
    assert kept.keys() == {"w0", "w1", "w2", "w3", "w4.fp16"}
    for number, array in enumerate(arrays[:4]):
        np.testing.assert_array_equal(numpy_helper.to_array(kept[f"w{number}"]), array)
