"""From a bundle of float32 graphs to a bundle for a target: precision, proof, engines, report."""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from uare_rt import __version__
from uare_rt.backends.tensorrt_build import BuildOptions, build_engine
from uare_rt.bundle import Bundle, write_bundle
from uare_rt.calibration.compare import GraphProof, compare, missed
from uare_rt.calibration.data import Picture, Sample, digest, make_samples, patterns, read_pictures
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
from uare_rt.calibration.storage import WEIGHT_FILE, name_after_layers, pack, weight_bytes
from uare_rt.errors import UareError, UsageError
from uare_rt.manifest import PENDING, BackendInfo, CalibrationInfo, EngineSpec, Profile

if TYPE_CHECKING:
    from uare_rt.calibration.observers import Observer
    from uare_rt.manifest import GraphSpec, Manifest

__all__ = ["BudgetMissedError", "BuildRequest", "build_bundle"]

REPORT_FILE = "report.html"
_DEFAULT_BUDGET = {"fp32": 0.0, "fp16": 0.02, "int8": 0.1}
_SAMPLES, _SEARCH, _HELD_OUT = 24, 12, 12
_SIDE = 128
_HELD_OUT_SHARE = 4  # every fourth picture is for the proof, where no others were given
_UNPROVEN_INT8 = (
    "INT8 engines of TensorRT-RTX were built without a GPU: they parse and compile; computing in INT8 is not shown"
)
_DRIVERS = {"tensorrt-rtx": "a driver for CUDA 13 (580 or newer)", "tensorrt": "the TensorRT of the device"}


class BudgetMissedError(UareError):
    """A build with a gate does not keep its promises; nothing was written."""


@dataclass(frozen=True)
class BuildRequest:
    """What to build.

    Attributes:
        backend: `tensorrt`, `tensorrt-rtx`, `onnxruntime` or `openvino`.
        precision: `fp32`, `fp16` or `int8`.
        targets: names of targets; empty for backends that run anywhere.
        profile: heights and widths of frames: smallest, usual, largest; all equal for static engines.
        data: pictures to calibrate with; empty takes synthetic ones.
        validation: pictures for the proof; empty holds back some of `data`.
        observer: of activations.
        max_drop_db: the budget; None takes 0.02 for fp16 and 0.1 for int8.
        gate: fail where the budget is missed.
        workspace_mib: see `uare_rt.backends.tensorrt_build.BuildOptions`.
        seed: of samples.
    """

    backend: str
    precision: str
    targets: tuple[str, ...]
    profile: tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
    data: tuple[Path, ...] = ()
    validation: tuple[Path, ...] = ()
    observer: Observer = "mse"
    max_drop_db: float | None = None
    gate: bool = False
    workspace_mib: int | None = None
    seed: int = 0

    @property
    def budget(self) -> float:
        """Largest mean loss of PSNR against float32, in dB."""
        return _DEFAULT_BUDGET[self.precision] if self.max_drop_db is None else self.max_drop_db


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
    work = observe_all(graphs, sets.calibration, half=half, progress=progress)
    variants = [Typed("fp32", graphs)]
    if request.precision != "fp32" and half:
        variants.append(half_precision(work))
    if request.precision == "int8":
        variants += [
            int8(work, sets.search, observer=request.observer, budget=request.budget, progress=progress),
            naive_int8(work),
        ]
    wanted = next(typed for typed in variants if typed.precision == _shipped(request, half))
    progress("proving quality", 0.0)
    full = weight_bytes(graphs)
    proofs = [
        compare(typed, prove(typed, sets.held_out), sets.held_out, (weight_bytes(typed.graphs), full))
        for typed in variants
    ]
    chosen = next(proof for proof in proofs if proof.precision == wanted.precision)
    problems = missed(chosen, proofs[0], request.budget)
    if request.gate and problems:
        raise BudgetMissedError(f"--gate: {'; '.join(problems)}; nothing was written")
    for name, graph in wanted.graphs.items():
        name_after_layers(graph, work[name].graph.sources())
    models, weights = pack(wanted.graphs)
    with tempfile.TemporaryDirectory() as folder:
        files: dict[str, Path | bytes] = {f"{name}.onnx": model for name, model in models.items()}
        files |= {WEIGHT_FILE: weights, manifest.null_context: source.file(manifest.null_context)}
        for name, content in files.items():
            if isinstance(content, bytes):
                (Path(folder) / name).write_bytes(content)
        profiles = {name: _profile(spec, request.profile) for name, spec in manifest.graphs.items()}
        specs = {}
        for index, (name, spec) in enumerate(manifest.graphs.items()):
            specs[name] = msgspec.structs.replace(
                spec,
                precision=_precision(work[name], wanted.precision),
                parity=None,
                profile=profiles[name] or None,
                int8_macs=round(work[name].int8_share("conv"), 4) if wanted.precision == "int8" else None,
                engine=PENDING if request.backend.startswith("tensorrt") else None,
            )
            if compiler is not None:
                say = _said(progress, f"compiling {name}", index, len(manifest.graphs))
                engine, extra = _compile(compiler, Path(folder) / f"{name}.onnx", name, profiles[name], request, say)
                specs[name] = msgspec.structs.replace(specs[name], engine=engine)
                files |= extra
        complete = _manifest(manifest, request, specs, compiler, sets, names, proofs)
        files[REPORT_FILE] = write_report(
            ReportData(
                complete, work, proofs, sets.held_out[min(sets.held_out)], request.budget, problems,
                time.monotonic() - began, variants,
            )
        ).encode()  # fmt: skip
        progress("writing", 1.0)
        return write_bundle(out, complete, files, overwrite=overwrite), proofs


def _shipped(request: BuildRequest, half: bool) -> str:
    return "fp32" if request.precision == "fp16" and not half else request.precision


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
    if len(pictures) < _HELD_OUT_SHARE:
        return pictures, pictures, names
    held_out = pictures[_HELD_OUT_SHARE - 1 :: _HELD_OUT_SHARE]
    return [picture for index, picture in enumerate(pictures) if (index + 1) % _HELD_OUT_SHARE], held_out, names


def _samples(pictures: Sequence[Picture], held_out: Sequence[Picture], scales: Sequence[int], seed: int) -> SampleSets:
    def make(which: Sequence[Picture], offset: int, count: int) -> dict[int, list[Sample]]:
        return {
            scale: make_samples(which, count=count, side=_SIDE, scale=scale, seed=seed + offset) for scale in scales
        }

    return SampleSets(
        make_samples(pictures, count=_SAMPLES, side=_SIDE, seed=seed),
        make(pictures, 1, _SEARCH),
        make(held_out, 2, _HELD_OUT),
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


def _compile(
    compiler: Any,
    model: Path,
    name: str,
    profile: Mapping[str, Profile],
    request: BuildRequest,
    progress: Callable[[float], bool],
) -> tuple[EngineSpec, dict[str, Path | bytes]]:
    began = time.monotonic()
    options = BuildOptions(profile, request.targets, request.workspace_mib)
    built = build_engine(compiler, model, options, progress)
    engine = EngineSpec(
        file=f"engines/{name}.engine",
        targets=request.targets,
        version=compiler.__version__,
        onnx_sha256=hashlib.sha256(model.read_bytes()).hexdigest(),
        seconds=round(time.monotonic() - began, 1),
        layers=f"engines/{name}.layers.json",
    )
    assert engine.layers is not None
    return engine, {engine.file: built.engine, engine.layers: json.dumps(built.layers, indent=0).encode()}


def _said(progress: Callable[[str, float], None], text: str, index: int, total: int) -> Callable[[float], bool]:
    def say(part: float) -> bool:
        progress(text, (index + part) / total)
        return True

    return say


def _manifest(
    manifest: Manifest,
    request: BuildRequest,
    specs: Mapping[str, GraphSpec],
    compiler: Any | None,
    sets: SampleSets,
    names: tuple[str, ...],
    proofs: Sequence[GraphProof],
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
        quality={proof.precision: proof.to_dict(proofs[0]) for proof in proofs},
    )
