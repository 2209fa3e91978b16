"""Fit the full-reference teacher: the curves and weights of training/teacher.yaml.

usage: fit_teacher.py PHOTOS [--photos 20] -o training/teacher.yaml
From the centre of photographs (256x256) it makes two kinds of pairs:
- rated: `uare_rt.training.rated`, four kinds of distortion at five levels with TID2013's mean opinions as scores;
- mixed: samples of the training's degradations (one, several, second order), which reach farther down.
Each measure is mapped by isotonic regression of the rated scores on its values, read at levels 2, 3, 4 and 4.5; 5 lies
at the value of equal pictures, 1 at the value that the worst 2 % of the mixed pairs exceed. The weights are chosen, not
fitted: the rated scores have four kinds whose levels are set by PSNR, so that least squares would leave little but
PSNR; it has a quarter, MDSI, which follows opinions best among the others and alone sees colour, three tenths. The last
curve is made like the others from the mean of the mapped measures.
"""

from __future__ import annotations

import argparse
import json
import sys
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import yaml
from results import photos_in, run_command
from scipy.optimize import isotonic_regression
from scipy.stats import spearmanr

from uare_rt.degradation import Mixture, compose, from_uint8, to_uint8
from uare_rt.images import read_image
from uare_rt.training.rated import rated_versions
from uare_rt.training.teacher import Curve, Teacher, measures

__all__ = ["Pairs", "fit", "main"]

PERFECT = {"psnr": 60.0, "ms_ssim": 1.0, "vif": 1.0, "gmsd": 0.0, "mdsi": 0.0}
WEIGHTS = {"psnr": 0.25, "ms_ssim": 0.15, "vif": 0.15, "gmsd": 0.15, "mdsi": 0.3}
_SIDE = 256
_LEVELS = (2.0, 3.0, 4.0, 4.5)
_WORST_SHARE = 0.02
_KINDS = {"noise": 1.4, "blur": 1.2, "compression": 1.4, "low_resolution": 0.6, "low_light": 0.8, "haze": 0.8}
_MIXTURES = (
    Mixture(min_count=1, max_count=1, kinds=_KINDS),
    Mixture(min_count=2, max_count=3, kinds=_KINDS),
    Mixture(min_count=2, max_count=4, second_order=0.5, kinds=_KINDS),
)
_PER_MIXTURE = 5


class Pairs(msgspec.Struct, frozen=True):
    """What was measured on pairs.

    Attributes:
        rated: by measure its value of every rated pair.
        scores: their scores.
        mixed: by measure its value of every mixed pair.
    """

    rated: dict[str, list[float]]
    scores: list[float]
    mixed: dict[str, list[float]]


def fit(pairs: Pairs) -> Teacher:
    """The blend for what was measured on pairs."""
    curves = {
        name: _curve(pairs.rated[name], pairs.scores, pairs.mixed[name], perfect, _LEVELS)
        for name, perfect in PERFECT.items()
    }
    half_done = Teacher(curves, WEIGHTS, Curve((1.0, 5.0), (1.0, 5.0)))
    rated, mixed = ([half_done.mean_of(row) for row in _rows(values)] for values in (pairs.rated, pairs.mixed))
    return Teacher(curves, WEIGHTS, _curve(rated, pairs.scores, mixed, 5.0, _LEVELS))


def _rows(values: Mapping[str, Sequence[float]]) -> list[dict[str, float]]:
    return [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]


def _curve(
    given: Sequence[float],
    scores: Sequence[float],
    mixed: Sequence[float],
    perfect: float,
    levels: Sequence[float],
) -> Curve:
    """Knots where the isotonic fit of scores on values passes the levels, and at the two ends of the scale."""
    values = np.asarray(given)
    better = 1.0 if perfect >= values.mean() else -1.0  # larger values are better, or smaller ones
    order = np.argsort(better * values)
    x, y = better * values[order], isotonic_regression(np.asarray(scores)[order]).x
    worst = float(np.quantile(better * np.asarray(mixed), _WORST_SHARE))
    knots = [(better * perfect, 5.0), (worst, 1.0)]
    for level in levels:
        below, above = x[y <= level], x[y >= level]
        if len(below) and len(above):
            at = float(below[-1] + above[0]) / 2
            if worst < at < better * perfect:
                knots.append((at, float(level)))
    knots.sort()
    kept = [knots[0]]
    for at, score in knots[1:]:
        if at > kept[-1][0] and score > kept[-1][1]:
            kept.append((at, score))
    if better < 0:
        kept = [(-at, score) for at, score in reversed(kept)]
    return Curve(tuple(round(at, 5) for at, _ in kept), tuple(score for _, score in kept))


def measure(photos: Sequence[Path]) -> Pairs:
    """Make the pairs of some photographs and measure them."""
    rated: list[dict[str, float]] = []
    mixed: list[dict[str, float]] = []
    scores = []
    for photo in photos:
        pixels = read_image(photo).pixels
        y, x = ((side - _SIDE) // 2 for side in pixels.shape[:2])
        truth = np.ascontiguousarray(pixels[y : y + _SIDE, x : x + _SIDE])
        rng = np.random.default_rng(zlib.crc32(photo.stem.encode()))
        for version in rated_versions(truth, rng):
            rated.append(measures(truth, version.pixels))
            scores.append(version.score)
        for mixture in _MIXTURES:
            for _ in range(_PER_MIXTURE):
                steps = mixture.sample(rng)
                mixed.append(measures(truth, to_uint8(compose(from_uint8(truth), steps, rng).image)))
    columns = [{name: [row[name] for row in rows] for name in PERFECT} for rows in (rated, mixed)]
    return Pairs(columns[0], scores, columns[1])


def report(teacher: Teacher, pairs: Pairs) -> dict[str, Any]:
    """How well the teacher and its measures follow the rated scores, and where the mixed pairs lie."""
    found = np.array([teacher.of(row) for row in _rows(pairs.rated)])
    mixed = np.array([teacher.of(row) for row in _rows(pairs.mixed)])
    rank = {
        name: float(spearmanr([teacher.curves[name](value) for value in pairs.rated[name]], pairs.scores)[0])
        for name in PERFECT
    }
    return {
        "rated_pairs": len(found),
        "mixed_pairs": len(mixed),
        "spearman_of_measures": {name: round(value, 3) for name, value in rank.items()},
        "spearman": round(float(spearmanr(found, pairs.scores)[0]), 3),
        "mean_absolute_error": round(float(np.abs(found - pairs.scores).mean()), 3),
        "mixed_quantiles": dict(
            zip(
                ("10", "25", "50", "75", "90"),
                np.quantile(mixed, (0.1, 0.25, 0.5, 0.75, 0.9)).round(2).tolist(),
                strict=True,
            )
        ),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "photos", type=Path, help="folder of photographs of at least 256 px a side, none of the evaluation"
    )
    parser.add_argument("--photos", dest="count", type=int, default=20, help="how many, evenly spread over the names")
    parser.add_argument("--pairs", type=Path, help="JSON file to keep what was measured in, or to take it from")
    parser.add_argument("-o", "--output", type=Path, required=True, help="YAML file to write")
    chosen = parser.parse_args(arguments)
    found = photos_in(chosen.photos)
    if chosen.pairs is not None and chosen.pairs.is_file():
        pairs = msgspec.json.decode(chosen.pairs.read_bytes(), type=Pairs)
    else:
        pairs = measure(found[:: max(1, len(found) // chosen.count)][: chosen.count])
    if chosen.pairs is not None:
        chosen.pairs.write_bytes(msgspec.json.encode(pairs))
    teacher = fit(pairs)
    content = {
        "curves": {name: _plain(curve) for name, curve in teacher.curves.items()},
        "weights": teacher.weights,
        "blend": _plain(teacher.blend),
    }
    text = yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=110)
    head = "# Written by benchmarks/fit_teacher.py; see its docstring and uare_rt.training.teacher.\n"
    chosen.output.write_text(head + text, encoding="utf-8")
    sys.stdout.write(json.dumps(report(teacher, pairs), indent=1) + "\n")
    return 0


def _plain(curve: Curve) -> dict[str, list[float]]:
    return {"at": list(curve.at), "score": list(curve.score)}


if __name__ == "__main__":
    sys.exit(run_command(main))
