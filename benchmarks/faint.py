"""Whether faint noise alone changes the tone of a picture, and whether it is removed without harm.

usage: faint.py FOLDER [--limit N] [--size 256] [--check] [-o RESULT.json]
White Gaussian noise of 0.5 to 5 levels is put on the middle of every photograph in a folder, at normal light; each is
assessed and restored. Compared with the photograph are the mean level of the result and its PSNR.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from results import Limit, Result, Table, add_options, bundle_facts, finish, run_command, sha256_of

import uare_rt
from uare_rt.errors import InputError
from uare_rt.images import read_image
from uare_rt.session import Session

__all__ = ["LEVELS", "MOVED", "SHIFT", "main", "tables"]

LEVELS = (0.5, 1.0, 2.0, 5.0)
"""Deviations of the noise, in levels of 255."""
SHIFT = 4.0
"""Levels that the mean of a picture may move."""
MOVED = 0.05
"""Share of the cases that may move more: a dark photograph with noise is just what low light looks like."""
_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="photographs without noise")
    parser.add_argument("--limit", type=int, help="only the first so many")
    parser.add_argument("--size", type=int, default=256, help="side of the middle part that is taken")
    add_options(parser)
    chosen = parser.parse_args(arguments)
    paths = sorted(path for path in chosen.folder.glob("*") if path.suffix.lower() in _SUFFIXES)[: chosen.limit]
    if not paths:
        raise InputError(f"{chosen.folder}: no pictures; give a folder with photographs")
    facts = bundle_facts(chosen.bundle)
    with uare_rt.load(chosen.bundle, backend=chosen.backend) as session:
        if not isinstance(session, Session):
            raise InputError(f"{chosen.bundle}: this is for uare-nano bundles")
        cases = {level: [_case(session, _middle(path, chosen.size), level) for path in paths] for level in LEVELS}
    measured = {f"{level:g}": _summary(found) for level, found in cases.items()}
    moved = [abs(shift) > SHIFT for found in cases.values() for shift, _, _ in found]
    result = Result(
        benchmark="faint",
        data={"sha256": sha256_of(paths), "pictures": len(paths), "size": chosen.size},
        bundle=facts,
        settings={"backend": chosen.backend},
        measured=measured,
        limits=[Limit("pictures whose tone faint noise moves", float(np.mean(moved)), MOVED, at_least=False)],
    )
    return finish(result, tables(measured), chosen)


def _middle(path: Path, size: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    pixels = read_image(path).pixels
    top, left = ((side - size) // 2 for side in pixels.shape[:2])
    return pixels[max(0, top) : max(0, top) + size, max(0, left) : max(0, left) + size]


def _case(session: Session, truth: np.ndarray[Any, np.dtype[np.uint8]], level: float) -> tuple[float, float, float]:
    """Shift of the mean level, and PSNR before and after."""
    noise = np.random.default_rng(0).normal(0, level, truth.shape)
    frame = np.clip(truth + noise, 0, 255).round().astype(np.uint8)
    restored = session.restore(frame, context=session.assess(frame).context).image
    return float(restored.mean() - truth.mean()), _psnr(frame, truth), _psnr(restored, truth)


def _psnr(first: np.ndarray[Any, Any], second: np.ndarray[Any, Any]) -> float:
    error = float(np.mean((first.astype(np.float64) - second) ** 2))
    return float(10 * np.log10(255**2 / max(error, 1e-3)))


def _summary(found: Sequence[tuple[float, float, float]]) -> dict[str, float]:
    shifts, before, after = (np.array(column) for column in zip(*found, strict=True))
    return {
        "input_psnr_db": round(float(before.mean()), 3),
        "psnr_db": round(float(after.mean()), 3),
        "least_gain_db": round(float((after - before).min()), 3),
        "moved": round(float(np.mean(np.abs(shifts) > SHIFT)), 4),
        "median_shift": round(float(np.median(np.abs(shifts))), 3),
        "largest_shift": round(float(np.abs(shifts).max()), 3),
    }


def tables(measured: Mapping[str, Any]) -> list[Table]:
    """What was measured, for people."""
    headers = (
        "noise, levels",
        "input dB",
        "restored dB",
        "least gain dB",
        "tone moved",
        "median shift",
        "largest shift",
    )
    rows = [
        (
            level,
            *(f"{row[key]:.2f}" for key in ("input_psnr_db", "psnr_db", "least_gain_db")),
            f"{row['moved']:.1%}",
            *(f"{row[key]:.2f}" for key in ("median_shift", "largest_shift")),
        )
        for level, row in measured.items()
    ]
    return [Table("Faint noise at normal light", headers, rows)]


if __name__ == "__main__":
    sys.exit(run_command(main))
