"""The kernels behind TensorRT's plugins: arguments in TensorRT's order, everything else a constant.

TensorRT launches an ahead-of-time plugin with the inputs, then the extra integers, then the outputs, all dense and with
channels first. What the engine does not keep (attributes) or cannot pass (floats, strides) is compiled in.
"""

from __future__ import annotations

from uare_rt.kernels.jit import power_of_two, tl, triton
from uare_rt.kernels.modulation import modulation_kernel
from uare_rt.kernels.variants import Variant
from uare_rt.kernels.window_attention import window_attention_kernel

__all__ = ["modulation_variant", "variants", "window_variant"]


@triton.jit
def modulation_plugin_kernel(
    x, scale, shift, pixels, out, COUNT: tl.constexpr, CHANNELS: tl.constexpr, PIXELS: tl.constexpr
):
    """`uare_rt.kernels.modulation` of pictures that share one context; leaky, no bias, no residual."""
    modulation_kernel(x, scale, shift, x, x, pixels, COUNT, 0, out, False, False, False, "leaky", CHANNELS, PIXELS)


@triton.jit
def window_plugin_kernel(
    q, k, v, context_k, context_v, mask, windows, out,
    LENGTH: tl.constexpr, HEADS: tl.constexpr, KV_HEADS: tl.constexpr, TOKENS: tl.constexpr, HEAD: tl.constexpr,
    DIM: tl.constexpr, KEYS: tl.constexpr, WINDOWS: tl.constexpr,
):  # fmt: skip
    """`uare_rt.kernels.window_attention` of windows that share one context."""
    window_attention_kernel(
        q, k, v, context_k, context_v, mask, windows, LENGTH, 1.4426950408889634 / tl.sqrt(HEAD * 1.0),
        HEADS * TOKENS * HEAD, TOKENS * HEAD, HEAD, KV_HEADS * TOKENS * HEAD, TOKENS * HEAD, HEAD,
        KV_HEADS * TOKENS * HEAD, TOKENS * HEAD, HEAD, KV_HEADS * LENGTH * HEAD, LENGTH * HEAD, HEAD,
        HEADS * TOKENS * HEAD, TOKENS * HEAD, HEAD, out, HEADS // KV_HEADS, TOKENS, HEAD, DIM, KEYS, WINDOWS,
    )  # fmt: skip


def modulation_variant(channels: int) -> Variant:
    """The plugin's kernel for a number of channels, fp16."""
    types = {"x": "*fp16", "scale": "*fp16", "shift": "*fp16", "pixels": "i32", "out": "*fp16"}
    constants = {"COUNT": channels, "CHANNELS": power_of_two(channels)}
    key = "modulation.narrow" if channels <= 64 else "modulation.wide"
    grid = ("cdiv(pixels, PIXELS)", "batch", "1")
    return Variant(f"plugin_modulation_c{channels}_fp16", modulation_plugin_kernel, types, constants, key, grid)


def window_variant(heads: int, kv_heads: int, tokens: int, dim: int, length: int) -> Variant:
    """The plugin's kernel for a shape of windows (T a power of two) and a length of context, fp16."""
    types = dict.fromkeys(("q", "k", "v", "context_k", "context_v"), "*fp16")
    types |= {"mask": "*u8", "windows": "i32", "out": "*fp16"}
    constants = {
        "LENGTH": length, "HEADS": heads, "KV_HEADS": kv_heads, "TOKENS": tokens, "HEAD": dim,
        "DIM": power_of_two(dim), "KEYS": power_of_two(length),
    }  # fmt: skip
    grid = ("cdiv(windows, WINDOWS)", "KV_HEADS", "1")
    name = f"plugin_window_h{heads}_t{tokens}_d{dim}_s{length}_fp16"
    return Variant(name, window_plugin_kernel, types, constants, "attention.window", grid)


def variants() -> list[Variant]:
    """What is compiled ahead of time: the shapes of uare-nano."""
    return [*(modulation_variant(channels) for channels in (32, 64, 96)), window_variant(5, 1, 16, 32, 43)]
