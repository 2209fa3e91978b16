"""Sessions of one bundle share what is loaded; graphs that were optimised once are kept for the next process."""

from __future__ import annotations

import concurrent.futures
import gc
import hashlib
import json
import logging
import os
import shutil
import weakref
from typing import TYPE_CHECKING

import numpy as np
import pytest

import uare_rt
from uare_rt import backends, executables
from uare_rt.backends.engine_cache import graph_directory, trim
from uare_rt.bundle import Bundle
from uare_rt.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from uare_rt.backends.base import Executable
    from uare_rt.bundle import GraphFile

ENGINES = [name for name in ("onnxruntime", "openvino") if backends.get(name).probe().available]
PICTURE = np.random.default_rng(3).integers(0, 256, (48, 64, 3), dtype=np.uint8)


class Counting:
    """ONNX Runtime, with weak references to all that it loaded."""

    name = "counting"
    worth_sizing = None
    runs_parts = False
    precisions = ()

    def __init__(self) -> None:
        self.loaded: list[weakref.ref[Executable]] = []

    def load(self, graph: GraphFile, *, threads: int | None, beside: int = 1) -> Executable:
        executable = backends.get("onnxruntime").load(graph, threads=threads, beside=beside)
        self.loaded.append(weakref.ref(executable))
        return executable

    def alive(self) -> int:
        gc.collect()
        return sum(reference() is not None for reference in self.loaded)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(executables, "_registry", {})  # what other tests hold open would not be loaded anew
    return graph_directory()


def test_four_sessions_at_once_hold_one_copy_of_the_weights(tiny: Path) -> None:
    backend = Counting()
    sessions = [uare_rt.Session(Bundle.open(tiny), backend, threads=1) for _ in range(4)]  # type: ignore[arg-type]

    def work(session: uare_rt.Session) -> list[NDArray[np.uint8]]:
        return [session.restore(PICTURE).image for _ in range(5)]

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        results = [image for images in pool.map(work, sessions) for image in images]
    assert len(backend.loaded) == 2  # assess and restore_x1
    for image in results[1:]:
        np.testing.assert_array_equal(image, results[0])
    for session in sessions[:3]:
        session.close()
        with pytest.raises(UsageError, match="closed"):
            session.restore(PICTURE)
    np.testing.assert_array_equal(sessions[3].restore(PICTURE).image, results[0])
    assert backend.alive() == 2
    sessions[3].close()
    assert backend.alive() == 0


def test_a_session_that_is_dropped_gives_its_memory_back(tiny: Path) -> None:
    backend = Counting()
    session = uare_rt.Session(Bundle.open(tiny), backend)  # type: ignore[arg-type]
    session.assess(PICTURE)
    assert backend.alive() == 1
    del session
    assert backend.alive() == 0


def test_other_threads_or_another_bundle_are_not_shared(tiny: Path, tmp_path: Path) -> None:
    backend = Counting()
    shutil.copytree(tiny, tmp_path / "copy.uare")
    for path, threads in ((tiny, 1), (tiny, 2), (tmp_path / "copy.uare", 1)):
        uare_rt.Session(Bundle.open(path), backend, threads=threads).assess(PICTURE)  # type: ignore[arg-type]
    assert len(backend.loaded) == 3


@pytest.mark.parametrize("engine", ENGINES)
def test_an_optimised_graph_is_kept_and_gives_the_same(tiny: Path, engine: str, cache: Path) -> None:
    results = []
    for _ in range(2):
        with uare_rt.load(tiny, backend=engine) as session:
            results.append((session.restore(PICTURE).image, session.assess(PICTURE).to_dict()))
            kept = {path: path.stat().st_mtime_ns for path in cache.rglob("*") if path.is_file()}
            results[-1] += (kept,)
    assert results[0][2]
    assert results[0][1:] == results[1][1:]
    np.testing.assert_array_equal(results[0][0], results[1][0])


@pytest.mark.parametrize("engine", ENGINES)
def test_a_kept_graph_is_not_used_for_other_weights(tiny: Path, tmp_path: Path, engine: str, cache: Path) -> None:
    """The ONNX file stays what it is, at the same path and of the same age: only the weights beside it change."""
    copy = tmp_path / "changed.uare"
    shutil.copytree(tiny, copy)
    weights, manifest = copy / "weights.bin", copy / "manifest.json"
    with uare_rt.load(copy, backend=engine) as session:
        before = session.assess(PICTURE)
    weights.write_bytes((np.fromfile(weights, np.float32) * np.float32(0.9)).tobytes())
    facts = json.loads(manifest.read_text())
    facts["files"]["weights.bin"]["sha256"] = hashlib.sha256(weights.read_bytes()).hexdigest()
    manifest.write_text(json.dumps(facts))
    with uare_rt.load(copy, backend=engine) as session:
        after = session.assess(PICTURE)
    assert not np.allclose(after.context.vec, before.context.vec, atol=1e-4)


def test_a_kept_graph_is_not_used_on_another_processor(
    tiny: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for flags in ("avx2", "avx2 avx512f"):
        monkeypatch.setattr("uare_rt.backends.onnxruntime_.cpu_identity", lambda flags=flags: f"a processor: {flags}")
        with uare_rt.load(tiny) as session:
            session.assess(PICTURE)
    assert len(list(cache.glob("*.engine"))) == 2


def test_a_damaged_kept_graph_is_made_again(tiny: Path, cache: Path) -> None:
    with uare_rt.load(tiny) as session:
        wanted = session.assess(PICTURE).to_dict()
    (kept,) = cache.glob("*.engine")
    sound = kept.read_bytes()
    kept.write_bytes(sound[:-100])
    with uare_rt.load(tiny) as session:
        assert session.assess(PICTURE).to_dict() == wanted
    assert len(kept.read_bytes()) == len(sound)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_cache_that_cannot_be_written_is_no_obstacle(
    tiny: Path, engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("no directory")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with caplog.at_level(logging.WARNING), uare_rt.load(tiny, backend=engine) as session:
        assert session.restore(PICTURE).image.shape == PICTURE.shape
    assert not caplog.records


def test_only_the_newest_entries_are_kept(tmp_path: Path) -> None:
    for age in range(6):
        entry = tmp_path / f"entry{age}"
        if age % 2:
            entry.mkdir()
            (entry / "graph.blob").write_text("graph")
        else:
            entry.write_text("graph")
        os.utime(entry, (1000 - age, 1000 - age))
    trim(tmp_path, 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["entry0", "entry1", "entry2"]
    trim(tmp_path / "absent", 3)
