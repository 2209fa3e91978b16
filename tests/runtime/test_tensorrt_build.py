"""Compiling with the real TensorRT-RTX, which needs no GPU: what it takes, and what its refusals say."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from uare_rt.backends.tensorrt_build import BuildOptions, Built, build_engine
from uare_rt.errors import BackendError, UsageError
from uare_rt.manifest import Profile

trt: ModuleType = pytest.importorskip("tensorrt_rtx")
PROFILE = {"x": Profile(min=(1, 3, 16, 16), opt=(1, 3, 32, 32), max=(1, 3, 64, 64))}
STATIC = {"x": Profile(min=(1, 3, 32, 32), opt=(1, 3, 32, 32), max=(1, 3, 32, 32))}


def written(folder: Path, *nodes: onnx.NodeProto) -> Path:
    """A convolution in half precision, and nodes after it."""
    weight = numpy_helper.from_array(np.full((4, 3, 3, 3), 0.1, np.float16), "w")
    values = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT16, (1, 3, "H", "W")),
        helper.make_tensor_value_info(nodes[-1].output[0] if nodes else "y", TensorProto.FLOAT16, None),
    ]
    conv = helper.make_node("Conv", ["x", "w"], ["y"], "codec.stem/conv", pads=[1, 1, 1, 1])
    graph = helper.make_graph([conv, *nodes], "small", values[:1], values[1:], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    path = folder / "small.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def build(path: Path, **options: object) -> Built:
    return build_engine(trt, path, BuildOptions(**{"profile": PROFILE, "targets": ("sm86",), **options}))  # type: ignore[arg-type]


@pytest.mark.parametrize("profile", [PROFILE, STATIC], ids=["dynamic", "static"])
def test_an_engine_is_built_for_several_targets_without_a_device(tmp_path: Path, profile: dict[str, Profile]) -> None:
    built = build(written(tmp_path), profile=profile, targets=("sm86", "sm89", "sm120"), workspace_mib=64)
    assert len(built.engine) > 1000
    assert [layer["output"] for layer in built.layers if layer["type"] == "CONVOLUTION"] == ["half"]
    assert built.timing_cache is None


def test_progress_reaches_the_end_and_can_stop_the_build(tmp_path: Path) -> None:
    path, seen = written(tmp_path), []

    def note(part: float) -> bool:
        seen.append(part)
        return True

    build_engine(trt, path, BuildOptions(PROFILE, ("sm86",)), note)
    assert seen == sorted(seen)
    assert 0 <= seen[0] <= seen[-1] <= 1
    with pytest.raises(BackendError, match=r"cannot compile small\.onnx: stopped"):
        build_engine(trt, path, BuildOptions(PROFILE, ("sm86",)), lambda part: False)


def test_a_node_that_the_parser_refuses_is_named_with_its_layer(tmp_path: Path) -> None:
    strange = helper.make_node("Hardmax", ["y"], ["z"], "mot.layers.2/strange", axis=1)
    strange.op_type, strange.domain = "NoSuchOperator", "somewhere"
    with pytest.raises(
        BackendError, match=r"cannot parse small\.onnx: .*mot\.layers\.2/strange.*of layer mot\.layers\.2"
    ):
        build(written(tmp_path, strange))


def test_a_file_that_is_no_graph(tmp_path: Path) -> None:
    path = tmp_path / "small.onnx"
    path.write_bytes(b"not a graph")
    with pytest.raises(BackendError, match=r"cannot parse small\.onnx"):
        build(path)


def test_targets_and_profiles_that_are_missing(tmp_path: Path) -> None:
    path = written(tmp_path)
    with pytest.raises(UsageError, match=r"--target sm87: tensorrt_rtx .* compiles for sm75"):
        build(path, targets=("sm86", "sm87"))
    with pytest.raises(BackendError, match="input x is dynamic and has no profile"):
        build(path, profile={})
