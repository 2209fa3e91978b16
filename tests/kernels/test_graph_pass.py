"""Patterns of the exported graph are found, replaced and put back; the graph computes the same throughout."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from harness import TARGET
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from uare_rt.bundle import shipped_bundle
from uare_rt.calibration.graph import Graph
from uare_rt.calibration.half import plan_half, to_half
from uare_rt.errors import UsageError
from uare_rt.kernels import modulation, window_attention
from uare_rt.kernels.graph_pass import DOMAIN, PATTERNS, count, for_tensorrt, fuse, revert


class Modulation(OpRun):
    """The node through the kernel, in the interpreter."""

    op_domain = DOMAIN

    def _run(self, x: np.ndarray, scale: np.ndarray, shift: np.ndarray, **_: Any) -> tuple[np.ndarray]:
        vectors = (torch.from_numpy(part.copy()).flatten(1) for part in (scale, shift))
        return (modulation.run(torch.from_numpy(x.copy()), *vectors, target=TARGET).numpy(),)


class WindowAttention(OpRun):
    """The node through the kernel, in the interpreter."""

    op_domain = DOMAIN

    def _run(self, *inputs: np.ndarray, **_: Any) -> tuple[np.ndarray]:
        q, k, v, old_k, old_v, mask = (torch.from_numpy(np.ascontiguousarray(part)) for part in inputs)
        valid = mask.reshape(q.shape[0], q.shape[2]).contiguous()
        return (window_attention.run(q, k, v, (old_k, old_v), valid, target=TARGET).contiguous().numpy(),)


@pytest.fixture(scope="module")
def plain() -> onnx.ModelProto:
    return onnx.load(shipped_bundle() / "restore_x1.onnx")


@pytest.fixture(scope="module")
def fused(plain: onnx.ModelProto) -> onnx.ModelProto:
    return fuse(plain)


@pytest.fixture(scope="module")
def feeds(plain: onnx.ModelProto) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    sizes = {value.name: [d.dim_value for d in value.type.tensor_type.shape.dim] for value in plain.graph.input}
    sizes["frame"] = [1, 3, 32, 48]
    return {name: (rng.random(shape) * 0.5).astype(np.float32) for name, shape in sizes.items()}


def restored(model: onnx.ModelProto, feeds: dict[str, np.ndarray], ops: list[type[OpRun]] | None = None) -> np.ndarray:
    return ReferenceEvaluator(model, new_ops=ops or []).run(None, feeds)[0]


def kinds(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node if node.op_type != "Constant")


def test_every_pattern_is_found(plain: onnx.ModelProto, fused: onnx.ModelProto) -> None:
    found, before, after = count(fused), kinds(plain), kinds(fused)
    assert found["WindowAttention"] == before["Softmax"] > 0
    assert found["Modulation"] >= 8
    assert after["Softmax"] == 0
    assert after["LeakyRelu"] == before["LeakyRelu"] - found["Modulation"]
    assert [function.name for function in fused.functions] == list(PATTERNS)  # one meaning per pattern
    onnx.checker.check_model(fused)


@pytest.mark.parametrize("scale", [2, 4])
def test_every_pattern_of_the_other_scales_is_found(fused: onnx.ModelProto, scale: int) -> None:
    other = fuse(onnx.load(shipped_bundle() / f"restore_x{scale}.onnx"))
    assert count(other) == count(fused)
    assert not kinds(other)["Softmax"]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the evaluator takes both sides of a sigmoid in fp16
def test_the_graph_that_build_types_gives_plugins_the_types_they_take(
    fused: onnx.ModelProto, feeds: dict[str, np.ndarray]
) -> None:
    """All in fp16 but the mask: the strongly typed network of `uare-rt build --precision fp16`."""
    graph = Graph.open(shipped_bundle() / "restore_x1.onnx")
    typed = to_half(graph, plan_half(graph, {})).model()
    found = fuse(typed)
    assert count(found) == count(fused)
    inferred = onnx.shape_inference.infer_shapes(typed).graph
    types = {value.name: value.type.tensor_type.elem_type for value in inferred.value_info}
    types |= {value.name: value.type.tensor_type.elem_type for value in inferred.input}
    half, mask = onnx.TensorProto.FLOAT16, onnx.TensorProto.BOOL
    taken = {"Modulation": [half] * 4, "WindowAttention": [half] * 5 + [mask, half]}
    for node in found.graph.node:
        if node.domain == DOMAIN:
            assert [types[name] for name in (*node.input, *node.output)] == taken[node.op_type]
    assert np.array_equal(restored(found, feeds), restored(typed, feeds))


def test_every_way_to_run_the_graph_gives_the_same(
    plain: onnx.ModelProto, fused: onnx.ModelProto, feeds: dict[str, np.ndarray]
) -> None:
    expected = restored(plain, feeds)
    assert np.array_equal(restored(fused, feeds), expected)
    assert np.array_equal(restored(revert(fused), feeds), expected)
    got = restored(for_tensorrt(fused), feeds, [Modulation, WindowAttention])
    assert not np.array_equal(got, expected)  # another order of sums: the kernels really ran
    assert np.allclose(got, expected, atol=2e-5)


def test_what_was_replaced_comes_back(plain: onnx.ModelProto, fused: onnx.ModelProto) -> None:
    back = revert(fused)
    assert not count(back)
    assert not back.functions
    assert {opset.domain for opset in back.opset_import} == {opset.domain for opset in plain.opset_import}
    for kind in ("Softmax", "LeakyRelu", "Conv", "Split"):
        assert kinds(back)[kind] == kinds(plain)[kind]


def test_patterns_can_be_switched_off_and_the_input_is_left_alone(plain: onnx.ModelProto) -> None:
    before = plain.SerializeToString(deterministic=True)
    assert set(count(fuse(plain, ["Modulation"]))) == {"Modulation"}
    assert not count(fuse(plain, []))
    assert plain.SerializeToString(deterministic=True) == before
    with pytest.raises(UsageError, match="pattern Softmax is not one of Modulation, WindowAttention"):
        fuse(plain, ["Softmax"])


def test_the_graph_for_tensorrt_names_the_plugins(fused: onnx.ModelProto) -> None:
    bare = for_tensorrt(fused)
    assert not bare.functions
    nodes = [node for node in bare.graph.node if node.domain == DOMAIN]
    assert {node.op_type for node in nodes} == set(PATTERNS)
    assert all(node.attribute[0].s == DOMAIN.encode() for node in nodes)


def test_half_precision_inside_a_pattern_is_taken_along() -> None:
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("Add", ["s", "one"], ["f"]),
        helper.make_node("Mul", ["f", "c"], ["p"]),
        helper.make_node("Add", ["t", "p"], ["a"]),
        helper.make_node("Cast", ["a"], ["h"], to=TensorProto.FLOAT16),
        helper.make_node("LeakyRelu", ["h"], ["y"], alpha=0.1),
    ]
    graph = helper.make_graph(
        nodes,
        "cast",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4, 5, 5]) for name in "xst"],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT16, [1, 4, 5, 5])],
        [
            onnx.numpy_helper.from_array(np.ones((), np.float32), "one"),
            onnx.numpy_helper.from_array(np.random.default_rng(0).random((4, 4, 1, 1), np.float32), "w"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    fused = fuse(model)
    assert count(fused) == {"Modulation": 1}
    feeds = {name: np.random.default_rng(i).random((1, 4, 5, 5), np.float32) for i, name in enumerate("xst")}
    assert np.array_equal(restored(fused, feeds), restored(model, feeds))


def test_onnx_runtime_runs_the_fused_graph_as_it_is(
    fused: onnx.ModelProto, plain: onnx.ModelProto, feeds: dict[str, np.ndarray], tmp_path: Path
) -> None:
    """In a process of its own: ONNX Runtime and PyTorch are kept apart."""
    onnx.save(fused, tmp_path / "fused.onnx")
    onnx.save(plain, tmp_path / "plain.onnx")
    np.savez(tmp_path / "feeds.npz", **feeds)
    code = (
        "import sys, numpy, onnxruntime\n"
        "feeds = dict(numpy.load('feeds.npz'))\n"
        "def run(name):\n"
        "    options = {'providers': ['CPUExecutionProvider']}\n"
        "    return onnxruntime.InferenceSession(name, **options).run(None, feeds)[0]\n"
        "gap = numpy.abs(run('fused.onnx') - run('plain.onnx')).max()\n"
        "sys.exit(0 if gap < 1e-5 else f'differs by {gap}')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
