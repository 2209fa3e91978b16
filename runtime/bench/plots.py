"""Pictures of a run of `uare-rt bench`: time against resolution, and quality against time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uare_rt.errors import OutputError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["Mark", "check_target", "front", "plot_latency", "plot_quality"]

Mark = tuple[str, float, float]
"""A name, milliseconds and decibels."""

_SUFFIXES = (".svg", ".png", ".pdf")


def plot_latency(rows: Sequence[Mapping[str, Any]], target: Path) -> None:
    """Draw milliseconds against megapixels, a line for each kind, backend and number of threads.

    Args:
        rows: the ``subjects`` of a run.
        target: ``.svg``, ``.png`` or ``.pdf``.

    Raises:
        UsageError: another kind of file.
        OutputError: it cannot be written.
    """
    lines: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        if row["kind"] != "assess":
            label = f"{row['bundle']} {row['kind']}, {row['backend']}, {row['threads']} threads"
            lines.setdefault(label, []).append((row["width"] * row["height"] * row["batch"] / 1e6, row["median_ms"]))
    figure, axes = _axes("megapixels", "milliseconds")
    for label, points in lines.items():
        x, y = zip(*sorted(points), strict=True)
        axes.plot(x, y, marker="o", label=label)
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    _save(figure, axes, target)


def plot_quality(marks: Sequence[Mark], target: Path) -> None:
    """Draw decibels against milliseconds; what nothing beats in both is joined by a line.

    Raises:
        UsageError: another kind of file.
        OutputError: it cannot be written.
    """
    figure, axes = _axes("milliseconds", "PSNR, dB")
    for name, milliseconds, decibels in marks:
        axes.scatter([milliseconds], [decibels])
        axes.annotate(name, (milliseconds, decibels), textcoords="offset points", xytext=(4, 4), fontsize=7)
    best = front(marks)
    axes.plot([mark[1] for mark in best], [mark[2] for mark in best], color="grey", linewidth=0.8, label="best")
    axes.set_xscale("log")
    _save(figure, axes, target)


def front(marks: Sequence[Mark]) -> list[Mark]:
    """The marks that nothing beats in both, from the fastest on."""
    best: list[Mark] = []
    for mark in sorted(marks, key=lambda mark: (mark[1], -mark[2])):
        if not best or mark[2] > best[-1][2]:
            best.append(mark)
    return best


def check_target(target: Path) -> None:
    """Refuse a file that cannot be drawn.

    Raises:
        UsageError: its ending is none of a picture.
    """
    if target.suffix.lower() not in _SUFFIXES:
        raise UsageError(f"{target}: can draw {', '.join(_SUFFIXES)} only")


def _axes(x: str, y: str) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.3)
    return figure, axes


def _save(figure: Any, axes: Any, target: Path) -> None:
    check_target(target)
    axes.legend(fontsize=7)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(target, metadata={"Date": None} if target.suffix.lower() == ".svg" else None)
    except OSError as error:
        raise OutputError(f"{target} cannot be written: {error.strerror}") from error
