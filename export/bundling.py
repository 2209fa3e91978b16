"""From a weight file to a bundle: trace, compare with PyTorch, pack, write."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from PIL import Image

from uare_rt import __version__
from uare_rt.bundle import write_bundle
from uare_rt.errors import InputError, OutputError, UareError
from uare_rt.export.graphs import CONTEXT_NAMES, NanoGraph, nano_graphs
from uare_rt.export.packing import WEIGHT_FILE, pack_weights, round_to_storage
from uare_rt.export.tracing import OPSET, trace
from uare_rt.manifest import (
    BackendInfo,
    ContextLayout,
    GraphSpec,
    Manifest,
    Parity,
    Source,
    TensorSpec,
    Tiling,
    ViewLayout,
)
from uare_rt.model.flops import restore_flops
from uare_rt.model.nano import LATENT_STRIDE, SCALES, UareNano
from uare_rt.model.receptive import tiling_rule
from uare_rt.model.weights import load_nano, weights_digest
from uare_rt.slots import SLOTS
from uare_rt.views import CROPS, VIEW_SIZE, extract_views

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

__all__ = ["TOLERANCE", "export_bundle"]

TOLERANCE = 2e-4
"""Largest allowed difference between a graph and PyTorch; frames are in [0, 1]."""

_NULL_FILE = "null_context.npz"
_LICENSE = "Apache-2.0"
_BYTES_PER_PIXEL = 260.0  # peak activation memory of restore_x1 in ONNX Runtime, measured on a 50-megapixel photo
_RANDOM_SIZES = ((1, 16, 48), (2, 208, 176), (1, 64, 64))
_REAL_SIDE = 384
_REAL_IMAGES = 3
_IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}


def export_bundle(
    checkpoint: Path,
    out: Path,
    *,
    overwrite: bool = False,
    real_images: Path | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> Path:
    """Export trained weights as a bundle of ONNX graphs.

    Every graph is compared with PyTorch through ONNX Runtime, on random inputs of several sizes and on
    real images with their real context, before anything is written.

    Args:
        checkpoint: ``weights.safetensors`` of `uare_rt.training.run`, or a bundle, whose graphs are made anew.
        out: the bundle directory to make, ``NAME.uare``.
        overwrite: replace an existing bundle.
        real_images: directory of images for the comparison; a synthetic picture stands in if None.
        progress: called with what is being done, and the finished part of the whole, 0 to 1.

    Returns:
        The bundle directory.

    Raises:
        InputError: the checkpoint or the images cannot be read.
        OutputError: the bundle exists or cannot be written.
        UareError: a graph differs from PyTorch by more than `TOLERANCE`, or cannot be exported.
    """
    say = progress or (lambda _, __: None)
    if out.exists() and not overwrite:
        raise OutputError(f"{out} already exists; choose another name or give --overwrite")
    model, facts = load_nano(checkpoint)
    model.requires_grad_(False)
    round_to_storage(model)
    frames = _real_frames(real_images)
    graphs = nano_graphs(model, SCALES)
    models = []
    for index, graph in enumerate(graphs):
        say(f"tracing {graph.name}", index / len(graphs) / 2)
        models.append(trace(graph))
    weights = pack_weights(models)
    files: dict[str, Path | bytes] = {WEIGHT_FILE: weights, _NULL_FILE: b""}
    specs = {}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / WEIGHT_FILE).write_bytes(weights)
        for index, (graph, proto) in enumerate(zip(graphs, models, strict=True)):
            say(f"comparing {graph.name} with PyTorch", 0.5 + index / len(graphs) / 2)
            path = Path(folder) / f"{graph.name}.onnx"
            path.write_bytes(proto.SerializeToString(deterministic=True))
            files[path.name] = path.read_bytes()
            specs[graph.name] = _spec(graph, proto, model, _compare(graph, path, model, frames))
        context = model.null_context()
        null = dict(zip(CONTEXT_NAMES, (context.k[:, 0], context.v[:, 0], context.vec[0]), strict=True))
        np.savez(Path(folder) / _NULL_FILE, **{name: tensor.numpy() for name, tensor in null.items()})
        files[_NULL_FILE] = (Path(folder) / _NULL_FILE).read_bytes()
    say(f"writing {out}", 1.0)
    manifest = _manifest(model, facts, weights_digest(checkpoint), specs)
    write_bundle(out, manifest, files, overwrite=overwrite)
    return out


def _manifest(model: UareNano, facts: dict[str, Any], weights_sha256: str, specs: dict[str, GraphSpec]) -> Manifest:
    rule, mot = tiling_rule(model.config), model.config.mot
    return Manifest(
        schema_version=1,
        name="uare-nano",
        preset="uare-nano",
        created_by=f"uare-rt {__version__}",
        license=_LICENSE,
        source=Source(
            weights_sha256=weights_sha256,
            recipe=facts.get("recipe"),
            steps=facts.get("steps"),
            parameters=sum(p.numel() for p in model.parameters()),
        ),
        slots=SLOTS,
        scales=SCALES,
        views=ViewLayout(size=VIEW_SIZE, crops=CROPS),
        context=ContextLayout(
            layers=mot.layers,
            kv_heads=mot.kv_heads,
            tokens=model.context_tokens,
            head_dim=mot.head_dim,
            vector=model.config.context_vector,
        ),
        tiling=Tiling(
            multiple=rule.multiple,
            grid=rule.grid,
            before=rule.before,
            after=rule.after,
            bytes_per_pixel=_BYTES_PER_PIXEL,
        ),
        graphs=specs,
        null_context=_NULL_FILE,
        backend=BackendInfo(name="onnx"),
        quality={},
        files={},
    )


def _spec(graph: NanoGraph, proto: onnx.ModelProto, model: UareNano, parity: Parity) -> GraphSpec:
    scale = int(graph.name.removeprefix("restore_x")) if graph.name.startswith("restore") else None
    return GraphSpec(
        file=f"{graph.name}.onnx",
        opset=OPSET,
        precision="fp32",
        inputs=tuple(_tensor_spec(v) for v in proto.graph.input),
        outputs=tuple(_tensor_spec(v) for v in proto.graph.output),
        flops_per_pixel=None if scale is None else round(restore_flops(model, scale)["total"], 1),
        parity=parity,
    )


def _tensor_spec(value: onnx.ValueInfoProto) -> TensorSpec:
    shape = tuple(d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim)
    return TensorSpec(name=value.name, dtype="float32", shape=shape)


def _compare(graph: NanoGraph, path: Path, model: UareNano, frames: Sequence[NDArray[np.uint8]]) -> Parity:
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(1)
    random = [graph.example(generator, size) for size in (_RANDOM_SIZES if graph.axes else _RANDOM_SIZES[:1])]
    real = [_real_inputs(graph, model, frame) for frame in frames]
    # NumPy's maximum keeps NaN, Python's may lose it; the comparison is written so that NaN fails.
    worst = [float(np.max([_difference(session, graph, inputs) for inputs in cases])) for cases in (random, real)]
    if not np.max(worst) <= TOLERANCE:
        raise UareError(
            f"graph {graph.name} differs from PyTorch by {worst[0]:.2e} on random and {worst[1]:.2e} on real inputs, "
            f"more than {TOLERANCE:.0e}; nothing was written. Check the weights, then the versions of torch and onnx"
        )
    return Parity(random_max_abs=worst[0], real_max_abs=worst[1], tolerance=TOLERANCE)


def _difference(session: ort.InferenceSession, graph: NanoGraph, inputs: Sequence[torch.Tensor]) -> float:
    feed = {name: tensor.numpy() for name, tensor in zip(graph.inputs, inputs, strict=True)}
    with torch.inference_mode():
        expected = graph.module(*inputs)
    expected = (expected,) if isinstance(expected, torch.Tensor) else expected
    got = session.run(list(graph.outputs), feed)
    return float(np.max([np.abs(g - e.numpy()).max() for g, e in zip(got, expected, strict=True)]))


def _real_inputs(graph: NanoGraph, model: UareNano, frame: NDArray[np.uint8]) -> tuple[torch.Tensor, ...]:
    views = torch.from_numpy(extract_views(frame))
    if not graph.axes:
        return (views,)
    with torch.inference_mode():
        _, context = model.assess(views[None])
    pixels = torch.from_numpy(frame.copy()).permute(2, 0, 1)[None].float() / 255
    return pixels, context.k[:, 0], context.v[:, 0], context.vec[0]


def _real_frames(folder: Path | None) -> list[NDArray[np.uint8]]:
    """Centre crops with sides that are multiples of 16, uint8 [H, W, 3]."""
    if folder is None:
        rows, columns = np.mgrid[0:256, 0:320].astype(np.float32)
        waves = [np.sin(rows / (3 + 5 * c)) * np.cos(columns / (7 + 3 * c)) for c in range(3)]
        return [np.uint8(127.5 + 120 * np.stack(waves, axis=-1))]
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in _IMAGE_SUFFIXES) if folder.is_dir() else []
    if not paths:
        raise InputError(f"{folder}: no images for the comparison; give a directory of PNG or JPEG files")
    frames = []
    for path in paths[:_REAL_IMAGES]:
        try:
            with Image.open(path) as image:
                pixels = np.asarray(image.convert("RGB"))
        except (OSError, SyntaxError, ValueError) as error:
            raise InputError(f"{path}: cannot be read ({error})") from None
        height, width = (min(side, _REAL_SIDE) // LATENT_STRIDE * LATENT_STRIDE for side in pixels.shape[:2])
        if not height or not width:
            raise InputError(f"{path}: {pixels.shape[1]}x{pixels.shape[0]} is below {LATENT_STRIDE} px")
        y, x = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
        frames.append(pixels[y : y + height, x : x + width])
    return frames
