"""``uare-7b``: the paper's scale, in the layout of BAGEL-7B-MoT (arXiv 2505.14683).

A checkpoint's own JSON files decide (`uare_rt.model.layout`); `UARE_7B` holds the published values.
"""

from __future__ import annotations

from dataclasses import dataclass

from uare_rt.model.mot_config import MoTConfig
from uare_rt.vlm.layout import SpecialTokens, Transform

__all__ = ["UARE_7B", "CodecConfig", "SpecialTokens", "Transform", "UnifiedConfig", "VisionConfig"]


@dataclass(frozen=True)
class VisionConfig:
    """Dimensions of the SigLIP encoder.

    Attributes:
        hidden: width.
        layers: layers that are run.
        heads: attention heads; ``hidden`` is a multiple.
        mlp: inner width of the MLP.
        patch: side of a patch in pixels.
        side: patches per side of both position tables; the largest image.
        eps: epsilon of every LayerNorm.
    """

    hidden: int
    layers: int
    heads: int
    mlp: int
    patch: int
    side: int
    eps: float = 1e-6


@dataclass(frozen=True)
class CodecConfig:
    """Dimensions of the image autoencoder (that of FLUX).

    Attributes:
        channels: width of the first level, a multiple of 32.
        multipliers: width of every level over ``channels``; each level but the first halves the resolution.
        blocks: residual blocks per encoder level; the decoder has one more.
        latent_channels: channels of the latent.
        scale: ``latent = scale * (posterior - shift)``.
        shift: see ``scale``.
        picture_channels: channels of the image.
    """

    channels: int
    multipliers: tuple[int, ...]
    blocks: int
    latent_channels: int
    scale: float = 0.3611
    shift: float = 0.1159
    picture_channels: int = 3

    @property
    def stride(self) -> int:
        """Pixels per latent element and side."""
        return 2 ** (len(self.multipliers) - 1)


@dataclass(frozen=True)
class UnifiedConfig:
    """Everything that fixes the shape of a unified model.

    Attributes:
        mot: the mixture-of-transformers decoder.
        vocabulary: rows of the token embedding.
        position_limit: rotary positions must stay below it.
        vision: the understanding encoder.
        codec: the image autoencoder.
        latent_patch: side of a latent token in latent elements.
        latent_side: latent tokens per side of the position table; the largest image.
        vae_transform: resizing before the autoencoder.
        vit_transform: resizing before the understanding encoder, applied to the result of the former.
        special: ids of the delimiters.
    """

    mot: MoTConfig
    vocabulary: int
    position_limit: int
    vision: VisionConfig
    codec: CodecConfig
    latent_patch: int
    latent_side: int
    vae_transform: Transform
    vit_transform: Transform
    special: SpecialTokens

    @property
    def latent_width(self) -> int:
        """Values in one latent token."""
        return self.latent_patch**2 * self.codec.latent_channels

    @property
    def latent_stride(self) -> int:
        """Pixels per latent token and side."""
        return self.latent_patch * self.codec.stride


UARE_7B = UnifiedConfig(
    mot=MoTConfig(hidden=3584, layers=28, heads=28, kv_heads=4, head_dim=128, mlp=18944),
    vocabulary=152064,
    position_limit=32768,
    vision=VisionConfig(hidden=1152, layers=26, heads=16, mlp=4304, patch=14, side=70),
    codec=CodecConfig(channels=128, multipliers=(1, 2, 4, 4), blocks=2, latent_channels=16),
    latent_patch=2,
    latent_side=64,
    vae_transform=Transform(longest=1024, shortest=512, stride=16),
    vit_transform=Transform(longest=980, shortest=224, stride=14),
    special=SpecialTokens(bos=151644, eos=151645, soi=151652, eoi=151653),
)
