from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from uare_rt.cli.inputs import find_sources
from uare_rt.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.JPG", "a.png", "clip.mp4", "notes.txt", ".hidden.png"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "c.webp").write_bytes(b"x")
    return tmp_path


def names(arguments: list[str]) -> list[str]:
    return [source.path.name for source in find_sources(arguments)]


def test_a_directory_gives_its_visible_images_and_videos_by_name(folder: Path) -> None:
    assert names([str(folder)]) == ["a.png", "b.JPG", "clip.mp4"]


def test_a_glob_is_expanded_and_goes_deep_with_two_stars(folder: Path) -> None:
    assert names([f"{folder}/*.png"]) == ["a.png"]
    assert names([f"{folder}/**/*.webp"]) == ["c.webp"]


def test_a_file_whose_name_looks_like_a_glob_is_that_file(folder: Path) -> None:
    (folder / "[1].png").write_bytes(b"x")
    (folder / "1.png").write_bytes(b"x")
    assert names([f"{folder}/[1].png"]) == ["[1].png"]


def test_a_list_stands_for_the_paths_in_it(folder: Path, tmp_path: Path) -> None:
    first, *_ = (source.path for source in find_sources([str(folder)]))
    listed = tmp_path / "jobs.txt"
    listed.write_text(f"{first}\n\n  {folder}/*\n", encoding="utf-8")
    found = find_sources([f"@{listed}"])
    assert found[0].path == first
    assert {source.path for source in found} == {source.path for source in find_sources([f"{folder}/*"])} | {first}
    assert not any(source.named for source in found)
    for content, message in (("", "is empty"), (f"@{listed}", "another list"), ("missing.png", "no such file")):
        listed.write_text(content, encoding="utf-8")
        with pytest.raises(InputError, match=message):
            find_sources([f"@{listed}"])
    with pytest.raises(InputError, match="cannot be read"):
        find_sources([f"@{tmp_path / 'nothing.txt'}"])


def test_a_file_found_twice_is_kept_once_and_order_is_that_of_the_arguments(folder: Path) -> None:
    assert names([f"{folder}/clip.mp4", str(folder)]) == ["clip.mp4", "a.png", "b.JPG"]


def test_kinds_are_told_apart_by_suffix_and_the_unknown_counts_as_an_image(folder: Path) -> None:
    sources = find_sources([f"{folder}/clip.mp4", f"{folder}/a.png", f"{folder}/notes.txt"])
    assert [source.kind for source in sources] == ["video", "image", "image"]
    assert all(source.named for source in sources)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("missing.jpg", "missing.jpg: no such file or directory"),
        ("*.tiff", r"\*.tiff: no image or video matches"),
        ("empty", "empty: no images or videos in this directory"),
        ("x" * 300, "File name too long"),
    ],
)
def test_what_names_nothing_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, argument: str, message: str
) -> None:
    (folder / "empty").mkdir()
    monkeypatch.chdir(folder)
    with pytest.raises(InputError, match=message):
        find_sources(["a.png", argument])
