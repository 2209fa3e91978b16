"""``uare-nano``: the real-time preset, trained by this project and shipped with it."""

from __future__ import annotations

from dataclasses import dataclass

from uare_rt.model.mot_config import MoTConfig

__all__ = ["UARE_NANO", "NanoConfig"]


@dataclass(frozen=True)
class NanoConfig:
    """Everything that fixes the shape of a nano model.

    Attributes:
        mot: the mixture-of-transformers decoder; its gen expert works on the latent grid at /16.
        vision_channels: widths of the patch encoder's first four convolutions (strides 4, 2, 1, 2); the
            fifth has stride 3 and the decoder's width.
        widths: codec channels at /2, /4 and /8.
        encoder_convs: 3x3 convolutions per level of the encoder, after the downsampling one.
        decoder_convs: the same for the decoder.
        context_vector: width of the pooled quality context.
        window: side of an attention window in latent tokens (16 px each), even.
        shifted_layers: how many of the last layers use windows shifted by half, at least one.
    """

    mot: MoTConfig
    vision_channels: tuple[int, int, int, int]
    widths: tuple[int, int, int]
    encoder_convs: tuple[int, int, int]
    decoder_convs: tuple[int, int, int]
    context_vector: int
    window: int
    shifted_layers: int

    def __post_init__(self) -> None:
        if self.window < 2 or self.window % 2:
            raise ValueError(f"window must be even, so that it can be shifted by half, not {self.window}")
        if not 1 <= self.shifted_layers <= self.mot.layers:
            raise ValueError(f"shifted_layers must be 1 to {self.mot.layers}, not {self.shifted_layers}")


UARE_NANO = NanoConfig(
    mot=MoTConfig(hidden=160, layers=4, heads=5, kv_heads=1, head_dim=32, mlp=384),
    vision_channels=(24, 32, 48, 96),
    widths=(32, 64, 96),
    encoder_convs=(2, 1, 1),
    decoder_convs=(2, 1, 1),
    context_vector=160,
    window=4,
    shifted_layers=2,
)
