"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["BackendOption", "BundleOption", "JsonOption", "OverwriteOption", "ThreadsOption"]

BundleOption = Annotated[
    Path | None,
    typer.Option(
        "--bundle",
        "--model",
        metavar="MODEL",
        help="Bundle NAME.uare or uare-7b checkpoint directory to run; the shipped uare-nano if not given.",
    ),
]
BackendOption = Annotated[
    str,
    typer.Option(
        "--backend",
        metavar="NAME",
        help="Inference backend, `uare-rt doctor` lists them; `fastest` measures which, and whether in bfloat16.",
    ),
]
ThreadsOption = Annotated[
    int | None, typer.Option("--threads", min=1, metavar="N", help="CPU threads; all cores if not given.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace outputs that exist.")]
