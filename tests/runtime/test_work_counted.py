"""What speed depends on, counted rather than timed: nodes that run, copies of pixels, arrays of the size of a frame."""

from __future__ import annotations

import platform
import tracemalloc
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import uare_rt
from uare_rt import backends
from uare_rt.bundle import Bundle, Part, shipped_bundle
from uare_rt.manifest import BASE_NAME
from uare_rt.tiling import plan_tiles

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from uare_rt.backends.base import Executable
    from uare_rt.bundle import GraphFile

HEIGHT, WIDTH = 192, 256


class Repeating:
    """A backend that computes nothing and notes the arrays that it is given."""

    name = "repeating"
    worth_sizing = None
    runs_parts = False
    precisions = ()

    def __init__(self) -> None:
        self.given: list[NDArray[np.float32]] = []

    def load(self, graph: GraphFile, *, threads: int | None, beside: int = 1) -> Executable:
        given = self.given

        class Same:
            def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
                given.append(inputs["frame"])
                return {"restored": inputs["frame"] * np.float32(0.5)}

            def close(self) -> None:
                pass

        return Same()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_between_the_stages_pixels_are_copied_no_more_than_needed(tiny: Path, dtype: type[Any]) -> None:
    """Alive at most: the frame for the graph, its result, and the result in the samples' type, turned and in place."""
    backend = Repeating()
    image = np.zeros((HEIGHT, WIDTH, 3), dtype)
    size = image.itemsize * image.size
    with uare_rt.Session(Bundle.open(tiny), backend) as session:  # type: ignore[arg-type]
        context = session.null_context()
        session.restore(image, context=context)
        tracemalloc.start()
        try:
            session.restore(image, context=context)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    frame = 4 * image.size
    assert peak <= 2 * frame + 2 * size + 0.05 * frame
    (array, _) = backend.given
    assert array.flags.c_contiguous
    assert array.shape == (1, 3, HEIGHT, WIDTH)


def optimised(bundle: Bundle, tmp_path: Path, *, modulated: bool) -> Any:
    """The restore graph as ONNX Runtime makes it, and as it is run here: behind the tone curve, weights modulated."""
    onnx = pytest.importorskip("onnx")
    import onnxruntime as ort

    from uare_rt.backends import onnxruntime_ as backend

    graph = bundle.graph("restore_x1")
    if modulated:
        graph = graph._replace(part=Part(BASE_NAME, behind=True))
        return onnx.load_model_from_string(backend.with_modulated_weights(ort, graph, 1)).graph
    path = tmp_path / "optimised.onnx"
    backend.save_optimised(ort, graph.path.read_bytes(), path, backend.options(ort, 1, graph))
    return onnx.load(path).graph


def kinds(graph: Any) -> Counter[str]:
    return Counter(node.op_type for node in graph.node)


@pytest.fixture(scope="module")
def shipped() -> Bundle:
    return Bundle.open(shipped_bundle())


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="ONNX Runtime has no blocked layout here")
def test_modulated_weights_leave_nothing_between_the_convolutions(shipped: Bundle, tmp_path: Path) -> None:
    plain, modulated = (optimised(shipped, tmp_path, modulated=flag) for flag in (False, True))
    assert [value.name for value in modulated.input] == [BASE_NAME, "ctx_k", "ctx_v", "ctx_vec"]
    before, after = kinds(plain), kinds(modulated)
    assert after["Conv"] == before["Conv"]
    # Activations are part of the convolutions, which stay in one layout from the first to the last.
    assert after["LeakyRelu"] == 0
    assert after["ReorderOutput"] <= 3
    assert after["ReorderInput"] <= 1
    # No pass over a whole frame is left but the sum with the residual: the curve's are gone too.
    assert after["Sqrt"] == 0
    assert sum(after.values()) <= 440


def test_the_shipped_graph_grows_no_heavier(shipped: Bundle) -> None:
    """Operations a pixel within the budget, and no more nodes than when this was written, with a little room."""
    spec = shipped.nano.graphs["restore_x1"]
    assert spec.flops_per_pixel is not None
    assert spec.flops_per_pixel <= 50_000
    onnx = pytest.importorskip("onnx")
    graph = onnx.load(shipped.graph("restore_x1").path, load_external_data=False).graph
    counted = kinds(graph)
    assert counted["Conv"] == 16
    assert counted["MatMul"] <= 44
    assert len(graph.node) <= 600


@pytest.mark.parametrize(("scale", "most"), [(1, 1.25), (2, 1.34)])
def test_tiles_of_large_frames_overlap_little(shipped: Bundle, scale: int, most: float) -> None:
    """Work done over work asked for, where a 4K frame is cut as it is here."""
    height, width = 2160, 3840
    with uare_rt.Session(shipped, backends.get("null")) as session:
        sides = session._tile_sides(np.zeros((height, width, 3), np.uint8), scale)
    tiles = plan_tiles(height, width, sides, shipped.nano.tiling)
    done = sum((tile.y.stop - tile.y.start) * (tile.x.stop - tile.x.start) for tile in tiles)
    assert done / (height * width) <= most
