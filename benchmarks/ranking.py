"""Does the score put a photograph above its own degraded versions?

usage: ranking.py PHOTOS [--bundle NAME.uare] [--check] [-o RESULT.json]
Every photo of the folder, whole, is assessed as it is and after noise, blur and compression of severity 0.5 each
(`uare_rt.degradation`, variant and parameters drawn with a seed made of the kind and the file's name).
"""

from __future__ import annotations

import argparse
import sys
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from results import Limit, Result, Table, add_options, bundle_facts, finish, photos_in, run_command, sha256_of

import uare_rt
from uare_rt.degradation import degrade, from_uint8, to_uint8
from uare_rt.images import read_image
from uare_rt.images.picture import eight_bit

__all__ = ["KINDS", "LEAST_SHARE", "SEVERITY", "main", "tables"]

KINDS = ("noise", "blur", "compression")
SEVERITY = 0.5
LEAST_SHARE = 0.9
"""Least share of photos that score above each of their degraded versions."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("photos", type=Path, help="folder of photographs")
    add_options(parser)
    chosen = parser.parse_args(arguments)
    photos = photos_in(chosen.photos)
    with uare_rt.load(chosen.bundle, backend=chosen.backend) as session:
        measured = _summary({photo.stem: _scores(session, photo) for photo in photos})
        backend = session.backend
    result = Result(
        benchmark="ranking",
        data={"photos_sha256": sha256_of(photos), "photos": len(photos)},
        bundle=bundle_facts(chosen.bundle),
        settings={"backend": backend, "severity": SEVERITY},
        measured=measured,
        limits=[Limit("photos ranked above all their versions", measured["all_right"], LEAST_SHARE, at_least=True)],
    )
    return finish(result, tables(measured), chosen)


def tables(measured: Mapping[str, Any]) -> list[Table]:
    """What was measured, for people."""
    count = len(measured["scores"])
    rows = [("clean", f"{measured['mean_score']['clean']:.2f}", "-")]
    rows += [(kind, f"{measured['mean_score'][kind]:.2f}", f"{measured['right'][kind]:.1%}") for kind in KINDS]
    rows += [("all pairs", "-", f"{measured['pairs_right']:.1%}"), ("all three", "-", f"{measured['all_right']:.1%}")]
    title = f"Score of {count} photos and of their versions at severity {SEVERITY}; share where the photo scores higher"
    return [Table(title, ("version", "mean score", "below the photo"), rows)]


def _degraded(pixels: NDArray[np.uint8], kind: str, name: str) -> NDArray[np.uint8]:
    rng = np.random.default_rng(zlib.crc32(f"{kind}/{name}".encode()))
    return to_uint8(degrade(from_uint8(pixels), kind, SEVERITY, rng).image)


def _scores(session: uare_rt.Session, photo: Path) -> dict[str, float]:
    pixels = eight_bit(read_image(photo)).pixels
    versions = {"clean": pixels, **{kind: _degraded(pixels, kind, photo.stem) for kind in KINDS}}
    return {name: round(session.assess(version).score, 4) for name, version in versions.items()}


def _summary(scores: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    right = {kind: [row["clean"] > row[kind] for row in scores.values()] for kind in KINDS}
    return {
        "right": {kind: float(np.mean(hits)) for kind, hits in right.items()},
        "pairs_right": float(np.mean(list(right.values()))),
        "all_right": float(np.mean(np.all(list(right.values()), axis=0))),
        "mean_score": {
            name: round(float(np.mean([row[name] for row in scores.values()])), 4) for name in ("clean", *KINDS)
        },
        "scores": {name: dict(row) for name, row in scores.items()},
    }


if __name__ == "__main__":
    sys.exit(run_command(main))
