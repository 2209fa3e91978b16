"""Engines: found, refused, compiled and kept; with a stand-in for TensorRT, because none runs here."""

from __future__ import annotations

import hashlib
import logging
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import uare_rt
from uare_rt.backends import tensorrt_
from uare_rt.backends.engine_cache import EngineCache, engine_key, refuse_rebuilds
from uare_rt.backends.tensorrt_ import TensorRtBackend
from uare_rt.backends.tensorrt_build import Built
from uare_rt.bundle import GraphFile
from uare_rt.errors import BackendError, BackendUnavailableError, UsageError
from uare_rt.manifest import EngineSpec, GraphSpec, Profile, TensorSpec
from uare_rt.targets import check_precision, parse_targets

sys.path.insert(0, str(Path(__file__).parent))
from cuda_rules import FakeTensorRt, RecordingDriver

SIDES = {key: (1, 3, side, side) for key, side in (("min", 16), ("opt", 32), ("max", 64))}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "uare-rt" / "engines"


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the graphs that were compiled."""
    done: list[str] = []

    def build(trt: object, model: Path, options: object, progress: object = None) -> Built:
        done.append(model.stem)
        return Built(b"engine of the cache", [], None)

    monkeypatch.setattr(tensorrt_, "build_engine", build)
    return done


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> TensorRtBackend:
    driver = RecordingDriver("sm87")
    module = FakeTensorRt(driver)
    monkeypatch.setitem(sys.modules, "fake_tensorrt", module)  # type: ignore[arg-type]
    return TensorRtBackend("tensorrt", "fake_tensorrt", "pip install it", driver=driver)


def graph_file(folder: Path, **changes: object) -> GraphFile:
    model, engine = folder / "restore_x1.onnx", folder / "restore_x1.engine"
    model.write_bytes(b"a graph")
    engine.write_bytes(b"engine of the bundle")
    facts = {
        "file": engine.name, "targets": ("sm86", "sm87"), "version": "10.16.1", "seconds": 1.0,
        "onnx_sha256": hashlib.sha256(b"a graph").hexdigest(), **changes,
    }  # fmt: skip
    tensor = TensorSpec(name="frame", dtype="float32", shape=("N", 3, "H", "W"))
    spec = GraphSpec(
        file=model.name, opset=20, precision="fp16", inputs=(tensor,), outputs=(tensor,),
        engine=EngineSpec(**facts), profile={"frame": Profile(**SIDES)},
    )  # fmt: skip
    return GraphFile("restore_x1", model, spec, engine)


def test_an_engine_that_fits_is_loaded_from_the_bundle(
    backend: TensorRtBackend, builds: list[str], tmp_path: Path, rng: np.random.Generator
) -> None:
    runner = backend.load(graph_file(tmp_path), threads=None)
    value = rng.random((1, 3, 32, 32), dtype=np.float32)
    np.testing.assert_array_equal(runner.run({"frame": value})["restored"], 2 * value)
    assert sys.modules["fake_tensorrt"].loaded == [b"engine of the bundle"]
    assert not builds


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"version": "11.0.0"}, "built with version 11.0.0, this device is sm87 with tensorrt 10.16.1"),
        ({"targets": ("sm89",)}, "built for sm89, this device is sm87"),
        ({"onnx_sha256": "0" * 64}, "built from another graph"),
    ],
)
def test_one_that_does_not_is_compiled_again_announced_and_kept(
    backend: TensorRtBackend,
    builds: list[str],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    changes: dict[str, object],
    reason: str,
) -> None:
    file = graph_file(tmp_path, **changes)
    with caplog.at_level(logging.WARNING, "uare_rt"):
        backend.load(file, threads=None)
    assert reason in caplog.text
    assert "compiling it for sm87" in caplog.text
    backend.load(file, threads=None)
    assert builds == ["restore_x1"]
    assert sys.modules["fake_tensorrt"].loaded == [b"engine of the cache"] * 2
    with pytest.raises(BackendError, match=r"rebuilding was refused; run: uare-rt build .* --target sm87"):
        replace(backend, rebuild=False).load(file, threads=None)


def test_a_process_may_refuse_to_compile(
    backend: TensorRtBackend, builds: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UARE_NO_REBUILD", "")  # restores it afterwards
    refuse_rebuilds()
    backend.load(graph_file(tmp_path), threads=None)  # one that fits needs nothing
    with pytest.raises(BackendError, match=r"built for sm89, this device is sm87 .*rebuilding was refused"):
        backend.load(graph_file(tmp_path, targets=("sm89",)), threads=None)
    assert not builds


def test_a_pending_bundle_is_compiled_at_the_first_load(
    backend: TensorRtBackend, builds: list[str], tmp_path: Path
) -> None:
    file = graph_file(tmp_path)
    pending = GraphSpec(file=file.spec.file, opset=20, precision="fp16", inputs=(), outputs=(), engine="pending")
    backend.load(GraphFile("restore_x1", file.path, pending), threads=None)
    assert builds == ["restore_x1"]


def test_an_engine_that_cannot_be_loaded(backend: TensorRtBackend, builds: list[str], tmp_path: Path) -> None:
    file = graph_file(tmp_path)
    assert file.engine is not None
    file.engine.write_bytes(b"something else")
    with pytest.raises(BackendError, match="cannot load the engine of graph 'restore_x1' on sm87"):
        backend.load(file, threads=None)


def test_missing_module_and_missing_device_are_reasons() -> None:
    absent = TensorRtBackend("tensorrt", "no_such_tensorrt", "pip install it").probe()
    assert not absent.available
    assert "pip install it" in absent.reason
    for name in ("tensorrt", "tensorrt-rtx"):
        capability = uare_rt.backends.get(name).probe()
        assert capability.available or capability.reason


def test_a_session_without_the_module_says_so(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(BackendUnavailableError, match="backend tensorrt: "):
        uare_rt.load(tiny, backend="tensorrt")


def test_keys_depend_on_everything() -> None:
    facts = {"onnx": "a", "device": "sm87", "version": "10.3", "precision": "fp16", "profile": {"frame": [1, 2]}}
    keys = {engine_key({**facts, name: "other"}) for name in facts} | {engine_key(facts)}
    assert len(keys) == len(facts) + 1
    assert engine_key(dict(reversed(facts.items()))) == engine_key(facts)


def test_a_failed_build_leaves_no_trace(cache: Path) -> None:
    def fail() -> bytes:
        raise BackendError("out of memory")

    with pytest.raises(BackendError):
        EngineCache().get("k", fail)
    assert [path.suffix for path in cache.iterdir()] == [".lock"]
    assert EngineCache().get("k", lambda: b"good") == b"good"


@pytest.mark.parametrize("damage", [b"", b"short", b"x" * 100])
def test_a_damaged_entry_is_built_again(cache: Path, damage: bytes) -> None:
    EngineCache().get("k", lambda: b"first")
    (cache / "k.engine").write_bytes(damage)
    assert EngineCache().get("k", lambda: b"second") == b"second"
    assert EngineCache().get("k", lambda: b"third") == b"second"


def test_a_directory_that_cannot_be_written_costs_only_time(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_bytes(b"")
    blocked = EngineCache(tmp_path / "file" / "engines")
    assert blocked.get("k", lambda: b"built") == b"built"
    assert "engines cannot be kept" in caplog.text


def _get(folder: Path, log: Path, die: bool) -> None:
    def build() -> bytes:
        with log.open("a") as stream:
            stream.write("build\n")
        time.sleep(0.3)
        if die:
            os._exit(9)
        return b"engine"

    EngineCache(folder).get("k", build)


def test_one_builds_the_others_wait(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_get, args=(tmp_path / "c", tmp_path / "log", False)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert (tmp_path / "log").read_text() == "build\n"
    assert EngineCache(tmp_path / "c").get("k", lambda: b"other") == b"engine"


def test_a_build_killed_half_way_frees_its_lock(tmp_path: Path) -> None:
    worker = multiprocessing.get_context("fork").Process(target=_get, args=(tmp_path / "c", tmp_path / "log", True))
    worker.start()
    worker.join()
    assert EngineCache(tmp_path / "c").get("k", lambda: b"good") == b"good"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: parse_targets("sm85"), r"--target sm85: no such target; choose among sm75"),
        (lambda: parse_targets(" , "), "name at least one"),
        (lambda: check_precision("fp8", parse_targets("sm87")), r"Orin\) has no fp8; possible there: fp32, fp16, bf16"),
        (lambda: check_precision("fp8", parse_targets("sm89")), "it is not built; choose one of: fp32, fp16, bf16"),
        (lambda: check_precision("int3", parse_targets("sm89")), "knows no int3"),
    ],
)  # fmt: skip
def test_targets_and_precisions(call: Callable[[], object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        call()


def test_targets_are_read_in_any_spelling() -> None:
    assert [target.name for target in parse_targets("SM86, sm_89,sm86")] == ["sm86", "sm89"]


def test_engine_files_belong_to_the_manifest(altered: Callable[..., Path]) -> None:
    engine = {"file": "a.engine", "targets": ["sm86"], "version": "1", "onnx_sha256": "0" * 64, "seconds": 1.0}
    path = altered(lambda manifest: manifest["graphs"]["assess"].__setitem__("engine", engine))
    with pytest.raises(uare_rt.errors.BundleError, match=r"'a\.engine' is used but not listed"):
        uare_rt.load(path)
