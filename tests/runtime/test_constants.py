"""A quality context as a constant of the graph: the same pixels, only where it pays, and never another context's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import uare_rt
from uare_rt import backends
from uare_rt.bundle import Bundle
from uare_rt.constants import with_constants
from uare_rt.errors import BundleError
from uare_rt.quality import QualityContext

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from uare_rt.backends.base import Backend, Executable
    from uare_rt.bundle import GraphFile

ENGINES = [name for name in ("onnxruntime", "openvino") if backends.get(name).probe().available]
ALWAYS, NEVER = 1 << 40, 0


class Noting:
    """Another backend that notes what it loads, and finds constants worth it from so many pixels."""

    def __init__(self, backend: Backend, worth: int | None) -> None:
        self.backend, self.worth_constants = backend, worth
        self.name = backend.name
        self.loaded: list[str] = []

    def load(self, graph: GraphFile, *, threads: int | None) -> Executable:
        self.loaded.append(f"{graph.name} with constants" if graph.constants else graph.name)
        return self.backend.load(graph, threads=threads)


def contexts(bundle: Bundle, count: int) -> list[QualityContext]:
    rng = np.random.default_rng(1)
    null = bundle.null_context()
    return [
        QualityContext(*(part + rng.normal(0, 0.5, part.shape).astype(np.float32) for part in vars(null).values()))
        for _ in range(count)
    ]


@pytest.fixture
def picture(rng: np.random.Generator) -> NDArray[np.uint8]:
    return rng.integers(0, 256, (70, 90, 3), dtype=np.uint8)


@pytest.mark.parametrize("engine", ENGINES)
def test_every_context_gives_the_pixels_that_it_gives_as_an_input(
    bundle_path: Path, engine: str, picture: NDArray[np.uint8]
) -> None:
    with uare_rt.load(bundle_path, backend=engine) as session:
        frame = picture.astype(np.float32) / np.float32(255)
        bundle = Bundle.open(bundle_path)
        # Compiling the shipped bundle's graphs takes OpenVINO seconds each.
        for scale in session.scales if bundle_path.stem == "tiny" else (1,):
            for context in [bundle.null_context(), *contexts(bundle, 1)]:
                plain = session.restore(frame, scale=scale, context=context, ahead=NEVER).image
                constant = session.restore(frame, scale=scale, context=context, ahead=ALWAYS).image
                np.testing.assert_allclose(constant, plain, rtol=0, atol=1e-4)


def test_constants_are_used_where_they_pay(tiny: Path, picture: NDArray[np.uint8]) -> None:
    pixels = picture.shape[0] * picture.shape[1]
    backend = Noting(backends.get("onnxruntime"), 10 * pixels)
    bundle = Bundle.open(tiny)
    with uare_rt.Session(bundle, backend) as session:  # type: ignore[arg-type]
        context = session.null_context()
        session.restore(picture, context=context, ahead=9 * pixels - 1)
        assert backend.loaded == ["restore_x1"]
        session.restore(picture, context=context, ahead=9 * pixels)
        assert backend.loaded == ["restore_x1", "restore_x1 with constants"]
    never = Noting(backends.get("onnxruntime"), None)
    with uare_rt.Session(bundle, never) as session:  # type: ignore[arg-type]
        session.restore(picture, context=context, ahead=ALWAYS)
    assert never.loaded == ["restore_x1"]


def test_a_graph_per_context_in_place_of_the_one_before(tiny: Path, picture: NDArray[np.uint8]) -> None:
    backend = Noting(backends.get("onnxruntime"), 1)
    bundle = Bundle.open(tiny)
    first, second, third = contexts(bundle, 3)
    same = QualityContext(first.k.copy(), first.v.copy(), first.vec.copy())
    with uare_rt.Session(bundle, backend) as session:  # type: ignore[arg-type]
        results: dict[int, Any] = {}
        for at, context in enumerate((first, second, same, first, third, first, second)):
            results[at] = session.restore(picture, context=context).image
        # "same" and the "first" after it are one context by value.
        assert backend.loaded == ["restore_x1 with constants"] * 6
    np.testing.assert_array_equal(results[0], results[2])
    np.testing.assert_array_equal(results[0], results[5])
    np.testing.assert_array_equal(results[1], results[6])
    assert not np.array_equal(results[0], results[1])


def test_the_default_backend_finds_constants_worth_it() -> None:
    assert backends.get("onnxruntime").worth_constants
    assert backends.get("openvino").worth_constants
    assert backends.get("null").worth_constants is None
    assert backends.get("onnxruntime-cuda").worth_constants is None


def test_inputs_become_initializers(tiny: Path) -> None:
    onnx = pytest.importorskip("onnx")
    graph = Bundle.open(tiny).graph("restore_x1")
    before = onnx.load(graph.path, load_external_data=False)
    value = np.arange(before.graph.input[3].type.tensor_type.shape.dim[0].dim_value, dtype=np.float32)
    after = onnx.load_model_from_string(with_constants(graph.path.read_bytes(), {"ctx_vec": value}))
    assert [node.name for node in after.graph.input] == ["frame", "ctx_k", "ctx_v"]
    added = next(tensor for tensor in after.graph.initializer if tensor.name == "ctx_vec")
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(added), value)
    assert list(after.graph.node) == list(before.graph.node)
    assert after.opset_import == before.opset_import
    assert len(after.graph.initializer) == len(before.graph.initializer) + 1


def test_what_is_no_such_graph_is_refused(tiny: Path) -> None:
    content = Bundle.open(tiny).graph("restore_x1").path.read_bytes()
    with pytest.raises(BundleError, match="no input ctx_x"):
        with_constants(content, {"ctx_x": np.zeros(1, np.float32)})
    for damaged in (content[:-3], b"not a graph"):
        with pytest.raises(BundleError, match="cannot be read as ONNX"):
            with_constants(damaged, {"ctx_vec": np.zeros(1, np.float32)})
