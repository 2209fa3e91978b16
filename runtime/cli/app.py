"""The application: its commands, its global options, and how an exception becomes an exit code."""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from uare_rt.cli.console import error, notes_shown
from uare_rt.cli.failures import INTERRUPTED, exit_code, explain, show_traceback

if TYPE_CHECKING:
    from click import Command, Context, HelpFormatter

__all__ = ["COMMANDS", "app"]


class _Place(NamedTuple):
    """Where the function of a command is, and what it does in a line of `--help`."""

    module: str
    function: str
    summary: str


COMMANDS = {
    "assess": _Place("assess", "assess", "Say how good images and videos are, and what is wrong with them."),
    "compare": _Place("compare", "compare", "Say which of two images or videos is better, and why."),
    "restore": _Place("restore", "restore", "Restore images and videos."),
    "live": _Place("live", "live", "Restore a live source into a sink until it ends, or until Ctrl-C or SIGTERM."),
    "inspect": _Place("inspect", "inspect", "Show what a bundle holds, and check it."),
    "plan": _Place(
        "plan", "plan", "Show what restoring a picture costs at the least: memory, operations, bytes, seconds."
    ),
    "doctor": _Place("doctor", "doctor", "Show what this machine can run, and why not the rest."),
    "bench": _Place("bench", "bench", "Measure the speed of graphs and whole calls on this machine."),
    "build": _Place("build", "build", "Build a bundle for a target."),
    "export": _Place("export", "export", "Export a checkpoint to a bundle."),
    "train": _Place("train", "train", "Train the model by a recipe."),
    "eval": _Place("eval", "evaluate", "Restore and assess an evaluation set and compare with its truth."),
}
"""All commands, in the order of `--help`. Only the one that runs is imported."""

# rich's help costs a third of the time `--help` may take, and reads no better.
_STYLE: dict[str, Any] = {"add_completion": False, "rich_markup_mode": None, "pretty_exceptions_enable": False}


class _Commands(TyperGroup):
    """Imports a command when it is called, and turns every exception of it into one line and an exit code."""

    def __init__(self, **attrs: Any) -> None:
        super().__init__(**attrs)
        for name, place in COMMANDS.items():  # stand-ins: names to list and to suggest
            self.add_command(TyperCommand(name, help=place.summary))

    def get_command(self, ctx: Context, cmd_name: str) -> Command | None:
        place = COMMANDS.get(cmd_name)
        if place is None:
            return None
        alone = typer.Typer(**_STYLE)
        alone.command(cmd_name)(getattr(importlib.import_module(f"uare_rt.cli.{place.module}"), place.function))
        return get_command(alone)

    def format_commands(self, ctx: Context, formatter: HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, place.summary) for name, place in COMMANDS.items()])

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


app = typer.Typer(
    name="uare-rt",
    cls=_Commands,
    suggest_commands=False,  # click does, and both would be printed
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    **_STYLE,
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
