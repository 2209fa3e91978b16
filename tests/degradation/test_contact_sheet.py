"""``python -m uare_rt.degradation``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from uare_rt.degradation import VARIANTS
from uare_rt.degradation.__main__ import main


def test_command_draws_every_variant_at_five_severities(photo_path: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    command = [sys.executable, "-m", "uare_rt.degradation", str(photo_path), "-o", str(sheet)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    rows = sum(map(len, VARIANTS.values())) + 1  # and H.264
    with Image.open(sheet) as picture:
        assert picture.height == 20 + rows * 196
        assert picture.width == 176 + 6 * 196
        cells = [
            picture.crop((176 + c * 196, 20 + r * 196, 176 + c * 196 + 192, 20 + r * 196 + 192)).tobytes()
            for r in range(rows)
            for c in range(1, 6)
        ]
    assert len(set(cells)) == len(cells)
    assert list(tmp_path.iterdir()) == [sheet]


def test_existing_output_is_kept_unless_told(
    photo_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sheet = tmp_path / "sheet.png"
    sheet.write_bytes(b"kept")
    assert main([str(photo_path), "-o", str(sheet)]) == 1
    assert sheet.read_bytes() == b"kept"
    assert "--overwrite" in capsys.readouterr().err
    assert main([str(photo_path), "-o", str(sheet), "--overwrite"]) == 0
    assert sheet.read_bytes() != b"kept"


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "does not exist"), (b"", "not a photo"), (b"just text", "not a photo"), ("truncated", "cannot be read")],
)
def test_bad_photos_give_one_line(
    content: bytes | str | None, message: str, photo_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = tmp_path / "photo.jpg"
    if content == "truncated":
        photo.write_bytes(photo_path.read_bytes()[:20_000])
    elif isinstance(content, bytes):
        photo.write_bytes(content)
    sheet = tmp_path / "sheet.png"
    assert main([str(photo), "-o", str(sheet)]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not sheet.exists()


def test_the_photo_is_never_overwritten(photo_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(photo_path.read_bytes())
    assert main([str(photo), "-o", str(photo), "--overwrite"]) == 1
    assert "the photo itself" in capsys.readouterr().err
    assert photo.read_bytes() == photo_path.read_bytes()


@pytest.mark.parametrize(("name", "code"), [("sheet.xyz", 2), ("nowhere/sheet.png", 1)])
def test_outputs_that_cannot_be_written(
    name: str, code: int, photo_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(photo_path), "-o", str(tmp_path / name)]) == code
    assert capsys.readouterr().err.startswith("error: ")
    assert not list(tmp_path.iterdir())
