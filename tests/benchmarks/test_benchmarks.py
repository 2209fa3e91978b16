"""Every benchmark runs on the tiny bundle, keeps a result that says where it comes from, and can fail."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
Bench = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def bench() -> Bench:
    """Runs a benchmark as people do; fails unless it exits as expected."""

    def run(name: str, *arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(ROOT / "benchmarks" / f"{name}.py"), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        return done

    return run


@pytest.fixture(scope="module")
def tiny(data_dir: Path) -> Path:
    return data_dir / "tiny.uare"


@pytest.fixture(scope="module")
def two_photos(photos: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for photo in photos[:2]:
        Image.open(photo).crop((0, 0, 160, 128)).save(folder / f"{photo.stem}.png")
    return folder


@pytest.fixture(scope="module")
def evalset(bench: Bench, two_photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("set")
    bench("make_evalset", two_photos, folder, "--size", 64)
    return folder


@pytest.fixture(scope="module")
def results(bench: Bench, two_photos: Path, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the results that need no evaluation set, all of the tiny bundle."""
    folder = tmp_path_factory.mktemp("results")
    photo = next(two_photos.iterdir())
    for name, arguments in {
        "ranking": [two_photos],
        "faint": [two_photos, "--size", 64],
        "startup": [photo, "--runs", 1],
        "memory": ["--megapixels", 0.2],
    }.items():
        bench(name, *arguments, "--bundle", tiny, "-o", folder / f"{name}.json")
    return folder


@pytest.fixture(scope="module")
def all_results(
    bench: Bench, results: Path, evalset: Path, tiny: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder with every result."""
    folder = Path(shutil.copytree(results, tmp_path_factory.mktemp("all") / "results"))
    bench("evaluate", evalset, "--bundle", tiny, "--no-peers", "-o", folder / "evaluate.json")
    shutil.copy(folder / "evaluate.json", folder / "evaluate_peers.json")  # the place of the run with peers
    return folder


def load(folder: Path, name: str) -> dict[str, Any]:
    return json.loads((folder / f"{name}.json").read_bytes())


def test_results_tell_machine_versions_command_data_and_weights(all_results: Path, tiny: Path, evalset: Path) -> None:
    weights = json.loads((tiny / "manifest.json").read_bytes())["source"]["weights_sha256"]
    for name in ("evaluate", "ranking", "faint", "startup", "memory"):
        result = load(all_results, name)
        assert result["benchmark"] == name
        assert result["machine"]["cpu"]
        assert result["machine"]["cores"] >= 1
        assert {"python", "uare-rt", "numpy", "onnxruntime"} <= result["versions"].keys()
        assert result["command"].startswith(f"python benchmarks/{name}.py ")
        assert str(evalset.parent) not in json.dumps(result), "a directory of this machine in a result"
        assert any(key.endswith("sha256") and len(value) == 64 for key, value in result["data"].items())
        assert result["bundle"]["weights_sha256"] == weights


def test_evaluation_measures_what_the_session_gives(all_results: Path, evalset: Path, tiny: Path) -> None:
    import uare_rt

    found = load(all_results, "evaluate")["measured"]
    measured, scores = found["restoration"], found["scores"]
    manifest = json.loads((evalset / "manifest.json").read_bytes())
    assert measured.keys() == manifest["mean_input_psnr"].keys()
    for kind, mean in manifest["mean_input_psnr"].items():
        assert measured[kind]["input"]["psnr"] == pytest.approx(mean, abs=0.01)
    assert measured["clean"]["input"]["ssim"] == pytest.approx(1)

    values = []
    with uare_rt.load(tiny) as session:
        for path in sorted((evalset / "x2").iterdir()):
            truth = np.asarray(Image.open(evalset / "truth" / path.name), np.float64)
            restored = session.restore(np.asarray(Image.open(path)), scale=2).image
            values.append(10 * np.log10(255**2 / np.mean((restored - truth) ** 2)))
    assert measured["x2"]["output"]["psnr"] == pytest.approx(np.mean(values), abs=1e-3)
    assert measured["x2"]["gain"] == pytest.approx(np.mean(values) - measured["x2"]["input"]["psnr"], abs=1e-3)
    photos = len(list((evalset / "truth").iterdir()))
    assert scores["seeded"]["pictures"] == 8 * photos
    assert scores["blend"]["pictures"] == 15 * photos
    assert scores["blend"]["by_type"]["clean"]["reference"] == 5
    assert 0 <= scores["comparisons"]["right"] <= 1
    assert scores["opinion_proxy"]["spearman"]["full_reference_blend"] > 0.7


def test_check_names_every_limit_that_is_missed(bench: Bench, evalset: Path, tiny: Path) -> None:
    done = bench("evaluate", evalset, "--bundle", tiny, "--limit", 1, "--no-peers", "--check", code=1)
    for kind in ("noise25", "jpeg20", "blur2", "lowlight", "haze", "mix_a"):
        assert f"error: evaluate: {kind} gain is " in done.stderr
    assert "error: evaluate: clean output is " in done.stderr


def test_check_fails_where_a_type_was_not_measured(bench: Bench, evalset: Path, tiny: Path, tmp_path: Path) -> None:
    rows = json.loads((evalset / "manifest.json").read_bytes())
    rows["input_psnr"] = {"x4": rows["input_psnr"]["x4"]}
    for name in ("x4", "truth"):
        (tmp_path / name).symlink_to(evalset / name)
    (tmp_path / "manifest.json").write_text(json.dumps(rows))
    done = bench("evaluate", tmp_path, "--bundle", tiny, "--no-peers", "--check", code=1)
    assert "haze gain is not measured, but should be >= 8 dB" in done.stderr


def test_a_set_that_was_changed_is_refused(bench: Bench, evalset: Path, tiny: Path, tmp_path: Path) -> None:
    rows = json.loads((evalset / "manifest.json").read_bytes())
    name = next(iter(rows["input_psnr"]["blur1"]))
    rows["input_psnr"] = {"blur1": {name: rows["input_psnr"]["blur1"][name] + 0.1}}
    for folder in ("blur1", "truth"):
        (tmp_path / folder).symlink_to(evalset / folder)
    (tmp_path / "manifest.json").write_text(json.dumps(rows))
    assert "its manifest says" in bench("evaluate", tmp_path, "--bundle", tiny, code=1).stderr


def test_ranking_counts_photos_above_all_their_versions(results: Path, bench: Bench, two_photos: Path) -> None:
    measured = load(results, "ranking")["measured"]
    rows = measured["scores"].values()
    kinds = ("noise", "blur", "compression")
    assert measured["all_right"] == sum(all(row["clean"] > row[kind] for kind in kinds) for row in rows) / 2
    assert measured["pairs_right"] == pytest.approx(sum(row["clean"] > row[kind] for row in rows for kind in kinds) / 6)
    # The null backend gives every picture the same score, so no photo stands above its versions.
    tiny = ROOT / "tests" / "data" / "tiny.uare"
    done = bench("ranking", two_photos, "--bundle", tiny, "--backend", "null", "--check", code=1)
    assert "photos ranked above all their versions is 0, but should be >= 0.9" in done.stderr


def test_faint_noise_moves_nothing_where_nothing_is_done(bench: Bench, two_photos: Path, tmp_path: Path) -> None:
    tiny, out = ROOT / "tests" / "data" / "tiny.uare", tmp_path / "faint.json"
    bench("faint", two_photos, "--bundle", tiny, "--backend", "null", "--size", 64, "--check", "-o", out)
    measured = json.loads(out.read_bytes())["measured"]
    assert list(measured) == ["0.5", "1", "2", "5"]
    for level, row in measured.items():
        assert row["psnr_db"] == row["input_psnr_db"] == pytest.approx(48.13 - 20 * np.log10(float(level)), abs=1.5)
        assert row["largest_shift"] < 0.5


def test_startup_measures_fresh_processes(results: Path) -> None:
    result = load(results, "startup")
    commands = result["measured"]["commands"]
    assert commands.keys() == {"help", "assess", "restore"}
    assert all(0 < row["wall_min"] <= row["wall_median"] for row in commands.values())
    assert commands["help"]["cpu_median"] < commands["assess"]["cpu_median"]
    assert [limit["bound"] for limit in result["limits"]] == [0.25, 1.0]
    slowest = [row["self_ms"] for row in result["measured"]["assess_imports"]]
    assert len(slowest) == 10
    assert slowest == sorted(slowest, reverse=True)


def test_memory_measures_the_process_that_restores(results: Path) -> None:
    measured = load(results, "memory")["measured"]
    small, frame = measured["restore"]["large"], measured["restore"]["4k"]
    assert small["width"] * small["height"] == pytest.approx(200_000, rel=0.01)
    assert 0.03 < small["peak_gb"] < frame["peak_gb"]
    assert frame["peak_gb"] - small["peak_gb"] > 2 * 3840 * 2160 * 3 / 1e9, "input and output of 4K at least"
    for row in measured["tiled"].values():
        assert row["tiles"] > 1
        assert row["largest"] <= row["largest_anywhere"] <= 1


def test_report_fills_places_and_leaves_the_rest(all_results: Path, bench: Bench, tmp_path: Path) -> None:
    document = tmp_path / "page.md"
    document.write_text(
        "before\n<!-- results:begin evaluate -->\nold\n<!-- results:end -->\nbetween\n"
        "<!-- results:begin -->\n<!-- results:end -->\nafter\n"
    )
    bench("report", document, "--results", all_results)
    once = document.read_text()
    assert once.startswith("before\n<!-- results:begin evaluate -->\n`python benchmarks/evaluate.py ")
    assert "old" not in once
    assert "| noise25 | " in once
    assert "| clean output | " in once
    assert once.endswith("<!-- results:end -->\nafter\n")
    bench("report", document, "--results", all_results)
    assert document.read_text() == once


def test_report_refuses_results_of_different_weights(results: Path, bench: Bench, tmp_path: Path) -> None:
    document = tmp_path / "page.md"
    document.write_text("<!-- results:begin -->\n<!-- results:end -->\n")
    for name in ("ranking", "memory"):
        result = load(results, name)
        if name == "memory":
            result["bundle"]["weights_sha256"] = "0" * 64
        (tmp_path / f"{name}.json").write_text(json.dumps(result))
    assert "different weights" in bench("report", document, "--results", tmp_path, code=1).stderr
    assert document.read_text() == "<!-- results:begin -->\n<!-- results:end -->\n"


def test_places_in_the_documents_are_known(all_results: Path, bench: Bench, tmp_path: Path) -> None:
    copy = tmp_path / "benchmarks.md"
    copy.write_text((ROOT / "docs" / "benchmarks.md").read_text())
    bench("report", copy, "--results", all_results)
    assert "Not measured yet" not in copy.read_text()


def test_before_and_after_shows_free_photos_only(bench: Bench, evalset: Path, tiny: Path, tmp_path: Path) -> None:
    names = sorted(path.stem for path in (evalset / "truth").iterdir())
    licences = tmp_path / "manifest.csv"
    with licences.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["file", "license", "license_tier", "package", "path_in_package"])
        writer.writerow([f"eval/{names[0]}.png", "CC0-1.0", "A", "photos", "a.jpg"])
        writer.writerow([f"eval/{names[1]}.png", "MIT", "C", "photos", "b.jpg"])
    picture = tmp_path / "images" / "before-after.jpg"
    options = [evalset, "--licences", licences, "--bundle", tiny, "-o", picture]
    bench("before_after", *options)
    assert picture.stat().st_size <= 200_000
    with Image.open(picture) as opened:
        assert (opened.format, opened.width) == ("JPEG", 4 * 256 + 3 * 4)
    origins = picture.with_suffix(".md").read_text()
    assert "CC0-1.0" in origins
    assert names[1] not in origins
    done = bench("before_after", *options, "--show", f"blur2={names[1]}", code=2)
    assert "no stated free licence" in done.stderr


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("evaluate", ["nowhere"]), ("ranking", ["nowhere"]), ("startup", ["nowhere.jpg"]), ("report", ["nowhere.md"])],
)
def test_missing_input_gives_one_line(bench: Bench, name: str, arguments: list[str]) -> None:
    done = bench(name, *arguments, code=1)
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
