"""`uare-rt export`: a trained checkpoint becomes a bundle."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from uare_rt.bundle import is_bundle
from uare_rt.cli.console import Meter, emit
from uare_rt.cli.extras import needs_extra
from uare_rt.cli.options import OverwriteOption
from uare_rt.errors import InputError, OutputError, UsageError

__all__ = ["CacheChoice", "export"]


class CacheChoice(str, Enum):
    """How keys and values are kept, as texts because typer lists and checks those."""

    same = "same"
    fp16 = "fp16"
    int8 = "int8"


def export(
    checkpoint: Annotated[
        Path,
        typer.Argument(metavar="CHECKPOINT", help="Weights of `uare-rt train`, a bundle, or uare-7b."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="NAME.uare", help="The bundle to write.")],
    cache: Annotated[
        CacheChoice | None,
        typer.Option("--cache", help="uare-7b: keep keys and values in fewer bytes; same as computed if not given."),
    ] = None,
    overwrite: OverwriteOption = False,
    images: Annotated[
        Path | None, typer.Option("--images", metavar="DIR", help="Real images for the check against PyTorch.")
    ] = None,
) -> None:
    """Export a checkpoint to a bundle.

    A directory is a uare-7b checkpoint in the layout of BAGEL-7B-MoT, or a bundle of uare-nano in float32, whose graphs
    are made anew from its weights. Every ONNX graph is compared with PyTorch
    before it is written.
    """
    if not checkpoint.exists():
        raise InputError(f"{checkpoint}: no such checkpoint; check the path")
    if images is not None and not images.is_dir():
        raise InputError(f"{images}: no such directory; check the path given to --images")
    if out.exists() and not overwrite:
        raise OutputError(f"{out}: exists already; add --overwrite to replace it, or choose another -o")
    if checkpoint.is_dir() and not is_bundle(checkpoint):
        if images is not None:
            raise UsageError("--images: a uare-7b checkpoint is compared on random inputs; leave it out")
        with needs_extra("export,vlm"):
            from uare_rt.export import export_unified

            kept = "same" if cache is None else cache.value
            with Meter(1) as meter:
                bundle = export_unified(checkpoint, out, cache=kept, overwrite=overwrite, progress=meter.part)
        emit(f"{bundle}: written; look at it with: uare-rt inspect {bundle}")
        return
    if cache is not None:
        raise UsageError("--cache: only a uare-7b checkpoint keeps keys and values between passes; leave it out")
    with needs_extra("export"):
        from uare_rt.export import export_bundle

        with Meter(1) as meter:
            bundle = export_bundle(checkpoint, out, overwrite=overwrite, real_images=images, progress=meter.part)
    emit(f"{bundle}: written; look at it with: uare-rt inspect {bundle}")
