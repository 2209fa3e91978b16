"""Still images: what comes out of a file is what was in it, and what goes in comes out."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageCms

from uare_rt.errors import InputError, OutputError, UsageError
from uare_rt.images import Metadata, Picture, is_image, list_images, read_image, write_image

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
DEEP = 65535


def noise(height: int, width: int, channels: int, dtype: Any = np.uint16, seed: int = 0) -> NDArray[Any]:
    """Random samples [H, W, C]; every bit of them matters."""
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max + 1, (height, width, channels), dtype=dtype)


def picture(height: int, width: int, dtype: Any, *, alpha: bool = False, seed: int = 0, **about: Any) -> Picture:
    samples = noise(height, width, 4, dtype, seed)
    return Picture(samples[..., :3].copy(), samples[..., 3].copy() if alpha else None, Metadata(**about))


def exif(orientation: int = 6) -> bytes:
    """EXIF with a camera, a lens and a position; "Exif" prefix included."""
    data = Image.Exif()
    data[0x0112] = orientation
    data[0x010F] = "A camera maker"
    data[0x8769] = {0xA434: "A lens", 0xA002: 4000, 0xA003: 3000, 0x9003: "2024:05:06 07:08:09"}
    data[0x8825] = {1: "N", 2: (48.0, 51.0, 30.0)}
    return data.tobytes()


def by_opencv(path: Path) -> NDArray[Any]:
    """An independent reader: samples [H, W, C], RGB(A) order."""
    found = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert found is not None
    if found.ndim == 2:
        return found[..., None]
    return found[..., [2, 1, 0, 3][: found.shape[2]]]


# --- 16 bits are 16 bits ---


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("alpha", [False, True])
def test_low_byte_survives_and_others_read_it(tmp_path: Path, suffix: str, alpha: bool) -> None:
    source = picture(61, 47, np.uint16, alpha=alpha)
    path = tmp_path / f"deep{suffix}"
    write_image(path, source)
    back = read_image(path)
    assert back.pixels.dtype == np.uint16
    assert np.array_equal(back.pixels & 255, source.pixels & 255)
    assert np.array_equal(back.pixels, source.pixels)
    assert (back.metadata.bits, back.metadata.format) == (16, {".png": "PNG", ".tif": "TIFF"}[suffix])
    other = by_opencv(path) if suffix == ".png" else tifffile.imread(path)
    assert np.array_equal(other[..., :3], source.pixels)
    if source.alpha is not None:
        assert back.alpha is not None
        assert np.array_equal(back.alpha, source.alpha)
        assert np.array_equal(other[..., 3], source.alpha)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_16_bit_files_of_opencv(tmp_path: Path, suffix: str, channels: int) -> None:
    samples = noise(33, 58, channels)
    path = tmp_path / f"made{suffix}"
    assert cv2.imwrite(str(path), samples[..., [2, 1, 0, 3][:channels]] if channels > 1 else samples)
    found = read_image(path)
    assert np.array_equal(found.pixels, np.broadcast_to(samples[..., :3], (33, 58, 3)))
    assert (found.alpha is not None) == (channels == 4)
    if found.alpha is not None:
        assert np.array_equal(found.alpha, samples[..., 3])
    assert found.metadata.grey == (channels == 1)


LAYOUTS = {
    "strips": {"rowsperstrip": 7},
    "one strip": {},
    "big-endian": {"byteorder": ">"},
    "deflate": {"compression": "zlib", "predictor": True, "rowsperstrip": 9},
    "big-endian deflate": {"compression": "zlib", "predictor": True, "byteorder": ">"},
    "tiles": {"tile": (16, 32)},
    "deflated tiles": {"tile": (32, 16), "compression": "zlib", "predictor": True},
    "planes": {"planarconfig": "separate", "rowsperstrip": 11},
    "BigTIFF": {"bigtiff": True},
}


@pytest.mark.parametrize(
    ("layout", "channels"),
    [(layout, channels) for layout in LAYOUTS for channels in (1, 2, 3, 4) if layout != "planes" or channels > 2],
)
def test_16_bit_tiff_layouts(tmp_path: Path, layout: str, channels: int) -> None:
    samples = noise(70, 45, channels)
    options: dict[str, Any] = {"planarconfig": "contig", **LAYOUTS[layout]}
    stored = np.moveaxis(samples, -1, 0) if layout == "planes" else samples
    if channels == 1:
        stored = samples[..., 0]
        del options["planarconfig"]
    extra = ["unassalpha"] if channels in (2, 4) else None
    path = tmp_path / "made.tif"
    tifffile.imwrite(path, stored, photometric="rgb" if channels > 2 else "minisblack", extrasamples=extra, **options)
    found = read_image(path)
    expected = samples[..., :3] if channels > 2 else np.repeat(samples[..., :1], 3, axis=2)
    assert np.array_equal(found.pixels, expected)
    assert (found.alpha is not None) == (channels in (2, 4))
    if found.alpha is not None:
        assert np.array_equal(found.alpha, samples[..., -1])


def test_16_bit_tiff_white_is_zero_and_multiplied_alpha(tmp_path: Path) -> None:
    grey = noise(9, 8, 1)[..., 0]
    tifffile.imwrite(tmp_path / "inverse.tif", grey, photometric="miniswhite")
    assert np.array_equal(read_image(tmp_path / "inverse.tif").pixels[..., 1], DEEP - grey)
    straight = np.full((4, 5, 4), 40000, dtype=np.uint16)
    straight[..., 3] = 30000
    stored = straight.copy()
    stored[..., :3] = np.rint(40000 * 30000 / DEEP)
    tifffile.imwrite(tmp_path / "multiplied.tif", stored, photometric="rgb", extrasamples=["assocalpha"])
    found = read_image(tmp_path / "multiplied.tif")
    assert np.abs(found.pixels.astype(int) - 40000).max() <= 1
    assert found.alpha is not None
    assert (found.alpha == 30000).all()


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def bare_png16(samples: NDArray[np.uint16], *between: bytes, cut: int | None = None) -> bytes:
    """A 16-bit PNG (RGB or grey with alpha) put together by hand, unfiltered; chunks may be added."""
    height, width, channels = samples.shape
    header = struct.pack(">IIBBBBB", width, height, 16, {3: 2, 2: 4}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    parts = [
        png_chunk(b"IHDR", header),
        *between,
        png_chunk(b"IDAT", zlib.compress(rows)[:cut]),
        png_chunk(b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_16_bit_png_grey_with_alpha(tmp_path: Path) -> None:
    samples = noise(13, 17, 2)
    path = tmp_path / "ga.png"
    path.write_bytes(bare_png16(samples))
    found = read_image(path)
    assert np.array_equal(found.pixels, np.repeat(samples[..., :1], 3, axis=2))
    assert found.alpha is not None
    assert np.array_equal(found.alpha, samples[..., 1])
    write_image(tmp_path / "again.png", found)
    again = read_image(tmp_path / "again.png")
    assert again.metadata.mode == "LA"
    assert np.array_equal(again.pixels, found.pixels)


# --- round trips ---


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    dtype=st.sampled_from([np.uint8, np.uint16]),
    suffix=st.sampled_from([".png", ".tiff"]),
    alpha=st.booleans(),
    grey=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_lossless_round_trip(
    tmp_path_factory: pytest.TempPathFactory, height: int, width: int, dtype: Any, suffix: str, alpha: bool,
    grey: bool, seed: int,
) -> None:  # fmt: skip
    source = picture(height, width, dtype, alpha=alpha, seed=seed, mode="L" if grey else "RGB")
    if grey:
        source = replace(source, pixels=np.repeat(source.pixels[..., :1], 3, axis=2))
    before = source.pixels.copy()
    path = tmp_path_factory.mktemp("trip") / f"p{suffix}"
    write_image(path, source)
    back = read_image(path)
    assert np.array_equal(source.pixels, before)
    assert back.pixels.dtype == dtype
    assert np.array_equal(back.pixels, source.pixels)
    assert back.metadata.grey == grey
    assert (back.alpha is None) == (source.alpha is None)
    assert source.alpha is None or np.array_equal(back.alpha, source.alpha)  # type: ignore[arg-type]
    other = by_opencv(path) if suffix == ".png" else tifffile.imread(path)
    assert np.array_equal(np.reshape(other, (height, width, -1))[..., 0], source.pixels[..., 0])


def test_real_photo_round_trips_through_every_format(tmp_path: Path, photos: list[Path]) -> None:
    source = read_image(photos[0])
    with Image.open(photos[0]) as image:
        assert np.array_equal(source.pixels, np.asarray(image.convert("RGB")))
    for name, floor in {"a.png": None, "a.tif": None, "a.bmp": None, "a.jpg": 40.0, "a.webp": 38.0}.items():
        write_image(tmp_path / name, source)
        error = read_image(tmp_path / name).pixels.astype(float) - source.pixels
        if floor is None:
            assert not error.any(), name
        else:
            assert 10 * np.log10(255**2 / (error**2).mean()) > floor, name
    write_image(tmp_path / "exact.webp", source, lossless=True)
    assert np.array_equal(read_image(tmp_path / "exact.webp").pixels, source.pixels)
    write_image(tmp_path / "small.jpg", source, quality=30)
    assert (tmp_path / "small.jpg").stat().st_size < (tmp_path / "a.jpg").stat().st_size / 3


def test_16_bits_are_rounded_for_jpeg_and_webp(tmp_path: Path) -> None:
    ramp = np.arange(DEEP + 1, dtype=np.uint16).reshape(256, 256)
    write_image(tmp_path / "r.webp", Picture(np.dstack([ramp] * 3)), lossless=True)
    found = read_image(tmp_path / "r.webp").pixels
    assert np.array_equal(found[..., 0], np.rint(ramp / 257))
    write_image(tmp_path / "r.jpg", Picture(np.dstack([ramp] * 3)))
    assert read_image(tmp_path / "r.jpg").metadata.bits == 8


def test_paeth_and_the_other_filters_pay(tmp_path: Path) -> None:
    y, x = np.mgrid[0:256, 0:256]
    smooth = np.dstack([x * 128 + y * 64, y * 200, x * 30 + 9000]).astype(np.uint16)
    write_image(tmp_path / "s.png", Picture(smooth))
    assert np.array_equal(read_image(tmp_path / "s.png").pixels, smooth)
    assert (tmp_path / "s.png").stat().st_size < len(zlib.compress(smooth.tobytes())) / 4


# --- sample layouts ---


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "I;16"])
def test_modes_and_their_transparency(tmp_path: Path, mode: str, photos: list[Path]) -> None:
    with Image.open(photos[0]) as image:
        small = image.convert("RGB").resize((40, 30))
    if mode == "I;16":
        image = Image.fromarray(noise(30, 40, 1)[..., 0])
    elif mode == "P":
        image = small.quantize(16)
    else:
        image = small.convert(mode)
    options: dict[str, Any] = {}
    if mode == "P":
        options["transparency"] = bytes([0, 90, 255])
    elif "A" in mode:
        image.putalpha(Image.linear_gradient("L").resize((40, 30)))
    image.save(tmp_path / "m.png", **options)
    found = read_image(tmp_path / "m.png")
    assert found.metadata.mode == mode
    with Image.open(tmp_path / "m.png") as stored:
        if mode == "I;16":
            assert np.array_equal(found.pixels[..., 2], np.asarray(stored))
            assert found.alpha is None
            return
        expected = np.asarray(stored.convert("RGBA"))
    assert np.array_equal(found.pixels, expected[..., :3])
    assert (found.alpha is not None) == (mode in ("LA", "P", "RGBA"))
    if found.alpha is not None:
        assert len(np.unique(found.alpha)) > 2
        assert np.array_equal(found.alpha, expected[..., 3])


def test_transparent_colour_becomes_alpha(tmp_path: Path) -> None:
    image = Image.new("RGB", (5, 4), (10, 20, 30))
    image.putpixel((2, 1), (1, 2, 3))
    image.save(tmp_path / "t.png", transparency=(1, 2, 3))
    found = read_image(tmp_path / "t.png")
    assert found.alpha is not None
    assert np.argwhere(found.alpha == 0).tolist() == [[1, 2]]


def test_grey_stays_grey_and_keeps_a_grey_profile_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    grey_icc = SRGB[:16] + b"GRAY" + SRGB[20:]
    Image.linear_gradient("L").save(tmp_path / "g.png", icc_profile=grey_icc)
    found = read_image(tmp_path / "g.png")
    tinted = found.with_pixels(np.clip(found.pixels + np.array([0, 2, 0]), 0, 255).astype(np.uint8))
    for name in ("g.jpg", "g2.png", "g.tif"):
        write_image(tmp_path / name, tinted)
        with Image.open(tmp_path / name) as image:
            assert (image.mode, image.info["icc_profile"]) == ("L", grey_icc), name
    write_image(tmp_path / "g.webp", tinted)
    assert "GRAY" in caplog.text
    assert read_image(tmp_path / "g.webp").metadata.icc is None


def cmyk_profile() -> bytes:
    """A CMYK profile whose only ink that shows is black: grid of 2 per ink, to Lab."""
    grid = b"".join(
        bytes([0 if ink & 1 else 255, 128, 128])  # last input (black) varies fastest
        for ink in range(16)
    )
    identity = bytes(range(256))
    matrix = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + matrix + identity * 4 + grid + identity * 3
    table += bytes(-len(table) % 4)
    header = struct.pack(">I4sI4s4s4s", 132 + 12 + len(table), bytes(4), 0x02100000, b"prtr", b"CMYK", b"Lab ")
    header += struct.pack(">6H4s4sI4sI8sI3iI", 2024, 1, 1, 0, 0, 0, b"acsp", bytes(4), 0, bytes(4), 0, bytes(8), 0,
                          63190, 65536, 54061, 0)  # fmt: skip
    return header.ljust(128, b"\0") + struct.pack(">I4sII", 1, b"A2B0", 144, len(table)) + table


def test_cmyk_goes_through_its_profile(tmp_path: Path) -> None:
    image = Image.new("CMYK", (16, 16), (200, 0, 0, 0))
    image.save(tmp_path / "plain.tif")
    red, green, blue = read_image(tmp_path / "plain.tif").pixels[8, 8].tolist()
    assert red < 80 < green
    assert green == blue == 255
    image.save(tmp_path / "managed.tif", icc_profile=cmyk_profile())
    managed = read_image(tmp_path / "managed.tif")
    assert managed.pixels[8, 8].min() >= 250  # its cyan does not show
    assert managed.metadata.icc is None
    Image.new("CMYK", (16, 16), (0, 0, 0, 255)).save(tmp_path / "black.jpg", icc_profile=cmyk_profile())
    assert read_image(tmp_path / "black.jpg").pixels.max() <= 5
    image.save(tmp_path / "broken.tif", icc_profile=cmyk_profile()[:150].ljust(len(cmyk_profile()), b"\0"))
    assert np.array_equal(read_image(tmp_path / "broken.tif").pixels[8, 8], [red, green, blue])


def test_lab(tmp_path: Path) -> None:
    white_and_red = np.array([[[255, 0, 0], [136, 81, 70]]], dtype=np.uint8)
    tifffile.imwrite(tmp_path / "lab.tif", white_and_red, photometric="cielab")
    white, red = read_image(tmp_path / "lab.tif").pixels[0].tolist()
    assert min(white) >= 254
    assert red[0] > 240 > 30 > max(red[1:])


def test_float_samples_are_refused(tmp_path: Path) -> None:
    Image.new("F", (4, 4), 0.5).save(tmp_path / "f.tif")
    with pytest.raises(InputError, match=r"f\.tif: floating-point"):
        read_image(tmp_path / "f.tif")


# --- what travels with the pixels ---


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_orientation_is_applied_once(tmp_path: Path, orientation: int, suffix: str) -> None:
    stored = np.zeros((24, 40, 3), dtype=np.uint8)
    stored[:12, :20] = (255, 0, 0)
    stored[12:, :20] = (0, 255, 0)
    path = tmp_path / f"o{suffix}"
    Image.fromarray(stored).save(path, exif=exif(orientation), quality=95)
    turned = {
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.swapaxes(0, 1),
        6: np.rot90(stored, -1),
        7: stored.swapaxes(0, 1)[::-1, ::-1],
        8: np.rot90(stored, 1),
    }[orientation]
    found = read_image(path)
    assert found.pixels.shape == turned.shape
    assert np.abs(found.pixels.astype(int) - turned)[2::8, 2::8].max() < 60
    write_image(tmp_path / f"again{suffix}", found)
    again = read_image(tmp_path / f"again{suffix}")
    assert np.abs(again.pixels.astype(int) - turned)[2::8, 2::8].max() < 60
    with Image.open(tmp_path / f"again{suffix}") as image:
        assert image.getexif().get(0x0112, 1) == 1


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_16_bit_orientation(tmp_path: Path, orientation: int) -> None:
    samples = noise(20, 31, 3)
    turned = {1: samples, 3: samples[::-1, ::-1], 6: np.rot90(samples, -1)}[orientation]
    body = exif(orientation)[6:]
    (tmp_path / "o.png").write_bytes(bare_png16(samples, png_chunk(b"eXIf", body)))
    assert np.array_equal(read_image(tmp_path / "o.png").pixels, turned)
    tag = (274, 3, 1, orientation, True)
    tifffile.imwrite(tmp_path / "o.tif", samples, photometric="rgb", extratags=[tag])
    assert np.array_equal(read_image(tmp_path / "o.tif").pixels, turned)


XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6" dc:rights="A. Person"/></x:xmpmeta>'


@pytest.mark.parametrize(
    ("suffix", "dtype"),
    [(".jpg", np.uint8), (".webp", np.uint8), *((s, d) for s in (".png", ".tif") for d in (np.uint8, np.uint16))],
)
@pytest.mark.parametrize("target", [".jpg", ".png", ".webp", ".tif"])
def test_profile_and_exif_travel(tmp_path: Path, suffix: str, dtype: Any, target: str) -> None:
    first = tmp_path / f"first{suffix}"
    upright = XMP.replace(b'"6"', b'"1"')
    write_image(first, picture(30, 50, dtype, icc=SRGB, exif=exif(1)[6:], xmp=upright, dpi=(300.0, 150.0)))
    again = tmp_path / f"again{target}"
    write_image(again, read_image(first))
    found = read_image(again).metadata
    assert found.icc == SRGB
    assert found.xmp == upright
    if ".webp" not in (suffix, target):
        assert found.dpi == pytest.approx((300, 150), rel=1e-3)
    with Image.open(again) as image:
        assert image.info["icc_profile"] == SRGB
        data = image.getexif()
        assert data[0x010F] == "A camera maker"
        details = data.get_ifd(0x8769)
        assert details[0xA434] == "A lens"
        assert (details[0xA002], details[0xA003]) == (50, 30)  # the picture as it is now
        assert data.get_ifd(0x8825)[1] == "N"


def test_orientation_from_xmp(tmp_path: Path) -> None:
    Image.new("RGB", (20, 10)).save(tmp_path / "x.webp", xmp=XMP)
    found = read_image(tmp_path / "x.webp")
    assert found.pixels.shape == (20, 10, 3)
    assert found.metadata.xmp == XMP.replace(b'"6"', b'"1"')


def test_maker_note_keeps_its_place_in_tiff(tmp_path: Path) -> None:
    note = bytes(range(256)) * 3
    data = Image.Exif()
    data[0x8769] = {0x927C: note}
    source = picture(5, 6, np.uint16, exif=data.tobytes()[6:])
    write_image(tmp_path / "n.tif", source)
    assert (tmp_path / "n.tif").read_bytes().index(note) == data.tobytes()[6:].index(note)


def test_exif_too_large_for_jpeg_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = Image.Exif()
    data[0x010E] = "x" * 70000
    write_image(tmp_path / "e.jpg", picture(5, 6, np.uint8, exif=data.tobytes()[6:]))
    assert "left out" in caplog.text
    assert read_image(tmp_path / "e.jpg").metadata.exif is None


@pytest.mark.parametrize(
    "bad", [b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff" + bytes(8), exif()[:40], b"Exif\0\0rubbish" * 9]
)
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_corrupt_exif_and_profile_are_dropped(
    tmp_path: Path, suffix: str, bad: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / f"c{suffix}"
    Image.new("RGB", (12, 10), (9, 9, 9)).save(path, exif=bad, icc_profile=SRGB[:100])
    found = read_image(path)
    assert (found.metadata.exif, found.metadata.icc) == (None, None)
    assert "ICC profile ignored" in caplog.text
    write_image(tmp_path / f"d{suffix}", found)


def test_corrupt_exif_in_tiff(tmp_path: Path) -> None:
    for dtype in (np.uint8, np.uint16):
        pointer = (0x8769, 4, 1, 0xFFFFFF, True)
        path = tmp_path / f"{dtype.__name__}.tif"
        tifffile.imwrite(path, noise(8, 9, 3, dtype), photometric="rgb", extratags=[pointer])
        assert np.array_equal(read_image(path).pixels, noise(8, 9, 3, dtype))


# --- bad input ---


def test_missing_directory_empty_text(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.png").write_text("This is no image.\n" * 20)
    cases = {"none.png": "no such file", ".": "is a directory", "empty.jpg": "empty", "text.png": "not an image"}
    for name, words in cases.items():
        with pytest.raises(InputError, match=words) as caught:
            read_image(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["p.jpg", "p.png", "p.webp", "p.tif", "deep.png", "deep.tif"])
def test_cut_off_files_are_errors(tmp_path: Path, name: str) -> None:
    whole = tmp_path / name
    write_image(whole, picture(64, 80, np.uint16 if "deep" in name else np.uint8))
    data = whole.read_bytes()
    for length in (1, 12, 30, 200, len(data) // 2, len(data) * 9 // 10):
        whole.write_bytes(data[:length])
        with pytest.raises(InputError, match="whole") as caught:
            read_image(whole)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_damaged_png(tmp_path: Path, dtype: Any) -> None:
    path = tmp_path / "d.png"
    source = picture(40, 30, dtype, icc=SRGB)
    write_image(path, source)
    data = path.read_bytes()
    at = data.index(b"IDAT") + 100
    path.write_bytes(data[:at] + bytes([data[at] ^ 16]) + data[at + 1 :])
    with pytest.raises(InputError, match="damaged"):
        read_image(path)


def test_16_bit_png_bad_profile_is_ignored_and_short_data_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    samples = noise(50, 40, 3)
    path = tmp_path / "s.png"
    path.write_bytes(bare_png16(samples, b"\0\0\0\5iCCPx\0\0zzcrc!", png_chunk(b"iCCP", b"x\0\0rubbish")))
    assert np.array_equal(read_image(path).pixels, samples)
    assert "iCCP" in caplog.text
    path.write_bytes(bare_png16(samples, cut=3000))
    with pytest.raises(InputError, match="damaged PNG"):
        read_image(path)


def test_too_many_pixels(tmp_path: Path) -> None:
    header = struct.pack(">IIBBBBB", 30000, 20000, 8, 2, 0, 0, 0)
    for bits in (8, 16):
        data = header[:8] + bytes([bits]) + header[9:]
        (tmp_path / "bomb.png").write_bytes(
            b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", data) + png_chunk(b"IDAT", zlib.compress(bytes(99)))
            + png_chunk(b"IEND", b"")
        )  # fmt: skip
        with pytest.raises(InputError, match="600 megapixels, over the limit"):
            read_image(tmp_path / "bomb.png")


def test_odd_shapes(tmp_path: Path) -> None:
    for shape in ((1, 1), (3, 20000), (20000, 3)):
        for name in ("s.jpg", "s.png", "s.tif"):
            source = picture(*shape, np.uint8)
            write_image(tmp_path / name, source, overwrite=True)
            assert read_image(tmp_path / name).pixels.shape == (*shape, 3)
    with pytest.raises(OutputError, match=r"20000x3 is too large for WEBP.*\.png"):
        write_image(tmp_path / "s.webp", picture(3, 20000, np.uint8))


def test_content_wins_over_suffix(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", picture(9, 7, np.uint8))
    (tmp_path / "a.png").rename(tmp_path / "a.jpg")
    assert read_image(tmp_path / "a.jpg").metadata.format == "PNG"


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".tif"])
def test_first_of_several(tmp_path: Path, suffix: str, caplog: pytest.LogCaptureFixture) -> None:
    red, blue = (Image.new("RGB", (20, 20), colour) for colour in ("red", "blue"))
    red.save(tmp_path / f"m{suffix}", save_all=True, append_images=[blue], lossless=True)
    assert read_image(tmp_path / f"m{suffix}").pixels[3, 3].tolist() == [255, 0, 0]
    assert "first of 2" in caplog.text


def test_many_threads_read_at_once(tmp_path: Path) -> None:
    names = ["t.jpg", "t.png", "t.tif", "deep.png", "deep.tif"]
    for name in names:
        write_image(tmp_path / name, picture(50, 60, np.uint16 if "deep" in name else np.uint8, exif=exif(1)[6:]))
    filters, limit = list(warnings.filters), Image.MAX_IMAGE_PIXELS
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda name: read_image(tmp_path / name).pixels, names * 20))
    for first, again in zip(found[:5] * 19, found[5:], strict=True):
        assert np.array_equal(first, again)
    assert (list(warnings.filters), Image.MAX_IMAGE_PIXELS) == (filters, limit)


def test_pillow_limit_is_left_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    write_image(tmp_path / "a.png", picture(30, 30, np.uint8))
    assert read_image(tmp_path / "a.png").pixels.shape == (30, 30, 3)
    assert Image.MAX_IMAGE_PIXELS == 100


# --- writing ---


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_existing_files_need_overwrite(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    first, second = picture(4, 4, np.uint8), picture(4, 4, np.uint8, seed=1)
    write_image(path, first)
    with pytest.raises(OutputError, match="--overwrite"):
        write_image(path, second)
    assert np.array_equal(read_image(path).pixels, first.pixels)
    write_image(path, second, overwrite=True)
    assert np.array_equal(read_image(path).pixels, second.pixels)
    assert leftovers(tmp_path) == ["a.png"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link.png").symlink_to(tmp_path / "real" / "a.png")
    write_image(tmp_path / "link.png", picture(4, 4, np.uint8))
    assert (tmp_path / "link.png").is_symlink()
    assert leftovers(tmp_path / "real") == ["a.png"]


def test_refusals_before_anything_is_made(tmp_path: Path) -> None:
    plain, clear = picture(4, 4, np.uint8), picture(4, 4, np.uint8, alpha=True)
    folder = tmp_path / "new"
    with pytest.raises(UsageError, match=r"'\.xyz'.*\.png"):
        write_image(folder / "a.xyz", plain)
    with pytest.raises(UsageError, match="quality 101"):
        write_image(folder / "a.jpg", plain, quality=101)
    with pytest.raises(UsageError, match="lossless"):
        write_image(folder / "a.jpg", plain, lossless=True)
    with pytest.raises(OutputError, match=r"alpha channel.*\.png"):
        write_image(folder / "a.jpg", clear)
    assert not folder.exists()
    write_image(folder / "deep" / "a.webp", clear, lossless=True)
    assert np.array_equal(read_image(folder / "deep" / "a.webp").alpha, clear.alpha)  # type: ignore[arg-type]


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "dir.png").mkdir()
    for path in (tmp_path / "file" / "a.png", tmp_path / "dir.png", tmp_path / ("n" * 300 + ".png")):
        with pytest.raises(OutputError) as caught:
            write_image(path, picture(4, 4, np.uint8), overwrite=True)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
    assert leftovers(tmp_path) == ["dir.png", "file"]
    with pytest.raises(OutputError):
        write_image(Path("/proc/a.png"), picture(4, 4, np.uint8))


LIMITED = """
import resource, sys
from pathlib import Path
import numpy as np
from uare_rt.errors import OutputError
from uare_rt.images import Picture, write_image
pixels = np.random.default_rng(0).integers(0, 256, (400, 400, 3)).astype(sys.argv[2])
if pixels.dtype == np.uint16:
    pixels *= 257
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
try:
    write_image(Path(sys.argv[1]), Picture(pixels))
except OutputError as error:
    sys.exit(str(error))
"""


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif", "a.webp", "a.bmp"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_nothing_is_left_when_the_system_stops_a_write(tmp_path: Path, name: str, dtype: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path / name), dtype], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "File too large" in done.stderr
    assert str(tmp_path / name) in done.stderr
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif", "a.webp", "a.bmp"])
def test_full_disk(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every write goes to a device that is always full."""
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    real_open = Path.open

    def open_full(self: Path, mode: str = "r", *args: Any, **options: Any) -> Any:
        if self.suffix == ".tmp":
            real_open(self, mode).close()
            return open("/dev/full", "wb")
        return real_open(self, mode, *args, **options)

    monkeypatch.setattr(Path, "open", open_full)
    with pytest.raises(OutputError, match=r"No space left on device.* MB free in .*free some space") as caught:
        write_image(tmp_path / name, picture(300, 300, np.uint8))
    assert str(tmp_path / name) in str(caught.value)
    assert leftovers(tmp_path) == []


def test_interrupted_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_image(tmp_path / "a.png", picture(4, 4, np.uint8))
    assert leftovers(tmp_path) == []


# --- pictures in memory, and lists of files ---


def test_with_pixels_resizes_alpha() -> None:
    for dtype in (np.uint8, np.uint16):
        top = np.iinfo(dtype).max
        half = np.zeros((8, 8), dtype=dtype)
        half[:, 4:] = top
        source = Picture(np.zeros((8, 8, 3), dtype=dtype), half)
        large = source.with_pixels(np.ones((16, 32, 3), dtype=dtype))
        assert large.alpha is not None
        assert (large.alpha.shape, large.alpha.dtype) == ((16, 32), dtype)
        assert (large.alpha[:, :10] == 0).all()
        assert (large.alpha[:, 22:] == top).all()


def test_pictures_are_checked() -> None:
    for pixels in (np.zeros((4, 4, 3)), np.zeros((4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(UsageError, match="uint8 or uint16"):
            Picture(pixels)
    with pytest.raises(UsageError, match="alpha"):
        Picture(np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5), np.uint8))


def test_list_images_of_a_relative_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").touch()
    monkeypatch.chdir(tmp_path)
    assert list_images(Path("photos")) == [Path("photos/a.png")]


def test_list_images(tmp_path: Path) -> None:
    for name in ("b.JPG", "a.png", ".hidden.png", "notes.txt", "sub/c.tiff", ".git/d.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    assert [path.name for path in list_images(tmp_path)] == ["a.png", "b.JPG"]
    assert list_images(tmp_path, recursive=True)[-1] == tmp_path / "sub" / "c.tiff"
    assert len(list_images(tmp_path, recursive=True)) == 3
    assert is_image(Path("x.WebP"))
    assert not is_image(Path("x.mp4"))
    with pytest.raises(InputError, match="gone"):
        list_images(tmp_path / "gone")


PEAK = """
import resource, sys
from uare_rt.images import read_image
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert read_image(sys.argv[1]).pixels.nbytes == 150_000_000
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_50_megapixels_hold_little_more_than_the_decoder_and_one_copy(tmp_path: Path) -> None:
    path = tmp_path / "big.jpg"
    Image.linear_gradient("L").resize((8000, 6250)).convert("RGB").save(path, quality=90)
    done = subprocess.run([sys.executable, "-c", PEAK, str(path)], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 200 + 150 + 40  # MiB: Pillow's four bytes a pixel, ours, and some room


def test_bytes_of_exif_survive_opening_elsewhere(tmp_path: Path) -> None:
    write_image(tmp_path / "a.tif", picture(6, 5, np.uint8, exif=exif(1)[6:]))
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        tags = file.pages[0].tags  # type: ignore[union-attr]
        assert tags["Make"].value == "A camera maker"
        assert tags["ExifTag"].value["LensModel"] == "A lens"
    with Image.open(io.BytesIO((tmp_path / "a.tif").read_bytes())) as image:
        assert image.getexif().get_ifd(0x8825)[2] == (48.0, 51.0, 30.0)
