"""What fixes the inputs of a unified model beside its weights: sizes, tables, delimiters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec

from uare_rt.vlm.prompts import Prompts

if TYPE_CHECKING:
    from typing import TypeAlias

__all__ = ["INTERFACE", "CacheType", "SpecialTokens", "TiledHalf", "Transform", "UnifiedLayout"]

CacheType: TypeAlias = Literal["same", "fp16", "int8"]
"""How keys and values are kept between passes: as computed, or in fewer bytes; int8 with a scale per token and head."""

INTERFACE = 2
"""Of the graphs: raised when their inputs or outputs change, so that a bundle made before is refused with a reason."""

_Positive: TypeAlias = Annotated[int, msgspec.Meta(ge=1)]
_Bytes: TypeAlias = Annotated[float, msgspec.Meta(gt=0)]


@dataclass(frozen=True)
class Transform:
    """How an image is resized before an encoder, see `uare_rt.vlm.transforms.fitted_size`.

    Attributes:
        longest: the long side is shrunk to at most this, in pixels.
        shortest: the short side is enlarged to at least this.
        stride: both sides become multiples of it.
        pixels: cap on the number of pixels.
    """

    longest: int
    shortest: int
    stride: int
    pixels: int = 14 * 14 * 9 * 1024


@dataclass(frozen=True)
class SpecialTokens:
    """Ids of the tokens that delimit text (``bos``, ``eos``) and images (``soi``, ``eoi``)."""

    bos: int
    eos: int
    soi: int
    eoi: int


class TiledHalf(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How the outer levels of the autoencoder's encoder or decoder run in tiles, see `uare_rt.vlm.codec_tiles`.

    Attributes:
        reach: cells that a tile must read beyond its own.
        norms: group norms in them.
        groups: of a norm.
        bytes: memory per pixel of what stays whole.
    """

    reach: _Positive
    norms: _Positive
    groups: _Positive
    bytes: _Bytes


class UnifiedLayout(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Part of a bundle's manifest: what a session must know to drive the graphs of a unified model.

    Attributes:
        interface: see `INTERFACE`.
        layers: of the decoder.
        kv_heads: key heads of a layer.
        heads: query heads of a layer.
        head_dim: width of a head.
        hidden: width of the decoder.
        mlp: inner width of its layers.
        vocabulary: rows of the token embedding.
        position_limit: rotary positions must stay below it.
        patch: side of an understanding patch in pixels.
        patch_side: patches per side of its position tables.
        latent_channels: of the autoencoder.
        latent_patch: side of a latent token in latent elements.
        latent_side: latent tokens per side of the position table.
        latent_stride: pixels per latent token and side.
        encode_bytes: memory of ``encode`` per pixel, at most.
        decode_bytes: of ``decode_image``.
        codec_cell: pixels of the picture per element between the autoencoder's outer levels and the rest.
        encode_tiles: the encoder in tiles.
        decode_tiles: the decoder in tiles.
        vae_transform: resizing before the autoencoder.
        vit_transform: resizing before the understanding encoder, after the former.
        special: ids of the delimiters.
        embedding: file with the token embedding, row after row.
        embedding_dtype: of its values.
        cache: how the decoder's graphs take and give keys and values.
        tokenizer: the tokenizer's files; none where the checkpoint has none.
        prompts: what the model is asked.
    """

    interface: _Positive
    layers: _Positive
    kv_heads: _Positive
    heads: _Positive
    head_dim: _Positive
    hidden: _Positive
    mlp: _Positive
    vocabulary: _Positive
    position_limit: _Positive
    patch: _Positive
    patch_side: _Positive
    latent_channels: _Positive
    latent_patch: _Positive
    latent_side: _Positive
    latent_stride: _Positive
    encode_bytes: _Bytes
    decode_bytes: _Bytes
    codec_cell: _Positive
    encode_tiles: TiledHalf
    decode_tiles: TiledHalf
    vae_transform: Transform
    vit_transform: Transform
    special: SpecialTokens
    embedding: str
    embedding_dtype: Literal["float32", "float16", "bfloat16"]
    tokenizer: tuple[str, ...]
    prompts: Prompts
    cache: CacheType = "same"

    @property
    def latent_width(self) -> int:
        """Values in one latent token."""
        return self.latent_patch**2 * self.latent_channels
