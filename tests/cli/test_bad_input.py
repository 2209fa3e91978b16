"""Every bad input: one line that says what and where, the documented exit code, no traceback, nothing half-written."""

from __future__ import annotations

import json
import resource
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np
import pytest
from PIL import Image

if TYPE_CHECKING:
    from conftest import Run, Spawn

    Make = Callable[[Path, Path], None]


def missing(photo: Path, clip: Path) -> None:
    pass


def zero_bytes(photo: Path, clip: Path) -> None:
    Path("bad.jpg").touch()


def truncated_jpeg(photo: Path, clip: Path) -> None:
    Path("bad.jpg").write_bytes(photo.read_bytes()[: photo.stat().st_size // 2])


def text_as_png(photo: Path, clip: Path) -> None:
    Path("bad.png").write_text("no image", encoding="utf-8")


def empty_directory(photo: Path, clip: Path) -> None:
    Path("bad").mkdir()


def directory_as_image(photo: Path, clip: Path) -> None:
    Path("bad.png").mkdir()


def text_as_video(photo: Path, clip: Path) -> None:
    Path("bad.mp4").write_text("no video", encoding="utf-8")


def empty_video(photo: Path, clip: Path) -> None:
    Path("bad.mkv").touch()


def truncated_video(photo: Path, clip: Path) -> None:
    Path("bad.mp4").write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])  # its index is at its end


def video_of_sound_only(photo: Path, clip: Path) -> None:
    with av.open("bad.mp4", "w") as container:
        stream = container.add_stream("aac", rate=48000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), "fltp", "mono")
        frame.sample_rate, frame.pts, frame.time_base = 48000, 0, Fraction(1, 48000)
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


BAD = {
    "bad.jpg": [missing, zero_bytes, truncated_jpeg],
    "bad.png": [text_as_png, directory_as_image],
    "bad": [empty_directory],
    "bad.mp4": [missing, text_as_video, truncated_video, video_of_sound_only],
    "bad.mkv": [empty_video],
}


def assert_one_line(result: Any, name: str, code: int = 1) -> None:
    errors = result.stderr
    assert errors.startswith("error: "), errors
    assert errors.count("\n") == 1, errors
    assert name in errors
    assert "internal error" not in errors
    assert "Traceback" not in errors
    assert result.stdout in ("", "[]\n")


def everything() -> list[Path]:
    return sorted(path for path in Path().rglob("*") if path.is_file())


@pytest.mark.parametrize(("name", "make"), [(name, make) for name, makers in BAD.items() for make in makers])
@pytest.mark.parametrize("command", ["assess", "compare", "restore", "restore x4 into a directory"])
def test_a_bad_file(run: Run, tiny: Path, photo: Path, clip: Path, name: str, make: Make, command: str) -> None:
    make(photo, clip)
    before = everything()
    word, *rest = command.split()
    more = {"assess": [], "compare": [photo], "restore": ["-o", f"new{Path(name).suffix or '.png'}"]}[word]
    if rest:
        more = ["--scale", 4, "-o", "deep/new/"]
    result = run(word, name, *more, "--bundle", tiny)
    assert result.exit_code == 1
    assert_one_line(result, name)
    assert everything() == before
    assert not Path("deep").exists()


def one_pixel() -> Image.Image:
    return Image.new("RGB", (1, 1), (200, 100, 50))


def ribbon() -> Image.Image:
    return Image.linear_gradient("L").resize((20000, 3)).convert("RGB")


def cmyk() -> Image.Image:
    return Image.new("CMYK", (40, 30), (10, 200, 30, 40))


def palette_with_transparency() -> Image.Image:
    image = Image.fromarray((np.arange(40 * 30, dtype=np.uint8) // 8 % 4).reshape(30, 40), "L").convert("P")
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.info["transparency"] = 1
    return image


@pytest.mark.parametrize(
    ("make", "suffix", "mode"),
    [
        (one_pixel, ".png", "RGB"),
        (ribbon, ".png", "RGB"),
        (cmyk, ".tif", "RGB"),
        (cmyk, ".jpg", "RGB"),
        (palette_with_transparency, ".png", "RGBA"),
        (palette_with_transparency, ".gif", "RGBA"),
    ],
)
@pytest.mark.parametrize("scale", [1, 4])
def test_an_odd_file_works(
    run: Run, tiny: Path, make: Callable[[], Image.Image], suffix: str, mode: str, scale: int
) -> None:
    image = make()
    image.save(f"odd{suffix}", **image.info)
    assessed = run("assess", f"odd{suffix}", "--json", "--bundle", tiny)
    assert (assessed.exit_code, assessed.stderr) == (0, "")
    restored = run("restore", f"odd{suffix}", "-o", "new.png", "--scale", scale, "--bundle", tiny)
    assert (restored.exit_code, restored.stderr) == (0, "")
    with Image.open("new.png") as made:
        assert made.size == (image.width * scale, image.height * scale)
        assert made.mode == mode
        if mode == "RGBA":
            assert made.getchannel("A").getextrema() == (0, 255)


def test_a_truncated_video_that_can_be_read_in_part(run: Run, tiny: Path, clip: Path) -> None:
    whole = Path("whole.mkv")
    with av.open(str(clip)) as source, av.open(str(whole), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    Path("cut.mkv").write_bytes(whole.read_bytes()[:-150])  # inside the last frames
    result = run("restore", "cut.mkv", "-o", "new.mkv", "--json", "--bundle", tiny)
    (record,) = json.loads(result.stdout)
    with av.open("new.mkv") as container:
        frames = sum(1 for _ in container.decode(video=0))
    assert frames == record["frames"]
    assert 0 < frames < 12
    assert record["damage"]
    assert 0.5 < record["damage"][-1]["seconds"] <= 1.0
    assert result.exit_code == 1
    assert result.stderr.startswith("error: cut.mkv: damaged at ")
    assert result.stderr.endswith("new.mkv holds what could be read\n")
    assert json.loads(run("restore", whole, "-o", "fine.mkv", "--json", "--bundle", tiny).stdout)[0]["damage"] == []

    assessed = run("assess", "cut.mkv", "--json", "--bundle", tiny)
    (record,) = json.loads(assessed.stdout)
    assert record["damage"][0]["reason"] == "the file is cut off, 150 bytes or more are missing"
    assert 0.5 < record["damage"][0]["seconds"] <= 1.0
    compared = run("compare", "cut.mkv", whole, "--bundle", tiny)
    assert f"B is {whole}" in compared.stdout
    for result in (assessed, compared):
        assert result.exit_code == 1
        assert result.stderr.startswith("error: cut.mkv: damaged at ")
        assert "; assessed is what could be read\n" in result.stderr
    fine = run("assess", whole, "--json", "--bundle", tiny)
    assert (fine.exit_code, json.loads(fine.stdout)[0]["damage"]) == (0, [])


@pytest.mark.parametrize("target", ["new.jpg", "new.bmp"])
def test_transparency_that_cannot_be_kept_is_told_before_the_work(
    run: Run, tiny: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    palette_with_transparency().save("odd.png", transparency=1)
    monkeypatch.setattr("uare_rt.session.Session.assess", lambda *_: pytest.fail("work was begun"))
    result = run("restore", "odd.png", "-o", target, "--bundle", tiny)
    assert result.exit_code == 1
    assert_one_line(result, target)
    assert "alpha channel" in result.stderr
    assert everything() == [Path("odd.png")]


@pytest.mark.parametrize("out", ["photo.jpg/new.jpg", "/proc/nowhere/new.jpg"])
@pytest.mark.parametrize("source", ["photo.jpg", "clip.mp4"])
def test_an_output_directory_that_cannot_be_written(
    run: Run, tiny: Path, photo: Path, clip: Path, source: str, out: str
) -> None:
    out = out.replace("new.jpg", f"new{Path(source).suffix}")
    result = run("restore", source, "-o", out, "--bundle", tiny)
    assert result.exit_code == 1
    assert_one_line(result, str(Path(out).parent))
    assert everything() == [clip, photo]


def full_disk() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (600, 600))


@pytest.mark.parametrize("name", ["photo.jpg", "photo.png", "photo.tif", "photo.webp", "clip.mp4", "clip.mkv"])
def test_a_disk_that_fills_up(
    spawn: Spawn,
    tiny: Path,
    photo: Path,
    clip: Path,
    name: str,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))  # no graph is kept there yet
    source = clip if name.startswith("clip") else photo
    before = everything()
    result = spawn("restore", source, "-o", f"new/{name}", "--scale", 2, "--bundle", tiny, preexec_fn=full_disk)
    assert result.returncode == 1
    assert_one_line(result, f"new/{name}")
    assert everything() == before
    assert not Path("new").exists()


def wrong_hash(bundle: Path) -> str:
    data = bytearray((bundle / "weights.bin").read_bytes())
    data[100] ^= 1
    (bundle / "weights.bin").write_bytes(data)
    return "weights.bin"


def missing_file(bundle: Path) -> str:
    (bundle / "assess.onnx").unlink()
    return "assess.onnx"


def no_manifest(bundle: Path) -> str:
    (bundle / "manifest.json").unlink()
    return "manifest.json"


def cut_manifest(bundle: Path) -> str:
    text = (bundle / "manifest.json").read_text(encoding="utf-8")
    (bundle / "manifest.json").write_text(text[:100], encoding="utf-8")
    return "manifest.json"


def edited(bundle: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    edit(manifest)
    (bundle / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


def future_schema(bundle: Path) -> str:
    edited(bundle, lambda manifest: manifest.update(schema_version=2, wonder=True))
    return "schema version 2"


def path_outside(bundle: Path) -> str:
    (bundle.parent / "weights.bin").write_bytes((bundle / "weights.bin").read_bytes())
    edited(bundle, lambda manifest: manifest["files"].update({"../weights.bin": manifest["files"]["weights.bin"]}))
    return "'../weights.bin'"


def unknown_key(bundle: Path) -> str:
    edited(bundle, lambda manifest: manifest.update(wonder=True))
    return "wonder"


def is_a_file(bundle: Path) -> str:
    bundle.rename(bundle.with_name("moved"))
    bundle.touch()
    return "is a file"


def nan_weights(bundle: Path) -> str:
    import hashlib

    weights = np.fromfile(bundle / "weights.bin", np.float32)
    weights[:] = np.nan
    weights.tofile(bundle / "weights.bin")
    digest = hashlib.sha256(weights.tobytes()).hexdigest()
    edited(bundle, lambda manifest: manifest["files"]["weights.bin"].update(sha256=digest))
    return "NaN"


@pytest.mark.parametrize(
    "damage",
    [
        wrong_hash,
        missing_file,
        no_manifest,
        cut_manifest,
        future_schema,
        path_outside,
        unknown_key,
        is_a_file,
        nan_weights,
    ],
)
@pytest.mark.parametrize("command", ["inspect", "assess", "restore"])
def test_a_bad_bundle(run: Run, tiny: Path, photo: Path, damage: Callable[[Path], str], command: str) -> None:
    named = damage(tiny)
    arguments = {
        "inspect": [tiny],
        "assess": [photo, "--bundle", tiny],
        "restore": [photo, "-o", "new/", "--bundle", tiny],
    }
    result = run(command, *arguments[command])
    assert result.exit_code == 1
    assert_one_line(result, named)
    assert str(tiny) in result.stderr
    assert everything() == [photo]
    assert not Path("new").exists()


def test_a_missing_bundle(run: Run, photo: Path) -> None:
    result = run("assess", photo, "--bundle", "nowhere.uare")
    assert result.exit_code == 1
    assert_one_line(result, "no bundle at nowhere.uare")
