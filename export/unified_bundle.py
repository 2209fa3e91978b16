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
from uare_rt.export.codec_graphs import decode_image_graph, decoder_norms, encode_graph, encoder_norms, tiled_graphs
from uare_rt.export.mot_graphs import decode_graph, denoise_graph, prefill_graph, velocity_graph
from uare_rt.export.packing import WEIGHT_FILE
from uare_rt.export.tracing import OPSET
from uare_rt.export.unified_parity import compare_unified
from uare_rt.export.vision_graph import vision_graph
from uare_rt.export.weight_file import CheckpointWeights, WeightFile, raw_bytes, stored_as
from uare_rt.manifest import HALF_WEIGHTS, BackendInfo, GraphSpec, Source, TensorSpec, UnifiedManifest
from uare_rt.model.checkpoint import Checkpoint
from uare_rt.model.costs import codec_bytes
from uare_rt.model.prompts import load_prompts
from uare_rt.model.unified import UnifiedModel
from uare_rt.model.vae import GROUPS, Autoencoder
from uare_rt.model.weights import sha256_of
from uare_rt.slots import SLOTS
from uare_rt.vlm.engine import Embedding
from uare_rt.vlm.layout import INTERFACE, TiledHalf, UnifiedLayout

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx

    from uare_rt.model.presets.uare_7b import UnifiedConfig
    from uare_rt.vlm.layout import CacheType

__all__ = ["export_unified", "unified_graphs"]

_MEGAPIXEL = 1_000_000
_EMBEDDING_FILE = "embedding.bin"
_TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "merges.txt", "tokenizer_config.json")
_LICENSE = "that of the checkpoint"
_DTYPES = {
    TensorProto.FLOAT: "float32",
    TensorProto.FLOAT16: "float16",
    TensorProto.INT8: "int8",
    TensorProto.INT64: "int64",
    TensorProto.BOOL: "bool",
}


def export_unified(
    checkpoint: Path,
    out: Path,
    *,
    cache: CacheType = "same",
    overwrite: bool = False,
    progress: Callable[[str, float], None] | None = None,
) -> Path:
    """Export a checkpoint directory as a bundle of ONNX graphs.

    Weights are copied tensor by tensor in the type they are stored in, and every layer is compared with PyTorch on its
    own, so the model need not fit in memory. Graphs compute in float32.

    Args:
        checkpoint: see `uare_rt.model.checkpoint.Checkpoint`.
        out: the bundle directory to make, ``NAME.uare``.
        cache: how the graphs keep keys and values between passes.
        overwrite: replace an existing bundle.
        progress: called with what is being done, and the finished part of the whole, 0 to 1.

    Returns:
        The bundle directory.

    Raises:
        InputError: the checkpoint cannot be used.
        OutputError: the bundle exists or cannot be written.
        UareError: a graph differs from PyTorch.
    """
    say = progress or (lambda _, __: None)
    if out.exists() and not overwrite:
        raise OutputError(f"{out} already exists; choose another name or give --overwrite")
    opened = Checkpoint(checkpoint)
    source = CheckpointWeights(opened)
    table = stored_as(source.tensor("language.embed.weight"))
    texts = [name for name in _TOKENIZER_FILES if (checkpoint / name).is_file()] if opened.tokenizer else []
    layout = _layout(opened.config, str(table.dtype).removeprefix("torch."), texts, cache)
    files: dict[str, Path | bytes] = {f"tokenizer/{name}": (checkpoint / name).read_bytes() for name in texts}
    try:
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as scratch:
            folder = Path(scratch)
            with (folder / _EMBEDDING_FILE).open("wb") as stream:
                stream.write(raw_bytes(table))
            embedding = Embedding(folder / _EMBEDDING_FILE, layout)
            with WeightFile(folder / WEIGHT_FILE, source) as weights:
                say("writing graphs and weights", 0.0)
                graphs = unified_graphs(opened.config, weights, cache)
                weights.flush()
                for name, proto in graphs.items():
                    (folder / f"{name}.onnx").write_bytes(proto.SerializeToString(deterministic=True))
                parity = compare_unified(opened.config, layout, source, weights, embedding, folder, say)
            specs = {name: _spec(name, proto, parity[name]) for name, proto in graphs.items()}
            parts = [WEIGHT_FILE, _EMBEDDING_FILE, *(spec.file for spec in specs.values())]
            files |= {name: folder / name for name in parts}
            say(f"writing {out}", 1.0)
            digest = sha256_of(folder / WEIGHT_FILE)
            manifest = _manifest(checkpoint, opened.config, layout, digest, specs)
            write_bundle(out, manifest, files, overwrite=overwrite, move=True)
    except OSError as error:
        raise OutputError(f"bundle {out} cannot be written: {error}") from error
    return out


def unified_graphs(config: UnifiedConfig, weights: WeightFile, cache: CacheType = "same") -> dict[str, onnx.ModelProto]:
    """All graphs of a unified model by name; their weights are written as they are met."""
    return {
        "vision": vision_graph(config, weights),
        "prefill": prefill_graph(config, weights, cache),
        "decode": decode_graph(config, weights, cache),
        "denoise": denoise_graph(config, weights, cache),
        "velocity": velocity_graph(config, weights),
        "encode": encode_graph(config.codec, weights),
        "decode_image": decode_image_graph(config.codec, weights),
        **tiled_graphs(config.codec, weights),
    }


def _layout(config: UnifiedConfig, embedding_dtype: str, texts: list[str], cache: CacheType) -> UnifiedLayout:
    encode, decode = codec_bytes(config.codec, 1000, 1000)
    whole = codec_bytes(config.codec, 1000, 1000, tile=1)
    with torch.device("meta"):
        codec = Autoencoder(config.codec)
    return UnifiedLayout(
        interface=INTERFACE,
        layers=config.mot.layers,
        kv_heads=config.mot.kv_heads,
        heads=config.mot.heads,
        head_dim=config.mot.head_dim,
        hidden=config.mot.hidden,
        mlp=config.mot.mlp,
        vocabulary=config.vocabulary,
        position_limit=config.position_limit,
        patch=config.vision.patch,
        patch_side=config.vision.side,
        latent_channels=config.codec.latent_channels,
        latent_patch=config.latent_patch,
        latent_side=config.latent_side,
        latent_stride=config.latent_stride,
        encode_bytes=4 * encode / _MEGAPIXEL,
        decode_bytes=4 * decode / _MEGAPIXEL,
        codec_cell=2**codec.encoder.tiled,
        encode_tiles=_half(codec.encoder.reach, encoder_norms(config.codec), whole[0]),
        decode_tiles=_half(codec.decoder.reach, decoder_norms(config.codec), whole[1]),
        vae_transform=config.vae_transform,
        vit_transform=config.vit_transform,
        special=config.special,
        embedding=_EMBEDDING_FILE,
        embedding_dtype=embedding_dtype,
        tokenizer=tuple(f"tokenizer/{name}" for name in texts),
        prompts=load_prompts(),
        cache=cache,
    )


def _half(reach: int, norms: int, elements: float) -> TiledHalf:
    return TiledHalf(reach=reach, norms=norms, groups=GROUPS, bytes=4 * elements / _MEGAPIXEL)


def _spec(name: str, proto: onnx.ModelProto, parity: float) -> GraphSpec:
    half = any(t.data_type in (TensorProto.FLOAT16, TensorProto.BFLOAT16) for t in proto.graph.initializer)
    return GraphSpec(
        file=f"{name}.onnx",
        opset=OPSET,
        precision=HALF_WEIGHTS if half else "fp32",
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
