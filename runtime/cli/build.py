"""`uare-rt build`: a bundle for a target, proven before it is written."""

from __future__ import annotations

import contextlib
import importlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from uare_rt.cli.console import Meter, emit, emit_table
from uare_rt.cli.extras import needs_extra
from uare_rt.cli.options import OverwriteOption
from uare_rt.errors import InputError, OutputError, UsageError
from uare_rt.reserving import reserved

if TYPE_CHECKING:
    from collections.abc import Iterator

    from uare_rt.bundle import Bundle
    from uare_rt.calibration.request import BuildRequest
    from uare_rt.manifest import AnyManifest

__all__ = ["build", "parse_sides"]

_BACKENDS = ("tensorrt-rtx", "tensorrt", "onnxruntime", "openvino")
_MODULES = {"tensorrt-rtx": ("tensorrt_rtx", "rtx"), "tensorrt": ("tensorrt", "tensorrt")}
_OBSERVERS = ("min-max", "moving-min-max", "mse", "entropy", "percentile")
_DEFAULT_SIDES = "64x64:512x512:1088x1920"
_SIDE_STEP = 16


def build(
    ctx: typer.Context,
    pending: Annotated[
        Path | None, typer.Argument(metavar="[PENDING.uare]", help="A portable bundle, to compile on this device.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="NAME.uare", help="The bundle to write.")] = None,
    model: Annotated[
        str, typer.Option("--model", metavar="MODEL", help="uare-nano (shipped), a bundle, or a checkpoint.")
    ] = "uare-nano",
    backend: Annotated[str, typer.Option("--backend", metavar="NAME", help=", ".join(_BACKENDS))] = "tensorrt-rtx",
    precision: Annotated[
        str, typer.Option("--precision", metavar="NAME", help="fp32, fp16, bf16 or int8; int4 for uare-7b.")
    ] = "fp16",
    target: Annotated[
        str | None, typer.Option("--target", metavar="LIST", help="Compute capabilities, e.g. sm86,sm89,sm120.")
    ] = None,
    sides: Annotated[
        str, typer.Option("--profile", metavar="MIN:OPT:MAX", help="Frame sides HxW; one alone gives static engines.")
    ] = _DEFAULT_SIDES,
    data: Annotated[
        list[Path] | None, typer.Option("--data", metavar="PATH", help="Images, videos or directories to calibrate on.")
    ] = None,
    validation: Annotated[
        list[Path] | None, typer.Option("--validation", metavar="PATH", help="The same for the proof of quality.")
    ] = None,
    observer: Annotated[str, typer.Option("--observer", metavar="NAME", help=", ".join(_OBSERVERS))] = "mse",
    max_drop_db: Annotated[
        float | None, typer.Option("--max-drop-db", min=0.0, metavar="DB", help="Budget; 0.02 for fp16, 0.1 for int8.")
    ] = None,
    gate: Annotated[bool, typer.Option("--gate", help="Write nothing if the budget is missed.")] = False,
    workspace: Annotated[
        int | None, typer.Option("--workspace", min=1, metavar="MIB", help="Most scratch memory of a layer.")
    ] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Build a bundle for a target.

    The graphs are brought to the precision, measured on held-out pictures, compiled and written with a report
    (report.html in the bundle). Without --data, synthetic pictures are used.

    The TensorRT backend compiles on the device: its bundles are portable, their engines pending. Given such a bundle
    and nothing else, build compiles its engines into this user's cache; otherwise the first load does.
    """
    if pending is not None:
        _finish(pending, ctx)
        return
    if out is None:
        raise UsageError("-o is missing: name the bundle to write, or a portable bundle to compile on this device")
    _check(backend, observer, out, overwrite)
    from uare_rt.targets import DEFAULT_TARGETS, check_precision, parse_targets

    accelerated = backend in _MODULES
    targets = parse_targets(target or ",".join(DEFAULT_TARGETS)) if accelerated else ()
    check_precision(precision, targets)
    if target is not None and not accelerated:
        raise UsageError(f"--target {target}: {backend} runs on any processor; leave --target out")
    if precision not in ("fp32", "int8") and not accelerated:
        raise UsageError(f"--precision {precision}: {backend} computes in fp32 on processors; choose fp32 or int8")
    profile = parse_sides(sides)
    compiler = _compiler(backend)
    with needs_extra("calibration"), reserved(out, "build"), _source(model) as source, Meter(1) as meter:
        from uare_rt.calibration.request import BuildRequest

        request = BuildRequest(
            backend=backend,
            precision=precision,
            targets=tuple(t.name for t in targets),
            profile=profile,
            data=tuple(data or ()),
            validation=tuple(validation or ()),
            observer=observer,
            max_drop_db=max_drop_db,
            gate=gate,
            workspace_mib=workspace,
        )
        how = {"compiler": compiler, "overwrite": overwrite, "progress": meter.part}
        manifest, table = (
            _build_unified(source, out, request, how) if _is_unified(source) else _build_nano(source, out, request, how)
        )
    emit_table(*table)
    emit(_summary(manifest, out, compiler))


def _is_unified(source: Bundle) -> bool:
    from uare_rt.manifest import UnifiedManifest

    return isinstance(source.manifest, UnifiedManifest)


def _build_nano(
    source: Bundle, out: Path, request: BuildRequest, how: dict[str, Any]
) -> tuple[AnyManifest, tuple[tuple[str, ...], list[tuple[str, ...]]]]:
    from uare_rt.calibration.build import build_bundle
    from uare_rt.calibration.report import QUALITY_HEADERS, quality_rows

    if request.precision == "int4":
        raise UsageError("--precision int4: these are weights of uare-7b; choose fp32, fp16, bf16 or int8")
    bundle, proofs = build_bundle(source, out, request, **how)
    headers = (*QUALITY_HEADERS[:2], *(f">{name}" for name in QUALITY_HEADERS[2:]))
    return bundle.manifest, (headers, quality_rows(proofs))


def _build_unified(
    source: Bundle, out: Path, request: BuildRequest, how: dict[str, Any]
) -> tuple[AnyManifest, tuple[tuple[str, ...], list[tuple[str, ...]]]]:
    from uare_rt.calibration.unified_build import build_unified

    if not request.backend.startswith("tensorrt") or request.precision == "fp32":
        raise UsageError(
            f"--backend {request.backend} --precision {request.precision}: uare-7b is built for tensorrt or "
            "tensorrt-rtx, in fp16, bf16, int8 or int4; other backends run the exported bundle as it is"
        )
    if request.gate or request.max_drop_db is not None:
        raise UsageError("--gate, --max-drop-db: the quality of uare-7b is not measured in dB; leave them out")
    bundle = build_unified(source, out, request, **how)
    rows: list[tuple[str, ...]] = [
        (kind, name, f"{value['relative_rms']:.5f}")
        for kind, graphs in bundle.manifest.quality.items()
        for name, value in graphs.items()
    ]
    return bundle.manifest, (("precision", "graph", ">relative RMS"), rows)


def _finish(path: Path, ctx: typer.Context) -> None:
    """Compile the pending engines of a bundle for this device."""
    from click.core import ParameterSource

    extra = [
        param.opts[0]
        for param in ctx.command.params
        if param.param_type_name == "option"
        and ctx.get_parameter_source(param.name or "") == ParameterSource.COMMANDLINE
    ]
    if extra:
        raise UsageError(
            f"{', '.join(extra)}: a portable bundle is compiled as it was made; leave out what else was given, or to "
            f"build from {path} give: --model {path}"
        )
    from uare_rt import backends
    from uare_rt.bundle import Bundle
    from uare_rt.manifest import PENDING

    bundle = Bundle.open(path)
    names = [name for name, spec in bundle.manifest.graphs.items() if spec.engine == PENDING]
    if not names:
        raise UsageError(f"{path}: no engine is pending; to build from it give: --model {path} -o NAME.uare")
    backend = backends.choose(bundle.manifest.backend.name)
    with Meter(len(names)) as meter:
        for name in names:
            meter.start(name)
            backend.load(bundle.graph(name), threads=None).close()
            meter.finish()
    emit(f"{path}: {len(names)} engines compiled and kept for this device")


def parse_sides(text: str) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    """Read `HxW` or `HxW:HxW:HxW`.

    Returns:
        Smallest, usual and largest height and width; all equal for a single one.

    Raises:
        UsageError: it is not of this form, not ascending, or a side is no multiple of 16.
    """
    found = [re.fullmatch(r"(\d+)x(\d+)", part) for part in text.split(":")]
    sizes = [(int(match[1]), int(match[2])) for match in found if match]
    if len(sizes) not in (1, 3) or len(sizes) != len(found):
        raise UsageError(f"--profile {text}: write HxW or MIN:OPT:MAX, for example {_DEFAULT_SIDES}")
    if any(side % _SIDE_STEP or side == 0 for size in sizes for side in size):
        raise UsageError(f"--profile {text}: sides must be multiples of {_SIDE_STEP}")
    low, usual, high = sizes * 3 if len(sizes) == 1 else sizes
    if not all(a <= b <= c for a, b, c in zip(low, usual, high, strict=True)):
        raise UsageError(f"--profile {text}: sides must not shrink from MIN to MAX")
    return low, usual, high


def _check(backend: str, observer: str, out: Path, overwrite: bool) -> None:
    if backend not in _BACKENDS:
        raise UsageError(f"--backend {backend}: nothing is built for it; choose one of: {', '.join(_BACKENDS)}")
    if observer not in _OBSERVERS:
        raise UsageError(f"--observer {observer}: no such observer; choose one of: {', '.join(_OBSERVERS)}")
    if out.exists() and not overwrite:
        raise OutputError(f"{out}: exists already; add --overwrite to replace it, or choose another -o")


def _compiler(backend: str) -> Any | None:
    """The module that compiles here; None where the device does it, or where nothing is compiled."""
    if backend not in _MODULES:
        return None
    module, extra = _MODULES[backend]
    if backend == "tensorrt":
        return None  # compiles for the device it runs on: the first load there does it
    with needs_extra(extra):
        return importlib.import_module(module)


@contextlib.contextmanager
def _source(model: str) -> Iterator[Bundle]:
    import tempfile

    from uare_rt.bundle import Bundle, shipped_bundle
    from uare_rt.checkpoints import exported, is_checkpoint

    path = Path(model)
    if model == "uare-nano":
        yield Bundle.open(shipped_bundle())
    elif path.is_dir():
        yield Bundle.open(exported(path) if is_checkpoint(path) else path)
    elif path.is_file():
        with needs_extra("export"), tempfile.TemporaryDirectory() as folder:
            from uare_rt.export import export_bundle

            yield Bundle.open(export_bundle(path, Path(folder) / "exported.uare"))
    else:
        raise InputError(f"--model {model}: no such preset, bundle or checkpoint; the shipped preset is uare-nano")


def _summary(manifest: AnyManifest, out: Path, compiler: Any | None) -> str:
    engines = "engines pending: the device compiles them at the first load" if compiler is None else "engines built"
    if manifest.backend.name not in _MODULES:
        engines = "runs as it is"
    report = f"; report: {out / 'report.html'}" if "report.html" in manifest.files else ""
    return f"{out}: written for {manifest.backend.name}, {engines}{report}"
