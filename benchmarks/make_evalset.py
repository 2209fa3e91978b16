"""Make the fixed evaluation set: degraded PNGs beside their truth, from photographs. numpy and Pillow only, seeded.

usage: make_evalset.py PHOTO_DIR OUT_DIR [--size 512] [--limit N]
Writes OUT_DIR/truth/NAME.png, OUT_DIR/<type>/NAME.png for every type below (x2, x4 are the downscaled inputs) and OUT_DIR/manifest.json
(type definitions, input PSNR per file; for x2/x4 against the bicubic upscale). Types are physical, not severities:
noise15/25/50  white Gaussian noise, sigma in 8-bit levels        jpeg10/20/40  Pillow JPEG, 4:2:0
blur1/blur2    Gaussian, sigma in pixels                           x2, x4        Pillow antialiased bicubic downscale
lowlight       linear light x 0.15, back to sRGB, then read noise sigma 4 levels
haze           linear light t*J + (1-t)*0.8, t smooth in 0.35..0.75 (mean about 0.55)
mix_a  blur 1.2 > noise 12 > JPEG 40      mix_b  x2 down, bicubic up > noise 8 > JPEG 30
mix_c  lowlight (x 0.3) > blur 0.8 > JPEG 50   mix_d  haze > noise 10 > JPEG 60      clean  the truth itself
"""  # noqa: E501 - this text is written into every manifest, whose bytes are fixed

from __future__ import annotations

import argparse
import io
import json
import sys
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

# Every figure of the project refers to these exact bytes: float64 arithmetic, rounding after each stage and the
# order of random draws must stay as they are.
Pixels = NDArray[np.uint8]
Degrade = Callable[[Pixels, np.random.Generator], Pixels]

SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".bmp"}


def _quantise(values: NDArray[np.float64]) -> Pixels:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _linear(pixels: Pixels) -> NDArray[np.float64]:
    value = pixels.astype(np.float64) / 255.0
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def _srgb(light: NDArray[np.float64]) -> NDArray[np.float64]:
    light = np.clip(light, 0, 1)
    return 255.0 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def _noise(values: Pixels | NDArray[np.float64], sigma: float, rng: np.random.Generator) -> Pixels:
    return _quantise(values + rng.normal(0, sigma, values.shape))


def _jpeg(pixels: Pixels, quality: int) -> Pixels:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality, subsampling=2)
    with Image.open(buffer) as decoded:
        return np.asarray(decoded.convert("RGB"))


def _blur(pixels: Pixels, sigma: float) -> Pixels:
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(sigma)))


def resize(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """Bicubic, antialiased: uint8 [H, W, 3] to a width and height."""
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))


def _size(pixels: Pixels) -> tuple[int, int]:
    return pixels.shape[1], pixels.shape[0]


def _shrink(pixels: Pixels, factor: int) -> Pixels:
    width, height = _size(pixels)
    return resize(pixels, (width // factor, height // factor))


def _low_light(pixels: Pixels, gain: float, rng: np.random.Generator) -> Pixels:
    return _noise(_srgb(_linear(pixels) * gain), 4, rng)


def _haze(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    grid = Image.fromarray(rng.uniform(0.35, 0.75, (4, 4)).astype(np.float32))
    t = np.asarray(grid.resize(_size(pixels), Image.Resampling.BICUBIC))[..., None]
    return _quantise(_srgb(_linear(pixels) * t + (1 - t) * 0.8))


def _noise_type(sigma: float) -> Degrade:
    return lambda pixels, rng: _noise(pixels, sigma, rng)


def _jpeg_type(quality: int) -> Degrade:
    return lambda pixels, rng: _jpeg(pixels, quality)


TYPES: Mapping[str, Degrade] = {
    **{f"noise{sigma}": _noise_type(sigma) for sigma in (15, 25, 50)},
    **{f"jpeg{quality}": _jpeg_type(quality) for quality in (10, 20, 40)},
    "blur1": lambda pixels, rng: _blur(pixels, 1.0),
    "blur2": lambda pixels, rng: _blur(pixels, 2.0),
    "x2": lambda pixels, rng: _shrink(pixels, 2),
    "x4": lambda pixels, rng: _shrink(pixels, 4),
    "lowlight": lambda pixels, rng: _low_light(pixels, 0.15, rng),
    "haze": _haze,
    "mix_a": lambda pixels, rng: _jpeg(_noise(_blur(pixels, 1.2), 12, rng), 40),
    "mix_b": lambda pixels, rng: _jpeg(_noise(resize(_shrink(pixels, 2), _size(pixels)), 8, rng), 30),
    "mix_c": lambda pixels, rng: _jpeg(_blur(_low_light(pixels, 0.3, rng), 0.8), 50),
    "mix_d": lambda pixels, rng: _jpeg(_noise(_haze(pixels, rng), 10, rng), 60),
    "clean": lambda pixels, rng: pixels,
}


def psnr(result: Pixels, truth: Pixels) -> float:
    """Peak signal-to-noise ratio in dB, at most 78: uint8 [H, W, 3] both."""
    error = np.mean((result.astype(np.float64) - truth) ** 2)
    return float(10 * np.log10(255**2 / max(error, 1e-3)))


def _truth(photo: Path, size: int) -> Pixels:
    with Image.open(photo) as opened:
        picture = opened.convert("RGB")
    width, height = (min(side, size) // 16 * 16 for side in picture.size)
    x, y = (picture.width - width) // 2, (picture.height - height) // 2
    return np.asarray(picture.crop((x, y, x + width, y + height)))


def make_evalset(photos: Path, out: Path, *, size: int = 512, limit: int | None = None) -> dict[str, float]:
    """Write the evaluation set.

    Args:
        photos: folder of photographs; taken in the order of their names.
        out: folder to write into, made where missing.
        size: longest side in pixels of the centre crop, rounded down to a multiple of 16.
        limit: only the first so many photographs.

    Returns:
        Mean input PSNR in dB by type.

    Raises:
        ValueError: the folder holds no photograph.
    """
    rows: dict[str, dict[str, float]] = {name: {} for name in TYPES}
    found = sorted(path for path in photos.iterdir() if path.suffix.lower() in SUFFIXES)[:limit]
    if not found:
        raise ValueError(f"{photos} holds no photograph; files ending in {', '.join(sorted(SUFFIXES))} are taken")
    for photo in found:
        truth = _truth(photo, size)
        versions = {"truth": truth}
        for name, degrade in TYPES.items():
            rng = np.random.default_rng(zlib.crc32(f"{name}/{photo.stem}".encode()))
            degraded = versions[name] = degrade(truth, rng)
            same_size = degraded if degraded.shape == truth.shape else resize(degraded, _size(truth))
            rows[name][photo.stem] = round(psnr(same_size, truth), 3)
        for name, pixels in versions.items():
            (out / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(out / name / f"{photo.stem}.png")
    means = {name: round(float(np.mean(list(row.values()))), 2) for name, row in rows.items()}
    manifest = {"definitions": __doc__, "mean_input_psnr": means, "input_psnr": rows}
    (out / "manifest.json").write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    return means


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("photos", type=Path, help="folder of photographs")
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--size", type=int, default=512, help="longest side of the crops in pixels")
    parser.add_argument("--limit", type=int, help="take only the first so many photographs")
    chosen = parser.parse_args()
    if not chosen.photos.is_dir():
        parser.error(f"{chosen.photos} is not a folder of photographs")
    try:
        means = make_evalset(chosen.photos, chosen.out, size=chosen.size, limit=chosen.limit)
    except ValueError as error:
        parser.error(str(error))
    sys.stdout.write(json.dumps(means) + "\n")


if __name__ == "__main__":
    main()
