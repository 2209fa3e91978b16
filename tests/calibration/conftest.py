"""Small graphs with the structures of the real ones, and pictures to calibrate with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from uare_rt.calibration.graph import Graph

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray


@pytest.fixture
def build() -> Callable[..., Graph]:
    """Makes a float32 graph of opset 20: nodes, constants, shapes of inputs and of outputs."""
    return _build


def _build(
    nodes: list[onnx.NodeProto],
    constants: dict[str, NDArray[np.generic]],
    inputs: dict[str, tuple[int | str, ...]],
    outputs: dict[str, tuple[int | str, ...]],
) -> Graph:
    def values(shapes: dict[str, tuple[int | str, ...]]) -> list[onnx.ValueInfoProto]:
        return [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]

    weights = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "small", values(inputs), values(outputs), weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return Graph(model)


@pytest.fixture
def network(rng: np.random.Generator) -> Graph:
    """Two convolutions around a norm, with a picture that goes past them, as in the restore graphs."""
    node = helper.make_node
    nodes = [
        node("Mul", ["frame", "gain"], ["base"], "tone"),
        node("Conv", ["base", "model.first.weight", "model.first.bias"], ["a"], "first", pads=[1, 1, 1, 1]),
        node("LeakyRelu", ["a"], ["b"], "act", alpha=0.1),
        node("Pow", ["b", "two"], ["squares"], "square"),
        node("ReduceMean", ["squares", "channel"], ["mean"], "mean"),
        node("Add", ["mean", "eps"], ["safe"], "eps"),
        node("Sqrt", ["safe"], ["root"], "root"),
        node("Div", ["b", "root"], ["c"], "normed"),
        node("Conv", ["c", "model.last.weight"], ["d"], "last", pads=[1, 1, 1, 1]),
        node("Add", ["base", "d"], ["restored"], "sum"),
    ]
    constants = {
        "gain": np.float32(1.1),
        "model.first.weight": rng.standard_normal((16, 3, 3, 3)).astype(np.float32) / 5,
        "model.first.bias": rng.standard_normal(16).astype(np.float32) / 10,
        "two": np.float32(2),
        "channel": np.array([1]),
        "eps": np.float32(1e-5),
        "model.last.weight": rng.standard_normal((3, 16, 3, 3)).astype(np.float32) / 60,
    }
    shape = ("N", 3, "H", "W")
    return _build(nodes, constants, {"frame": shape}, {"restored": shape})


@pytest.fixture
def frames(rng: np.random.Generator) -> list[dict[str, NDArray[np.float32]]]:
    """Inputs of `network`."""
    return [{"frame": rng.random((1, 3, 32, 48), dtype=np.float32)} for _ in range(4)]
