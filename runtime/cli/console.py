"""What people and machines see: lines, tables, JSON, and progress on a terminal."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING, ClassVar, TextIO

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType

    from rich.progress import Progress

__all__ = ["Meter", "emit", "emit_json", "emit_table", "error", "notes_shown"]


def emit(text: str) -> None:
    """Print one line on standard output."""
    typer.echo(text)


def error(text: str) -> None:
    """Print one `error:` line on standard error."""
    typer.echo(f"error: {text}", err=True)


@contextlib.contextmanager
def notes_shown() -> Iterator[None]:
    """Print what uare-rt logs inside the block as `note:` lines on standard error."""
    import logging

    class Printer(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            text = f"note: {record.getMessage()}"
            if Meter.shown is None:
                typer.echo(text, err=True)
            else:  # above the bar, not into it
                Meter.shown.console.print(text, markup=False, highlight=False, soft_wrap=True)

    printer = Printer(logging.WARNING)
    logger = logging.getLogger("uare_rt")
    logger.addHandler(printer)
    try:
        yield
    finally:
        logger.removeHandler(printer)


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
    if _is_terminal(sys.stdout):
        Console().print(table)
        return
    console = Console(width=100_000, color_system=None)
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        typer.echo(line.rstrip())


def _is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and stream.isatty()  # None: the caller closed it


class Meter:
    """Progress of a run over files: a bar with ETA and rate on standard error if that is a terminal, else nothing.

    Args:
        total: number of files.

    Attributes:
        shown: the bar on the terminal now, if any.
    """

    shown: ClassVar[Progress | None] = None

    def __init__(self, total: int) -> None:
        self._total = total
        self._done = 0
        self._part = ""
        self._began = time.monotonic()

    def __enter__(self) -> Meter:
        if _is_terminal(sys.stderr):
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            Meter.shown = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                TextColumn("{task.percentage:>3.0f}%  {task.fields[rate]}", markup=False),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
                speed_estimate_period=120,  # seconds; large tiles and slow frames take many
                redirect_stdout=False,  # results go to standard output even while the bar is shown
                redirect_stderr=False,
            )
            Meter.shown.add_task("", total=self._total, rate="")
            Meter.shown.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        shown, Meter.shown = Meter.shown, None
        if shown is not None:
            shown.stop()

    def start(self, name: str) -> None:
        """Begin a file."""
        self._show(self._done, name if self._total == 1 else f"[{self._done + 1}/{self._total}] {name}", "")

    def update(self, done: float, total: float | None, rate: float, unit: str, standing: str = "") -> None:
        """Report progress inside the current file.

        Args:
            done: finished part, in the units of `total`.
            total: the whole file; None if not known.
            rate: work per second, in `unit`.
            unit: for example `"frames"` or `"MP"`.
            standing: what else is known so far.
        """
        fraction = min(done / total, 1.0) if total else 0.0
        self._show(self._done + fraction, None, f"{rate:.2f} {unit}/s{'  ' if standing else ''}{standing}")

    def part(self, text: str, done: float) -> None:
        """Report what is being done now, and the finished part of the whole, 0 to 1."""
        if text != self._part:
            self.start(text)
            self._part = text
        self.update(done, 1.0, done / max(time.monotonic() - self._began, 1e-6), "parts")

    def finish(self) -> None:
        """End a file."""
        self._done += 1
        self._show(self._done, None, "")

    def tell(self, line: str) -> None:
        """Print a line of result on standard error, where standard output carries something else."""
        if Meter.shown is not None:
            Meter.shown.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            typer.echo(line, err=True)

    def say(self, line: str) -> None:
        """Print a line of result while the bar is shown."""
        if Meter.shown is not None and _is_terminal(sys.stdout):
            Meter.shown.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            emit(line)

    def _show(self, completed: float, description: str | None, rate: str) -> None:
        if Meter.shown is not None:
            (task,) = Meter.shown.task_ids
            Meter.shown.update(task, completed=completed, description=description, rate=rate)
