"""Half precision: what is cast, what stays, and that overflow shows where rounding is computed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from uare_rt.calibration.execution import Executor
from uare_rt.calibration.graph import Graph
from uare_rt.calibration.half import HalfPlan, plan_half, to_half
from uare_rt.calibration.layers import find_layers
from uare_rt.calibration.observation import observe
from uare_rt.calibration.rounding import rounded

Build = Callable[..., Graph]
Frames = list[dict[str, NDArray[np.float32]]]


def planted(build: Build, peak: float) -> Graph:
    """A product in the middle reaches `peak` for an input of 1, and is brought back afterwards."""
    nodes = [
        helper.make_node("Mul", ["x", "large"], ["middle"], "grow"),
        helper.make_node("Sqrt", ["middle"], ["root"], "shrink"),
        helper.make_node("Mul", ["root", "small"], ["y"], "finish"),
        helper.make_node("Add", ["y", "y"], ["z"], "double"),
    ]
    constants = {"large": np.float32(peak), "small": np.float32(0.01)}
    return build(nodes, constants, {"x": ("n",)}, {"z": ("n",)})


ONES = {"x": np.ones(4, np.float32)}


def test_a_planted_70000_overflows_where_every_tensor_is_rounded(build: Build) -> None:
    naive = rounded(to_half(planted(build, 70_000), HalfPlan({})))
    assert np.isinf(Executor(naive).run(ONES)["z"]).all()


def test_the_same_graph_a_little_lower_does_not(build: Build) -> None:
    lower = rounded(to_half(planted(build, 60_000), HalfPlan({})))
    expected = Executor(planted(build, 60_000)).run(ONES)["z"]
    np.testing.assert_allclose(Executor(lower).run(ONES)["z"], expected, rtol=2e-3)


def test_values_observed_out_of_range_stay_in_float32(build: Build) -> None:
    graph = planted(build, 70_000)
    plan = plan_half(graph, observe(graph, [], [ONES]).largest)
    assert {name for name, reason in plan.reasons.items() if reason == "overflow"} == {"grow", "shrink"}
    result = Executor(rounded(to_half(graph, plan))).run(ONES)["z"]
    np.testing.assert_allclose(result, Executor(graph).run(ONES)["z"], rtol=2e-3)


def test_without_arithmetic_in_half_precision_the_result_is_unchanged(network: Graph, frames: Frames) -> None:
    full = HalfPlan({node.name: "overflow" for node in network.nodes})
    typed = to_half(network, full)
    assert TensorProto.FLOAT16 not in typed.copy().types.values()
    for feeds in frames:
        np.testing.assert_array_equal(
            Executor(rounded(typed)).run(feeds)["restored"], Executor(network).run(feeds)["restored"]
        )


def test_norms_and_the_picture_stay_in_float32(network: Graph, frames: Frames) -> None:
    plan = plan_half(network, observe(network, find_layers(network), frames).largest)
    assert plan.reasons == {
        "tone": "picture",
        "sum": "picture",
        **dict.fromkeys(("square", "mean", "eps", "root"), "norm"),
    }


def test_typed_graph_is_valid_keeps_its_interface_and_is_close(network: Graph, frames: Frames) -> None:
    typed = to_half(network, plan_half(network, observe(network, [], frames).largest))
    model = typed.model()
    onnx.checker.check_model(model, full_check=True)
    assert [value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)] == [1, 1]
    types = typed.copy().types
    assert types["d"] == types["c"] == TensorProto.FLOAT16
    assert types["base"] == types["root"] == TensorProto.FLOAT
    for feeds in frames:
        difference = Executor(rounded(typed)).run(feeds)["restored"] - Executor(network).run(feeds)["restored"]
        assert 0 < np.abs(difference).max() < 2e-3


def test_rounding_is_that_of_float16(build: Build, rng: np.random.Generator) -> None:
    nodes = [helper.make_node("Mul", ["x", "k"], ["y"], "scale"), helper.make_node("Add", ["y", "y"], ["z"], "double")]
    graph = build(nodes, {"k": np.float32(0.3)}, {"x": ("n",)}, {"z": ("n",)})
    x = rng.standard_normal(1000).astype(np.float32)
    product = np.float16(np.float32(np.float16(x)) * np.float32(np.float16(0.3)))
    expected = np.float16(np.float32(product) * 2).astype(np.float32)
    np.testing.assert_array_equal(Executor(rounded(to_half(graph, HalfPlan({})))).run({"x": x})["z"], expected)


def test_infinities_of_masks_do_not_count_as_overflow(build: Build) -> None:
    nodes = [
        helper.make_node("Add", ["x", "mask"], ["masked"], "add"),
        helper.make_node("Softmax", ["masked"], ["y"], "softmax"),
    ]
    mask = np.array([0, -np.inf, 0, 0], np.float32)
    graph = build(nodes, {"mask": mask}, {"x": (4,)}, {"y": (4,)})
    plan = plan_half(graph, observe(graph, [], [ONES]).largest)
    assert plan.reasons["softmax"] == "softmax"
    assert plan.reasons.get("add") != "overflow"
    result = Executor(rounded(to_half(graph, plan))).run(ONES)["y"]
    np.testing.assert_allclose(result, [1 / 3, 0, 1 / 3, 1 / 3], atol=1e-3)


def test_bfloat16_has_the_range_and_coarser_steps(network: Graph, frames: Frames, build: Build) -> None:
    graph = planted(build, 70_000)
    largest = observe(graph, [], [ONES]).largest
    assert "overflow" not in plan_half(graph, largest, kind=TensorProto.BFLOAT16).reasons.values()
    plans = [
        plan_half(network, observe(network, [], frames).largest, kind=k)
        for k in (TensorProto.FLOAT16, TensorProto.BFLOAT16)
    ]
    typed = [to_half(network, plan) for plan in plans]
    onnx.checker.check_model(typed[1].model(), full_check=True)
    assert typed[1].opset == 22
    exact = Executor(network).run(frames[0])["restored"]
    half, brain = (np.abs(Executor(rounded(g)).run(frames[0])["restored"] - exact).max() for g in typed)
    assert 2 * half < brain < 0.1
