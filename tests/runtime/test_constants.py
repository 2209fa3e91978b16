"""A quality context as a constant of the graph: the same pixels, only where it pays, and never another context's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
    """Another backend that notes what it loads, and finds constants worth it from so many pixels."""

    def __init__(self, backend: Backend, worth: int | None) -> None:
        self.backend, self.worth_constants, self.runs_parts = backend, worth, False
        self.name = backend.name
        self.loaded: list[str] = []

    def load(self, graph: GraphFile, *, threads: int | None, beside: int = 1) -> Executable:
        self.loaded.append(f"{graph.name} with constants" if graph.constants else graph.name)
        return self.backend.load(graph, threads=threads, beside=beside)


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


@needs_openvino
def test_every_context_gives_the_pixels_that_it_gives_as_an_input(
    bundle_path: Path, picture: NDArray[np.uint8]
) -> None:
    with uare_rt.load(bundle_path, backend="openvino") as session:
        frame = picture.astype(np.float32) / np.float32(255)
        bundle = Bundle.open(bundle_path)
        # Compiling the shipped bundle's graphs takes OpenVINO seconds each.
        for scale in session.scales if bundle_path.stem == "tiny" else (1,):
            for context in [bundle.null_context(), *contexts(bundle, 1)]:
                plain = session.restore(frame, scale=scale, context=context, ahead=NEVER).image
                constant = session.restore(frame, scale=scale, context=context, ahead=ALWAYS).image
                np.testing.assert_allclose(constant, plain, rtol=0, atol=1e-4)


@needs_openvino
def test_constants_are_used_where_they_pay(tiny: Path, picture: NDArray[np.uint8]) -> None:
    pixels = picture.shape[0] * picture.shape[1]
    backend = Noting(backends.get("openvino"), 10 * pixels)
    bundle = Bundle.open(tiny)
    with uare_rt.Session(bundle, backend) as session:  # type: ignore[arg-type]
        context = session.null_context()
        session.restore(picture, context=context, ahead=9 * pixels - 1)
        assert backend.loaded == ["restore_x1"]
        session.restore(picture, context=context, ahead=9 * pixels)
        assert backend.loaded == ["restore_x1", "restore_x1 with constants"]
    never = Noting(backends.get("openvino"), None)
    with uare_rt.Session(bundle, never) as session:  # type: ignore[arg-type]
        session.restore(picture, context=context, ahead=ALWAYS)
    assert never.loaded == ["restore_x1"]


@needs_openvino
def test_a_graph_per_context_in_place_of_the_one_before(tiny: Path, picture: NDArray[np.uint8]) -> None:
    backend = Noting(backends.get("openvino"), 1)
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


def test_backends_say_whether_constants_are_worth_it() -> None:
    assert backends.get("onnxruntime").worth_constants is None  # any context is as fast
    assert backends.get("openvino").worth_constants
    assert backends.get("null").worth_constants is None
    assert backends.get("onnxruntime-cuda").worth_constants is None
