"""`uare-rt train`: train the model by a recipe."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from uare_rt.cli.console import Meter, emit
from uare_rt.cli.extras import needs_extra
from uare_rt.errors import InputError, OutputError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from uare_rt.training import TrainingProgress

__all__ = ["parse_minutes", "train"]


def train(
    data: Annotated[Path, typer.Option("--data", metavar="DIR", help="Directory of clean training images.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Directory of checkpoints and logs.")],
    recipe: Annotated[str, typer.Option("--recipe", metavar="NAME|FILE", help="Recipe, by name or YAML file.")],
    start: Annotated[
        Path | None, typer.Option("--from", metavar="WEIGHTS", help="Begin from a weights.safetensors or a NAME.uare.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in the directory.")] = False,
    steps: Annotated[
        int | None, typer.Option("--steps", min=1, metavar="N", help="Steps in all, instead of the recipe's.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, metavar="N", help="CPU threads of PyTorch.")
    ] = None,
    time_budget: Annotated[
        str | None, typer.Option("--time-budget", metavar="TIME", help="Stop after this time, e.g. 90m or 2h30m.")
    ] = None,
    workers: Annotated[int, typer.Option("--workers", min=0, metavar="N", help="Processes that load images.")] = 1,
) -> None:
    """Train the model by a recipe.

    Ctrl-C stops it; --resume goes on from the last checkpoint.
    """
    minutes = None if time_budget is None else parse_minutes(time_budget)
    if not data.is_dir():
        raise InputError(f"{data}: no such directory; check the path given to --data")
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out}: is a file; give a directory to -o")
    with needs_extra("train"), Meter(1) as meter:
        from uare_rt.training import run

        meter.start("training")
        report = run(
            recipe,
            data,
            out,
            start=start,
            resume=resume,
            steps=steps,
            threads=threads,
            time_budget=minutes,
            workers=workers,
            progress=partial(_show, meter),
        )
    end = "finished" if report.finished else "not finished, go on with --resume"
    emit(f"{report.weights}: {report.steps} steps on {report.photos} photos, {end}{_psnr(report.validation)}")


def _show(meter: Meter, progress: TrainingProgress) -> None:
    meter.update(progress.step, progress.steps, 1 / progress.seconds_per_step, "steps")
    if progress.validation is not None:
        hours, seconds = divmod(round(progress.eta_seconds), 3600)
        losses = f"loss {progress.loss:.3f}, tone {progress.tone_loss:.3f}, assessment {progress.assess_loss:.3f}"
        speed = f"{progress.seconds_per_step:.2f} s/step, {hours}:{seconds // 60:02} left"
        meter.say(f"step {progress.step} of {progress.steps}: {losses}, {speed}{_psnr(progress.validation)}")


def _psnr(validation: Mapping[str, float]) -> str:
    return "".join(f", {name} {value:.2f} dB" for name, value in validation.items())


def parse_minutes(text: str) -> float:
    """Read a time such as `90m`, `2h`, `1h30m` or `45s`.

    Returns:
        The time in minutes.

    Raises:
        UsageError: it is not such a time, or it is zero.
    """
    match = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", text.strip())
    hours, minutes, seconds = (int(part or 0) for part in match.groups()) if match else (0, 0, 0)
    total = 60 * hours + minutes + seconds / 60
    if total <= 0:
        raise UsageError(f"--time-budget {text}: not a time; write for example 90m or 2h30m")
    return total
