"""Quality over time: what is looked at, what is said of scenes and worst moments, and the files that are written."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from video_clips import FakeSession, make_clip

from uare_rt.errors import MissingExtraError, OutputError, UsageError
from uare_rt.video.timeline import Timeline, video_timeline
from uare_rt.video.timeline_files import TimelineFolder

TINY = Path(__file__).parents[2] / "data" / "tiny.uare"


def clip(path: Path, lights: tuple[int, ...] = (40, 200, 120), frames: int = 20) -> Path:
    """Scenes of 2 s that differ in pattern and light, which is what the session judges by."""
    rng = np.random.default_rng(6)
    patterns = [rng.integers(0, 50, (6, 8, 3)).repeat(8, 0).repeat(8, 1) + light for light in lights]
    pictures = [patterns[i // frames].astype(np.uint8) for i in range(frames * len(lights))]
    return make_clip(path, pictures, rate=10, options={"crf": "4", "preset": "ultrafast"})


@pytest.fixture
def timeline(tmp_path: Path) -> Timeline:
    return video_timeline(FakeSession(), clip(tmp_path / "in.mp4"), every=0.5, worst=3)


def test_scenes_samples_and_the_worst_moments(timeline: Timeline) -> None:
    assert timeline.frames == 60
    assert timeline.seconds == pytest.approx(6, abs=0.01)
    assert [(round(s.start, 2), round(s.end, 2), s.frames) for s in timeline.scenes] == [
        (0, 2, 20),
        (2, 4, 20),
        (4, 6, 20),
    ]
    assert [sample.seconds for sample in timeline.samples] == pytest.approx([i / 2 for i in range(12)])
    scores = [scene.score for scene in timeline.scenes]
    assert scores[0] < scores[2] < scores[1]
    assert timeline.score == pytest.approx(np.mean(scores))
    assert all(scene.lowest <= scene.score for scene in timeline.scenes)
    assert len(timeline.worst) == 3
    worst = [moment.sample.assessment.score for moment in timeline.worst]
    assert worst == sorted(worst)
    assert worst[0] == min(sample.assessment.score for sample in timeline.samples)
    assert all(moment.sample.seconds < 2 for moment in timeline.worst)
    assert timeline.worst[0].thumbnail.shape == (48, 64, 3)
    assert timeline.damage == ()


def test_cuts_close_together_are_one_moment(tmp_path: Path) -> None:
    found = video_timeline(FakeSession(), clip(tmp_path / "in.mp4", frames=3), every=2.0, worst=6)
    assert len(found.samples) == len(found.scenes) == 3
    assert len(found.worst) == 1
    assert found.worst[0].sample == min(found.samples, key=lambda sample: sample.assessment.score)


def test_files_hold_what_was_found(tmp_path: Path, timeline: Timeline) -> None:
    folder = tmp_path / "look"
    files = TimelineFolder(folder, overwrite=False).write(timeline, "in.mp4")
    assert sorted(files) == sorted(folder.iterdir())
    content = json.loads((folder / "timeline.json").read_text())
    assert len(content["samples"]) == 12
    assert len(content["scenes"]) == 3
    assert all((folder / moment["thumbnail"]).exists() for moment in content["worst"])
    rows = list(csv.DictReader((folder / "timeline.csv").read_text().splitlines()))
    assert [float(row["score"]) for row in rows] == pytest.approx([s["score"] for s in content["samples"]], rel=1e-4)
    scenes = list(csv.DictReader((folder / "scenes.csv").read_text().splitlines()))
    assert [int(row["frames"]) for row in scenes] == [20, 20, 20]
    assert ElementTree.parse(folder / "timeline.svg").getroot().tag.endswith("svg")
    with Image.open(folder / "timeline.png") as plot:
        assert len(np.unique(np.asarray(plot.convert("RGB")).reshape(-1, 3), axis=0)) > 8
    with pytest.raises(OutputError, match="--overwrite"):
        TimelineFolder(folder, overwrite=False)
    again = TimelineFolder(folder, overwrite=True).write(timeline, "in.mp4")
    assert sorted(again) == sorted(folder.iterdir())
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_places_that_cannot_be_used_are_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    for folder, message in ((tmp_path / "file", "is a file"), (tmp_path / "no" / "where", "does not exist")):
        with pytest.raises(OutputError, match=message):
            TimelineFolder(folder, overwrite=True)
    with pytest.raises(UsageError, match="every 0"):
        video_timeline(FakeSession(), tmp_path / "file", every=0)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"uare-rt\[plot\]"):
        TimelineFolder(tmp_path / "look", overwrite=False)


def test_the_command_line_prints_scenes(tmp_path: Path) -> None:
    source = clip(tmp_path / "in.mp4")
    command = [sys.executable, "-m", "uare_rt.cli", "assess", str(source), "--bundle", str(TINY)]
    done = subprocess.run([*command, "--timeline", str(tmp_path / "look")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "60 frames" in lines[0]
    assert [line.split()[:3] for line in lines[2:5]] == [
        ["1", "0.00", "2.00"],
        ["2", "2.00", "4.00"],
        ["3", "4.00", "6.00"],
    ]
    assert lines[-1].startswith("worst: ")
    assert (tmp_path / "look" / "timeline.svg").exists()
    image = Path(__file__).parents[2] / "data" / "photos" / "tiger.jpg"
    bad = [*command[:4], str(image), "--bundle", str(TINY), "--timeline", str(tmp_path / "other")]
    done = subprocess.run(bad, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "is no video" in done.stderr
