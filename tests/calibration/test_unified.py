"""Precision of graphs whose weights lie outside: where it changes, what is stored, and how near it stays."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from uare_rt.calibration.unified import WeightSink, linear_inputs, pack_int4, round_groups, stays_float32, typed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from uare_rt.calibration.unified import UnifiedKind

WIDTH, INNER = 256, 384
NAMES = {
    "mot.layers.0.up.weight": (INNER, WIDTH),
    "mot.layers.0.down.weight": (WIDTH, INNER),
    "head.weight": (40, WIDTH),
}


@pytest.fixture
def model(tmp_path: Path, rng: np.random.Generator) -> onnx.ModelProto:
    """Two linear layers inside a transformer, one at its end, weights in BF16 in a file of their own."""
    folder = tmp_path / "source"
    folder.mkdir()
    tensors, blob = [], bytearray()
    for name, shape in NAMES.items():
        weight = rng.standard_normal(shape).astype(np.float32) / np.sqrt(shape[1])
        raw = weight.astype(helper.tensor_dtype_to_np_dtype(TensorProto.BFLOAT16)).tobytes()
        tensor = TensorProto(name=name, dims=shape, data_type=TensorProto.BFLOAT16, data_location=TensorProto.EXTERNAL)
        for key, value in (("location", "weights.bin"), ("offset", len(blob)), ("length", len(raw))):
            tensor.external_data.add(key=key, value=str(value))
        tensors.append(tensor)
        blob += raw
    (folder / "weights.bin").write_bytes(blob)
    casts = [helper.make_node("Cast", [name], [f"{name}.wide"], to=TensorProto.FLOAT) for name in NAMES]
    up, down, head = (f"{name}.wide" for name in NAMES)
    nodes = [
        *casts,
        helper.make_node("Gemm", ["x", up], ["a"], "up", transB=1),
        helper.make_node("Relu", ["a"], ["b"], "act"),
        helper.make_node("Gemm", ["b", down], ["c"], "down", transB=1),
        helper.make_node("Add", ["x", "c"], ["d"], "sum"),
        helper.make_node("Gemm", ["d", head], ["y"], "head", transB=1),
    ]
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ("T", s)) for n, s in (("x", WIDTH), ("y", 40))]
    graph = helper.make_graph(nodes, "small", values[:1], values[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def run(model: onnx.ModelProto, folder: Path, x: NDArray[np.float32]) -> NDArray[np.float32]:
    path = folder / "run.onnx"
    path.write_bytes(model.SerializeToString())
    onnx.checker.check_model(str(path), full_check=True)
    options = ort.SessionOptions()
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    found: Any = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    return np.asarray(found, np.float32)


@pytest.mark.parametrize(
    ("kind", "least", "most", "bytes_of_fp32"),
    [("bf16", 1e-4, 0.01, 0.51), ("fp16", 1e-5, 0.005, 0.51), ("int8", 1e-3, 0.02, 0.29), ("int4", 0.02, 0.15, 0.19)],
)
def test_each_precision_is_as_near_as_its_bits_allow(
    model: onnx.ModelProto,
    tmp_path: Path,
    rng: np.random.Generator,
    kind: UnifiedKind,
    least: float,
    most: float,
    bytes_of_fp32: float,
) -> None:
    x = rng.standard_normal((50, WIDTH)).astype(np.float32)
    exact = run(model, tmp_path / "source", x)
    ranges = dict.fromkeys(linear_inputs(model).values(), 5.0)
    folder = tmp_path / "target"
    folder.mkdir()
    with (folder / "w.bin").open("wb") as stream:
        sink = WeightSink(tmp_path / "source", stream, "w.bin")
        written = typed(model, kind, sink, ranges)
        shadow = typed(model, kind, sink, ranges, rounded=True)
    result = run(shadow, folder, x)
    apart = float(np.sqrt(np.mean((result - exact) ** 2) / np.mean(exact**2)))
    assert least < apart < most
    size = (folder / "w.bin").stat().st_size / sum(4 * rows * columns for rows, columns in NAMES.values())
    assert size < bytes_of_fp32  # both graphs share what was written
    (folder / "typed.onnx").write_bytes(written.SerializeToString())
    onnx.checker.check_model(str(folder / "typed.onnx"), full_check=True)
    assert [value.type.tensor_type.elem_type for value in written.graph.output] == [TensorProto.FLOAT]


def test_only_layers_inside_the_transformers_are_quantised(model: onnx.ModelProto, tmp_path: Path) -> None:
    assert linear_inputs(model) == {"mot.layers.0.up.weight": "x", "mot.layers.0.down.weight": "b"}
    with (tmp_path / "w.bin").open("wb") as stream:
        written = typed(model, "int8", WeightSink(tmp_path / "source", stream, "w.bin"), {"x": 4.0})
    kinds = {tensor.name: tensor.data_type for tensor in written.graph.initializer}
    assert kinds["mot.layers.0.up.weight.int8"] == TensorProto.INT8
    assert kinds["head.weight.16"] == TensorProto.BFLOAT16
    quantised = [node.input[0] for node in written.graph.node if node.op_type == "QuantizeLinear"]
    assert quantised == ["x.half"]  # b was never seen: its layer keeps its weights alone in INT8


def test_int4_groups(rng: np.random.Generator) -> None:
    weight = (rng.standard_normal((6, 256)) * np.repeat([[1.0, 100.0]], 128, axis=1)).astype(np.float32)
    levels, scales = round_groups(weight, 128)
    assert scales.shape == (6, 2)
    assert np.abs(levels).max() == 7
    error = np.abs(levels.reshape(6, 2, 128) * scales[..., None] - weight.reshape(6, 2, 128))
    assert (np.sqrt((error**2).mean(axis=-1)) < 0.5 * scales).all()
    packed = pack_int4(np.array([[1, -2, 7, -7]], np.int8))
    np.testing.assert_array_equal(packed, [[0xE1, 0x97]])


def test_the_autoencoder_stays_in_float32(tmp_path: Path) -> None:
    weight = helper.make_tensor("w", TensorProto.FLOAT, (1, 1, 1, 1), [0.3])
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, (1, 1, 4, 4)) for n in "xy"]
    graph = helper.make_graph([helper.make_node("Conv", ["x", "w"], ["y"])], "c", values[:1], values[1:], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    assert stays_float32(model)
    with (tmp_path / "w.bin").open("wb") as stream:
        assert typed(model, "int4", WeightSink(tmp_path, stream, "w.bin")) == model


def test_a_file_of_weights_that_is_too_short(model: onnx.ModelProto, tmp_path: Path) -> None:
    from uare_rt.errors import BundleError

    path = tmp_path / "source" / "weights.bin"
    path.write_bytes(path.read_bytes()[:1000])
    with (tmp_path / "w.bin").open("wb") as stream, pytest.raises(BundleError, match=r"does not hold weight .*export"):
        typed(model, "bf16", WeightSink(tmp_path / "source", stream, "w.bin"))
