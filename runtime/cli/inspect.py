"""`uare-rt inspect`: what a bundle holds, and whether it is whole."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from uare_rt.cli.console import emit, emit_json, emit_table
from uare_rt.cli.options import JsonOption
from uare_rt.errors import InputError

if TYPE_CHECKING:
    from uare_rt.manifest import AnyManifest, CalibrationInfo, GraphSpec, Profile, TensorSpec
    from uare_rt.vlm.layout import UnifiedLayout

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
    from uare_rt.checkpoints import is_checkpoint

    if is_checkpoint(bundle):
        raise InputError(f"{bundle}: a checkpoint, not a bundle; make one with: uare-rt export {bundle} -o NAME.uare")
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


def _facts(manifest: AnyManifest) -> list[tuple[str, str]]:
    source, tiling = manifest.source, getattr(manifest, "tiling", None)
    layout = getattr(manifest, "unified", None)
    trained = f"{source.recipe or 'untrained'}, {source.steps or 0} steps, " if layout is None else ""
    return [
        ("name", manifest.name),
        ("preset", manifest.preset),
        ("schema version", str(manifest.schema_version)),
        ("created by", manifest.created_by),
        ("license", manifest.license),
        ("weights", f"{trained}{source.parameters} parameters"),
        ("weights sha256", source.weights_sha256[:16]),
        ("scales", ", ".join(f"x{scale}" for scale in manifest.scales)),
        ("backend", _backend(manifest)),
        *(
            ()
            if tiling is None
            else (("tiles", f"grid {tiling.grid} px, {tiling.before} px before and {tiling.after} px after"),)
        ),
        *([] if layout is None else _decoder(layout)),
        *([] if manifest.calibration is None else [("calibration", _calibration(manifest.calibration))]),
        *((f"quality: {name}", _quality(value)) for name, value in manifest.quality.items()),
        *((f"engine: {name}", _engine(graph)) for name, graph in manifest.graphs.items() if graph.engine is not None),
    ]


def _decoder(layout: UnifiedLayout) -> list[tuple[str, str]]:
    kept = {"same": "as computed", "fp16": "in fp16", "int8": "in int8"}[layout.cache]
    widths = f"{layout.layers} layers of {layout.hidden}, {layout.heads}/{layout.kv_heads} heads of {layout.head_dim}"
    return [
        ("decoder", f"{widths}; keys and values {kept}"),
        ("vocabulary", f"{layout.vocabulary}, {'with' if layout.tokenizer else 'without a'} tokenizer"),
        ("positions", f"{layout.position_limit} of tokens, {layout.latent_side}x{layout.latent_side} of latents"),
    ]


def _backend(manifest: AnyManifest) -> str:
    backend = manifest.backend
    parts = [backend.name, backend.version, f"for {', '.join(backend.target)}" if backend.target else None]
    needs = [f"needs {backend.driver}" if backend.driver else None, backend.note]
    return "; ".join(part for part in (" ".join(filter(None, parts)), *needs) if part)


def _calibration(info: CalibrationInfo) -> str:
    return f"{info.samples} samples of {', '.join(info.sources)}; {info.observer}; sha256 {info.sha256[:16]}"


def _quality(value: object) -> str:
    """Figures of one precision: PSNR of every graph and what is lost of float32's, the rest as it is."""
    if not isinstance(value, dict):
        return str(value)
    return ", ".join(f"{name} {_restored(part)}" for name, part in value.items())


def _restored(part: object) -> str:
    if not isinstance(part, dict) or "psnr_db" not in part:
        return str(part)
    lost = f" ({part['loss_db']:+.3f} lost)" if "loss_db" in part else ""
    return f"{part['psnr_db']:.2f} dB{lost}"


def _engine(graph: GraphSpec) -> str:
    share = "" if graph.int8_macs is None else f", {100 * graph.int8_macs:.0f} % of convolutions in INT8"
    sides = "".join(f", {name} {_shapes(profile)}" for name, profile in (graph.profile or {}).items())
    engine = graph.engine
    state = "pending" if engine is None or isinstance(engine, str) else f"{engine.file}, {', '.join(engine.targets)}"
    return f"{state}, {graph.precision}{share}{sides}"


def _shapes(profile: Profile) -> str:
    return " to ".join("x".join(map(str, shape)) for shape in dict.fromkeys((profile.min, profile.opt, profile.max)))


def _graphs(manifest: AnyManifest) -> list[tuple[str, ...]]:
    return [
        (
            name,
            graph.file,
            str(graph.opset),
            graph.precision,
            " ".join(map(_tensor, graph.inputs)),
            " ".join(map(_tensor, graph.outputs)),
            "-" if graph.flops_per_pixel is None else f"{graph.flops_per_pixel:.0f}",
            _parity(graph),
        )
        for name, graph in manifest.graphs.items()
    ]


def _parity(graph: GraphSpec) -> str:
    """The difference from PyTorch: largest, or relative to the values where these have no known range."""
    if graph.relative_rms is not None:
        return f"{graph.relative_rms:.1e} rel"
    return "-" if graph.parity is None else f"{max(graph.parity.random_max_abs, graph.parity.real_max_abs):.1e}"


def _tensor(spec: TensorSpec) -> str:
    return f"{spec.name}[{','.join(map(str, spec.shape))}]"
