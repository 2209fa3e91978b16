"""Peak memory of restoring large pictures, and whether tiles change the result.

usage: memory.py [--bundle NAME.uare] [--megapixels 50] [--check] [-o RESULT.json]
A made picture (noise of several sizes, seeded) of 50 megapixels and one of 3840x2160 are restored by `uare-rt restore`,
JPEG to JPEG, in processes of their own. Then pictures of 2 megapixels (x1) and half a megapixel (x2) are restored
whole and in small tiles with one context; compared are float32 pixels farther than 32 px from the picture's edge.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from processes import console_script, run_measured
from results import Limit, Result, Table, add_options, bundle_facts, finish, run_command, sha256_of

import uare_rt
from uare_rt.errors import UareError
from uare_rt.tiling import smallest_tile

__all__ = ["MOST_DIFFERENCE", "MOST_MEMORY", "made_picture", "main", "tables"]

MOST_MEMORY = 1.5
"""Largest peak while restoring the large picture, in GB (10^9 bytes)."""
MOST_DIFFERENCE = 1 / 255
"""Largest difference between tiled and whole, of samples in [0, 1]."""

_FRAME = (3840, 2160)
_WHOLE = {1: (1733, 1155), 2: (867, 577)}  # width and height by scale; odd, so that padding takes part
_BORDER = 32  # input px from the picture's edge that are not compared
_SEED = 50
_OCTAVES = (512, 64, 8)  # px per noise cell, coarse to fine, each with half the contrast of the one before


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--megapixels", type=float, default=50.0, help="size of the large picture")
    add_options(parser)
    chosen = parser.parse_args(arguments)
    if not 0.1 <= chosen.megapixels <= 150:
        parser.error(f"--megapixels {chosen.megapixels}: give 0.1 to 150")
    facts = bundle_facts(chosen.bundle)
    width = round(math.sqrt(chosen.megapixels * 1.5e6))
    sizes = {"large": (width, round(chosen.megapixels * 1e6 / width)), "4k": _FRAME}
    options = ["--backend", chosen.backend] + ([] if chosen.bundle is None else ["--bundle", str(chosen.bundle)])
    with tempfile.TemporaryDirectory() as folder:
        sources = {name: Path(folder, f"{name}.jpg") for name in sizes}
        for name, size in sizes.items():
            made_picture(*size).save(sources[name], quality=90)
        digest = sha256_of(sources.values())
        peaks = {name: _peak(sources[name], sizes[name], options) for name in sizes}
    with uare_rt.load(chosen.bundle, backend=chosen.backend) as session:
        backend = session.backend
        tiled = {f"x{scale}": _difference(session, scale, *size) for scale, size in _WHOLE.items()}
    measured = {"restore": peaks, "tiled": tiled}
    result = Result(
        benchmark="memory",
        data={"pictures_sha256": digest, "seed": _SEED},
        bundle=facts,
        settings={"backend": backend, "megapixels": chosen.megapixels},
        measured=measured,
        limits=_limits(measured),
    )
    return finish(result, tables(measured), chosen)


def tables(measured: Mapping[str, Any]) -> list[Table]:
    """What was measured, for people."""
    peaks = [
        (
            f"{row['width']}x{row['height']}, {row['width'] * row['height'] / 1e6:.1f} MP",
            f"{row['peak_gb']:.2f}",
            f"{row['seconds']:.1f}",
            f"{row['cpu_seconds']:.1f}",
        )
        for row in measured["restore"].values()
    ]
    tiled = [
        (
            f"{row['width']}x{row['height']} {scale}",
            str(row["tiles"]),
            f"{row['largest'] * 255:.4f}",
            f"{row['largest_anywhere'] * 255:.4f}",
        )
        for scale, row in measured["tiled"].items()
    ]
    return [
        Table("uare-rt restore of one JPEG, process as a whole", ("picture", "peak GB", "wall s", "CPU s"), peaks),
        Table(
            "Tiled against whole, largest difference in levels of 255",
            ("picture", "tiles", f"more than {_BORDER} px inside", "all of it"),
            tiled,
        ),
    ]


def made_picture(width: int, height: int) -> Image.Image:
    """A picture that looks a little like nature: noise of several sizes, always the same for the same size."""
    rng = np.random.default_rng(_SEED)
    picture = Image.new("RGB", (width, height), (128, 128, 128))
    for cell in _OCTAVES:
        grid = rng.integers(0, 256, (height // cell + 2, width // cell + 2, 3), dtype=np.uint8)
        layer = Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC)
        picture = Image.blend(picture, layer, 0.5 if cell == _OCTAVES[0] else 0.25)
    return picture


def _peak(source: Path, size: tuple[int, int], options: Sequence[str]) -> dict[str, Any]:
    target = source.with_name(f"{source.stem}-restored.jpg")
    run = run_measured([*console_script("uare-rt"), "restore", str(source), "-o", str(target), *options])
    if run.exit_code:
        raise UareError(f"uare-rt restore of {size[0]}x{size[1]} failed ({run.exit_code}): {run.stderr.strip()}")
    return {
        "width": size[0],
        "height": size[1],
        "peak_gb": round(run.peak_rss / 1e9, 4),
        "seconds": round(run.wall, 2),
        "cpu_seconds": round(run.cpu, 2),
    }


def _difference(session: uare_rt.Session, scale: int, width: int, height: int) -> dict[str, Any]:
    frame = np.asarray(made_picture(width, height), np.float32) / np.float32(255)
    context = session.assess(frame).context
    tiling = session.manifest.tiling
    whole = session.restore(frame, scale=scale, context=context, tile=2 * max(width, height))
    tiled = session.restore(frame, scale=scale, context=context, tile=smallest_tile(tiling) + 2 * tiling.grid)
    if whole.tiles != 1 or tiled.tiles < 2:
        raise UareError(
            f"{width}x{height} took {whole.tiles} tiles whole and {tiled.tiles} in tiles; nothing to compare"
        )
    apart = np.abs(whole.image - tiled.image)
    inside = apart[_BORDER * scale : -_BORDER * scale, _BORDER * scale : -_BORDER * scale]
    return {
        "width": width,
        "height": height,
        "tiles": tiled.tiles,
        "largest": float(inside.max()),
        "largest_anywhere": float(apart.max()),
    }


def _limits(measured: Mapping[str, Any]) -> list[Limit]:
    large = measured["restore"]["large"]
    return [
        Limit(
            f"peak memory, {large['width'] * large['height'] / 1e6:.0f} megapixels",
            large["peak_gb"],
            MOST_MEMORY,
            at_least=False,
            unit="GB",
        ),
        *(
            Limit(
                f"tiled against whole, {scale}",
                row["largest"] * 255,
                MOST_DIFFERENCE * 255,
                at_least=False,
                unit="levels of 255",
            )
            for scale, row in measured["tiled"].items()
        ),
    ]


if __name__ == "__main__":
    sys.exit(run_command(main))
