"""uare-7b for a target, graph by graph: the tiny reference checkpoint through the command line."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from uare_rt.bundle import Bundle
from uare_rt.cli.app import app
from uare_rt.export import export_unified
from uare_rt.manifest import EngineSpec

sys.path.insert(0, str(Path(__file__).parents[1] / "model"))
from bagel_layout import bagel_layout

TINY = Path(os.environ.get("UARE_MOT_FIXTURES", Path(__file__).parents[1] / "data" / "mot-tiny"))
TYPED = {"vision", "prefill", "decode", "denoise", "velocity"}  # the autoencoder stays in float32
TILES = {"encode_outer", "decode_outer"}  # parts of the autoencoder in tiles, which have no engine
needs_rtx = pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt_rtx is not installed")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("build")
    return export_unified(bagel_layout(TINY, folder / "bagel"), folder / "tiny.uare")


def build(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["build", *map(str, arguments)])


@pytest.mark.parametrize(
    ("precision", "largest", "size"), [("bf16", 0.03, 1.0), ("int8", 0.2, 0.85), ("int4", 0.6, 0.8)]
)
def test_a_portable_bundle_in_every_precision(
    exported: Path, tmp_path: Path, data_dir: Path, precision: str, largest: float, size: float
) -> None:
    out = tmp_path / "a.uare"
    result = build(
        "--model", exported, "--backend", "tensorrt", "--target", "sm87", "--precision", precision,
        "--data", data_dir / "photos", "-o", out,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    manifest = Bundle.open(out).unified
    assert {name for name, graph in manifest.graphs.items() if graph.engine != "pending"} == TILES
    assert {name: graph.precision for name, graph in manifest.graphs.items()} == {
        name: precision if name in TYPED else "fp32" for name in manifest.graphs
    }
    apart = {name: row["relative_rms"] for name, row in manifest.quality[precision].items()}
    assert set(apart) >= TYPED | {"encode", "decode_image"}
    assert max(apart.values()) < largest
    assert all((value > 1e-4) == (name in TYPED) for name, value in apart.items())
    before, after = (path / "weights.bin" for path in (exported, out))
    assert after.stat().st_size <= size * before.stat().st_size
    assert (manifest.calibration is not None) == (precision == "int8")
    again = build("--model", out, "--backend", "tensorrt", "--precision", "int4", "-o", tmp_path / "b.uare")
    assert again.exit_code == 2
    assert "was built already" in again.output


@needs_rtx
@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_real_engines_for_every_graph(exported: Path, tmp_path: Path, precision: str) -> None:
    out = tmp_path / "a.uare"
    result = build("--model", exported, "--precision", precision, "--target", "sm89", "-o", out)
    assert result.exit_code == 0, result.output
    bundle = Bundle.open(out)
    for name in set(bundle.unified.graphs) - TILES:
        assert isinstance(bundle.unified.graphs[name].engine, EngineSpec)
        engine = bundle.graph(name).engine
        assert engine is not None
        assert engine.stat().st_size > 10_000
    shown = CliRunner().invoke(app, ["inspect", str(out)]).output
    assert f"engines/denoise.engine, sm89, {precision}" in shown


def test_a_model_that_does_not_fit_is_built_without_being_run(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from uare_rt.calibration import unified_build

    monkeypatch.setattr(unified_build, "available_memory", lambda: 1000)
    options = ("--model", exported, "--backend", "tensorrt", "--target", "sm87")
    result = build(*options, "--precision", "int4", "-o", tmp_path / "a.uare")
    assert result.exit_code == 0, result.output
    manifest = Bundle.open(tmp_path / "a.uare").unified
    assert not manifest.quality
    assert "quality was not measured" in (manifest.backend.note or "")
    refused = build(*options, "--precision", "int8", "-o", tmp_path / "b.uare")
    assert refused.exit_code == 2
    assert "not enough free memory here" in " ".join(refused.output.split())
    assert not (tmp_path / "b.uare").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--backend", "openvino", "--precision", "int8"), "uare-7b is built for tensorrt or tensorrt-rtx"),
        (("--backend", "tensorrt", "--precision", "fp32"), "other backends run the exported bundle as it is"),
        (("--backend", "tensorrt", "--gate"), "not measured in dB"),
    ],
)
def test_usage(exported: Path, tmp_path: Path, options: tuple[str, ...], message: str) -> None:
    result = build("--model", exported, *options, "-o", tmp_path / "a.uare")
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())
    assert not np.any([path.name.startswith("a.uare") for path in tmp_path.iterdir()])
