"""`uare-rt bench`: what it measures adds up, is kept, drawn and told, and bad wishes are one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from uare_rt import backends

if TYPE_CHECKING:
    from conftest import Run

QUICK = ("--rounds", "2", "--threads", "1")
BOTH = [name for name in ("onnxruntime", "openvino") if backends.get(name).probe().available]


def test_every_combination_is_timed_next_to_the_machines_limits(run: Run, tiny: Path) -> None:
    out = Path("bench.json")
    result = run(
        "bench", "--bundle", tiny, "--backend", "onnxruntime", "--size", "64,100x60", "--batch", "1,2", *QUICK,
        "-o", out, "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert json.loads(out.read_text()) == document
    assert document["command"].startswith("uare-rt ")
    assert {"cpu", "cores", "clock_ghz", "load_average"} <= set(document["machine"])
    assert {"onnxruntime", "numpy", "uare-rt"} <= set(document["versions"])
    (limits,) = document["limits"]["threads"]
    assert limits["threads"] == 1
    assert limits["gemm_gflops"] > 0.1
    assert limits["copy_gb_s"] > 0.1
    rows = document["subjects"]
    # assess; restore of two sizes and two batches; whole calls of two sizes. ONNX Runtime loads nothing for one size.
    assert len(rows) == 1 + 2 * 2 + 2
    assert rows[0]["kind"] == "assess"
    assert rows[0]["ratio"] == 1
    assert {(row["width"], row["height"]) for row in rows[1:]} == {(64, 64), (112, 64)}
    for row in rows:
        assert len(row["times_ms"]) == document["rounds"] == 2
        assert row["least_ms"] <= row["median_ms"]
        if row["gflops"] is not None:
            assert row["gflops"] == pytest.approx(row["flops"] / row["median_ms"] / 1e6, rel=1e-3)
            assert row["share_of_gemm"] > 0


def test_peak_memory_is_that_of_a_process_of_its_own(run: Run, tiny: Path) -> None:
    result = run(
        "bench", "--bundle", tiny, "--backend", "onnxruntime", "--kind", "assess", *QUICK, "--memory", "--json"
    )
    assert result.exit_code == 0, result.output
    (row,) = json.loads(result.stdout)["subjects"]
    assert 20 < row["peak_mb"] < 400


@pytest.mark.skipif(len(BOTH) < 2, reason="needs onnxruntime and openvino")
def test_people_get_a_table_and_pictures(run: Run, tiny: Path, photo: Path) -> None:
    result = run(
        "bench", "--bundle", tiny, "--kind", "sized,whole", "--size", "48,64", *QUICK,
        "--photo", photo, "--plot", "plots/latency.svg", "--pareto", "pareto.png",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    for text in ("GFLOP/s in matrix products", "GB/s copying", "PSNR dB", "sized 48x48, openvino, 1 threads"):
        assert text in result.stdout
    assert "<svg" in Path("plots/latency.svg").read_text()
    with Image.open("pareto.png") as picture:
        assert picture.width > 400


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--size", "big"), "--size big: write sizes"),
        (("--size", "0"), "--size 0: write sizes"),
        (("--batch", "0"), "--batch 0: write whole numbers"),
        (("--threads", "one"), "--threads one: write whole numbers"),
        (("--kind", "restore,decode"), "--kind restore,decode: name some of assess, restore"),
        (("--backend", "tpu"), "--backend tpu: name some of onnxruntime"),
        (("--scale", "3"), "--scale 3: tiny offers 1, 2, 4"),
        (("--plot", "plot.txt"), "plot.txt: can draw .svg, .png, .pdf only"),
        (("--pareto", "pareto.svg"), "--pareto needs --photo"),
        (("--backend", "null", "--kind", "sized"), "--kind sized: nothing of this can be measured on null"),
    ],
)
def test_what_cannot_be_measured_is_wrong_usage(run: Run, tiny: Path, options: tuple[str, ...], message: str) -> None:
    result = run("bench", "--bundle", tiny, *options)
    assert result.exit_code == 2, result.output
    assert f"error: {message}" in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_missing_photo_or_bundle_is_one_line(run: Run, tiny: Path) -> None:
    for options in (("--bundle", tiny, "--photo", "absent.jpg"), ("--bundle", "absent.uare")):
        result = run("bench", *options)
        assert result.exit_code == 1
        assert result.stderr.startswith("error: ")
        assert "Traceback" not in result.output
