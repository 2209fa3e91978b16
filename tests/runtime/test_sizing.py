"""Graphs that are loaded for frames of one size: the same pixels, only where it pays, one at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

import uare_rt
from uare_rt import backends
from uare_rt.bundle import Bundle
from uare_rt.quality import QualityContext

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from uare_rt.backends.base import Backend, Executable
    from uare_rt.bundle import GraphFile

needs_openvino = pytest.mark.skipif(not backends.get("openvino").probe().available, reason="openvino is not installed")
ALWAYS, NEVER = 1 << 40, 0


class Noting:
    """Another backend that notes what it loads, and finds sizing worth it from so many pixels."""

    def __init__(self, backend: Backend, worth: int | None) -> None:
        self.backend, self.worth_sizing, self.runs_parts = backend, worth, False
        self.name = backend.name
        self.loaded: list[tuple[str, tuple[int, ...] | None]] = []

    def load(self, graph: GraphFile, *, threads: int | None, beside: int = 1) -> Executable:
        self.loaded.append((graph.name, graph.shape))
        return self.backend.load(graph, threads=threads, beside=beside)


@pytest.fixture
def picture(rng: np.random.Generator) -> NDArray[np.uint8]:
    return rng.integers(0, 256, (70, 90, 3), dtype=np.uint8)


@needs_openvino
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_size_of_its_own_changes_no_pixel(
    bundle_path: Path, picture: NDArray[np.uint8], rng: np.random.Generator, precision: str
) -> None:
    bundle = Bundle.open(bundle_path).computed_in(precision)
    frame = picture.astype(np.float32) / np.float32(255)
    null = bundle.null_context()
    other = QualityContext(*(v + rng.normal(0, 0.5, v.shape).astype(np.float32) for v in vars(null).values()))
    with uare_rt.Session(bundle, backends.get("openvino")) as session:
        # Compiling the shipped bundle's graphs takes OpenVINO seconds.
        for scale in session.scales if bundle_path.stem == "tiny" else (1,):
            for context in (null, other):
                plain = session.restore(frame, scale=scale, context=context, ahead=NEVER).image
                sized = session.restore(frame, scale=scale, context=context, ahead=ALWAYS).image
                np.testing.assert_allclose(sized, plain, rtol=0, atol=1e-4)


@needs_openvino
def test_sizes_are_loaded_where_that_pays(tiny: Path, picture: NDArray[np.uint8]) -> None:
    backend = Noting(backends.get("openvino"), 1000)
    bundle = Bundle.open(tiny)
    general, sized = ("restore_x1", None), ("restore_x1", (1, 3, 80, 96))
    with uare_rt.Session(bundle, backend) as session:  # type: ignore[arg-type]
        context = session.null_context()
        session.restore(picture, context=context, ahead=999)
        session.restore(picture, context=context, ahead=ALWAYS, part=True)
        assert backend.loaded == [general]
        session.restore(picture, context=context, ahead=1000)
        assert backend.loaded == [general, sized]
        # In tiles: they are of several sizes.
        assert session.restore(np.tile(picture, (3, 3, 1)), context=context, ahead=ALWAYS, tile=192).tiles > 1
        assert backend.loaded == [general, sized]
    never = Noting(backends.get("openvino"), None)
    with uare_rt.Session(bundle, never) as session:  # type: ignore[arg-type]
        session.restore(picture, context=context, ahead=ALWAYS)
    assert never.loaded == [general]


@needs_openvino
def test_one_size_takes_the_place_of_the_one_before(tiny: Path, picture: NDArray[np.uint8]) -> None:
    backend = Noting(backends.get("openvino"), 1)
    turned = np.ascontiguousarray(picture.transpose(1, 0, 2))
    with uare_rt.Session(Bundle.open(tiny), backend) as session:  # type: ignore[arg-type]
        context = session.null_context()
        results = [
            session.restore(frame, context=context, ahead=ALWAYS).image for frame in (picture, turned, turned, picture)
        ]
    wide, high = (1, 3, 80, 96), (1, 3, 96, 80)
    assert [shape for _, shape in backend.loaded] == [wide, high, wide]
    np.testing.assert_array_equal(results[0], results[3])
    np.testing.assert_array_equal(results[1], results[2])


def test_backends_say_whether_sizing_is_worth_it() -> None:
    assert backends.get("openvino").worth_sizing
    for name in ("onnxruntime", "onnxruntime-cuda", "null"):
        assert backends.get(name).worth_sizing is None
