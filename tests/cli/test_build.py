"""`uare-rt build`: usage errors before any work, real bundles after it."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import Result

import uare_rt
from uare_rt.bundle import Bundle
from uare_rt.cli.build import parse_sides
from uare_rt.errors import UsageError
from uare_rt.manifest import EngineSpec

Run = Callable[..., Result]
SIDES = ("--profile", "64x64:64x128:128x192")
HAS_RTX = importlib.util.find_spec("tensorrt_rtx") is not None
needs_rtx = pytest.mark.skipif(not HAS_RTX, reason="tensorrt_rtx is not installed")


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


@pytest.mark.parametrize(
    ("text", "sizes"), [("64x128", ((64, 128),) * 3), ("16x16:32x32:64x48", ((16, 16), (32, 32), (64, 48)))]
)
def test_sides(text: str, sizes: object) -> None:
    assert parse_sides(text) == sizes


@pytest.mark.parametrize("text", ["", "64", "64x64:128x128", "axb", "0x16"])
def test_bad_sides(text: str) -> None:
    with pytest.raises(UsageError):
        parse_sides(text)


def test_bad_data(run: Run, tiny: Path, tmp_path: Path) -> None:
    options = ("build", "--model", tiny, "--backend", "openvino", "--precision", "int8", "-o", "a.uare", "--data")
    refused(run(*options, "absent"), 1, "absent: no such calibration picture")
    (tmp_path / "black").mkdir()
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(tmp_path / "black" / "a.png")
    refused(run(*options, tmp_path / "black"), 1, "every calibration picture is flat (brightest level 0 of 255)")
    assert not Path("a.uare").exists()
    assert not list(Path().glob(".*"))


def test_int8_for_processors_runs_and_is_described(run: Run, tiny: Path, pictures: Path) -> None:
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
    assert set(manifest.quality) == {"fp32", "int8", "naive int8"}
    frame = np.asarray(Image.open(next(pictures.iterdir())).convert("RGB"))
    with uare_rt.load("a.uare", backend="onnxruntime") as built, uare_rt.load(tiny) as exact:
        context = exact.null_context()
        difference = np.abs(
            built.restore(frame, context=context).image.astype(int) - exact.restore(frame, context=context).image
        )
    assert difference.max() > 0
    assert difference.mean() < 3
    page = Path("a.uare/report.html").read_text()
    assert "data:image/png;base64," in page
    assert "http" not in page
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
    assert "engines/restore_x4.engine, sm86, sm89, sm120, fp16" in shown


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
    for name, measured in manifest.quality["naive int8" if precision == "int8" else "fp32"].items():
        if name.startswith("restore"):
            assert measured["psnr_db"] > 0
