"""ONNX files taken apart without the onnx package: nothing is lost, and two parts give what the whole gives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from uare_rt import backends
from uare_rt.bundle import Bundle, Part, shipped_bundle
from uare_rt.errors import BundleError
from uare_rt.executables import Executables
from uare_rt.manifest import BASE_NAME
from uare_rt.onnx_parts import Node, OnnxModel, makes_value

if TYPE_CHECKING:
    from pathlib import Path

GRAPHS = ("assess", "restore_x1", "restore_x2", "restore_x4")


@pytest.fixture(scope="module")
def content() -> bytes:
    return Bundle.open(shipped_bundle()).graph("restore_x1").path.read_bytes()


def run(content: bytes, **inputs: Any) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(shipped_bundle()))
    (result,) = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"]).run(None, inputs)
    return result


@pytest.mark.parametrize("name", GRAPHS)
def test_nothing_is_lost_on_the_way(bundle_path: Path, name: str) -> None:
    onnx = pytest.importorskip("onnx")
    before = onnx.load(Bundle.open(bundle_path).graph(name).path, load_external_data=False)
    after = onnx.load_model_from_string(OnnxModel(before.SerializeToString()).to_bytes())
    for field in ("node", "input", "output"):
        assert list(getattr(after.graph, field)) == list(getattr(before.graph, field))
    by_name = {tensor.name: tensor for tensor in after.graph.initializer}
    assert by_name == {tensor.name: tensor for tensor in before.graph.initializer}
    assert (after.opset_import, after.ir_version) == (before.opset_import, before.ir_version)
    assert after.graph.name == before.graph.name


def test_two_parts_give_what_the_whole_gives(content: bytes, rng: np.random.Generator) -> None:
    frame = rng.random((2, 3, 48, 80), dtype=np.float32)
    context = Bundle.open(shipped_bundle()).null_context().inputs()
    before, behind = OnnxModel(content), OnnxModel(content)
    before.keep_before(BASE_NAME)
    behind.keep_behind(BASE_NAME)
    assert list(before.inputs) == ["frame", "ctx_vec"]
    assert list(behind.inputs) == [BASE_NAME, "ctx_k", "ctx_v", "ctx_vec"]
    assert len(before.nodes) + len(behind.nodes) < 1.02 * len(OnnxModel(content).nodes)
    base = run(before.to_bytes(), frame=frame, ctx_vec=context["ctx_vec"])
    assert base.shape == frame.shape
    whole = run(content, frame=frame, **context)
    np.testing.assert_allclose(run(behind.to_bytes(), base=base, **context), whole, rtol=0, atol=1e-6)


def test_a_value_that_is_not_there_or_does_not_part_the_graph_is_refused(content: bytes) -> None:
    for keep in (OnnxModel.keep_before, OnnxModel.keep_behind):
        with pytest.raises(BundleError, match="no value nowhere"):
            keep(OnnxModel(content), "nowhere")
    # The stem's result is behind the curve, which the head needs too.
    stem = next(node for node in OnnxModel(content).nodes if node.type == "Conv").outputs[0]
    with pytest.raises(BundleError, match="needs frame"):
        OnnxModel(content).keep_behind(stem)


def test_what_is_no_graph_is_refused(content: bytes) -> None:
    for damaged in (content[:-3], b"not a graph", b""):
        with pytest.raises(BundleError, match="cannot be read as ONNX"):
            OnnxModel(damaged)


def test_nodes_are_put_in_order(content: bytes) -> None:
    model = OnnxModel(content)
    model.nodes.reverse()
    model.rewire(lambda node: [node])
    ready = {"", *model.inputs, *model.initializers}
    for node in model.nodes:
        assert ready.issuperset(node.inputs)
        ready.update(node.outputs)
    with pytest.raises(BundleError, match="lacks what Relu lost reads"):
        model.rewire(lambda node: [node, Node("Relu", "", ("nothing",), ("lost",))])


def test_shapes_of_initializers_are_read_and_changed(content: bytes) -> None:
    onnx = pytest.importorskip("onnx")
    model = OnnxModel(content)
    model.add_integers("numbers", [3, 1, -2, 1 << 40])
    assert model.shape("numbers") == (4,)
    model.reshape("numbers", (2, 2))
    assert model.shape("numbers") == (2, 2)
    added = next(t for t in onnx.load_model_from_string(model.to_bytes()).graph.initializer if t.name == "numbers")
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(added), [[3, 1], [-2, 1 << 40]])


def test_values_are_found_without_taking_the_file_apart(content: bytes, tiny: Path) -> None:
    makers = OnnxModel(content).makers()
    assert all(makes_value(content, name) for name in makers)
    assert not any(makes_value(content, name) for name in ("frame", "ctx_vec", "nowhere", "bas", "base2"))
    assert not makes_value(Bundle.open(tiny).graph("restore_x1").path.read_bytes(), BASE_NAME)


def test_parts_of_a_graph_are_loaded_each_for_itself(rng: np.random.Generator) -> None:
    bundle = Bundle.open(shipped_bundle())
    graphs = Executables(bundle, backends.get("onnxruntime"), 1)
    context = bundle.null_context().inputs()
    frame = rng.random((1, 3, 32, 48), dtype=np.float32)
    before, behind = (Part(BASE_NAME, behind=flag) for flag in (False, True))
    for _ in range(2):
        whole = graphs.run("restore_x1", {"frame": frame, **context})["restored"]
        base = graphs.run("restore_x1", {"frame": frame, "ctx_vec": context["ctx_vec"]}, part=before)[BASE_NAME]
        restored = graphs.run("restore_x1", {BASE_NAME: base, **context}, part=behind)["restored"]
        assert not np.array_equal(base, whole)
        np.testing.assert_allclose(restored, whole, rtol=0, atol=1e-5)
    graphs.close()
