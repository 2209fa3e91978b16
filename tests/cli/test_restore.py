from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import av
import numpy as np
import pytest
from PIL import Image

import uare_rt

if TYPE_CHECKING:
    from conftest import Run, Spawn


def test_a_photo_is_restored_as_the_session_does(run: Run, tiny: Path, photo: Path) -> None:
    pixels = np.asarray(Image.open(photo))
    with uare_rt.load(tiny) as session:
        expected = session.restore(pixels, scale=2, strength=0.5)
        after = session.assess(expected.image)
    result = run("restore", photo, "-o", "new.png", "--scale", 2, "--strength", 0.5, "--json", "--bundle", tiny)
    assert (result.exit_code, result.stderr) == (0, "")
    np.testing.assert_array_equal(np.asarray(Image.open("new.png")), expected.image)
    (record,) = json.loads(result.stdout)
    assert record.pop("seconds") > 0
    assert expected.assessment is not None
    assert record == {
        "path": "photo.jpg",
        "output": "new.png",
        "kind": "image",
        "score": expected.assessment.score,
        "score_after": after.score,
        "width": 192,
        "height": 128,
    }


def test_tiles_do_not_change_the_result(run: Run, tiny: Path, photo: Path) -> None:
    Image.open(photo).resize((500, 400)).save("large.png")
    assert run("restore", "large.png", "-o", "whole.png", "--bundle", tiny).exit_code == 0
    assert run("restore", "large.png", "-o", "tiled.png", "--tile", 192, "--bundle", tiny).exit_code == 0
    whole, tiled = (np.asarray(Image.open(name)).astype(int) for name in ("whole.png", "tiled.png"))
    assert np.abs(whole - tiled).max() <= 1


def test_a_tile_below_the_models_smallest_is_wrong_usage(run: Run, tiny: Path, photo: Path) -> None:
    result = run("restore", photo, "-o", "new/", "--tile", 8, "--bundle", tiny)
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "tile is 8 px" in result.stderr
    assert not Path("new").exists()


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_alpha_icc_and_exif_are_kept(run: Run, tiny: Path, photo: Path, scale: int) -> None:
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x010F] = "Camera"
    exif[0x0112] = 6  # to be shown turned by 90 degrees
    image = Image.open(photo).convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    image.save("in.png", exif=exif, icc_profile=profile)
    result = run("restore", "in.png", "-o", "new.png", "--scale", scale, "--bundle", tiny)
    assert result.exit_code == 0, result.stderr
    made = Image.open("new.png")
    assert (made.mode, made.size) == ("RGBA", (64 * scale, 96 * scale))
    assert made.info["icc_profile"] == profile
    assert made.getexif()[0x010F] == "Camera"
    assert made.getexif().get(0x0112, 1) == 1
    alpha = np.asarray(image.getchannel("A").transpose(Image.Transpose.ROTATE_270).resize(made.size, Image.BICUBIC))
    assert np.abs(np.asarray(made.getchannel("A")).astype(int) - alpha).max() <= 1


def test_a_directory_gives_files_of_the_same_names(run: Run, tiny: Path, photo: Path, clip: Path) -> None:
    source = Path("in")
    source.mkdir()
    shutil.move(photo, source)
    shutil.move(clip, source)
    Image.new("L", (40, 30), 99).save(source / "grey.png")
    result = run("restore", source, "-o", "new/deep", "--bundle", tiny)
    assert (result.exit_code, result.stderr) == (0, "")
    assert sorted(path.name for path in Path("new/deep").iterdir()) == ["clip.mp4", "grey.png", "photo.jpg"]
    lines = result.stdout.splitlines()
    assert [line.split(": ")[0] for line in lines] == [
        "in/clip.mp4 -> new/deep/clip.mp4",
        "in/grey.png -> new/deep/grey.png",
        "in/photo.jpg -> new/deep/photo.jpg",
    ]
    assert "12 frames" in lines[0]
    assert "96x64" in lines[2]


def test_a_video_keeps_its_frames(run: Run, tiny: Path, clip: Path) -> None:
    result = run("restore", clip, "-o", "new.mkv", "--scale", 2, "--json", "--bundle", tiny)
    assert result.exit_code == 0, result.stderr
    (record,) = json.loads(result.stdout)
    assert (record["kind"], record["frames"], record["damage"]) == ("video", 12, [])
    with av.open("new.mkv") as container:
        frames = list(container.decode(video=0))
    assert len(frames) == 12
    assert (frames[0].width, frames[0].height) == (128, 96)


def test_existing_outputs_need_overwrite(run: Run, tiny: Path, photo: Path) -> None:
    Path("new.png").write_bytes(b"precious")
    refused = run("restore", photo, "-o", "new.png", "--bundle", tiny)
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "add --overwrite" in refused.stderr
    assert Path("new.png").read_bytes() == b"precious"
    assert run("restore", photo, "-o", "new.png", "--overwrite", "--bundle", tiny).exit_code == 0
    assert np.asarray(Image.open("new.png")).shape == (64, 96, 3)


def test_a_directory_run_goes_on_past_bad_files(run: Run, tiny: Path, photo: Path) -> None:
    Path("in").mkdir()
    photo.rename("in/b.jpg")
    Path("in/a.png").write_text("no image", encoding="utf-8")
    Image.new("RGB", (8, 8)).save("in/c.gif")
    result = run("restore", "in", "-o", "new", "--bundle", tiny)
    assert result.exit_code == 1
    assert [path.name for path in Path("new").iterdir()] == ["b.jpg"]
    assert result.stdout.startswith("in/b.jpg -> new/b.jpg: ")
    first, second, third = result.stderr.splitlines()
    assert first.startswith("error: in/a.png: ")
    assert "cannot write this kind of image" in second
    assert third == "error: 2 of 3 files failed"


def test_nothing_is_done_if_one_input_is_missing(run: Run, tiny: Path, photo: Path) -> None:
    result = run("restore", photo, "missing.jpg", "-o", "new", "--bundle", tiny)
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert not Path("new").exists()


def test_no_progress_bar_where_there_is_no_terminal(spawn: Spawn, tiny: Path, photo: Path) -> None:
    done = spawn("restore", photo, "-o", "new.png", "--bundle", tiny)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("photo.jpg -> new.png: score ")
    assert done.stdout.count("\n") == 1


def test_a_terminal_shows_progress_and_the_result_line(spawn: Spawn, tiny: Path, photo: Path) -> None:
    pty = pytest.importorskip("pty")
    terminal, end = pty.openpty()
    done = spawn("restore", "photo.jpg", "-o", "new.png", "--bundle", tiny, stdout=end, stderr=end, text=False)
    shown = os.read(terminal, 1 << 16)
    os.close(end)
    os.close(terminal)
    assert done.returncode == 0
    assert b"100%" in shown
    assert b"photo.jpg -> new.png: score " in shown
