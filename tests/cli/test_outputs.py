from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from uare_rt.cli.inputs import find_sources
from uare_rt.cli.outputs import plan_outputs, prepared_directories
from uare_rt.errors import OutputError, UareError, UsageError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("a.jpg", "b.png", "clip.mp4", "in/a.jpg", "in/c.png", "single/d.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path


def targets(inputs: list[str], out: str, *, overwrite: bool = False) -> list[str]:
    return [str(job.target) for job in plan_outputs(find_sources(inputs), out, overwrite=overwrite)]


@pytest.mark.parametrize(
    ("inputs", "out", "expected"),
    [
        (["a.jpg"], "new.png", ["new.png"]),
        (["a.jpg"], "new", ["new/a.jpg"]),
        (["a.jpg"], "new.d/", ["new.d/a.jpg"]),
        (["a.jpg"], "single", ["single/a.jpg"]),
        (["clip.mp4"], "new.mkv", ["new.mkv"]),
        (["a.jpg", "b.png"], "new.d", ["new.d/a.jpg", "new.d/b.png"]),
        (["single"], "new", ["new/d.png"]),
        (["*.jpg"], "new", ["new/a.jpg"]),
    ],
)
def test_outputs_are_named_after_out_or_after_the_inputs(inputs: list[str], out: str, expected: list[str]) -> None:
    assert targets(inputs, out) == expected


@pytest.mark.parametrize(
    ("inputs", "out", "error", "message"),
    [
        (["a.jpg", "in"], "new", UsageError, "a.jpg and in/a.jpg would both be written to new/a.jpg"),
        (["a.jpg", "b.png"], "new.png", UsageError, "names one file; for several inputs"),
        (["a.jpg"], "new.png/", UsageError, "does not end in .png"),
        (["single"], "new.png", UsageError, "names one file"),
        (["a.jpg", "clip.mp4"], "b.png/", UsageError, "names one file"),
        (["a.jpg"], "new.mp4", UsageError, "cannot write the image a.jpg"),
        (["clip.mp4"], "new.png", UsageError, "cannot write the video clip.mp4"),
        (["a.jpg"], "new.txt", UsageError, "use a suffix of"),
        (["a.jpg"], "a.jpg", UsageError, "is the input a.jpg"),
        (["a.jpg"], ".", UsageError, "is the input a.jpg"),
        (["in"], "in", UsageError, "inputs are never overwritten"),
        (["a.jpg"], "linked.jpg", UsageError, "is the input a.jpg"),
        (["a.jpg"], "hard.jpg", UsageError, "is the input a.jpg"),
        (["linked.jpg"], "a.jpg", UsageError, "is the input linked.jpg"),
        (["in"], "linked", UsageError, "inputs are never overwritten"),
        (["a.jpg"], "plain", UsageError, "is a file; give a directory"),
        (["a.jpg"], "folder", OutputError, "folder/a.jpg: is a directory"),
    ],
)
@pytest.mark.parametrize("overwrite", [False, True])
def test_what_would_destroy_something_is_refused_even_with_overwrite(
    here: Path, inputs: list[str], out: str, error: type[UareError], message: str, overwrite: bool
) -> None:
    (here / "linked.jpg").symlink_to("a.jpg")
    os.link(here / "a.jpg", here / "hard.jpg")
    (here / "linked").symlink_to("in")
    (here / "plain").write_bytes(b"")
    (here / "folder" / "a.jpg").mkdir(parents=True)
    with pytest.raises(error, match=message):
        targets(inputs, out, overwrite=overwrite)
    assert (here / "a.jpg").read_bytes() == b"a.jpg"


def test_existing_outputs_need_overwrite(here: Path) -> None:
    (here / "new").mkdir()
    (here / "new" / "a.jpg").write_bytes(b"")
    with pytest.raises(OutputError, match=r"new/a.jpg: exists already; add --overwrite"):
        targets(["in"], "new")
    assert targets(["in"], "new", overwrite=True) == ["new/a.jpg", "new/c.png"]


def test_a_dangling_link_is_not_written_through_without_overwrite(here: Path) -> None:
    (here / "new.jpg").symlink_to("nowhere.jpg")
    with pytest.raises(OutputError, match="exists already"):
        targets(["a.jpg"], "new.jpg")


def test_directories_are_made_and_taken_away_if_nothing_came(here: Path) -> None:
    jobs = plan_outputs(find_sources(["a.jpg"]), "x/y/new.jpg", overwrite=False)
    with prepared_directories(jobs):
        assert (here / "x" / "y").is_dir()
    assert not (here / "x").exists()
    with prepared_directories(jobs):
        jobs[0].target.write_bytes(b"result")
    assert jobs[0].target.read_bytes() == b"result"


@pytest.mark.parametrize("out", ["b.png/x/new.jpg", "/proc/new/"])
def test_a_directory_that_cannot_be_written_is_refused(here: Path, out: str) -> None:
    jobs = plan_outputs(find_sources(["a.jpg"]), out, overwrite=False)
    with pytest.raises(OutputError, match="cannot write into it"), prepared_directories(jobs):
        pytest.fail("work began")
