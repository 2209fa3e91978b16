"""`uare-rt inspect`: what a bundle holds, and whether it is whole."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from uare_rt.cli.console import emit, emit_json, emit_table
from uare_rt.cli.options import JsonOption

if TYPE_CHECKING:
    from uare_rt.manifest import Manifest, TensorSpec

__all__ = ["inspect"]


def inspect(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A directory NAME.uare.")],
    as_json: JsonOption = False,
) -> None:
    """Show what a bundle holds, and check it.

    Checked are types, paths, sizes, SHA-256 and that every weight is a finite number.

    With --json, the manifest itself.
    """
    from uare_rt.bundle import Bundle

    opened = Bundle.open(bundle)
    opened.verify()
    if as_json:
        import msgspec

        emit_json(msgspec.to_builtins(opened.manifest))
        return
    manifest = opened.manifest
    emit_table(("", ""), _facts(manifest))
    emit("")
    emit_table(("graph", "file", ">opset", "precision", "inputs", "outputs", ">FLOP/px", ">parity"), _graphs(manifest))
    emit("")
    emit_table(("file", ">bytes", "sha256"), [(n, str(e.bytes), e.sha256[:16]) for n, e in manifest.files.items()])
    emit("")
    emit(f"{bundle}: whole; {len(manifest.files)} files match their SHA-256, every weight is finite")


def _facts(manifest: Manifest) -> list[tuple[str, str]]:
    source, tiling = manifest.source, manifest.tiling
    trained = f"{source.recipe or 'untrained'}, {source.steps or 0} steps, {source.parameters} parameters"
    return [
        ("name", manifest.name),
        ("preset", manifest.preset),
        ("schema version", str(manifest.schema_version)),
        ("created by", manifest.created_by),
        ("license", manifest.license),
        ("weights", trained),
        ("weights sha256", source.weights_sha256[:16]),
        ("scales", ", ".join(f"x{scale}" for scale in manifest.scales)),
        ("backend", manifest.backend.name),
        ("tiles", f"grid {tiling.grid} px, {tiling.before} px before and {tiling.after} px after"),
        *((f"quality: {name}", str(value)) for name, value in manifest.quality.items()),
    ]


def _graphs(manifest: Manifest) -> list[tuple[str, ...]]:
    return [
        (
            name,
            graph.file,
            str(graph.opset),
            graph.precision,
            " ".join(map(_tensor, graph.inputs)),
            " ".join(map(_tensor, graph.outputs)),
            "-" if graph.flops_per_pixel is None else f"{graph.flops_per_pixel:.0f}",
            "-" if graph.parity is None else f"{max(graph.parity.random_max_abs, graph.parity.real_max_abs):.1e}",
        )
        for name, graph in manifest.graphs.items()
    ]


def _tensor(spec: TensorSpec) -> str:
    return f"{spec.name}[{','.join(map(str, spec.shape))}]"
