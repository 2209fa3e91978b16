"""From a checkpoint in BAGEL's layout to a bundle: graphs, one file of weights, the comparison with PyTorch."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from onnx import TensorProto

from uare_rt import __version__
from uare_rt.bundle import write_bundle
from uare_rt.errors import OutputError
from uare_rt.export.codec_graphs import decode_image_graph, encode_graph
from uare_rt.export.mot_graphs import decode_graph, denoise_graph, prefill_graph, velocity_graph
from uare_rt.export.packing import WEIGHT_FILE
from uare_rt.export.tracing import OPSET
from uare_rt.export.unified_parity import compare_unified
from uare_rt.export.vision_graph import vision_graph
from uare_rt.export.weight_file import CheckpointWeights, WeightFile, raw_bytes, stored_as
from uare_rt.manifest import BackendInfo, GraphSpec, Source, TensorSpec, UnifiedManifest
from uare_rt.model.checkpoint import Checkpoint
from uare_rt.model.prompts import load_prompts
from uare_rt.model.unified import UnifiedModel
from uare_rt.model.weights import sha256_of
from uare_rt.slots import SLOTS
from uare_rt.vlm.engine import Embedding
from uare_rt.vlm.layout import UnifiedLayout

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx

    from uare_rt.model.presets.uare_7b import UnifiedConfig

__all__ = ["export_unified", "unified_graphs"]

_EMBEDDING_FILE = "embedding.bin"
_TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "merges.txt", "tokenizer_config.json")
_LICENSE = "that of the checkpoint"
_DTYPES = {TensorProto.FLOAT: "float32", TensorProto.INT64: "int64", TensorProto.BOOL: "bool"}


def export_unified(
    checkpoint: Path, out: Path, *, overwrite: bool = False, progress: Callable[[str], None] | None = None
) -> Path:
    """Export a checkpoint directory as a bundle of ONNX graphs.

    Weights are copied tensor by tensor in the type they are stored in, and every layer is compared with PyTorch on its
    own, so the model need not fit in memory. Graphs compute in float32.

    Args:
        checkpoint: see `uare_rt.model.checkpoint.Checkpoint`.
        out: the bundle directory to make, ``NAME.uare``.
        overwrite: replace an existing bundle.
        progress: called with a line about what is being done.

    Returns:
        The bundle directory.

    Raises:
        InputError: the checkpoint cannot be used.
        OutputError: the bundle exists or cannot be written.
        UareError: a graph differs from PyTorch.
    """
    say = progress or (lambda _: None)
    if out.exists() and not overwrite:
        raise OutputError(f"{out} already exists; choose another name or give --overwrite")
    opened = Checkpoint(checkpoint)
    source = CheckpointWeights(opened)
    table = stored_as(source.tensor("language.embed.weight"))
    texts = [name for name in _TOKENIZER_FILES if (checkpoint / name).is_file()] if opened.tokenizer else []
    layout = _layout(opened.config, str(table.dtype).removeprefix("torch."), texts)
    files: dict[str, Path | bytes] = {f"tokenizer/{name}": (checkpoint / name).read_bytes() for name in texts}
    try:
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as scratch:
            folder = Path(scratch)
            with (folder / _EMBEDDING_FILE).open("wb") as stream:
                stream.write(raw_bytes(table))
            embedding = Embedding(folder / _EMBEDDING_FILE, layout)
            with WeightFile(folder / WEIGHT_FILE, source) as weights:
                say("writing graphs and weights")
                graphs = unified_graphs(opened.config, weights)
                weights.flush()
                for name, proto in graphs.items():
                    (folder / f"{name}.onnx").write_bytes(proto.SerializeToString(deterministic=True))
                parity = compare_unified(opened.config, layout, source, weights, embedding, folder, say)
            specs = {name: _spec(name, proto, parity[name]) for name, proto in graphs.items()}
            parts = [WEIGHT_FILE, _EMBEDDING_FILE, *(spec.file for spec in specs.values())]
            files |= {name: folder / name for name in parts}
            say(f"writing {out}")
            digest = sha256_of(folder / WEIGHT_FILE)
            manifest = _manifest(checkpoint, opened.config, layout, digest, specs)
            write_bundle(out, manifest, files, overwrite=overwrite, move=True)
    except OSError as error:
        raise OutputError(f"bundle {out} cannot be written: {error}") from error
    return out


def unified_graphs(config: UnifiedConfig, weights: WeightFile) -> dict[str, onnx.ModelProto]:
    """All graphs of a unified model by name; their weights are written as they are met."""
    return {
        "vision": vision_graph(config, weights),
        "prefill": prefill_graph(config, weights),
        "decode": decode_graph(config, weights),
        "denoise": denoise_graph(config, weights),
        "velocity": velocity_graph(config, weights),
        "encode": encode_graph(config.codec, weights),
        "decode_image": decode_image_graph(config.codec, weights),
    }


def _layout(config: UnifiedConfig, embedding_dtype: str, texts: list[str]) -> UnifiedLayout:
    return UnifiedLayout(
        layers=config.mot.layers,
        kv_heads=config.mot.kv_heads,
        head_dim=config.mot.head_dim,
        hidden=config.mot.hidden,
        vocabulary=config.vocabulary,
        position_limit=config.position_limit,
        patch=config.vision.patch,
        patch_side=config.vision.side,
        latent_channels=config.codec.latent_channels,
        latent_patch=config.latent_patch,
        latent_side=config.latent_side,
        latent_stride=config.latent_stride,
        vae_transform=config.vae_transform,
        vit_transform=config.vit_transform,
        special=config.special,
        embedding=_EMBEDDING_FILE,
        embedding_dtype=embedding_dtype,
        tokenizer=tuple(f"tokenizer/{name}" for name in texts),
        prompts=load_prompts(),
    )


def _spec(name: str, proto: onnx.ModelProto, parity: float) -> GraphSpec:
    half = any(t.data_type in (TensorProto.FLOAT16, TensorProto.BFLOAT16) for t in proto.graph.initializer)
    return GraphSpec(
        file=f"{name}.onnx",
        opset=OPSET,
        precision="fp32, 16-bit weights" if half else "fp32",
        inputs=tuple(_tensor_spec(value) for value in proto.graph.input),
        outputs=tuple(_tensor_spec(value) for value in proto.graph.output),
        relative_rms=parity,
    )


def _tensor_spec(value: onnx.ValueInfoProto) -> TensorSpec:
    kind = value.type.tensor_type
    shape = tuple(d.dim_param or d.dim_value for d in kind.shape.dim)
    return TensorSpec(name=value.name, dtype=_DTYPES[kind.elem_type], shape=shape)


def _manifest(
    checkpoint: Path, config: UnifiedConfig, layout: UnifiedLayout, digest: str, specs: dict[str, GraphSpec]
) -> UnifiedManifest:
    with torch.device("meta"):
        parameters = sum(p.numel() for p in UnifiedModel(config).parameters())
    return UnifiedManifest(
        schema_version=1,
        name=checkpoint.resolve().name,
        preset="uare-7b",
        created_by=f"uare-rt {__version__}",
        license=_LICENSE,
        source=Source(weights_sha256=digest, recipe=None, steps=None, parameters=parameters),
        slots=SLOTS,
        scales=(1,),
        unified=layout,
        graphs=specs,
        backend=BackendInfo(name="onnx"),
        quality={},
        files={},
    )
