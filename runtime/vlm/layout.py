"""What fixes the inputs of a unified model beside its weights: sizes, tables, delimiters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec

from uare_rt.vlm.prompts import Prompts

if TYPE_CHECKING:
    from typing import TypeAlias

__all__ = ["SpecialTokens", "Transform", "UnifiedLayout"]

_Positive: TypeAlias = Annotated[int, msgspec.Meta(ge=1)]


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


class UnifiedLayout(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Part of a bundle's manifest: what a session must know to drive the graphs of a unified model.

    Attributes:
        layers: of the decoder.
        kv_heads: key heads of a layer.
        head_dim: width of a head.
        hidden: width of the decoder.
        vocabulary: rows of the token embedding.
        position_limit: rotary positions must stay below it.
        patch: side of an understanding patch in pixels.
        patch_side: patches per side of its position tables.
        latent_channels: of the autoencoder.
        latent_patch: side of a latent token in latent elements.
        latent_side: latent tokens per side of the position table.
        latent_stride: pixels per latent token and side.
        vae_transform: resizing before the autoencoder.
        vit_transform: resizing before the understanding encoder, after the former.
        special: ids of the delimiters.
        embedding: file with the token embedding, row after row.
        embedding_dtype: of its values.
        tokenizer: the tokenizer's files; none where the checkpoint has none.
        prompts: what the model is asked.
    """

    layers: _Positive
    kv_heads: _Positive
    head_dim: _Positive
    hidden: _Positive
    vocabulary: _Positive
    position_limit: _Positive
    patch: _Positive
    patch_side: _Positive
    latent_channels: _Positive
    latent_patch: _Positive
    latent_side: _Positive
    latent_stride: _Positive
    vae_transform: Transform
    vit_transform: Transform
    special: SpecialTokens
    embedding: str
    embedding_dtype: Literal["float32", "float16", "bfloat16"]
    tokenizer: tuple[str, ...]
    prompts: Prompts

    @property
    def latent_width(self) -> int:
        """Values in one latent token."""
        return self.latent_patch**2 * self.latent_channels
