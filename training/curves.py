"""Draw the curves of a training run from its metrics.csv.

usage: python -m uare_rt.training.curves RUN_DIR -o curves.svg
Every column of numbers but the step gets a panel of its own.
"""

from __future__ import annotations

import argparse
import csv
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from uare_rt.errors import InputError, UareError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["draw", "read_metrics"]

_WIDTH, _HEIGHT, _COLUMNS, _MARGIN = 300, 130, 3, 26


def read_metrics(path: Path) -> dict[str, list[float]]:
    """The columns of a metrics file; what is no number there is NaN.

    Raises:
        InputError: the file is missing, has no ``step`` column or no rows.
    """
    try:
        rows = list(csv.DictReader(path.read_text("utf-8").splitlines()))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from None
    if not rows or "step" not in rows[0]:
        raise InputError(f"{path} is no metrics file: it needs a column `step` and rows")
    return {name: [_number(row.get(name)) for row in rows] for name in rows[0] if name}


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan


def draw(metrics: Mapping[str, Sequence[float]]) -> str:
    """Panels of curves over steps, as SVG."""
    steps = metrics["step"]
    panels = [name for name in metrics if name != "step" and any(math.isfinite(v) for v in metrics[name])]
    width, height = _COLUMNS * _WIDTH, math.ceil(len(panels) / _COLUMNS) * _HEIGHT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" '
        f'font-size="10"><rect width="{width}" height="{height}" fill="white"/>'
    ]
    for number, name in enumerate(panels):
        x, y = number % _COLUMNS * _WIDTH, number // _COLUMNS * _HEIGHT
        parts.append(_panel(name, steps, metrics[name], (x, y)))
    return "\n".join([*parts, "</svg>", ""])


def _panel(name: str, steps: Sequence[float], values: Sequence[float], origin: tuple[int, int]) -> str:
    points = [(s, v) for s, v in zip(steps, values, strict=True) if math.isfinite(s) and math.isfinite(v)]
    low, high = (limit(v for _, v in points) for limit in (min, max))
    first, last = (limit(s for s, _ in points) for limit in (min, max))
    x, y = origin

    def place(step: float, value: float) -> str:
        across = (step - first) / ((last - first) or 1) * (_WIDTH - 2 * _MARGIN)
        up = (value - low) / ((high - low) or 1) * (_HEIGHT - 2 * _MARGIN)
        return f"{x + _MARGIN + across:.1f},{y + _HEIGHT - _MARGIN - up:.1f}"

    line = " ".join(place(*point) for point in points)
    return (
        f'<text x="{x + _MARGIN}" y="{y + 18}">{name}: {points[-1][1]:.4g} ({low:.4g} to {high:.4g})</text>'
        f'<polyline points="{line}" fill="none" stroke="#2a6fbb"/>'
        f'<text x="{x + _MARGIN}" y="{y + _HEIGHT - 10}" fill="grey">step {first:g} to {last:g}</text>'
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m uare_rt.training.curves", description="Draw a run's curves.")
    parser.add_argument("run", type=Path, help="directory that `uare-rt train` wrote")
    parser.add_argument("-o", "--output", type=Path, required=True, help="SVG file to write")
    options = parser.parse_args(arguments)
    try:
        options.output.write_text(draw(read_metrics(options.run / "metrics.csv")), encoding="utf-8")
    except UareError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
