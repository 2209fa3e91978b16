"""What people and machines see: lines, tables, JSON, and progress on a terminal."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from rich.progress import Progress, TaskID

__all__ = ["Meter", "emit", "emit_json", "emit_table", "error", "note"]


def emit(text: str) -> None:
    """Print one line on standard output."""
    typer.echo(text)


def error(text: str) -> None:
    """Print one `error:` line on standard error."""
    typer.echo(f"error: {text}", err=True)


def note(text: str) -> None:
    """Print one `note:` line on standard error."""
    typer.echo(f"note: {text}", err=True)


def emit_json(value: object) -> None:
    """Print a value as indented JSON on standard output."""
    import json

    typer.echo(json.dumps(value, indent=2, allow_nan=False))


def emit_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table on standard output: as wide as the terminal, or as its contents need where there is none.

    Args:
        headers: one title per column; a leading `>` aligns the column to the right.
        rows: one text per column and row, shown as it is.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=any(headers), pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for header in headers:
        table.add_column(header.lstrip(">"), justify="right" if header.startswith(">") else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    if sys.stdout.isatty():
        Console().print(table)
        return
    console = Console(width=100_000, color_system=None)
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        typer.echo(line.rstrip())


class Meter:
    """Progress of a run over files: a bar with ETA and rate on standard error if that is a terminal, else nothing.

    Args:
        total: number of files.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._done = 0
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._started = 0.0

    def __enter__(self) -> Meter:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            self._progress = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                TextColumn("{task.percentage:>3.0f}%  {task.fields[rate]}", markup=False),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
                redirect_stdout=False,  # results go to standard output even while the bar is shown
                redirect_stderr=False,
            )
            self._task = self._progress.add_task("", total=self._total, rate="")
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def start(self, name: str) -> None:
        """Begin a file."""
        self._started = time.perf_counter()
        if self._progress is not None and self._task is not None:
            label = name if self._total == 1 else f"[{self._done + 1}/{self._total}] {name}"
            self._progress.update(self._task, description=label, rate="")

    def update(self, done: float, total: float | None, amount: float, unit: str) -> None:
        """Report progress inside the current file.

        Args:
            done: finished part, in the units of `total`.
            total: the whole file; None if not known.
            amount: work finished since `start`, in `unit`, for the rate.
            unit: for example `"frames"` or `"MP"`.
        """
        if self._progress is not None and self._task is not None:
            rate = amount / max(time.perf_counter() - self._started, 1e-6)
            fraction = min(done / total, 1.0) if total else 0.0
            self._progress.update(self._task, completed=self._done + fraction, rate=f"{rate:.2f} {unit}/s")

    def finish(self, line: str | None) -> None:
        """End a file, and print its line of result, if it has one."""
        self._done += 1
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=self._done)
        if line is None:
            return
        if self._progress is not None and sys.stdout.isatty():
            self._progress.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            emit(line)
