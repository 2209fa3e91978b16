"""`uare-rt build`: usage errors before any work, real bundles after it."""

from __future__ import annotations

import importlib.util
import itertools
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import Result

import uare_rt
from uare_rt import selection
from uare_rt.backends.engine_cache import rebuilds_refused
from uare_rt.bench.pairs import Samples
from uare_rt.bundle import Bundle
from uare_rt.cli.build import parse_sides
from uare_rt.errors import UsageError
from uare_rt.manifest import EngineSpec, GraphSpec

Run = Callable[..., Result]
SIDES = ("--profile", "64x64:64x128:128x192")
HAS_RTX = importlib.util.find_spec("tensorrt_rtx") is not None
needs_rtx = pytest.mark.skipif(not HAS_RTX, reason="tensorrt_rtx is not installed")


@pytest.fixture(autouse=True)
def small_samples(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Smaller crops than a build takes, but for the shipped model: the tiny one is untrained anyway."""
    if "slow" not in request.keywords:
        monkeypatch.setattr("uare_rt.calibration.build._SIDE", 48)
        monkeypatch.setattr("uare_rt.calibration.build._SEARCH_SIDE", 32)


@pytest.fixture
def pictures(tmp_path: Path, photos: list[Path]) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for path in photos:
        with Image.open(path) as image:
            image.resize((320, 240)).save(folder / f"{path.stem}.png")
    return folder


def refused(result: Result, code: int, message: str) -> None:
    assert result.exit_code == code, result.output
    assert message in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--target", "sm85"), "--target sm85: no such target; choose among sm75"),
        (("--backend", "tensorrt", "--target", "sm87", "--precision", "fp8"), "sm87 (Jetson Orin) has no fp8"),
        (("--backend", "coreml"), "--backend coreml: nothing is built for it"),
        (("--observer", "median"), "--observer median: no such observer"),
        (("--backend", "openvino", "--precision", "fp16"), "openvino computes in fp32 on processors"),
        (("--backend", "onnxruntime", "--precision", "bf16"), "onnxruntime computes in fp32 on processors"),
        (
            ("--backend", "tensorrt", "--target", "sm75", "--precision", "bf16"),
            "has no bf16; possible there: fp32, fp16",
        ),
        (("--backend", "tensorrt", "--precision", "int4"), "these are weights of uare-7b"),
        (("--backend", "openvino", "--precision", "int8", "--target", "sm86"), "leave --target out"),
        (("--backend", "tensorrt", "--profile", "100x64"), "multiples of 16"),
        (("--backend", "tensorrt", "--profile", "64x64:32x32:128x128"), "must not shrink"),
    ],
)
def test_usage(run: Run, here: Path, options: tuple[str, ...], message: str) -> None:
    refused(run("build", *options, "-o", "a.uare"), 2, message)
    assert not Path("a.uare").exists()


def test_out_is_needed_and_must_be_free(run: Run, tiny: Path) -> None:
    refused(run("build"), 2, "-o is missing")
    refused(run("build", "--backend", "openvino", "--precision", "fp32", "-o", tiny), 1, "exists already")
    absent = Path("absent/a.uare")
    refused(
        run("build", "--backend", "openvino", "--precision", "fp32", "-o", absent), 1, "absent: cannot write into it"
    )


@pytest.mark.parametrize(
    ("text", "sizes"), [("64x128", ((64, 128),) * 3), ("16x16:32x32:64x48", ((16, 16), (32, 32), (64, 48)))]
)
def test_sides(text: str, sizes: object) -> None:
    assert parse_sides(text) == sizes


@pytest.mark.parametrize("text", ["", "64", "64x64:128x128", "axb", "0x16"])
def test_bad_sides(text: str) -> None:
    with pytest.raises(UsageError):
        parse_sides(text)


@pytest.mark.parametrize(("count", "held"), [(2, [1]), (3, [2]), (4, [3]), (9, [3, 7])])
def test_the_proof_is_on_other_pictures_than_the_ranges(tmp_path: Path, count: int, held: list[int]) -> None:
    from uare_rt.calibration.build import _pictures
    from uare_rt.calibration.request import BuildRequest

    for index in range(count):
        Image.linear_gradient("L").save(tmp_path / f"{index}.png")
    request = BuildRequest("openvino", "int8", (), ((64, 64),) * 3, data=(tmp_path,))
    searched, held_out, _ = _pictures(request)
    assert [picture.name for picture in held_out] == [f"{index}.png" for index in held]
    assert sorted(picture.name for picture in (*searched, *held_out)) == [f"{index}.png" for index in range(count)]


def test_bad_data(run: Run, tiny: Path, tmp_path: Path, photos: list[Path]) -> None:
    options = ("build", "--model", tiny, "--backend", "openvino", "--precision", "int8", "-o", "a.uare", "--data")
    refused(run(*options, "absent"), 1, "absent: no such calibration picture")
    (tmp_path / "black").mkdir()
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(tmp_path / "black" / "a.png")
    refused(run(*options, tmp_path / "black"), 1, "every calibration picture is flat (brightest level 0 of 255)")
    (tmp_path / "empty").mkdir()
    refused(run(*options, tmp_path / "empty"), 1, "no images or videos to calibrate with in this directory")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    refused(run(*options, tmp_path / "broken.png"), 1, "broken.png")
    refused(run(*options, photos[0]), 1, "with one picture nothing is left for the proof")
    assert not Path("a.uare").exists()
    assert not list(Path().glob(".*"))


def test_int8_for_processors_runs_and_is_described(
    run: Run, tiny: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What the tiny model, which restores nothing, does to a flawless picture is of no interest here.
    monkeypatch.setattr("uare_rt.calibration.build.missed", lambda proof, reference, budget: [])
    monkeypatch.setattr(selection, "_LIKENESS", {"int8": 0.0, "bf16": 0.0})
    result = run(
        "build", "--model", tiny, "--backend", "openvino", "--precision", "int8", "--data", pictures,
        "--max-drop-db", "1", "-o", "a.uare",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "naive int8" in result.output
    manifest = Bundle.open("a.uare").nano
    assert manifest.calibration is not None
    assert manifest.calibration.sources == ("pictures",)
    assert manifest.graphs["restore_x1"].precision == "int8"
    assert set(manifest.quality) == {"fp32", "int8", "naive int8", "time_of_fp32", "missed"}
    assert manifest.quality["missed"] == []
    assert manifest.quality["fp32"]["score_rank"] == 1
    assert 0.9 < manifest.quality["int8"]["score_rank"] <= 1
    assert manifest.graphs["restore_x1_fp32"].precision == "fp32"
    inspected = run("inspect", "a.uare")
    assert inspected.exit_code == 0, inspected.output
    assert "fp32/restore_x1.onnx" in inspected.output
    frame = np.asarray(Image.open(next(pictures.iterdir())).convert("RGB"))
    exact = uare_rt.load(tiny)
    exact_result = exact.restore(frame, context=exact.null_context()).image
    for precision in ("int8", "fp32"):  # whichever is faster here
        monkeypatch.setattr(
            selection, "interleaved",
            lambda subjects, rounds, faster=precision: {
                name: Samples((0.5 if faster in name else 1.0,), (0.0,)) for name in subjects
            },
        )  # fmt: skip
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / precision))
        for backend, ahead in itertools.product(("onnxruntime", "openvino"), (0, 1 << 40)):
            with uare_rt.load("a.uare", backend=backend) as built:
                assert built.precision == precision
                # The graph for any size, and for this one.
                result = built.restore(frame, context=exact.null_context(), ahead=ahead).image
            difference = np.abs(result.astype(int) - exact_result)
            assert difference.max() > 1 if precision == "int8" else difference.max() <= 1
            assert difference.mean() < 3
    page = Path("a.uare/report.html").read_text()
    assert "data:image/png;base64," in page
    assert "http" not in page
    assert "fp16 and fp32" not in page
    again = run("build", "--model", "a.uare", "--backend", "openvino", "--precision", "int8", "-o", "b.uare")
    refused(again, 2, "is in int8 already")


def test_a_missed_gate_writes_nothing(run: Run, tiny: Path, pictures: Path) -> None:
    result = run(
        "build", "--model", tiny, "--backend", "openvino", "--precision", "fp32", "--data", pictures, "-o", "a.uare",
        "--gate",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    from uare_rt.calibration import build as module

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "missed", lambda proof, reference, budget: ["restore_x1 loses 9 dB"])
        result = run("build", "--model", tiny, "--backend", "openvino", "--precision", "fp32", "-o", "b.uare", "--gate")
        refused(result, 1, "--gate: restore_x1 loses 9 dB; nothing was written")
        assert not Path("b.uare").exists()
        result = run("build", "--model", tiny, "--backend", "openvino", "--precision", "fp32", "-o", "b.uare")
    assert result.exit_code == 0, result.output
    assert "restore_x1 loses 9 dB; it is written all the same, without --gate" in result.output
    assert "<b>Missed: restore_x1 loses 9 dB</b>" in Path("b.uare/report.html").read_text()


@pytest.mark.parametrize(("ratio", "code"), [(0.7, 0), (1.2, 1)])
def test_a_gate_holds_speed_where_it_can_be_measured(
    run: Run, tiny: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch, ratio: float, code: int
) -> None:
    from uare_rt.calibration import build as module

    asked: list[str] = []

    def measured(backend: str, specs: tuple[GraphSpec, ...], paths: tuple[Path, Path], feeds: object) -> float:
        asked.append(backend)
        assert [spec.precision for spec in specs] == ["fp32", "int8"]
        assert all(path.is_file() for path in paths)
        return ratio

    monkeypatch.setattr(module, "speed_ratio", measured)
    monkeypatch.setattr(module, "missed", lambda proof, reference, budget: [])
    result = run(
        "build", "--model", tiny, "--backend", "openvino", "--precision", "int8", "--data", pictures,
        "--max-drop-db", "5", "--gate", "-o", "a.uare",
    )  # fmt: skip
    assert asked == ["openvino"]
    assert result.exit_code == code, result.output
    if code:
        refused(result, 1, "restore_x1 in int8 is not faster on openvino: 1.20 of float32's time; nothing was written")
        assert not Path("a.uare").exists()
    else:
        assert Bundle.open("a.uare").nano.quality["time_of_fp32"] == ratio


def test_two_builds_of_one_bundle(run: Run, tiny: Path) -> None:
    import fcntl

    with Path(".a.uare.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        result = run("build", "--model", tiny, "--backend", "openvino", "--precision", "fp32", "-o", "a.uare")
    refused(result, 1, "a.uare: another build is writing it; wait for it")


def test_a_build_that_is_killed_leaves_nothing_in_the_way(run: Run, tiny: Path, pictures: Path) -> None:
    command = ("build", "--model", str(tiny), "--backend", "openvino", "--precision", "fp32", "-o", "a.uare")
    process = subprocess.Popen(
        [sys.executable, "-m", "uare_rt.cli", *command, "--data", str(pictures)], stderr=subprocess.DEVNULL
    )
    while not Path(".a.uare.lock").exists() and process.poll() is None:
        time.sleep(0.02)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not Path("a.uare").exists()
    result = run(*command, "--data", pictures)
    assert result.exit_code == 0, result.output
    assert Bundle.open("a.uare").nano.quality["fp32"]


def test_no_rebuild_holds_for_the_whole_process(run: Run, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UARE_NO_REBUILD", "")
    assert run("--no-rebuild", "inspect", tiny).exit_code == 0
    assert rebuilds_refused()


def test_a_portable_bundle_is_pending_and_says_what_it_needs(run: Run, tiny: Path, pictures: Path) -> None:
    result = run(
        "build", "--model", tiny, "--backend", "tensorrt", "--target", "sm87", "--data", pictures, "-o", "a.uare"
    )
    assert result.exit_code == 0, result.output
    assert "engines pending" in result.output
    manifest = Bundle.open("a.uare").nano
    assert {spec.engine for spec in manifest.graphs.values()} == {"pending"}
    assert manifest.backend.target == ("sm87",)
    shown = run("inspect", "a.uare").output
    assert "pending, fp16, frame 1x3x64x64 to 1x3x512x512 to 1x3x1088x1920" in shown
    if importlib.util.find_spec("tensorrt") is None:
        refused(run("build", "a.uare"), 1, "backend tensorrt: ")
    refused(run("build", tiny), 2, "no engine is pending")
    refused(
        run("build", "a.uare", "--precision", "int8", "-o", "b.uare"), 2, "--out, --precision: a portable bundle is"
    )


@needs_rtx
def test_real_engines_for_every_graph(run: Run, tiny: Path, pictures: Path) -> None:
    result = run("build", "--model", tiny, "--backend", "tensorrt-rtx", "--data", pictures, "-o", "a.uare", *SIDES)
    assert result.exit_code == 0, result.output
    bundle = Bundle.open("a.uare")
    for name, spec in bundle.nano.graphs.items():
        assert isinstance(spec.engine, EngineSpec)
        assert spec.engine.targets == ("sm86", "sm89", "sm120")
        engine = bundle.graph(name).engine
        assert engine is not None
        assert engine.stat().st_size > 1000
        assert spec.engine.layers is not None
        layers = json.loads(bundle.file(spec.engine.layers).read_bytes())
        assert any(layer["type"] == "CONVOLUTION" and layer["output"] == "half" for layer in layers)
    shown = run("inspect", "a.uare").output
    assert "tensorrt-rtx" in shown
    assert "engines/restore_x4.engine, sm86, sm89, sm120, fp16, frame 1x3x64x64 to 1x3x64x128 to 1x3x128x192" in shown
    for precision in ("fp32", "fp16"):
        (line,) = (line for line in shown.splitlines() if line.startswith(f"quality: {precision} "))
        assert "restore_x1 " in line
        assert " lost)" in line
    page = Path("a.uare/report.html").read_text()
    assert page.count(".engine</td>") == len(bundle.nano.graphs)
    for name in bundle.nano.graphs:
        assert f"<h2>{name}: fp16 and fp32</h2>" in page
    assert " picture</td>" in page


@needs_rtx
def test_a_target_that_the_compiler_lacks(run: Run, tiny: Path, pictures: Path) -> None:
    result = run(
        "build", "--model", tiny, "--backend", "tensorrt-rtx", "--target", "sm87", "--data", pictures, "-o", "a.uare"
    )
    refused(result, 2, "--target sm87: tensorrt_rtx")
    assert "compiles for sm75" in result.output
    assert not Path("a.uare").exists()


@needs_rtx
@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_the_shipped_model(run: Run, precision: str) -> None:
    result = run("build", "--model", "uare-nano", "--precision", precision, "-o", "a.uare")
    assert result.exit_code == 0, result.output
    manifest = Bundle.open("a.uare").nano
    assert all(isinstance(spec.engine, EngineSpec) for spec in manifest.graphs.values())
    budget = {"fp16": 0.02, "int8": 0.1}[precision]
    for name in ("restore_x1", "restore_x2", "restore_x4"):
        measured = manifest.quality[precision][name]
        assert measured["loss_db"] <= budget
        assert measured.get("flawless_db", 99) >= 42
    assert manifest.quality[precision]["score_rank"] >= 0.995
    if precision == "int8":
        share = [manifest.graphs[f"restore_x{scale}"].int8_macs or 0 for scale in (1, 2, 4)]
        assert min(share) >= 0.6
        size = manifest.quality["int8"]
        assert size["weight_bytes"] <= 0.35 * size["weight_bytes_fp32"]
        naive = manifest.quality["naive int8"]
        for name in ("restore_x1", "restore_x2", "restore_x4"):
            # Not by loss: where float32 restores badly, being off can come nearer to the truth.
            assert naive[name]["to_fp32_db"] < size[name]["to_fp32_db"] - 2
