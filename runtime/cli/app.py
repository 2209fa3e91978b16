"""The application: its commands, its global options, and how an exception becomes an exit code."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from uare_rt.cli.assess import assess
from uare_rt.cli.bench import bench
from uare_rt.cli.build import build
from uare_rt.cli.compare import compare
from uare_rt.cli.console import error, notes_shown
from uare_rt.cli.doctor import doctor
from uare_rt.cli.eval import evaluate
from uare_rt.cli.export import export
from uare_rt.cli.failures import INTERRUPTED, exit_code, explain, show_traceback
from uare_rt.cli.inspect import inspect
from uare_rt.cli.live import live
from uare_rt.cli.plan import plan
from uare_rt.cli.restore import restore
from uare_rt.cli.train import train

__all__ = ["app"]


class _ReportingGroup(TyperGroup):
    """Turns every exception of a command into one line and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            with notes_shown():
                value = super().invoke(ctx)
            typer.echo(nl=False)  # flushes: a full disk or a closed pipe shows here, where it can be reported
        except KeyboardInterrupt as exc:
            error("interrupted")
            raise typer.Exit(INTERRUPTED) from exc
        except BrokenPipeError as exc:
            # The reader has left (`| head`): stay quiet, and keep the interpreter's last flush quiet too.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(1) from exc
        except Exception as exc:
            if isinstance(exc, (typer.Exit, typer.Abort)) or hasattr(exc, "format_message"):
                raise  # typer's own: a finished command or a usage error it prints itself
            if ctx.params["debug"]:
                show_traceback(exc)
            error(explain(exc))
            raise typer.Exit(exit_code(exc)) from exc
        return value


def _version(asked: bool) -> None:
    if asked:
        from uare_rt import __version__

        typer.echo(f"uare-rt {__version__}")
        raise typer.Exit


# rich's help costs a third of the time `--help` may take, and reads no better.
app = typer.Typer(
    name="uare-rt",
    cls=_ReportingGroup,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _global(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Print the traceback of an error.")] = False,
    no_rebuild: Annotated[
        bool, typer.Option("--no-rebuild", help="Fail where an engine does not fit this device; never compile one.")
    ] = False,
) -> None:
    """Assess and restore images and videos.

    Exit codes: 0 everything worked, 1 something failed, 2 wrong usage, 130 interrupted.
    """
    if no_rebuild:
        from uare_rt.backends.engine_cache import refuse_rebuilds

        refuse_rebuilds()


for _command in (assess, compare, restore, live, inspect, plan, doctor, bench, build, export, train):
    app.command()(_command)
app.command(name="eval")(evaluate)
