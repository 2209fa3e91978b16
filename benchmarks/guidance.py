"""Restore with the true, null, shuffled and oracle quality context: does the verdict guide?

usage: guidance.py EVALSET [--limit N] [--bundle NAME.uare] [--check] [-o RESULT.json] [--plot guidance.svg]
What the contexts are is in `uare_rt.training.guidance`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from results import Limit, Result, Table, add_options, bundle_facts, finish, run_command

import uare_rt
from uare_rt.training.evalset import EvaluationSet
from uare_rt.training.guidance import CONTEXTS, LOCAL_TYPES, evaluate_guidance

__all__ = ["LEAST_GAIN", "main", "plot", "tables"]

LEAST_GAIN = 0.3
"""Least gain of the true context over the null context on local types, in dB."""

_COLOURS = {"true": "#2a6fbb", "shuffled": "#c44e3b", "oracle": "#7aa874"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("evalset", type=Path, help="folder written by make_evalset.py")
    parser.add_argument("--limit", type=int, help="only the first so many photographs, at least 2")
    parser.add_argument("--plot", type=Path, help="SVG file to write")
    add_options(parser)
    chosen = parser.parse_args(arguments)
    if chosen.limit is not None and chosen.limit < 2:
        parser.error(f"--limit {chosen.limit}: give at least 2")
    evalset = EvaluationSet.open(chosen.evalset, chosen.limit)
    with uare_rt.load(chosen.bundle, backend=chosen.backend) as session:
        measured = evaluate_guidance(session, evalset, LOCAL_TYPES)
        backend = session.backend
    if chosen.plot is not None:
        chosen.plot.write_text(plot(measured), encoding="utf-8")
    result = Result(
        benchmark="guidance",
        data={"manifest_sha256": evalset.digest(), "pictures": len(evalset.names)},
        bundle=bundle_facts(chosen.bundle),
        settings={"backend": backend, "limit": chosen.limit},
        measured=measured,
        limits=[
            limit
            for kind, row in measured.items()
            for limit in (
                Limit(f"{kind}: true over null", row["over_null"]["true"], LEAST_GAIN, at_least=True, unit="dB"),
                Limit(f"{kind}: shuffled over true", _harm(row), 0, at_least=False, unit="dB"),
            )
        ],
    )
    return finish(result, tables(measured), chosen)


def _harm(row: Mapping[str, Any]) -> float:
    return round(row["psnr"]["shuffled"] - row["psnr"]["true"], 4)


def tables(measured: Mapping[str, Any]) -> list[Table]:
    """What was measured, for people."""
    rows = [
        (
            kind,
            f"{row['input']:.2f}",
            *(f"{row['psnr'][name]:.2f}" for name in CONTEXTS),
            *(f"{row['over_null'][name]:+.2f} ± {row['standard_error'][name]:.2f}" for name in _COLOURS),
        )
        for kind, row in measured.items()
    ]
    count = max(row["pictures"] for row in measured.values())
    title = f"PSNR in dB by quality context, mean over {count} photographs; differences to null with standard error"
    return [Table(title, ("type", "input", *CONTEXTS, *(f"{name} - null" for name in _COLOURS)), rows)]


def plot(measured: Mapping[str, Any]) -> str:
    """Bars of the differences to the null context, as SVG."""
    values = [row["over_null"][name] for row in measured.values() for name in _COLOURS]
    top, bottom = max(0.4, *values) * 1.1, min(-0.4, *values) * 1.1
    height, left, group, bar = 260, 46, 96, 24
    width = left + group * len(measured) + 10

    def at(value: float) -> float:
        return 30 + height * (top - value) / (top - bottom)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height + 70}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height + 70}" fill="white"/>',
        f'<text x="{left}" y="16">dB over the null context</text>',
        *(
            f'<text x="{width - 250 + 85 * i}" y="16" fill="{colour}">■ {name}</text>'
            for i, (name, colour) in enumerate(_COLOURS.items())
        ),
        f'<line x1="{left}" x2="{width}" y1="{at(0):.1f}" y2="{at(0):.1f}" stroke="black"/>',
        f'<line x1="{left}" x2="{width}" y1="{at(LEAST_GAIN):.1f}" y2="{at(LEAST_GAIN):.1f}" stroke="grey" '
        'stroke-dasharray="4"/>',
        f'<text x="4" y="{at(0) + 4:.1f}">0 dB</text>',
        f'<text x="4" y="{at(LEAST_GAIN) + 4:.1f}">+{LEAST_GAIN}</text>',
    ]
    for column, (kind, row) in enumerate(measured.items()):
        x = left + group * column + 10
        parts.append(f'<text x="{x}" y="{height + 58}">{kind}</text>')
        for i, (name, colour) in enumerate(_COLOURS.items()):
            value = row["over_null"][name]
            y, tall = min(at(value), at(0)), abs(at(value) - at(0))
            parts.append(
                f'<rect x="{x + bar * i}" y="{y:.1f}" width="{bar - 3}" height="{tall:.1f}" fill="{colour}">'
                f"<title>{kind}, {name}: {value:+.2f} dB</title></rect>"
            )
    return "\n".join([*parts, "</svg>", ""])


if __name__ == "__main__":
    sys.exit(run_command(main))
