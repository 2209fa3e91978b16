"""From a bundle of float32 graphs to a bundle for a target: precision, proof, engines, report."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from onnx import TensorProto

from uare_rt import __version__
from uare_rt.bundle import Bundle, write_bundle
from uare_rt.calibration.compare import GraphProof, compare, missed
from uare_rt.calibration.compiling import compile_graph, said
from uare_rt.calibration.data import (
    CONDITIONS,
    HELD_OUT,
    Picture,
    Sample,
    digest,
    make_samples,
    patterns,
    read_pictures,
)
from uare_rt.calibration.evaluation import frame_of
from uare_rt.calibration.graph import Graph
from uare_rt.calibration.precision import (
    GraphPrecision,
    SampleSets,
    Typed,
    half_precision,
    int8,
    naive_int8,
    observe_all,
    prove,
)
from uare_rt.calibration.report import ReportData, write_report
from uare_rt.calibration.speed import speed_ratio
from uare_rt.calibration.storage import WEIGHT_FILE, name_after_layers, pack, weight_bytes
from uare_rt.errors import InputError, UareError, UsageError
from uare_rt.manifest import FLOAT32, PENDING, BackendInfo, CalibrationInfo, Profile

if TYPE_CHECKING:
    from uare_rt.calibration.request import BuildRequest
    from uare_rt.degradation import Step
    from uare_rt.manifest import GraphSpec, Manifest

__all__ = ["BudgetMissedError", "build_bundle"]

REPORT_FILE = "report.html"
_log = logging.getLogger(__name__)
_SAMPLES = 2 * len(CONDITIONS)
_ROUNDS = 2  # of the proof's conditions at the smallest scale, each time with other pictures
_SIDE, _SEARCH_SIDE = 128, 96  # px, of calibration; of search and proof, which run the graphs some two hundred times
# Of the budget, for a search on synthetic pictures: float32 restores them some 5 dB worse than photographs, so the
# same error of INT8 costs them a third of the decibels; with 0.3 photographs lost 0.11 dB of a budget of 0.10.
_SYNTHETIC_SHARE = 0.16
_HELD_OUT_SHARE = 4  # every fourth picture is for the proof, where no others were given; of fewer the last
_UNPROVEN_INT8 = (
    "INT8 engines of TensorRT-RTX were built without a GPU: they parse and compile; computing in INT8 is not shown"
)
_DRIVERS = {"tensorrt-rtx": "a driver for CUDA 13 (580 or newer)", "tensorrt": "the TensorRT of the device"}


class BudgetMissedError(UareError):
    """A build with a gate does not keep its promises; nothing was written."""


def build_bundle(
    source: Bundle,
    out: Path,
    request: BuildRequest,
    *,
    compiler: Any | None,
    overwrite: bool = False,
    progress: Callable[[str, float], None] = lambda _, __: None,
) -> tuple[Bundle, list[GraphProof]]:
    """Build a bundle.

    Args:
        source: float32 graphs, of `uare-rt export` or shipped; not changed.
        out: the bundle directory to make.
        request: what to build.
        compiler: the module `tensorrt` or `tensorrt_rtx`; None leaves engines to the device.
        overwrite: replace an existing bundle.
        progress: called with what is done and its finished part, 0..1.

    Returns:
        The bundle, and what each precision costs on held-out samples.

    Raises:
        InputError: calibration data cannot be used.
        BudgetMissedError: a gate was asked for and the budget is missed.
        BackendError: a graph cannot be compiled.
        OutputError: the bundle cannot be written.
        UsageError: the source is built already.
    """
    began = time.monotonic()
    manifest = source.nano
    built = sorted({spec.precision for spec in manifest.graphs.values()} - {"fp32"})
    if built:
        raise UsageError(f"{source.path} is in {', '.join(built)} already; build from its float32 bundle")
    pictures, held_out, names = _pictures(request)
    sets = _samples(pictures, held_out, manifest.scales, request.seed)
    graphs = {name: Graph.open(source.graph(name).path) for name in manifest.graphs}
    half = request.backend.startswith("tensorrt") and request.precision != "fp32"
    kind = TensorProto.BFLOAT16 if request.precision == "bf16" else TensorProto.FLOAT16
    work = observe_all(graphs, sets.calibration, half=kind if half else None, progress=progress)
    variants = [Typed("fp32", graphs)]
    if half:
        variants.append(half_precision(work, "bf16" if kind == TensorProto.BFLOAT16 else "fp16"))
    if request.precision == "int8":
        budget = request.budget * (1.0 if request.data else _SYNTHETIC_SHARE)
        variants += [
            int8(work, sets.search, observer=request.observer, budget=budget, progress=progress),
            naive_int8(work),
        ]
    wanted = next(typed for typed in variants if typed.precision == request.precision)
    progress("proving quality", 0.0)
    full = weight_bytes(graphs)
    proofs = [
        compare(typed, prove(typed, sets.held_out), sets.held_out, (weight_bytes(typed.graphs), full))
        for typed in variants
    ]
    chosen = next(proof for proof in proofs if proof.precision == wanted.precision)
    lost = missed(chosen, proofs[0], request.budget)
    _hold(request, lost)
    for name, graph in wanted.graphs.items():
        name_after_layers(graph, work[name].graph.sources())
    models, weights = pack(wanted.graphs)
    with tempfile.TemporaryDirectory() as folder:
        files: dict[str, Path | bytes] = {f"{name}.onnx": model for name, model in models.items()}
        files |= {WEIGHT_FILE: weights, manifest.null_context: source.file(manifest.null_context)}
        for name, content in files.items():
            if isinstance(content, bytes):
                (Path(folder) / name).write_bytes(content)
        first = min(sets.held_out)
        ratio, slower = _slower(source, Path(folder), request, sets.held_out[first][0], f"restore_x{first}")
        _hold(request, slower)
        profiles = {name: _profile(spec, request.profile) for name, spec in manifest.graphs.items()}
        specs = {}
        for index, (name, spec) in enumerate(manifest.graphs.items()):
            specs[name] = msgspec.structs.replace(
                spec,
                opset=wanted.graphs[name].opset,
                precision=_precision(work[name], wanted.precision),
                parity=None,
                profile=profiles[name] or None,
                int8_macs=round(work[name].int8_share("conv"), 4) if wanted.precision == "int8" else None,
                engine=PENDING if request.backend.startswith("tensorrt") else None,
            )
            if compiler is not None:
                say = said(progress, f"compiling {name}", index, len(manifest.graphs))
                engine, extra = compile_graph(compiler, Path(folder) / f"{name}.onnx", profiles[name], request, say)
                specs[name] = msgspec.structs.replace(specs[name], engine=engine)
                files |= extra
        if request.precision == "int8" and not request.backend.startswith("tensorrt"):
            exact, extra = _float32_beside(source)
            specs |= exact
            files |= extra
        complete = _manifest(manifest, request, specs, compiler, sets, names, proofs, ratio)
        if set(specs) > set(manifest.graphs):
            complete = msgspec.structs.replace(complete, quality=complete.quality | {"missed": lost})
        files[REPORT_FILE] = write_report(
            ReportData(
                complete, work, proofs, sets.held_out[min(sets.held_out)], request.budget, [*lost, *slower],
                time.monotonic() - began, {name: _size(content) for name, content in files.items()},
            )
        ).encode()  # fmt: skip
        progress("writing", 1.0)
        return write_bundle(out, complete, files, overwrite=overwrite), proofs


def _hold(request: BuildRequest, problems: Sequence[str]) -> None:
    if request.gate and problems:
        raise BudgetMissedError(f"--gate: {'; '.join(problems)}; nothing was written")
    for problem in problems:
        _log.warning("%s; it is written all the same, without --gate", problem)


def _slower(
    source: Bundle, folder: Path, request: BuildRequest, sample: Sample, name: str
) -> tuple[float | None, list[str]]:
    """Time of a graph over that of its float32 original, where the backend runs here, and what is wrong with it."""
    if request.backend.startswith("tensorrt") or request.precision == "fp32":
        return None, []  # a GPU is needed, and `uare-rt bench` there
    context = source.null_context()
    feeds = {"frame": frame_of(sample), "ctx_k": context.k, "ctx_v": context.v, "ctx_vec": context.vec}
    spec, paths = source.nano.graphs[name], (source.graph(name).path, folder / f"{name}.onnx")
    specs = (spec, msgspec.structs.replace(spec, precision=request.precision))
    ratio = speed_ratio(request.backend, specs, paths, feeds)
    problem = f"{name} in {request.precision} is not faster on {request.backend}: {ratio:.2f} of float32's time"
    return round(ratio, 3), [problem] if ratio >= 1 else []


def _size(content: Path | bytes) -> int:
    return len(content) if isinstance(content, bytes) else content.stat().st_size


def _float32_beside(source: Bundle) -> tuple[dict[str, GraphSpec], dict[str, Path]]:
    """The float32 graphs that a bundle for processors holds too, for those on which INT8 is not faster; and files."""
    manifest = source.nano
    graphs = {
        name + FLOAT32: msgspec.structs.replace(spec, file=f"fp32/{spec.file}")
        for name, spec in manifest.graphs.items()
    }
    others = {manifest.null_context, REPORT_FILE}
    return graphs, {f"fp32/{name}": source.file(name) for name in manifest.files if name not in others}


def _precision(item: GraphPrecision, precision: str) -> str:
    if precision == "int8" and not (item.choice is not None and item.choice.int8):
        return "fp16" if any(reason != "cpu" for reason in item.plan.reasons.values()) else "fp32"
    return precision


def _pictures(request: BuildRequest) -> tuple[list[Picture], list[Picture], tuple[str, ...]]:
    if not request.data:
        held_out = read_pictures(request.validation) if request.validation else patterns(request.seed + 1)
        return patterns(request.seed), held_out, ("synthetic: dead leaves",)
    pictures = read_pictures(request.data)
    names = tuple(dict.fromkeys(path.name for path in request.data))
    if request.validation:
        return pictures, read_pictures(request.validation), names
    if len(pictures) == 1:
        raise InputError(
            f"{request.data[0]}: with one picture nothing is left for the proof; give more, or others with --validation"
        )
    share = min(_HELD_OUT_SHARE, len(pictures))
    held_out = pictures[share - 1 :: share]
    return [picture for index, picture in enumerate(pictures) if (index + 1) % share], held_out, names


def _samples(pictures: Sequence[Picture], held_out: Sequence[Picture], scales: Sequence[int], seed: int) -> SampleSets:
    def make(
        which: Sequence[Picture], conditions: Mapping[str, tuple[Step, ...]], scale: int, seed: int, rounds: int = 1
    ) -> list[Sample]:
        count = rounds * len(conditions)
        return make_samples(which, conditions, count=count, side=_SEARCH_SIDE, scale=scale, seed=seed)

    rounds = {min(scales): _ROUNDS}
    return SampleSets(
        make_samples(pictures, count=_SAMPLES, side=_SIDE, seed=seed),
        {scale: make(pictures, CONDITIONS, scale, seed + 1) for scale in scales},
        {scale: make(held_out, HELD_OUT, scale, seed + 2, rounds.get(scale, 1)) for scale in scales},
    )


def _profile(spec: GraphSpec, sides: tuple[tuple[int, int], tuple[int, int], tuple[int, int]]) -> dict[str, Profile]:
    """Shapes of the inputs with dynamic sides: batch 1, heights and widths as asked for."""

    def shape(dims: Sequence[int | str], size: tuple[int, int]) -> tuple[int, ...]:
        named = {"N": 1, "H": size[0], "W": size[1]}
        return tuple(dim if isinstance(dim, int) else named[dim] for dim in dims)

    return {
        tensor.name: Profile(
            **{key: shape(tensor.shape, size) for key, size in zip(("min", "opt", "max"), sides, strict=True)}
        )
        for tensor in spec.inputs
        if any(isinstance(dim, str) for dim in tensor.shape)
    }


def _manifest(
    manifest: Manifest,
    request: BuildRequest,
    specs: Mapping[str, GraphSpec],
    compiler: Any | None,
    sets: SampleSets,
    names: tuple[str, ...],
    proofs: Sequence[GraphProof],
    ratio: float | None,
) -> Manifest:
    note = _UNPROVEN_INT8 if request.backend == "tensorrt-rtx" and request.precision == "int8" else None
    return msgspec.structs.replace(
        manifest,
        created_by=f"uare-rt {__version__}",
        graphs=dict(specs),
        backend=BackendInfo(
            name=request.backend,
            target=request.targets or None,
            version=None if compiler is None else compiler.__version__,
            driver=_DRIVERS.get(request.backend),
            note=note,
        ),
        calibration=CalibrationInfo(
            sha256=digest(sets.calibration),
            sources=names,
            samples=len(sets.calibration),
            observer=request.observer,
            seed=request.seed,
        ),
        quality={proof.precision: proof.to_dict(proofs[0]) for proof in proofs}
        | ({} if ratio is None else {"time_of_fp32": ratio}),
    )
