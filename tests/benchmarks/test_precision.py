"""Builds are timed in fresh processes, and what they cost is measured on an evaluation set and told in documents."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]


def run(*command: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


def bench(name: str, *arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    return run(ROOT / "benchmarks" / f"{name}.py", *arguments, code=code)


@pytest.fixture(scope="module")
def tiny(data_dir: Path) -> Path:
    return data_dir / "tiny.uare"


@pytest.fixture(scope="module")
def evalset(photos: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    Image.open(photos[0]).crop((0, 0, 160, 128)).save(folder / "one.png")
    made = tmp_path_factory.mktemp("set") / "evalset"
    bench("make_evalset", folder, made, "--size", 72)  # not what every graph takes unpadded
    return made


@pytest.fixture(scope="module")
def results(tiny: Path, evalset: Path, photos: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the result of a portable fp16 bundle."""
    folder = tmp_path_factory.mktemp("built")
    run(
        "-m", "uare_rt.cli", "build", "--model", tiny, "--backend", "tensorrt", "--target", "sm87",
        "--data", photos[0], "--data", photos[1], "-o", folder / "fp16.uare",
    )  # fmt: skip
    bench("precision", evalset, folder / "fp16.uare", "--bundle", tiny, f"--output={folder / 'precision.json'}")
    return folder


def test_what_a_precision_costs_on_every_type(results: Path) -> None:
    result = json.loads((results / "precision.json").read_bytes())
    row = result["measured"]["fp16"]
    assert row["by_type"].keys() == result["measured"]["fp32"]["psnr_db"].keys()
    restored = [value for kind, value in row["by_type"].items() if kind != "clean"]
    assert row["loss_db"] == pytest.approx(sum(restored) / len(restored), abs=2e-4)
    assert any(restored), "rounding every tensor changes something"
    assert max(map(abs, restored)) < 0.5
    assert 0.45 < row["weights"] < 0.65
    assert {"fp16 loss", "fp16 clean", "fp16 score rank"} == {limit["name"] for limit in result["limits"]}


def test_commands_in_results_name_no_directories(results: Path, evalset: Path) -> None:
    text = (results / "precision.json").read_text()
    assert json.loads(text)["command"] == (
        "python benchmarks/precision.py evalset fp16.uare --bundle tiny.uare --output=precision.json"
    )
    assert str(results) not in text
    assert str(evalset.parent) not in text


def test_documents_get_the_tables(results: Path, tmp_path: Path) -> None:
    page = tmp_path / "build.md"
    text = (ROOT / "docs" / "build.md").read_text()
    assert "<!-- results:begin precision -->" in text
    assert "<!-- results:begin builds -->" in text
    page.write_text(text.replace("results:begin builds", "results-begin builds"))
    bench("report", page, "--results", results)
    filled = page.read_text()
    assert "| precision | loss dB | clean dB |" in filled
    assert "| type | fp32 dB | fp16 loss dB |" in filled


@pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt_rtx is not installed")
def test_builds_are_timed_and_kept(tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "builds.json"
    done = bench("builds", tmp_path / "built", "--precision", "fp16", "--bundle", tiny, "-o", out)
    row = json.loads(out.read_bytes())["measured"]["fp16"]
    assert 0 < row["compiling"] < row["wall"]
    assert row["cpu"] > 0
    assert row["held_out"]["fp16"]["restore_x1"]["to_fp32_db"] > 20
    assert (tmp_path / "built" / "fp16.uare" / "manifest.json").is_file()
    assert "uare-rt build --precision fp16" in done.stdout
