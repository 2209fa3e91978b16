"""Weights in INT8: rounding errors that are made up for, means that are kept, layers of every layout."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from uare_rt.calibration.compare import GraphProof, missed
from uare_rt.calibration.execution import Executor
from uare_rt.calibration.graph import Graph
from uare_rt.calibration.half import plan_half, to_half
from uare_rt.calibration.layers import find_layers
from uare_rt.calibration.observation import Known, observe
from uare_rt.calibration.qdq import place
from uare_rt.calibration.sensitivity import Quality, drops, keeps_flawless, mean_drop
from uare_rt.calibration.storage import weight_bytes
from uare_rt.calibration.weights import round_weight

Build = Callable[..., Graph]
Frames = list[dict[str, NDArray[np.float32]]]


@pytest.fixture
def reparameterised(build: Build, rng: np.random.Generator) -> Graph:
    """A convolution with a large middle tap on inputs far from zero, as a folded identity branch gives."""
    weight = rng.standard_normal((12, 12, 3, 3)).astype(np.float32) * 0.01
    weight[np.arange(12), np.arange(12), 1, 1] += 0.7
    nodes = [helper.make_node("Conv", ["x", "w", "b"], ["y"], "conv", pads=[1, 1, 1, 1])]
    constants = {"w": weight, "b": rng.standard_normal(12).astype(np.float32)}
    return build(nodes, constants, {"x": (1, 12, 24, 24)}, {"y": (1, 12, 24, 24)})


@pytest.fixture
def inputs(rng: np.random.Generator) -> list[dict[str, NDArray[np.float32]]]:
    """Neighbours and channels that depend on each other, with means of their own."""

    def one() -> NDArray[np.float32]:
        mixed = np.einsum("ij,jhw->ihw", mixing, rng.standard_normal((12, 26, 26)))
        smooth = sum(mixed[:, i : i + 24, j : j + 24] for i in range(3) for j in range(3)) / 9
        return np.asarray(smooth + means[:, None, None], np.float32)[None]

    mixing, means = rng.standard_normal((12, 12)), rng.uniform(1, 4, 12)
    return [{"x": one()} for _ in range(6)]


def errors(graph: Graph, feeds: Frames, *, observed: bool) -> NDArray[np.float64]:
    """Differences of the result from float32 with weights alone in INT8."""
    (layer,) = find_layers(graph)
    weights = {}
    if observed:
        moments = observe(graph, [layer], feeds[:4]).moments[layer.name]
        weight = graph.constants[layer.weight or ""]
        weights = {layer.name: round_weight(weight, layer.axis, moments, biased=layer.bias is not None)}
    changed = Executor(place(graph, [], {}, weights, stored=[layer]))
    exact = Executor(graph)
    return np.concatenate([changed.run(f)["y"].astype(np.float64) - exact.run(f)["y"] for f in feeds[4:]])


def test_errors_are_made_up_for(reparameterised: Graph, inputs: Frames) -> None:
    nearest = errors(reparameterised, inputs, observed=False)
    made_up = errors(reparameterised, inputs, observed=True)
    inner = np.s_[:, :, 1:-1, 1:-1]  # zeros beyond the edge have another mean
    assert np.mean(made_up[inner] ** 2) < 0.2 * np.mean(nearest[inner] ** 2)
    assert np.abs(made_up[inner].mean(axis=(0, 2, 3))).max() < 0.1 * np.abs(nearest[inner].mean(axis=(0, 2, 3))).max()


def test_levels_and_scales_are_what_tensorrt_takes(reparameterised: Graph, inputs: Frames) -> None:
    (layer,) = find_layers(reparameterised)
    moments = observe(reparameterised, [layer], inputs).moments["conv"]
    stored = round_weight(reparameterised.constants["w"], 0, moments, biased=True)
    assert stored.levels.dtype == np.int8
    assert stored.levels.min() >= -127
    assert stored.scales.shape == (12,)
    np.testing.assert_array_equal(stored.scales.astype(np.float16).astype(np.float32), stored.scales)
    assert stored.shift is not None
    again = round_weight(
        reparameterised.constants["w"], 0, observe(reparameterised, [layer], inputs).moments["conv"], biased=True
    )
    np.testing.assert_array_equal(stored.levels, again.levels)


@pytest.mark.parametrize(
    ("op", "shape", "axis", "attributes"),
    [("MatMul", (24, 10), 1, {}), ("Gemm", (24, 10), 1, {}), ("Gemm", (10, 24), 0, {"transB": 1})],
)
def test_matrix_products(
    build: Build, rng: np.random.Generator, op: str, shape: tuple[int, int], axis: int, attributes: dict[str, int]
) -> None:
    bias = {"b": rng.standard_normal(10).astype(np.float32)} if op == "Gemm" else {}
    node = helper.make_node(op, ["x", "w", *bias], ["y"], "product", **attributes)
    constants = {"w": rng.standard_normal(shape).astype(np.float32), **bias}
    graph = build([node], constants, {"x": (80, 24)}, {"y": (80, 10)})
    mixing = rng.standard_normal((24, 24))
    feeds = [{"x": (rng.standard_normal((80, 24)) @ mixing + 3).astype(np.float32)} for _ in range(6)]
    nearest, made_up = (errors(graph, feeds, observed=observed) for observed in (False, True))
    assert np.mean(made_up**2) < 0.75 * np.mean(nearest**2)
    (layer,) = find_layers(graph)
    assert (layer.axis, layer.bias) == (axis, "b" if bias else None)


def test_with_too_little_seen_every_value_goes_to_the_nearest_step(build: Build, rng: np.random.Generator) -> None:
    weight = rng.standard_normal((30, 5)).astype(np.float32)
    graph = build([helper.make_node("MatMul", ["x", "w"], ["y"], "p")], {"w": weight}, {"x": (4, 30)}, {"y": (4, 5)})
    seen = observe(graph, find_layers(graph), [{"x": rng.standard_normal((4, 30)).astype(np.float32)}])
    known, plain = round_weight(weight, 1, seen.moments["p"]), round_weight(weight, 1)
    np.testing.assert_array_equal(known.levels, plain.levels)


def test_dead_inputs_do_no_harm(reparameterised: Graph) -> None:
    feeds = [{"x": np.zeros((1, 12, 24, 24), np.float32)}] * 6
    assert np.isfinite(errors(reparameterised, feeds, observed=True)).all()


def test_graphs_that_share_a_part_are_observed_once(network: Graph, frames: Frames) -> None:
    other = network.copy()
    other.constants["model.last.weight"] = other.constants["model.last.weight"] * np.float32(2)
    one, two = network.digests(), other.digests()
    assert one["c"] == two["c"]
    assert one["d"] != two["d"]
    known = Known()
    observe(network, find_layers(network), frames, known)
    alone, shared = (observe(other, find_layers(other), frames, given) for given in (None, known))
    assert shared.largest == alone.largest
    assert shared.macs == alone.macs
    assert {n: h.range("mse") for n, h in shared.histograms.items()} == {
        n: h.range("mse") for n, h in alone.histograms.items()
    }
    np.testing.assert_array_equal(shared.moments["last"].second, alone.moments["last"].second)
    assert shared.histograms["base"] is known.histograms[one["base"]]


def test_flawless_pictures_count_by_what_they_keep() -> None:
    reference = Quality((30.0, 74.0), (0.9, 1.0), flawless=(False, True))
    assert mean_drop(reference, Quality((29.9, 50.0), (0.9, 1.0))) == pytest.approx(0.1)
    assert keeps_flawless(reference, Quality((20.0, 42.1), (0.9, 1.0)))
    assert not keeps_flawless(reference, Quality((30.0, 41.9), (0.9, 1.0)))
    low = Quality((12.2,), (1.0,), flawless=(True,))
    assert keeps_flawless(low, Quality((12.1,), (1.0,)))  # float32 spoils it itself
    assert mean_drop(low, Quality((11.2,), (1.0,))) == pytest.approx(1.0)  # nothing else to count


def test_a_precision_is_judged_where_restoration_helps_and_loss_can_be_seen() -> None:
    came_in = (25.0, 17.0, 78.0, 40.0)
    reference = Quality((30.0, 12.7, 74.0, 60.0), (0.9,) * 4, flawless=(False, False, True, False), before=came_in)
    assert reference.counted.tolist() == [True, False, False, True]  # float32 spoils the second one
    other = Quality((29.8, 18.3, 50.0, 52.0), (0.9,) * 4)
    assert drops(reference, other)[3] == 0  # less than a level of 255 is wrong in both
    assert mean_drop(reference, other) == pytest.approx(0.1)
    assert keeps_flawless(reference, other)
    failed = Quality((12.7, 74.0), (0.9,) * 2, flawless=(False, True), before=(17.0, 78.0))
    assert failed.counted.tolist() == [True, False]  # nothing else to go by


def test_promises_that_are_not_kept_are_told_with_their_figures() -> None:
    def proof(precision: str, psnr: tuple[float, ...], scores: tuple[float, ...], size: int) -> GraphProof:
        quality = Quality(psnr, (0.9,) * 3, scores, flawless=(False, False, True))
        return GraphProof(precision, {"restore_x1": quality}, {"restore_x1": ("noise", "haze", "clean")}, (size, 400))

    exact = proof("fp32", (30.0, 20.0, 74.0), (1.0, 2.0, 3.0), 400)
    assert not missed(proof("int8", (29.95, 19.9, 60.0), (1.1, 2.1, 3.1), 120), exact, 0.1)
    problems = missed(proof("int8", (29.5, 19.9, 41.0), (1.0, 3.0, 2.0), 400), exact, 0.1)
    assert [problem.split(",")[0] for problem in problems] == [
        "restore_x1 in int8 loses 0.300 dB",
        "restore_x1 in int8 brings a flawless picture below 42 dB",
        "scores in int8 rank with 0.5000",
        "int8 is not smaller: 400 bytes of weights",
    ]


def test_bytes_of_weights_count_every_type(network: Graph, frames: Frames) -> None:
    largest = observe(network, [], frames).largest
    sizes = {
        kind: weight_bytes({"g": to_half(network, plan_half(network, largest, kind=kind))})
        for kind in (TensorProto.FLOAT16, TensorProto.BFLOAT16)
    }
    full = weight_bytes({"g": network})
    assert all(0.5 * full <= size < 0.6 * full for size in sizes.values())
