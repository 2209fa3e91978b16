"""What is fastest is measured once per machine, remembered, and measured again when the machine has changed."""

from __future__ import annotations

import json
import logging
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import uare_rt
from uare_rt import backends, executables, selection
from uare_rt.backends.engine_cache import cache_directory
from uare_rt.bench.pairs import Samples
from uare_rt.bundle import Bundle, shipped_bundle
from uare_rt.errors import BackendError, UsageError
from uare_rt.selection import candidates, fastest, lanes, remembered

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BOTH = [name for name in ("onnxruntime", "openvino") if backends.get(name).probe().available]
needs_both = pytest.mark.skipif(len(BOTH) < 2, reason="needs onnxruntime and openvino")
RESTORING = ("restore_x1", "restore_x2", "restore_x4")


@pytest.fixture(autouse=True)
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of its own, and small frames to measure with."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(selection, "_SIDE", 64)
    monkeypatch.setattr(selection, "_ROUNDS", 2)
    monkeypatch.setattr(executables, "_registry", {})  # what other tests hold open would be shared, and not slowed down


@pytest.fixture
def bundle(tiny: Path) -> Bundle:
    return Bundle.open(tiny)


@pytest.fixture
def both(altered: Callable[..., Path]) -> Callable[..., Bundle]:
    """Makes a bundle that says of its restore graphs that they are in INT8, with float32 ones beside them."""

    def make(**quality: Any) -> Bundle:
        def change(manifest: dict[str, Any]) -> None:
            for name in [name for name in RESTORING if name in manifest["graphs"]]:
                spec = manifest["graphs"][name]
                manifest["files"][f"{name}_fp32.onnx"] = manifest["files"][spec["file"]]
                manifest["graphs"][f"{name}_fp32"] = spec | {"file": f"{name}_fp32.onnx"}
                manifest["graphs"][name] = spec | {"precision": "int8"}
            manifest["quality"] = quality

        path = altered(change)
        for name in RESTORING:
            if (path / f"{name}.onnx").exists():
                shutil.copy(path / f"{name}.onnx", path / f"{name}_fp32.onnx")
        return Bundle.open(path)

    return make


def slow_down(monkeypatch: pytest.MonkeyPatch, which: Callable[[Any], bool], backend: str) -> None:
    """Let the graphs of a backend that a function marks take half a second longer."""
    kind = type(backends.get(backend))
    load = kind.load

    def loaded(self: Any, graph: Any, *, threads: int | None, beside: int = 1) -> Any:
        executable = load(self, graph, threads=threads, beside=beside)
        if which(graph):
            run = executable.run
            executable.run = lambda inputs: (time.sleep(0.5), run(inputs))[1]
        return executable

    monkeypatch.setattr(kind, "load", loaded)


@needs_both
def test_it_is_measured_once(bundle: Bundle, caplog: pytest.LogCaptureFixture) -> None:
    assert remembered(bundle) is None
    with caplog.at_level(logging.WARNING):
        choice, variants = fastest(bundle)
        assert "measuring once" in caplog.text
        caplog.clear()
        assert fastest(bundle)[0] == choice == remembered(bundle)
        assert not caplog.text
    assert variants[choice.precision].nano.graphs["restore_x1"].precision == choice.precision
    assert (choice.backend, choice.threads, choice.precision) in candidates(bundle)
    assert choice.milliseconds > 0


@needs_both
def test_the_fastest_is_chosen(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    slow_down(monkeypatch, lambda graph: True, "openvino")
    assert fastest(bundle)[0].backend == "onnxruntime"


@needs_both
def test_parts_are_computed_where_new_sizes_are_fast(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    run = selection.Restorer.run

    def slow(self: Any, samples: Any, scale: int, context: Any, **how: Any) -> Any:
        whole = samples.shape[:2] == (176, 176)
        time.sleep(0.3 if whole == (self.graphs.backend == "onnxruntime") else 0)
        return run(self, samples, scale, context, **how)

    with monkeypatch.context() as patch:
        patch.setattr(selection, "_SIDE", 176)
        patch.setattr(selection.Restorer, "run", slow)
        choice, _ = fastest(bundle)
    assert (choice.backend, choice.parts.backend, choice.parts.precision) == ("openvino", "onnxruntime", "fp32")
    assert remembered(bundle) == choice
    picture = rng.integers(0, 256, (50, 70, 3), dtype=np.uint8)
    with (
        uare_rt.load(bundle.path, backend="fastest") as session,
        uare_rt.load(bundle.path, backend="onnxruntime") as other,
    ):
        assert isinstance(session, uare_rt.Session)
        assert (session.backend, session.parts) == ("openvino", "onnxruntime fp32")
        context = session.null_context()
        ran: list[str] = []
        monkeypatch.setattr(
            selection.Restorer, "run", lambda self, *a, **k: (ran.append(self.graphs.backend), run(self, *a, **k))[1]
        )
        for beside in (1, 2):
            part = session.restore(picture, context=context, part=True, beside=beside).image
            np.testing.assert_array_equal(part, other.restore(picture, context=context, beside=beside).image)
            session.restore(picture, context=context, beside=beside)
        assert ran == ["onnxruntime", "onnxruntime", "openvino"] * 2


def test_an_entry_of_an_older_version_is_measured_again(bundle: Bundle) -> None:
    fastest(bundle)
    path = cache_directory().with_name("selection.json")
    entries = json.loads(path.read_text())
    path.write_text(json.dumps({key: {k: v for k, v in e.items() if k != "parts"} for key, e in entries.items()}))
    assert remembered(bundle) is None
    assert fastest(bundle)[0].parts in candidates(bundle)


@needs_both
def test_another_machine_measures_again(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    fastest(bundle)
    monkeypatch.setattr(selection, "cpu_model", lambda: "another processor")
    assert remembered(bundle) is None


@needs_both
def test_a_session_takes_the_choice(bundle: Bundle, rng: np.random.Generator) -> None:
    choice, _ = fastest(bundle)
    with uare_rt.load(bundle.path, backend="fastest") as session:
        assert session.backend == choice.backend
        picture = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
        assert session.restore(picture).image.shape == picture.shape


@needs_both
def test_what_is_remembered_may_be_damaged(bundle: Bundle) -> None:
    path = cache_directory().with_name("selection.json")
    path.parent.mkdir(parents=True)
    for content in ("{", "[]", '{"a": 1}'):
        path.write_text(content)
        assert remembered(bundle) is None
    assert fastest(bundle)[0] == remembered(bundle)


def test_no_backend_is_told(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "candidates", lambda *_: [])
    with pytest.raises(BackendError, match=r"no backend of the processor.*doctor"):
        fastest(bundle)


@pytest.mark.parametrize(("slow", "wanted"), [("int8", "fp32"), ("fp32", "int8")])
def test_the_faster_precision_is_taken(
    both: Callable[..., Bundle], monkeypatch: pytest.MonkeyPatch, slow: str, wanted: str
) -> None:
    bundle = both(missed=[])
    slow_down(monkeypatch, lambda graph: graph.spec.precision == slow, "onnxruntime")
    with uare_rt.load(bundle.path, backend="onnxruntime", threads=1) as session:
        assert session.precision == wanted
    choice = remembered(bundle, "onnxruntime", 1)
    assert choice is not None
    assert (choice.backend, choice.threads, choice.precision) == ("onnxruntime", 1, wanted)


def test_a_lower_precision_that_gains_nothing_is_not_taken(
    both: Callable[..., Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here both precisions are the same graph, and the measured times say so too."""

    def even(subjects: dict[str, Any], *, rounds: int) -> dict[str, Any]:
        return {name: Samples((1.0 - 0.02 * ("int8" in name),) * rounds, (0.0,)) for name in subjects}

    monkeypatch.setattr(selection, "interleaved", even)
    assert fastest(both(missed=[]), "onnxruntime", 1)[0].precision == "fp32"


def test_a_precision_that_missed_its_budget_is_never_taken(
    both: Callable[..., Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = both(missed=["restore_x1 in int8 loses 1 dB, the budget is 0.1 dB"])
    slow_down(monkeypatch, lambda graph: graph.spec.precision == "fp32", "onnxruntime")
    with uare_rt.load(bundle.path, backend="onnxruntime", threads=1) as session:
        assert session.precision == "fp32"


def test_a_precision_that_is_computed_wrongly_here_is_never_taken(
    both: Callable[..., Bundle], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bundle = both(missed=[])
    slow_down(monkeypatch, lambda graph: graph.spec.precision == "fp32", "onnxruntime")
    run = selection.Executables.run

    def saturating(self: Any, name: str, *arguments: Any, **options: Any) -> dict[str, np.ndarray]:
        outputs = run(self, name, *arguments, **options)
        if self._bundle.nano.graphs[name].precision == "int8":
            outputs["restored"] = np.minimum(outputs["restored"], 0.6)
        return outputs

    monkeypatch.setattr(selection.Executables, "run", saturating)
    with caplog.at_level(logging.WARNING):
        assert fastest(bundle, "onnxruntime", 1)[0].precision == "fp32"
    assert "int8 is left out" in caplog.text


@needs_both
@pytest.mark.parametrize("has", [True, False])
def test_bfloat16_counts_where_the_processor_has_it(
    bundle: Bundle, both: Callable[..., Bundle], monkeypatch: pytest.MonkeyPatch, has: bool
) -> None:
    monkeypatch.setattr(type(backends.get("openvino")), "precisions", ("bf16",) if has else ())
    for any_bundle in (bundle, both(missed=["something"])):
        found = candidates(any_bundle, None, 2)
        assert [place.precision for place in found if place.backend == "onnxruntime"] == ["fp32"]
        assert [place.precision for place in found if place.backend == "openvino"] == ["fp32", *["bf16"] * has]
        # Only where the backend is left open.
        assert [place.precision for place in candidates(any_bundle, "openvino", 2)] == ["fp32"]
    # A bundle that was built so is run so.
    built = bundle.computed_in("bf16")
    assert [place.precision for place in candidates(built, None, 2)] == ["bf16", "bf16"]


@needs_both
def test_bfloat16_is_taken_where_it_is_faster_and_like_float32(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(type(backends.get("openvino")), "precisions", ("bf16",))
    slow_down(monkeypatch, lambda graph: graph.spec.precision != "bf16", "openvino")
    slow_down(monkeypatch, lambda graph: True, "onnxruntime")
    run = selection.Executables.run
    shift = 0.0

    def shifted(self: Any, name: str, *arguments: Any, **options: Any) -> dict[str, np.ndarray]:
        outputs = run(self, name, *arguments, **options)
        if "restored" in outputs and self._bundle.nano.graphs[name].precision == "bf16":
            outputs["restored"] = outputs["restored"] + np.float32(shift)
        return outputs

    monkeypatch.setattr(selection.Executables, "run", shifted)
    with uare_rt.load(bundle.path, backend="fastest", threads=1) as session:
        assert (session.backend, session.precision) == ("openvino", "bf16")
        assert session.manifest.graphs["assess"].precision == "fp32"
    cache_directory().with_name("selection.json").unlink()
    shift = 0.01
    with caplog.at_level(logging.WARNING):
        assert fastest(bundle, threads=1)[0].precision == "fp32"
    assert "bf16 is left out" in caplog.text


@needs_both
def test_bfloat16_computes_what_float32_does_and_shares_nothing_with_it() -> None:
    """On processors without it OpenVINO computes float32, and both are the same."""
    exact = Bundle.open(shipped_bundle())
    frame = selection._picture()
    one, other = (uare_rt.Session(each, backends.get("openvino")) for each in (exact, exact.computed_in("bf16")))
    with one, other:
        assert (one.precision, other.precision) == ("fp32", "bf16")
        context = one.assess(frame).context
        a, b = (session.restore(frame, context=context).image for session in (one, other))
    error = np.square(a.astype(np.float64) - b).mean()
    assert error <= 255**2 * 10**-5.0  # 50 dB
    if "bf16" in backends.get("openvino").precisions:
        assert error > 0


def test_a_place_that_fails_leaves_the_others(
    both: Callable[..., Bundle], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bundle = both(missed=[])
    kind = type(backends.get("onnxruntime"))
    load = kind.load

    def failing(self: Any, graph: Any, *, threads: int | None, beside: int = 1) -> Any:
        if graph.spec.precision != "fp32":
            raise BackendError("cannot be loaded")
        return load(self, graph, threads=threads, beside=beside)

    monkeypatch.setattr(kind, "load", failing)
    assert fastest(bundle, "onnxruntime", 1)[0].precision == "fp32"
    assert "cannot be loaded" in caplog.text


def test_where_there_is_one_precision_nothing_is_measured(bundle: Bundle, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), uare_rt.load(bundle.path, backend="onnxruntime") as session:
        assert session.precision == "fp32"
    assert not caplog.text
    assert not cache_directory().with_name("selection.json").exists()


@pytest.mark.parametrize(("side_by_side", "expected"), [(0.9, 2), (0.99, 1), (1.2, 1)])
def test_lanes_are_chosen_by_time_and_remembered(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, side_by_side: float, expected: int
) -> None:
    def timed(calls: dict[str, Any], rounds: int) -> dict[str, Samples]:
        for call in calls.values():
            call()
        return {name: Samples((side_by_side if name == "more" else 1.0,), (0.0,)) for name in calls}

    monkeypatch.setattr(selection, "interleaved", timed)
    backend = backends.get("onnxruntime")
    assert lanes(bundle, backend, 2) == expected
    monkeypatch.setattr(selection, "interleaved", None)
    assert lanes(bundle, backend, 2) == expected
    assert lanes(bundle, backend, 1) == 1


def test_memory_bounds_the_lanes(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "_measured_lanes", lambda bundle, backend, count: count)
    with uare_rt.load(bundle.path, threads=4) as session:
        assert session.lanes(16, 16) == 4
        assert session.lanes(2160, 3840) == 1


@pytest.mark.parametrize("backend", BOTH)
@pytest.mark.parametrize(("scale", "strength", "ahead"), [(1, 1.0, 0), (1, 1.0, 1 << 40), (2, 0.5, 0)])
def test_pixels_do_not_depend_on_lanes(
    tiny: Path, rng: np.random.Generator, backend: str, scale: int, strength: float, ahead: int
) -> None:
    frames = list(rng.integers(0, 256, (4, 50, 70, 3), dtype=np.uint8))
    with uare_rt.load(tiny, backend=backend, threads=2) as session, ThreadPoolExecutor(2) as pool:
        how: dict[str, Any] = {"context": session.assess(frames[0]).context, "scale": scale, "strength": strength}
        alone = [session.restore(frame, ahead=ahead, **how).image for frame in frames]
        beside = pool.map(lambda frame: session.restore(frame, ahead=ahead, beside=2, **how).image, frames)
        assert all(np.abs(a.astype(int) - b).max() <= 1 for a, b in zip(alone, beside, strict=True))


def test_a_closed_session_has_no_lanes(tiny: Path) -> None:
    session = uare_rt.load(tiny)
    context = session.null_context()
    session.close()
    with pytest.raises(UsageError, match="session is closed"):
        session.restore(np.zeros((16, 16, 3), np.uint8), context=context, beside=2)
