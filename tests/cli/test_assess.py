from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

import uare_rt
from uare_rt.slots import DEGRADATIONS, SLOTS

if TYPE_CHECKING:
    from conftest import Run


def test_json_is_what_the_session_says(run: Run, tiny: Path, photo: Path) -> None:
    with uare_rt.load(tiny) as session:
        expected = session.assess(np.asarray(Image.open(photo))).to_dict()
    result = run("assess", photo, "--json", "--bundle", tiny)
    assert result.exit_code == 0
    assert json.loads(result.stdout) == [{"path": "photo.jpg", "kind": "image", **expected}]
    assert set(expected["severities"]) == set(DEGRADATIONS)
    assert set(expected["probabilities"]) == set(SLOTS)


def test_the_table_has_a_line_per_file_uncut(run: Run, tiny: Path, photo: Path) -> None:
    long_name = Path("a" * 200 + ".jpg")
    photo.rename(long_name)
    Image.new("RGB", (30, 20), "white").save("white.png")
    header, *rows = run("assess", ".", "--bundle", tiny).stdout.splitlines()
    assert header.split() == ["path", "score", "level", "severities", "description"]
    assert [row.split()[0] for row in rows] == [str(long_name), "white.png"]
    for row, record in zip(rows, json.loads(run("assess", ".", "--json", "--bundle", tiny).stdout), strict=True):
        assert f"{record['score']:.2f}" in row
        assert row.endswith(record["description"])


def test_a_video_has_samples(run: Run, tiny: Path, clip: Path) -> None:
    (record,) = json.loads(run("assess", clip, "--json", "--bundle", tiny).stdout)
    assert record["kind"] == "video"
    times = [sample["seconds"] for sample in record["samples"]]
    assert times == sorted(times)
    assert len(times) > 1
    assert record["score"] == pytest.approx(np.mean([sample["score"] for sample in record["samples"]]))
    assert record["worst"]["score"] == min(sample["score"] for sample in record["samples"])


def test_a_directory_run_goes_on_past_bad_files(run: Run, tiny: Path, photo: Path, clip: Path) -> None:
    Path("bad.png").write_text("no image", encoding="utf-8")
    Path("bad.mp4").write_text("no video", encoding="utf-8")
    result = run("assess", ".", "--json", "--bundle", tiny)
    assert result.exit_code == 1
    good, bad = json.loads(result.stdout)[:2], json.loads(result.stdout)[2:]
    assert [record["path"] for record in good] == ["clip.mp4", "photo.jpg"]
    assert [record["path"] for record in bad] == ["bad.mp4", "bad.png"]
    assert all(set(record) == {"path", "error"} for record in bad)
    lines = result.stderr.splitlines()
    assert [line.startswith(f"error: {record['path']}") for line, record in zip(lines, bad, strict=False)] == [True] * 2
    assert lines[2] == "error: 2 of 4 files failed"


def test_the_backend_can_be_named(run: Run, tiny: Path, photo: Path) -> None:
    (record,) = json.loads(run("assess", photo, "--json", "--bundle", tiny, "--backend", "null").stdout)
    assert record["score"] == pytest.approx(3.0)  # the null backend is undecided
    result = run("assess", photo, "--bundle", tiny, "--backend", "nonsense")
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "'nonsense' does not exist; choose one of: auto, fastest, onnxruntime" in result.stderr


def test_what_the_rooms_log_is_a_note(run: Run, tiny: Path, photo: Path) -> None:
    frames = [Image.new("RGB", (30, 20), colour) for colour in ("red", "blue")]
    frames[0].save("moving.gif", save_all=True, append_images=frames[1:])
    result = run("assess", "moving.gif", "--bundle", tiny)
    assert result.exit_code == 0
    assert result.stderr == "note: moving.gif: only the first of 2 pictures is used\n"
