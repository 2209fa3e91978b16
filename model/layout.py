"""A checkpoint directory's JSON files -> `UnifiedConfig`.

Two layouts: BAGEL's (``llm_config.json``, ``vit_config.json``, a tokenizer) and one file (``config.json`` with
``llm``, ``vit`` and whatever else BAGEL's code keeps to itself). A value of ``config.json`` always wins.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

from uare_rt.errors import InputError
from uare_rt.model.mot import MoTConfig
from uare_rt.model.presets.uare_7b import UARE_7B, CodecConfig, SpecialTokens, Transform, UnifiedConfig, VisionConfig
from uare_rt.model.tokens import TextTokenizer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from typing import Annotated, TypeAlias, TypeVar

    T = TypeVar("T")
else:
    from typing import Annotated

__all__ = ["read_config"]

_Count: TypeAlias = Annotated[int, msgspec.Meta(ge=1)]
_Positive: TypeAlias = Annotated[float, msgspec.Meta(gt=0)]
_Id: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]


class _Language(msgspec.Struct):
    vocab_size: _Count
    hidden_size: _Count
    intermediate_size: _Count
    num_hidden_layers: _Count
    num_attention_heads: _Count
    num_key_value_heads: _Count
    max_position_embeddings: _Count
    rope_theta: _Positive = 1e6
    rms_norm_eps: _Positive = 1e-6
    head_dim: _Count | None = None
    hidden_act: str = "silu"
    rope_scaling: object = None


class _Vision(msgspec.Struct):
    hidden_size: _Count
    intermediate_size: _Count
    num_hidden_layers: _Count
    num_attention_heads: _Count
    patch_size: _Count
    layer_norm_eps: _Positive = 1e-6


class _Codec(msgspec.Struct):
    ch: _Count
    ch_mult: tuple[_Count, ...]
    num_res_blocks: _Count
    z_channels: _Count
    in_channels: _Count = 3
    scale_factor: float = UARE_7B.codec.scale
    shift_factor: float = UARE_7B.codec.shift


class _Transform(msgspec.Struct):
    max_image_size: _Count
    min_image_size: _Count
    image_stride: _Count


class _Special(msgspec.Struct):
    bos_token_id: _Id
    eos_token_id: _Id
    start_of_image: _Id
    end_of_image: _Id


class _Root(msgspec.Struct):
    llm: _Language | None = None
    vit: _Vision | None = None
    vae: _Codec | None = None
    special: _Special | None = None
    vae_transform: _Transform | None = None
    vit_transform: _Transform | None = None
    vit_max_num_patch_per_side: _Count | None = None
    latent_patch_size: _Count = UARE_7B.latent_patch
    max_latent_size: _Count | None = None


def _read(path: Path, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind, strict=False)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; a checkpoint directory needs it") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except msgspec.DecodeError as error:
        raise InputError(f"{path}: {error}") from None


def _codec_from(shapes: Mapping[str, Sequence[int]], path: Path) -> CodecConfig:
    """BAGEL's layout states the autoencoder nowhere but in its weights."""
    try:
        channels = shapes["encoder.conv_in.weight"][0]
        levels = sum(f"encoder.down.{i}.block.0.conv1.weight" in shapes for i in range(len(shapes)))
        widths = [shapes[f"encoder.down.{i}.block.0.conv1.weight"][0] for i in range(levels)]
        blocks = sum(f"encoder.down.0.block.{i}.conv1.weight" in shapes for i in range(len(shapes)))
        latent = shapes["encoder.conv_out.weight"][0] // 2
    except KeyError as error:
        raise InputError(f"{path}: missing {error.args[0]}; it is not an autoencoder of this layout") from None
    return CodecConfig(channels, tuple(w // channels for w in widths), blocks, latent)


def _side_of(shapes: Mapping[str, Sequence[int]], name: str, usual: int) -> int:
    """Side of a square position table, as stored, else as published.

    Not as stated in BAGEL's layout: its class default for the latent table is not that of its release.
    """
    return math.isqrt(shapes[name][0]) if name in shapes else usual


def _transform(found: _Transform | None, usual: Transform) -> Transform:
    return Transform(found.max_image_size, found.min_image_size, found.image_stride) if found else usual


def read_config(
    directory: Path, weights: Mapping[str, Sequence[int]], codec: Mapping[str, Sequence[int]]
) -> UnifiedConfig:
    """Read a checkpoint's configuration.

    Args:
        directory: the checkpoint.
        weights: shapes of the tensors of ``ema.safetensors``.
        codec: shapes of the tensors of ``ae.safetensors``.

    Returns:
        The configuration; delimiters come from ``special`` or else from the tokenizer.

    Raises:
        InputError: a file is missing, or a value is missing or cannot be used.
    """
    path = directory / "config.json"
    root = _read(path, _Root)
    single = root.llm is not None and root.vit is not None
    llm = root.llm or _read(directory / "llm_config.json", _Language)
    vit = root.vit or _read(directory / "vit_config.json", _Vision)
    if llm.hidden_act != "silu" or llm.rope_scaling is not None:
        found = f"hidden_act {llm.hidden_act!r}, rope_scaling {llm.rope_scaling!r}"
        raise InputError(f"{directory}: this decoder is not supported ({found}); it must use silu and plain rope")
    if root.vae:
        vae = root.vae
        picture = CodecConfig(
            vae.ch, vae.ch_mult, vae.num_res_blocks, vae.z_channels, vae.scale_factor, vae.shift_factor, vae.in_channels
        )
    else:
        picture = _codec_from(codec, directory / "ae.safetensors")
    if root.special:
        ids = root.special
        special = SpecialTokens(ids.bos_token_id, ids.eos_token_id, ids.start_of_image, ids.end_of_image)
    else:
        special = TextTokenizer(directory).special
    patches = _side_of(weights, "vit_model.vision_model.embeddings.position_embedding.weight", UARE_7B.vision.side)
    latents = _side_of(weights, "latent_pos_embed.pos_embed", UARE_7B.latent_side)
    if single:
        patches = root.vit_max_num_patch_per_side or patches
        latents = root.max_latent_size or latents
    try:
        return UnifiedConfig(
            mot=MoTConfig(
                hidden=llm.hidden_size,
                layers=llm.num_hidden_layers,
                heads=llm.num_attention_heads,
                kv_heads=llm.num_key_value_heads,
                head_dim=llm.head_dim or llm.hidden_size // llm.num_attention_heads,
                mlp=llm.intermediate_size,
                eps=llm.rms_norm_eps,
                rope_theta=llm.rope_theta,
            ),
            vocabulary=llm.vocab_size,
            position_limit=llm.max_position_embeddings,
            vision=VisionConfig(
                hidden=vit.hidden_size,
                # BAGEL states the layers of SigLIP and runs all but the last.
                layers=vit.num_hidden_layers if single else vit.num_hidden_layers - 1,
                heads=vit.num_attention_heads,
                mlp=vit.intermediate_size,
                patch=vit.patch_size,
                side=patches,
                eps=vit.layer_norm_eps,
            ),
            codec=picture,
            latent_patch=root.latent_patch_size,
            latent_side=latents,
            vae_transform=_transform(root.vae_transform, UARE_7B.vae_transform),
            vit_transform=_transform(root.vit_transform, UARE_7B.vit_transform),
            special=special,
        )
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None
