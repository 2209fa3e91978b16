"""What goes wrong, in one line and one number: the only place where exceptions become text and exit codes."""

from __future__ import annotations

import contextlib
import errno
from typing import TYPE_CHECKING

import typer

from uare_rt.cli.console import error
from uare_rt.errors import UareError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["FAILED", "INTERRUPTED", "Failures", "exit_code", "explain", "show_traceback"]

FAILED = 1
INTERRUPTED = 130

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)


def explain(exc: BaseException) -> str:
    """One line for people: what went wrong, where, and what to do about it."""
    return " ".join(_text(exc).split("\n"))


def _text(exc: BaseException) -> str:
    if isinstance(exc, UareError):
        return str(exc)
    if isinstance(exc, MemoryError):
        return "out of memory; close other programs, or give restore a smaller --tile"
    if isinstance(exc, OSError) and exc.errno is not None:
        where = f"{exc.filename}: " if exc.filename is not None else ""
        if exc.errno in _FULL:
            return f"{where}no space left to write to; free some space or write elsewhere"
        if exc.errno in _DENIED:
            return f"{where}permission denied; check who owns it, or choose another place"
        return f"{where}{exc.strerror}"
    return f"internal error: {type(exc).__name__}: {exc} (for the traceback run: uare-rt --debug COMMAND ...)"


def exit_code(exc: BaseException) -> int:
    """The exit code for an exception that ended a command."""
    return exc.exit_code if isinstance(exc, UareError) else FAILED


def show_traceback(exc: BaseException) -> None:
    """Print the traceback on standard error."""
    import traceback

    typer.echo("".join(traceback.format_exception(type(exc), exc, exc.__traceback__)), err=True, nl=False)


class Failures:
    """The files of a run that could not be handled; the run goes on and they are reported at its end.

    Args:
        ctx: context of the command, which knows whether tracebacks were asked for.
    """

    def __init__(self, ctx: typer.Context) -> None:
        self._debug = bool(ctx.find_root().params.get("debug"))
        self._failed: dict[Path, str] = {}
        self._incomplete: dict[Path, str] = {}
        self._code = FAILED

    @contextlib.contextmanager
    def at(self, path: Path) -> Iterator[None]:
        """Run a block for one file; an exception in it is kept for the report and not raised again."""
        try:
            yield
        except BrokenPipeError:
            raise  # the reader of our output has left: nobody wants the rest
        except Exception as exc:
            if self._debug:
                show_traceback(exc)
            self._failed[path] = explain(exc)
            self._code = exit_code(exc)

    def add_incomplete(self, path: Path, message: str) -> None:
        """Note a file that has a result, but not of all of it."""
        self._incomplete[path] = message

    def records(self) -> list[dict[str, str]]:
        """The failed files for `--json`: path and error."""
        return [{"path": str(path), "error": message} for path, message in self._failed.items()]

    def report(self, total: int) -> None:
        """Print what failed.

        Args:
            total: number of files of the run.

        Raises:
            typer.Exit: if any file failed, with code 1, or for a single file with the code of its error.
        """
        messages = {**self._failed, **self._incomplete}
        for path, message in messages.items():
            error(message if str(path) in message else f"{path}: {message}")
        if messages and total > 1:
            error(f"{len(messages)} of {total} files failed")
        if messages:
            raise typer.Exit(self._code if total == 1 else FAILED)
