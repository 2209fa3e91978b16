"""Compile every kernel ahead of time: ``python -m uare_rt.kernels.compile --target sm_87,sm_120 --out DIR``.

Needs no GPU. ``DIR/<target>/<variant>.cubin`` and ``.ptx`` hold the code; ``DIR/manifest.json`` says how to launch it
and what the compiler made of it. ``--table docs/kernels.md`` writes the figures into a document, between its markers.
"""

from __future__ import annotations

import json
import os
import shutil
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import typer

from uare_rt._version import __version__
from uare_rt.errors import BackendUnavailableError, MissingExtraError, OutputError, UareError, UsageError
from uare_rt.kernels.ahead import build
from uare_rt.kernels.catalogue import OPERATORS, all_variants
from uare_rt.kernels.devices import occupancy
from uare_rt.kernels.jit import interpreted, triton
from uare_rt.kernels.table import write_table
from uare_rt.kernels.tiles import TARGETS

__all__ = ["compile_all", "main"]

SCHEMA = 1
_WORKERS = 4  # a compiler needs about half a gigabyte


def _compile(job: tuple[str, str, str, str]) -> dict[str, Any]:
    """One variant for one target; its files go to a folder and its entry back."""
    op, name, target, folder = job
    (variant,) = (variant for variant in all_variants()[op] if variant.name == name)
    made = build(variant, target)
    base = Path(folder) / target / name
    base.with_suffix(".cubin").write_bytes(made.cubin)
    base.with_suffix(".ptx").write_text(made.ptx)
    share, limit = occupancy(target, made.registers, made.shared, made.warps)
    return {
        "operator": op,
        "name": name,
        "target": target,
        "symbol": made.symbol,
        "cubin": f"{target}/{name}.cubin",
        "ptx": f"{target}/{name}.ptx",
        "arguments": [{"name": key, "type": kind} for key, kind in variant.types.items()],
        "multiples_of_16": list(variant.whole),
        "null_pointers_after_arguments": {"cubin": made.scratch, "ptx": 0},
        "constants": {**variant.constants, **made.tile.blocks},
        "grid": list(variant.grid),
        "warps": made.warps,
        "shared": made.shared,
        "registers": made.registers,
        "stack": made.stack,
        "spills": made.spills,
        "instructions": made.instructions,
        "matrix_instructions": made.matrix,
        "occupancy": round(share, 3),
        "limited_by": limit,
    }


def compile_all(targets: list[str], out: Path, operators: tuple[str, ...] = OPERATORS) -> dict[str, Any]:
    """Compile the variants of operators for targets.

    Args:
        targets: of `uare_rt.kernels.tiles.TARGETS`.
        out: directory to make; it appears when everything is in it.
        operators: of `uare_rt.kernels.catalogue.OPERATORS`.

    Returns:
        The manifest.

    Raises:
        UsageError: an unknown target or operator.
        OutputError: ``out`` exists, or cannot be written.
        BackendError: a kernel does not compile.
        MissingExtraError: Triton is not installed.
    """
    for what, wanted, known in (("target", targets, TARGETS), ("operator", operators, OPERATORS)):
        unknown = [name for name in wanted if name not in known]
        if unknown or not wanted:
            raise UsageError(f"{what} {', '.join(unknown) or '(none)'} is not one of {', '.join(known)}")
    if not triton.__version__:
        raise MissingExtraError("triton", "kernels")
    if interpreted():
        raise BackendUnavailableError("TRITON_INTERPRET=1 turns the compiler off; unset it to compile kernels")
    if out.exists():
        raise OutputError(f"{out} exists; name a directory that does not, or remove it")
    partial = out.with_name(out.name + ".partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        for target in targets:
            (partial / target).mkdir(parents=True)
        variants = all_variants()
        jobs = [
            (op, variant.name, target, str(partial))
            for op in operators
            for variant in variants[op]
            for target in targets
        ]
        workers = min(_WORKERS, os.cpu_count() or 1, len(jobs))
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            entries = list(pool.map(_compile, jobs))
        manifest = {"schema": SCHEMA, "uare_rt": __version__, "triton": triton.__version__, "kernels": entries}
        (partial / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
        partial.rename(out)
    except OSError as error:
        raise OutputError(f"{out} cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return manifest


def main(
    target: Annotated[str, typer.Option(help="GPUs to compile for, separated by commas.")] = ",".join(TARGETS),
    out: Annotated[Path, typer.Option(help="Directory to make.")] = Path("kernels-aot"),
    operators: Annotated[str, typer.Option(help="Operators, separated by commas.")] = ",".join(OPERATORS),
    table: Annotated[Path | None, typer.Option(help="Document whose table of figures is written anew.")] = None,
) -> None:
    """Compile kernels ahead of time, without a GPU."""
    try:
        manifest = compile_all(target.split(","), out, tuple(operators.split(",")))
        if table is not None:
            write_table(table, manifest)
    except UareError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(error.exit_code) from error
    entries = manifest["kernels"]
    spilled = [f"{entry['name']} for {entry['target']}" for entry in entries if entry["spills"]]
    typer.echo(
        f"{len(entries)} kernels in {out}; {len(spilled)} spill registers{': ' * bool(spilled)}{', '.join(spilled)}"
    )


if __name__ == "__main__":
    typer.run(main)
