"""Restoring behind a table of the tone curve, with modulated weights: what the plain graph gives, for every context."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import uare_rt
from uare_rt import backends, executables
from uare_rt.backends import onnxruntime_
from uare_rt.backends.onnxruntime_modulated import BLOCKS
from uare_rt.bundle import Bundle, shipped_bundle
from uare_rt.executables import Executables
from uare_rt.frames import to_unit
from uare_rt.quality import QualityContext
from uare_rt.restorer import Restorer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

ENGINES = [name for name in ("onnxruntime", "openvino") if backends.get(name).probe().available]
KINDS = (np.uint8, np.uint16, np.float32)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle.open(shipped_bundle())


@pytest.fixture
def samples(rng: np.random.Generator) -> NDArray[np.uint8]:
    return rng.integers(0, 256, (64, 96, 3), dtype=np.uint8)


def strange(bundle: Bundle, seed: int) -> QualityContext:
    """A context that no picture has: factors far from one, a curve far from straight."""
    rng = np.random.default_rng(seed)
    parts = vars(bundle.null_context()).values()
    return QualityContext(*(part + rng.normal(0, 0.7, part.shape).astype(np.float32) for part in parts))


def as_kind(samples: NDArray[np.uint8], kind: type[Any]) -> NDArray[Any]:
    return {np.uint8: samples, np.uint16: samples.astype(np.uint16) * 251, np.float32: to_unit(samples)}[kind]


def plain(bundle: Bundle, samples: NDArray[Any], scale: int, context: QualityContext) -> NDArray[np.float32]:
    """The exported graph in ONNX Runtime, nothing done to it."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(str(bundle.graph(f"restore_x{scale}").path), options)
    frame = to_unit(np.ascontiguousarray(samples.transpose(2, 0, 1)))[None]
    (restored,) = session.run(None, {"frame": frame, **context.inputs()})
    return np.asarray(restored)


@pytest.fixture
def restorers(bundle: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[dict[str, Restorer]]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(executables, "_registry", {})
    made = {name: Restorer(Executables(bundle, backends.get(name), 1)) for name in ENGINES}
    yield made
    for restorer in made.values():
        restorer.graphs.close()


def test_every_context_kind_and_scale_gives_what_the_plain_graph_gives(
    bundle: Bundle, restorers: dict[str, Restorer], samples: NDArray[np.uint8]
) -> None:
    cases = [(scale, np.uint8, seed) for scale in (1, 2, 4) for seed in (1, 2)]
    cases += [(1, kind, seed) for kind in (np.uint16, np.float32) for seed in (1, 2)]
    for scale, kind, seed in cases:
        context, frame = strange(bundle, seed), as_kind(samples, kind)
        expected = plain(bundle, frame, scale, context)
        for name, restorer in restorers.items():
            got = restorer.run(frame, scale, context.inputs())
            bound = 2e-5 * max(1.0, float(np.abs(expected).max()))
            np.testing.assert_allclose(got, expected, rtol=0, atol=bound, err_msg=f"{name} {scale} {kind} {seed}")


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="ONNX Runtime has no blocked layout here")
def test_the_shipped_graph_runs_in_parts_with_modulated_weights(bundle: Bundle) -> None:
    """What the other tests compare would be the plain graph with itself otherwise."""
    import onnxruntime as ort

    from uare_rt.restorer import _BEHIND

    graphs = Executables(bundle, backends.get("onnxruntime"), 1)
    assert graphs.runs_parts
    assert graphs.has_value("restore_x1", "base")
    for name in ("restore_x1", "restore_x2", "restore_x4"):
        assert onnxruntime_.with_modulated_weights(ort, bundle.graph(name)._replace(part=_BEHIND), 1) is not None


def test_a_layout_that_is_not_understood_leaves_the_plain_graph(
    bundle: Bundle, samples: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import onnxruntime as ort

    graph, context = bundle.graph("restore_x1"), strange(bundle, 3)
    right = []
    for block in BLOCKS:
        monkeypatch.setattr(onnxruntime_, "BLOCKS", (block,))
        if onnxruntime_.with_modulated_weights(ort, graph, 1) is not None:
            right.append(block)
    assert len(right) <= 1  # none where ONNX Runtime has no such layout
    monkeypatch.setattr(onnxruntime_, "BLOCKS", tuple(block for block in BLOCKS if block not in right))
    assert onnxruntime_.with_modulated_weights(ort, graph, 1) is None
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(executables, "_registry", {})
    restorer = Restorer(Executables(bundle, backends.get("onnxruntime"), 1))
    got = restorer.run(samples, 1, context.inputs())
    np.testing.assert_allclose(got, plain(bundle, samples, 1, context), rtol=0, atol=1e-4)


def test_a_new_context_brings_its_own_table(bundle: Bundle, samples: NDArray[np.uint8]) -> None:
    with uare_rt.load(backend="onnxruntime", threads=1) as session:
        first, second = (strange(bundle, seed) for seed in (4, 5))
        frames = {
            (seed, kind): session.restore(as_kind(samples, kind), context=context).image
            for seed, context in ((4, first), (5, second))
            for kind in KINDS
        }
        for kind in KINDS:
            assert not np.array_equal(frames[4, kind], frames[5, kind])
            again = session.restore(as_kind(samples, kind), context=first).image
            np.testing.assert_array_equal(again, frames[4, kind])


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_what_was_optimised_is_kept_modulated_or_not(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, precision: str
) -> None:
    """Also where the modulation has to stay in place, and where taking it out fails."""
    monkeypatch.setattr(executables, "_registry", {})
    backend = backends.get("onnxruntime")

    def failing(*_: Any) -> Any:
        raise ValueError("no such graph")

    for name, fails in (("whole", False), ("broken", True)):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name))
        if fails:
            monkeypatch.setattr(onnxruntime_, "set_aside", failing)
        backend.load(bundle.computed_in(precision).graph("restore_x1"), threads=1)
        assert len(list((tmp_path / name / "uare-rt" / "graphs").glob("*.engine"))) == 1


def test_a_cache_that_cannot_be_written_to_is_no_obstacle(
    bundle: Bundle, samples: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    monkeypatch.setattr(executables, "_registry", {})
    context = strange(bundle, 6)
    restorer = Restorer(Executables(bundle, backends.get("onnxruntime"), 1))
    got = restorer.run(samples, 1, context.inputs())
    np.testing.assert_allclose(got, plain(bundle, samples, 1, context), rtol=0, atol=1e-4)
