"""Q/DQ pairs: where they stand, what they store, and that they compute what they say."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper

from uare_rt.calibration.execution import Executor
from uare_rt.calibration.graph import Graph
from uare_rt.calibration.half import plan_half, to_half
from uare_rt.calibration.layers import find_layers
from uare_rt.calibration.observation import observe
from uare_rt.calibration.qdq import place
from uare_rt.calibration.rounding import rounded
from uare_rt.calibration.weights import round_weight

Build = Callable[..., Graph]
Frames = list[dict[str, NDArray[np.float32]]]


def quantise(graph: Graph, frames: Frames) -> Graph:
    layers = find_layers(graph)
    seen = observe(graph, layers, frames)
    return place(graph, layers, {name: h.range("min-max") for name, h in seen.histograms.items()})


def test_pairs_stand_before_contractions_only(network: Graph, frames: Frames) -> None:
    quantised = quantise(network, frames)
    producers = quantised.producers()
    for node in quantised.nodes:
        if node.op_type == "Conv":
            assert [producers[name].op_type for name in node.input[:2]] == ["DequantizeLinear"] * 2
        elif node.op_type == "LeakyRelu":
            assert producers[node.input[0]].op_type == "Conv"
    assert sum(node.op_type == "QuantizeLinear" for node in quantised.nodes) == 2


def test_weights_are_stored_in_int8_per_channel(network: Graph, frames: Frames) -> None:
    model = quantise(network, frames).model()
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    assert "model.first.weight" not in stored
    assert stored["model.first.weight.int8"].data_type == onnx.TensorProto.INT8
    assert list(stored["model.first.weight.int8.scale"].dims) == [16]


def test_int8_with_half_precision_is_valid_and_close(network: Graph, frames: Frames) -> None:
    plan = plan_half(network, observe(network, [], frames).largest)
    typed = to_half(quantise(network, frames), plan)
    onnx.checker.check_model(typed.model(), full_check=True)
    producers = typed.producers()
    # The picture is in float32; it is quantised as it is, not cast first.
    first = next(node for node in typed.nodes if node.op_type == "QuantizeLinear")
    assert first.input[0] == "base"
    assert producers["a"].op_type == "Conv"
    for feeds in frames:
        difference = Executor(rounded(typed)).run(feeds)["restored"] - Executor(network).run(feeds)["restored"]
        assert 1e-4 < np.abs(difference).max() < 0.05


def test_a_tensor_read_twice_is_quantised_once(build: Build, rng: np.random.Generator) -> None:
    weights = {name: rng.standard_normal((8, 8)).astype(np.float32) for name in ("p", "q")}
    nodes = [
        helper.make_node("MatMul", ["x", "p"], ["a"], "one"),
        helper.make_node("MatMul", ["x", "q"], ["b"], "two"),
        helper.make_node("Add", ["a", "b"], ["y"], "sum"),
    ]
    graph = build(nodes, weights, {"x": (4, 8)}, {"y": (4, 8)})
    quantised = quantise(graph, [{"x": rng.standard_normal((4, 8)).astype(np.float32)}])
    assert sum(node.op_type == "QuantizeLinear" for node in quantised.nodes) == 1


def test_an_added_branch_is_quantised_with_its_convolution(build: Build, rng: np.random.Generator) -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["skip"], "relu"),
        helper.make_node("Conv", ["skip", "w"], ["a"], "conv"),
        helper.make_node("Add", ["a", "skip"], ["b"], "sum"),
        helper.make_node("Relu", ["b"], ["y"], "out"),
    ]
    weight = {"w": rng.standard_normal((4, 4, 1, 1)).astype(np.float32)}
    graph = build(nodes, weight, {"x": (1, 4, 8, 8)}, {"y": (1, 4, 8, 8)})
    (layer,) = find_layers(graph)
    assert layer.residual == "skip"
    quantised = quantise(graph, [{"x": rng.standard_normal((1, 4, 8, 8)).astype(np.float32)}])
    (add,) = (node for node in quantised.nodes if node.op_type == "Add")
    assert list(add.input) == ["a", "skip.int8.real"]


@pytest.mark.parametrize(("op", "shape", "axis", "attributes"), [
    ("MatMul", (8, 5), 1, {}),
    ("Gemm", (8, 5), 1, {}),
    ("Gemm", (5, 8), 0, {"transB": 1}),
])  # fmt: skip
def test_channels_of_matrix_products(
    build: Build, rng: np.random.Generator, op: str, shape: tuple[int, int], axis: int, attributes: dict[str, int]
) -> None:
    weight = rng.standard_normal(shape).astype(np.float32)
    graph = build(
        [helper.make_node(op, ["x", "w"], ["y"], "product", **attributes)], {"w": weight}, {"x": (2, 8)}, {"y": (2, 5)}
    )
    (layer,) = find_layers(graph)
    assert layer.axis == axis
    feeds = {"x": rng.standard_normal((2, 8)).astype(np.float32)}
    result = Executor(quantise(graph, [feeds])).run(feeds)["y"]
    np.testing.assert_allclose(result, Executor(graph).run(feeds)["y"], atol=0.1)


def test_stored_weights_round_to_nearest(rng: np.random.Generator) -> None:
    weight = rng.standard_normal((8, 4, 3, 3)).astype(np.float32)
    stored = round_weight(weight, 0)
    error = np.abs(stored.real(0) - weight)
    # Half a step, and what float16 takes from the scale.
    assert (error <= stored.scales.reshape(-1, 1, 1, 1) * 0.56).all()


def test_layers_know_where_they_come_from_and_what_they_cost(network: Graph, frames: Frames) -> None:
    layers = find_layers(network)
    assert [(layer.source, layer.kind) for layer in layers] == [("first", "conv"), ("last", "conv")]
    counts = observe(network, layers, frames).macs
    assert counts == {"first": 32 * 48 * 16 * 27, "last": 32 * 48 * 3 * 144}


def test_attention_is_known_again_by_how_its_result_comes_about(build: Build) -> None:
    def key(gain: float) -> str:
        nodes = [
            helper.make_node("Mul", ["x", "gain"], ["q"], "scaled"),
            helper.make_node("MatMul", ["q", "y"], ["z"], "attend"),
        ]
        graph = build(nodes, {"gain": np.float32(gain)}, {"x": (4, 8), "y": (8, 4)}, {"z": (4, 4)})
        (layer,) = find_layers(graph)
        assert layer.kind == "attention"
        return layer.key

    assert key(1.0) == key(1.0) != key(2.0)
