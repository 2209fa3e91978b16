"""Restore and assess an evaluation set and compare with its truth.

usage: evaluate.py EVALSET [--bundle NAME.uare] [--check] [-o RESULT.json]
EVALSET is a folder written by make_evalset.py. Every picture goes through `Session.restore` as 8-bit RGB, guided by its
own assessment, at the scale of its type. Inputs of x2 and x4 are measured after bicubic enlargement. PSNR in dB and
SSIM (Gaussian window of 1.5 px, mean of the channels) are averaged over the pictures.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from make_evalset import psnr, resize
from numpy.typing import NDArray
from results import Limit, Result, Table, add_options, bundle_facts, finish, run_command, sha256_of

import uare_rt
from uare_rt.errors import InputError, MissingExtraError
from uare_rt.images import read_image
from uare_rt.slots import DEGRADATIONS

__all__ = ["GAINS", "LEAST_CLEAN", "EvaluationSet", "main", "tables"]

Pixels = NDArray[np.uint8]

GAINS: Mapping[str, float] = {
    "noise25": 7.5,
    "jpeg20": 0.4,
    "blur2": 0.3,
    "lowlight": 5.0,
    "haze": 4.0,
    "mix_a": 1.0,
}
"""Least gain of PSNR over the input by type, in dB."""

LEAST_CLEAN = 36.0
"""Least PSNR of an undamaged picture after restoration, in dB."""

_SAME = 0.002  # dB; the set's own figures are rounded to 0.001


@dataclass(frozen=True)
class EvaluationSet:
    """A folder written by make_evalset.py.

    Attributes:
        folder: the folder.
        input_psnr: for every type the input PSNR of every picture by name, in dB.
    """

    folder: Path
    input_psnr: Mapping[str, Mapping[str, float]]

    @classmethod
    def open(cls, folder: Path, limit: int | None = None) -> EvaluationSet:
        """Read the manifest of a set; with a limit only its first pictures.

        Raises:
            InputError: the folder is not an evaluation set.
        """
        try:
            rows = json.loads((folder / "manifest.json").read_bytes())["input_psnr"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{folder} is not an evaluation set ({error}); write one with: python benchmarks/make_evalset.py"
            ) from error
        return cls(folder, {kind: dict(list(row.items())[:limit]) for kind, row in rows.items()})

    def picture(self, kind: str, name: str) -> Pixels:
        """One picture of a type, or of `truth`: uint8 [H, W, 3], RGB."""
        return read_image(self.folder / kind / f"{name}.png").pixels

    def pictures(self, kind: str) -> Iterator[tuple[str, Pixels, Pixels]]:
        """Name, degraded picture and truth of everything of one type."""
        for name in self.input_psnr[kind]:
            yield name, self.picture(kind, name), self.picture("truth", name)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("evalset", type=Path, help="folder written by make_evalset.py")
    parser.add_argument("--limit", type=int, help="only the first so many pictures of each type")
    add_options(parser)
    chosen = parser.parse_args(arguments)
    if chosen.limit is not None and chosen.limit < 1:
        parser.error(f"--limit {chosen.limit}: give at least 1")
    evalset = EvaluationSet.open(chosen.evalset, chosen.limit)
    with uare_rt.load(chosen.bundle, backend=chosen.backend) as session:
        measured = {}
        for kind in evalset.input_psnr:
            measured[kind] = _measure(session, evalset, kind)
            if sys.stderr.isatty():
                sys.stderr.write(f"{kind}: {measured[kind]['output_psnr']:.2f} dB\n")
        backend = session.backend
    result = Result(
        benchmark="evaluate",
        data={"manifest_sha256": sha256_of([chosen.evalset / "manifest.json"]), "pictures": _count(measured)},
        bundle=bundle_facts(chosen.bundle),
        settings={"backend": backend, "limit": chosen.limit},
        measured=measured,
        limits=_limits(measured),
    )
    return finish(result, tables(measured), chosen)


def tables(measured: Mapping[str, Any]) -> list[Table]:
    """What was measured, for people."""
    headers = (
        "type",
        "input dB",
        "output dB",
        "gain dB",
        "input SSIM",
        "output SSIM",
        "score",
        *DEGRADATIONS,
        "s/image",
    )
    rows = [
        (
            kind,
            *(f"{row[key]:.2f}" for key in ("input_psnr", "output_psnr")),
            f"{row['gain']:+.2f}",
            *(f"{row[key]:.3f}" for key in ("input_ssim", "output_ssim")),
            f"{row['score']:.2f}",
            *(f"{row['severities'][slot]:.2f}" for slot in DEGRADATIONS),
            f"{row['seconds']:.2f}",
        )
        for kind, row in measured.items()
    ]
    return [
        Table(f"Mean over {_count(measured)} pictures of each type; score and severities of the input", headers, rows)
    ]


def _count(measured: Mapping[str, Any]) -> int:
    return max((row["pictures"] for row in measured.values()), default=0)


def _measure(session: uare_rt.Session, evalset: EvaluationSet, kind: str) -> dict[str, Any]:
    rows = [_compare(session, evalset, kind, name, *pair) for name, *pair in evalset.pictures(kind)]
    mean = {key: float(np.mean([row[key] for row in rows])) for key in rows[0] if key != "severities"}
    severities = {slot: float(np.mean([row["severities"][slot] for row in rows])) for slot in DEGRADATIONS}
    return {
        "pictures": len(rows),
        **{key: round(value, 4) for key, value in mean.items()},
        "gain": round(mean["output_psnr"] - mean["input_psnr"], 4),
        "severities": {slot: round(value, 4) for slot, value in severities.items()},
    }


def _compare(
    session: uare_rt.Session, evalset: EvaluationSet, kind: str, name: str, degraded: Pixels, truth: Pixels
) -> dict[str, Any]:
    scale = truth.shape[0] // degraded.shape[0]
    restored = session.restore(degraded, scale=scale)
    same_size = degraded if scale == 1 else resize(degraded, (truth.shape[1], truth.shape[0]))
    before, written = psnr(same_size, truth), evalset.input_psnr[kind][name]
    if abs(before - written) > _SAME:
        raise InputError(
            f"{evalset.folder / kind / name}.png: {before:.3f} dB, its manifest says {written:.3f}; make it again"
        )
    assert restored.assessment is not None
    return {
        "input_psnr": before,
        "output_psnr": psnr(restored.image, truth),
        "input_ssim": _ssim(same_size, truth),
        "output_ssim": _ssim(restored.image, truth),
        "score": restored.assessment.score,
        "severities": restored.assessment.severities,
        "seconds": restored.seconds,
    }


def _ssim(result: Pixels, truth: Pixels) -> float:
    try:
        from skimage.metrics import structural_similarity
    except ImportError as error:
        raise MissingExtraError("scikit-image", "bench") from error
    value = structural_similarity(
        truth, result, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    return float(value)


def _limits(measured: Mapping[str, Any]) -> list[Limit]:
    gains = [
        Limit(f"{kind} gain", measured.get(kind, {}).get("gain"), least, at_least=True, unit="dB")
        for kind, least in GAINS.items()
    ]
    clean = measured.get("clean", {}).get("output_psnr")
    return [*gains, Limit("clean output", clean, LEAST_CLEAN, at_least=True, unit="dB")]


if __name__ == "__main__":
    sys.exit(run_command(main))
