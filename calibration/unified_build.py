"""From a float32 bundle of the large model to one for a target, graph by graph."""

from __future__ import annotations

import hashlib
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import onnx
from onnx import TensorProto, helper

from uare_rt import __version__
from uare_rt.bundle import Bundle, write_bundle
from uare_rt.calibration.compiling import compile_graph, said
from uare_rt.calibration.data import patterns, read_pictures
from uare_rt.calibration.observers import Histogram
from uare_rt.calibration.unified import WeightSink, linear_inputs, stays_float32, typed
from uare_rt.errors import BackendError, UsageError
from uare_rt.machine import available_memory
from uare_rt.manifest import PENDING, BackendInfo, CalibrationInfo, Profile
from uare_rt.vlm.contexts import Together
from uare_rt.vlm.engine import Embedding, Engine
from uare_rt.vlm.transforms import resize

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from uare_rt.calibration.data import Picture
    from uare_rt.calibration.observers import Observer
    from uare_rt.calibration.request import BuildRequest
    from uare_rt.calibration.unified import UnifiedKind
    from uare_rt.manifest import GraphSpec

    Feeds = Mapping[str, Sequence[Mapping[str, NDArray[Any]]]]

__all__ = ["PROFILE", "build_unified", "drive", "observed_ranges", "profile_of", "relative_rms"]

_WEIGHT_FILE = "weights.bin"
_PICTURES = 4  # half to observe, half to measure
_TEXT = 24  # tokens of a stand-in for a question
_FREE_SHARE = 0.8  # of free memory, for the graph that is measured
# Where a tile lies is an input that shapes depend on, for which an engine's profile would need values: these two serve
# the autoencoder in tiles, which a device with an engine for whole pictures does without.
_WITHOUT_ENGINE = ("encode_outer", "decode_outer")
_WIDENED = 2  # of 16-bit weights that ONNX Runtime holds in float32

PROFILE: Mapping[str, tuple[int, int, int]] = {
    "B": (1, 3, 3),
    "S": (0, 1024, 8192),
    "G": (0, 1024, 4096),
    "U": (1, 128, 4902),
    "N": (1, 16, 4900),
    "H": (64, 512, 1024),
    "W": (64, 512, 1024),
    "h": (8, 64, 128),
    "w": (8, 64, 128),
    "rows": (16, 128, 256),
    "columns": (16, 128, 256),
}
"""Smallest, usual and largest of every dynamic dimension: branches of guidance (B); cached (S), latent (G) and other
tokens (U), rows (N); features between the parts of the autoencoder (rows, columns)."""


def build_unified(
    source: Bundle,
    out: Path,
    request: BuildRequest,
    *,
    compiler: Any | None,
    overwrite: bool = False,
    progress: Callable[[str, float], None] = lambda _, __: None,
) -> Bundle:
    """Build a bundle of a ``uare-7b`` model.

    One graph after another is brought to the precision, compared with float32 where memory allows to run it, and
    compiled; weights go from file to file tensor by tensor.

    Args:
        source: float32 graphs, of `uare-rt export`; not changed.
        out: the bundle directory to make.
        request: what to build; ``precision`` is fp16, bf16, int8 or int4.
        compiler: see `uare_rt.calibration.build.build_bundle`.
        overwrite: replace an existing bundle.
        progress: called with what is done and its finished part, 0..1.

    Raises:
        UsageError: the source is built already, or memory does not allow to observe ranges.
        InputError: calibration data cannot be used.
        BackendError: a graph cannot be compiled.
        OutputError: the bundle cannot be written.
    """
    manifest = source.unified
    if manifest.backend.name != "onnx":
        raise UsageError(f"{source.path} was built already; build from its float32 bundle")
    kind: UnifiedKind = request.precision  # type: ignore[assignment]  # checked by targets.check_precision
    pictures = read_pictures(request.data) if request.data else patterns(request.seed)
    runs = _runs_here(source)
    if kind == "int8" and not runs:
        raise UsageError(
            f"--precision int8: ranges are observed in float32, for which {source.path} has not enough free memory "
            "here; use a larger machine, or bf16 or int4, which need no ranges"
        )
    feeds = drive(source, _evenly(pictures), request.seed, progress) if runs else {}
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as scratch:
        folder = Path(scratch)
        graphs = _written(source, folder, request, feeds, progress)
        files: dict[str, Path | bytes] = {_WEIGHT_FILE: folder / _WEIGHT_FILE}
        specs = {}
        for index, (name, spec) in enumerate(manifest.graphs.items()):
            files[f"{name}.onnx"] = folder / f"{name}.onnx"
            specs[name] = msgspec.structs.replace(
                spec,
                file=f"{name}.onnx",
                opset=graphs[name].opset,
                precision=graphs[name].precision,
                relative_rms=None,
                profile=profile_of(spec) or None,
                engine=None if name in _WITHOUT_ENGINE else PENDING,
            )
            if compiler is not None and name not in _WITHOUT_ENGINE:
                say = said(progress, f"compiling {name}", index, len(manifest.graphs))
                engine, extra = compile_graph(compiler, folder / f"{name}.onnx", profile_of(spec), request, say)
                specs[name] = msgspec.structs.replace(specs[name], engine=engine)
                files |= extra
        layout = manifest.unified
        files |= {name: source.file(name) for name in (layout.embedding, *layout.tokenizer)}
        quality = {name: {"relative_rms": g.relative_rms} for name, g in graphs.items() if g.relative_rms is not None}
        complete = msgspec.structs.replace(
            manifest,
            created_by=f"uare-rt {__version__}",
            graphs=specs,
            backend=BackendInfo(
                name=request.backend,
                target=request.targets or None,
                version=None if compiler is None else compiler.__version__,
                note=None if runs else "quality was not measured: not enough memory to run the graphs in float32",
            ),
            calibration=_calibration(pictures, request) if kind == "int8" else None,
            quality={kind: quality} if quality else {},
        )
        progress("writing", 1.0)
        return write_bundle(out, complete, files, overwrite=overwrite)


@dataclass(frozen=True)
class _Graph:
    """What was made of one graph; ``relative_rms`` is None where it was not run."""

    opset: int
    precision: str
    relative_rms: float | None


def _written(
    source: Bundle, folder: Path, request: BuildRequest, feeds: Feeds, progress: Callable[[str, float], None]
) -> dict[str, _Graph]:
    """Write every graph in its precision, and the file of weights, into a folder."""
    kind: UnifiedKind = request.precision  # type: ignore[assignment]  # checked by targets.check_precision
    found = {}
    names = list(source.unified.graphs)
    with (folder / _WEIGHT_FILE).open("wb") as stream:
        sink = WeightSink(source.path, stream, _WEIGHT_FILE)
        for index, name in enumerate(names):
            progress(f"{kind}: {name}", index / len(names))
            path = source.graph(name).path
            model = onnx.load(str(path), load_external_data=False)
            observing, measuring = _halves(feeds.get(name, ()))
            ranges = observed_ranges(source.path, model, observing, request.observer) if kind == "int8" else {}
            proto = typed(model, kind, sink, ranges)
            (folder / f"{name}.onnx").write_bytes(proto.SerializeToString(deterministic=True))
            apart = None
            if measuring:  # the autoencoder's parts for tiles are not run, and do not change
                shadow = folder / "rounded.onnx"
                shadow.write_bytes(typed(model, kind, sink, ranges, rounded=True).SerializeToString())
                stream.flush()
                apart = relative_rms(path, shadow, measuring)
            precision = "fp32" if stays_float32(model) else kind
            found[name] = _Graph(proto.opset_import[0].version, precision, apart)
    return found


def drive(
    source: Bundle, pictures: Sequence[Picture], seed: int, progress: Callable[[str, float], None]
) -> dict[str, list[dict[str, NDArray[Any]]]]:
    """Assess and restore pictures in float32, with random words for a question, and keep what every graph was given.

    Args:
        source: the bundle.
        pictures: to work on.
        seed: of words and noise.
        progress: see `build_unified`.
    """
    from uare_rt import backends

    layout = source.unified.unified
    backend = backends.get("onnxruntime")
    loaded: dict[str, Any] = {}
    seen: defaultdict[str, list[dict[str, NDArray[Any]]]] = defaultdict(list)

    def run(name: str, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        if name not in loaded:
            loaded[name] = backend.load(source.graph(name), threads=None)
        seen[name].append(dict(inputs))
        outputs: dict[str, NDArray[Any]] = loaded[name].run(inputs)
        return outputs

    engine = Engine(layout, Embedding(source.file(layout.embedding), layout), run)
    rng = np.random.default_rng(seed)
    for index, picture in enumerate(pictures):
        progress("running in float32", index / len(pictures))
        words = rng.integers(0, layout.special.bos or layout.vocabulary, _TEXT).tolist()
        fitted = resize(picture.pixels, layout.vae_transform)
        latent, _ = engine.encode(fitted)
        blocks = [engine.vision_block(picture.pixels), engine.text_block(words), engine.latent_block(latent)]
        context, _ = engine.extend(engine.empty, blocks)
        context, _ = engine.follow(context, layout.special.bos)
        grid = (latent.shape[1] // layout.latent_patch, latent.shape[2] // layout.latent_patch)
        noise = rng.standard_normal((grid[0] * grid[1], layout.latent_width)).astype(np.float32)
        (velocity,), (stream,) = engine.denoise(Together.of([context]), noise, engine.latent_rows(grid), 0.7)
        engine.velocity(stream)
        engine.picture(noise - velocity, grid)
    for executable in loaded.values():
        executable.close()
    return dict(seen)


def profile_of(spec: GraphSpec) -> dict[str, Profile]:
    """Shapes of the inputs with dynamic dimensions, by `PROFILE`; a dimension may be a sum of others and numbers."""

    def size(term: str, which: int) -> int:
        return int(term) if term.isdigit() else PROFILE[term][which]

    def shape(dims: Sequence[int | str], which: int) -> tuple[int, ...]:
        return tuple(d if isinstance(d, int) else sum(size(term, which) for term in d.split("+")) for d in dims)

    return {
        tensor.name: Profile(min=shape(tensor.shape, 0), opt=shape(tensor.shape, 1), max=shape(tensor.shape, 2))
        for tensor in spec.inputs
        if any(isinstance(dim, str) for dim in tensor.shape)
    }


def _runs_here(source: Bundle) -> bool:
    """Whether the largest graph fits into memory in float32; graphs of one model share one file of weights."""
    size = source.file(_WEIGHT_FILE).stat().st_size
    free = available_memory()
    return free is None or size * _WIDENED < free * _FREE_SHARE


def _evenly(pictures: Sequence[Picture]) -> list[Picture]:
    count = min(_PICTURES, len(pictures))
    return [pictures[index * len(pictures) // count] for index in range(count)]


def _halves(feeds: Sequence[Any]) -> tuple[Sequence[Any], Sequence[Any]]:
    """For observing and for measuring; one sample alone serves both."""
    return (feeds[::2], feeds[1::2]) if len(feeds) > 1 else (feeds, feeds)


def observed_ranges(
    folder: Path, model: onnx.ModelProto, feeds: Sequence[Mapping[str, NDArray[Any]]], observer: Observer
) -> dict[str, float]:
    """Largest magnitudes that INT8 has to cover, of every tensor that a linear layer inside the transformers reads.

    Args:
        folder: of the graph's weights.
        model: the graph in float32.
        feeds: its inputs.
        observer: see `uare_rt.calibration.observers`.
    """
    tensors = list(dict.fromkeys(linear_inputs(model).values()))
    if not tensors:
        return {}
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    probe.graph.output.extend(helper.make_tensor_value_info(tensor, TensorProto.FLOAT, None) for tensor in tensors)
    session = _session(probe.SerializeToString(), folder)
    histograms = {tensor: Histogram() for tensor in tensors}
    for inputs in feeds:
        for tensor, value in zip(tensors, session.run(tensors, dict(inputs)), strict=True):
            if value.size:
                histograms[tensor].add(value)
    return {tensor: float(histogram.range(observer)) for tensor, histogram in histograms.items()}


def relative_rms(exact: Path, other: Path, feeds: Sequence[Mapping[str, NDArray[Any]]]) -> float:
    """Root mean square of the difference between two graphs over that of the values: of the worst output.

    Args:
        exact: the float32 graph, weights beside it.
        other: of `typed` with ``rounded``, likewise.
        feeds: inputs of both.
    """
    sessions = [_session(path.read_bytes(), path.parent) for path in (exact, other)]
    names = [value.name for value in sessions[0].get_outputs()]
    apart, size = np.zeros(len(names)), np.zeros(len(names))
    for inputs in feeds:
        results = (session.run(names, dict(inputs)) for session in sessions)
        for index, (a, b) in enumerate(zip(*results, strict=True)):
            apart[index] += float(np.sum((a.astype(np.float64) - b) ** 2))
            size[index] += float(np.sum(a.astype(np.float64) ** 2))
    return round(float(np.sqrt(np.max(apart / np.maximum(size, 1e-30)))), 6)


def _session(model: bytes, folder: Path) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    try:
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions share no base below Exception
        raise BackendError(f"ONNX Runtime refuses a graph: {' '.join(str(error).split())[:300]}") from error


def _calibration(pictures: Sequence[Picture], request: BuildRequest) -> CalibrationInfo:
    used = _evenly(pictures)
    digest = hashlib.sha256()
    for picture in used:
        digest.update(picture.name.encode() + b"\0" + picture.pixels.tobytes())
    return CalibrationInfo(
        sha256=digest.hexdigest(),
        sources=tuple(dict.fromkeys(path.name for path in request.data)) or ("synthetic: dead leaves",),
        samples=len(used),
        observer=request.observer,
        seed=request.seed,
    )
