"""Backends agree, say why they cannot, and fail in our own words."""

from __future__ import annotations

import concurrent.futures
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

from uare_rt import backends
from uare_rt.bundle import Bundle
from uare_rt.errors import BackendError, BackendUnavailableError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from uare_rt.bundle import GraphFile

ENGINES = [name for name in ("onnxruntime", "openvino") if backends.get(name).probe().available]


def inputs_for(graph: GraphFile, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    sizes = {"N": 1, "H": 192, "W": 160}
    return {
        spec.name: rng.random([sizes[side] if isinstance(side, str) else side for side in spec.shape], dtype=np.float32)
        for spec in graph.spec.inputs
    }


@pytest.mark.skipif(len(ENGINES) < 2, reason="needs onnxruntime and openvino")
@pytest.mark.parametrize("name", ["assess", "restore_x1", "restore_x2", "restore_x4"])
def test_backends_agree(bundle_path: Path, name: str) -> None:
    graph = Bundle.open(bundle_path).graph(name)
    inputs = inputs_for(graph)
    first, second = (backends.get(engine).load(graph, threads=1).run(inputs) for engine in ENGINES)
    assert set(first) == set(second) == {spec.name for spec in graph.spec.outputs}
    for key, value in first.items():
        largest = max(1.0, float(np.abs(value).max()))
        np.testing.assert_allclose(second[key], value, rtol=0, atol=1e-4 * largest, err_msg=key)


@pytest.mark.skipif(len(ENGINES) < 2, reason="needs onnxruntime and openvino")
@pytest.mark.parametrize("name", ["restore_x1", "restore_x2", "restore_x4"])
def test_backends_agree_in_int8(tiny: Path, name: str) -> None:
    """Roundings stay where the build put them, whatever the processor has for INT8."""
    graph = Bundle.open(tiny.with_name("tiny-int8.uare")).graph(name)
    assert graph.spec.precision == "int8"
    inputs = inputs_for(graph)
    first, second = (backends.get(engine).load(graph, threads=1).run(inputs)["restored"] for engine in ENGINES)
    np.testing.assert_allclose(second, first, rtol=0, atol=3 / 255)


@pytest.mark.parametrize("engine", ENGINES)
def test_one_executable_serves_many_threads(tiny: Path, engine: str) -> None:
    graph = Bundle.open(tiny).graph("restore_x1")
    executable = backends.get(engine).load(graph, threads=1)
    jobs = [inputs_for(graph, seed) for seed in range(12)]
    expected = [executable.run(job)["restored"] for job in jobs]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        results = list(pool.map(executable.run, jobs * 3))
    for result, wanted in zip(results, expected * 3, strict=True):
        np.testing.assert_array_equal(result["restored"], wanted)


@pytest.mark.parametrize("engine", ENGINES)
def test_results_belong_to_the_caller(tiny: Path, engine: str) -> None:
    graph = Bundle.open(tiny).graph("restore_x1")
    executable = backends.get(engine).load(graph, threads=1)
    first = executable.run(inputs_for(graph, 1))["restored"]
    kept = first.copy()
    executable.run(inputs_for(graph, 2))
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize("engine", ENGINES)
def test_failures_are_ours_and_quiet(tiny: Path, engine: str, capfd: pytest.CaptureFixture[str]) -> None:
    graph = Bundle.open(tiny).graph("restore_x1")
    executable = backends.get(engine).load(graph, threads=1)
    inputs = inputs_for(graph)
    with pytest.raises(BackendError, match=rf"{engine} failed in graph 'restore_x1'") as caught:
        executable.run({**inputs, "frame": inputs["frame"][:, :2]})
    assert "\n" not in str(caught.value)
    executable.close()
    with pytest.raises(BackendError, match="was closed"):
        executable.run(inputs)
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("engine", ENGINES)
def test_a_file_that_is_no_graph(tiny: Path, tmp_path: Path, engine: str) -> None:
    graph = Bundle.open(tiny).graph("assess")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a graph")
    with pytest.raises(BackendError, match=r"cannot load graph 'assess'.*broken\.onnx") as caught:
        backends.get(engine).load(graph._replace(path=broken), threads=1)
    assert "\n" not in str(caught.value)


def test_null_repeats_pixels_and_is_undecided(tiny: Path) -> None:
    bundle = Bundle.open(tiny)
    null = backends.get("null")
    graph = bundle.graph("restore_x2")
    inputs = inputs_for(graph)
    restored = null.load(graph, threads=None).run(inputs)["restored"]
    np.testing.assert_array_equal(restored[..., ::2, ::2], inputs["frame"])
    np.testing.assert_array_equal(restored[..., 1::2, 1::2], inputs["frame"])
    assess = bundle.graph("assess")
    answer = null.load(assess, threads=None).run(inputs_for(assess))
    assert not answer["slot_logits"].any()
    assert (answer["ctx_k"].shape, answer["ctx_v"].shape, answer["ctx_vec"].shape) == bundle.manifest.context.shapes()


def test_every_backend_says_why_or_what() -> None:
    assert {"onnxruntime", "openvino", "null"} <= set(backends.names())
    for name in backends.names():
        capability = backends.get(name).probe()
        assert capability.name == name
        assert capability.reason
        assert capability.available == bool(capability.devices)


def test_unknown_backend_lists_the_known() -> None:
    with pytest.raises(UsageError, match=r"'tpu' does not exist; choose one of: auto, fastest, onnxruntime"):
        backends.choose("tpu")


def test_unavailable_backend_gives_its_reason() -> None:
    absent = [name for name in backends.names() if not backends.get(name).probe().available]
    if not absent:
        pytest.skip("this machine runs every backend")
    with pytest.raises(BackendUnavailableError, match=absent[0]):
        backends.choose(absent[0])


def test_missing_openvino_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    capability = backends.get("openvino").probe()
    assert not capability.available
    assert 'pip install "uare-rt[openvino]"' in capability.reason


def test_auto_falls_through_to_what_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(BackendUnavailableError, match=r"no backend can run here \(.*onnxruntime.*openvino.*doctor"):
        backends.choose("auto")
