"""The calls that `kernels.py` times: every operator at the shapes of uare-7b at 1024 px and uare-nano at 1080p."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from uare_rt.kernels import (
    attention,
    attention_int8,
    changes,
    costs,
    emit,
    flow_step,
    gemm,
    gemm_w8a8,
    ingest,
    modulated_conv,
    modulation,
    qk_rope,
    routed_norm,
    swiglu,
    window_attention,
)
from uare_rt.kernels.costs import Cost
from uare_rt.kernels.routing import Run

__all__ = ["Case", "Made", "all_cases"]

Kernel = Callable[[str, Any], Any]


@dataclass(frozen=True)
class Made:
    """The two ways to do a case, and the tensors that go in."""

    kernel: Kernel
    torch: Callable[[], Any]
    inputs: tuple[Tensor, ...]


@dataclass(frozen=True)
class Case:
    """One operator at one shape.

    Attributes:
        name: of both.
        key: of its tile.
        cost: of one call.
        make: puts its tensors on a device.
    """

    name: str
    key: str
    cost: Cost
    make: Callable[[torch.device], Made]


def _half(device: torch.device, *shape: int) -> Tensor:
    return torch.randn(shape, device=device).half()


def _bytes(device: torch.device, *shape: int) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, device=device)


def all_cases(divisor: int = 1) -> list[Case]:
    """Every case; a divisor makes long axes shorter, so that the interpreter can run them."""
    picture, prefix, patches = 4098 // divisor, 9056 // divisor, 4900 // divisor
    width, inner, height, across = 3584 // divisor, 18944 // divisor, 1080 // divisor, 1920 // divisor
    found = [
        _attention(f"attention, {picture} tokens after {prefix}", picture, prefix, 28, 4, 128),
        _attention(f"attention, 1 token after {prefix}", 1, prefix, 28, 4, 128),
        _attention(f"attention, {patches} patches of SigLIP", patches, 0, 16, 16, 72),
        _int8(picture, prefix),
        _windows(-(-height // 64) * -(-across // 64)),
        _rope(picture),
        _norm(picture, width),
        *(_swiglu(tokens, width, inner) for tokens in (1, picture)),
        *(_gemm(tokens, width, inner, bits) for bits in (8, 4) for tokens in (1, picture)),
        _w8a8(picture, width, inner),
        _flow(picture - 2 if picture > 2 else 1),
    ]
    found += [_modulation(height // 2, across // 2), _conv(height // 2, across // 2)]
    return [*found, _ingest(height, across), _emit(height, across), _changes(height, across)]


def _attention(name: str, tokens: int, prefix: int, heads: int, kv_heads: int, dim: int) -> Case:
    def make(device: torch.device) -> Made:
        q = _half(device, 1, heads, tokens, dim)
        k, v = (_half(device, 1, kv_heads, prefix + tokens, dim) for _ in range(2))
        old = (k[:, :, :prefix], v[:, :, :prefix]) if prefix else None
        own = (k[:, :, prefix:], v[:, :, prefix:])
        return Made(
            lambda target, tile: attention.run(q, *own, past=old, target=target, tile=tile),
            lambda: F.scaled_dot_product_attention(q, k, v, enable_gqa=heads != kv_heads),
            (q, k, v),
        )

    key = "attention.decode" if tokens == 1 else "attention.prefill.wide"
    return Case(name, key, costs.attention(tokens, prefix, heads, kv_heads, dim), make)


def _int8(tokens: int, prefix: int) -> Case:
    def make(device: torch.device) -> Made:
        q = _half(device, 1, 28, tokens, 128)
        k, v = (_half(device, 1, 4, prefix + tokens, 128) for _ in range(2))
        return Made(
            lambda target, tile: attention_int8.run(q, k, v, target=target, tile=tile),
            lambda: F.scaled_dot_product_attention(q, k, v, enable_gqa=True),
            (q, k, v),
        )

    full = costs.attention(tokens, prefix, 28, 4, 128)
    cost = Cost(full.bytes, full.operations // 2, full.operations // 2)
    return Case(f"attention, int8 scores, {tokens} tokens after {prefix}", "attention.int8", cost, make)


def _windows(count: int) -> Case:
    def make(device: torch.device) -> Made:
        q, k, v = (_half(device, count, heads, 16, 32) for heads in (5, 1, 1))
        context = (_half(device, 1, 1, 43, 32), _half(device, 1, 1, 43, 32))
        valid = torch.ones(count, 16, dtype=torch.bool, device=device)
        return Made(
            lambda target, tile: window_attention.run(q, k, v, context, valid, target=target, tile=tile),
            lambda: window_attention.reference(q, k, v, context, valid),
            (q, k, v, *context, valid),
        )

    cost = costs.window_attention(count, 16, 43, 5, 1, 32)
    return Case(f"window attention, {count} windows", "attention.window", cost, make)


def _runs(tokens: int) -> tuple[Run, ...]:
    return (Run(0, 1), Run(1, tokens - 2), Run(0, 1)) if tokens > 2 else (Run(0, tokens),)


def _rope(tokens: int) -> Case:
    def make(device: torch.device) -> Made:
        q, k, v = (_half(device, 1, tokens, heads, 128) for heads in (28, 4, 4))
        weights = tuple(_half(device, 128) for _ in range(4))
        norms = qk_rope.Norms((weights[0], weights[1]), (weights[2], weights[3]), 1e-6)
        angles = torch.rand(tokens, 64, device=device).repeat(1, 2)
        rope = (angles.cos(), angles.sin())
        cache = qk_rope.Cache(_half(device, 1, 4, tokens, 128), _half(device, 1, 4, tokens, 128))
        # Half of either table is read; the cache is written, so that it takes the outputs' place.
        halves = (rope[0][:, :64], rope[1][:, :64])
        return Made(
            lambda target, tile: (
                qk_rope.run(q, k, v, norms, rope, _runs(tokens), cache, target=target, tile=tile), cache.k, cache.v
            ),
            lambda: (qk_rope.reference(q, k, v, norms, rope, _runs(tokens), cache), cache.k, cache.v),
            (q, k, v, *weights, *halves),
        )  # fmt: skip

    return Case(f"qk norm, rope and cache, {tokens} tokens", "qk_rope", costs.qk_rope(tokens, 28, 4, 128), make)


def _norm(tokens: int, width: int) -> Case:
    def make(device: torch.device) -> Made:
        x, weights = _half(device, 1, tokens, width), (_half(device, width), _half(device, width))
        return Made(
            lambda target, tile: routed_norm.run(x, weights, _runs(tokens), 1e-6, target=target, tile=tile),
            lambda: routed_norm.reference(x, weights, _runs(tokens), 1e-6),
            (x, *weights),
        )

    key = "norm.wide" if width >= 1024 else "norm.narrow"
    return Case(f"routed norm, {tokens} x {width}", key, costs.routed_norm(tokens, width), make)


def _swiglu(tokens: int, width: int, inner: int) -> Case:
    experts = 2 if tokens > 2 else 1

    def make(device: torch.device) -> Made:
        x = _half(device, 1, tokens, width)
        weights = [_half(device, inner, width) / width**0.5 for _ in range(2 * experts)]
        gates, ups = (weights[0], weights[-2]), (weights[1], weights[-1])
        return Made(
            lambda target, tile: swiglu.run(x, gates, ups, _runs(tokens), target=target, tile=tile),
            lambda: swiglu.reference(x, gates, ups, _runs(tokens)),
            (x, *weights),
        )

    cost = costs.swiglu(tokens, width, inner, experts)
    key = "swiglu.decode" if tokens <= 16 else "swiglu.prefill"
    return Case(f"SwiGLU, {tokens} x {width} to {inner}", key, cost, make)


def _gemm(tokens: int, width: int, inner: int, bits: int) -> Case:
    def make(device: torch.device) -> Made:
        x, bias = _half(device, tokens, width), _half(device, inner)
        if bits == 8:
            weight, scale = _bytes(device, inner, width).view(torch.int8), torch.rand(inner, device=device) / 1000
        else:
            size = min(gemm.GROUP, width + width % 2)
            groups = -(-width // size)
            weight = _bytes(device, inner, groups * size // 2)
            scale = (torch.rand(inner, groups, device=device) / 100).to(torch.bfloat16)
        return Made(
            lambda target, tile: gemm.run(x, weight, scale, bias, target=target, tile=tile),
            lambda: gemm.reference(x, weight, scale, bias),
            (x, weight, scale, bias),
        )

    key = f"gemm.w{bits}.{'decode' if tokens <= 16 else 'prefill'}"
    cost = costs.gemm(tokens, width, inner, bits)
    return Case(f"linear, {bits}-bit weights, {tokens} x {width} to {inner}", key, cost, make)


def _w8a8(tokens: int, width: int, inner: int) -> Case:
    def make(device: torch.device) -> Made:
        x, bias = _half(device, tokens, width), _half(device, inner)
        weight, scale = _bytes(device, inner, width).view(torch.int8), torch.rand(inner, device=device) / 1000
        plain = (weight * scale[:, None]).half()
        return Made(
            lambda target, tile: gemm_w8a8.run(x, weight, scale, bias, target=target, tile=tile),
            lambda: F.linear(x, plain, bias),
            (x, weight, scale, bias),
        )

    cost = costs.gemm(tokens, width, inner, 8, int8=True)
    key = f"gemm.w8a8.{'decode' if tokens <= 16 else 'prefill'}"
    return Case(f"linear, int8 by int8, {tokens} x {width} to {inner}", key, cost, make)


def _flow(tokens: int) -> Case:
    options = {"step": 0.02, "text_scale": 4.0, "image_scale": 2.0, "renorm": "text_channel"}

    def make(device: torch.device) -> Made:
        parts = tuple(torch.randn(tokens, 64, device=device) for _ in range(4))
        return Made(
            lambda target, tile: flow_step.run(*parts, **options, target=target, tile=tile),
            lambda: flow_step.reference(*parts, **options),
            parts,
        )

    return Case(f"flow step, {tokens} tokens, text_channel", "flow_step", costs.flow_step(tokens, 64), make)


def _last(device: torch.device, *shape: int) -> Tensor:
    return _half(device, *shape).contiguous(memory_format=torch.channels_last)


def _modulation(height: int, across: int) -> Case:
    def make(device: torch.device) -> Made:
        parts = (_last(device, 1, 32, height, across), _half(device, 1, 32), _half(device, 1, 32))
        return Made(
            lambda target, tile: modulation.run(*parts, target=target, tile=tile),
            lambda: modulation.reference(*parts),
            parts,
        )

    name = f"modulation, 32 x {height} x {across}"
    return Case(name, "modulation.narrow", costs.modulation(height * across, 32), make)


def _conv(height: int, across: int) -> Case:
    def make(device: torch.device) -> Made:
        x, weight = _last(device, 1, 32, height, across), _last(device, 32, 32, 3, 3) / 17
        parts = (x, weight.contiguous(memory_format=torch.channels_last), *(_half(device, 1, 32) for _ in range(3)))
        parts = (*parts[:2], parts[2][0], *parts[3:])
        return Made(
            lambda target, tile: modulated_conv.run(*parts, target=target, tile=tile),
            lambda: modulated_conv.reference(*parts),
            parts,
        )

    name = f"modulated convolution, 32 x {height} x {across}"
    return Case(name, "modulated_conv", costs.modulated_conv(height * across, 32, 32), make)


def _ingest(height: int, across: int) -> Case:
    def make(device: torch.device) -> Made:
        frame = _bytes(device, height, across, 3)
        return Made(
            lambda target, tile: ingest.run(frame, target=target, tile=tile),
            lambda: ingest.reference(frame),
            (frame,),
        )

    padded = -(-height // 16) * 16 * -(-across // 16) * 16
    return Case(f"ingest, RGB {across} x {height}", "ingest", costs.ingest(height * across, padded), make)


def _emit(height: int, across: int) -> Case:
    def make(device: torch.device) -> Made:
        values, original = torch.rand(3, height, across, device=device).half(), _bytes(device, height, across, 3)
        out = torch.empty_like(original)
        place, options = emit.Place(0, 0, height, across), {"original": original, "strength": 0.7}

        def kernel(target: str, tile: Any) -> Tensor:
            emit.run(values, out, place, **options, target=target, tile=tile)
            return out

        def plain() -> Tensor:
            emit.reference(values, out, place, **options)
            return out

        return Made(kernel, plain, (values, original))

    return Case(f"emit, RGB {across} x {height}", "emit", costs.emit(height * across), make)


def _changes(height: int, across: int) -> Case:
    sides = [
        (y, min(y + 128, height), x, min(x + 128, across)) for y in range(0, height, 128) for x in range(0, across, 128)
    ]

    def make(device: torch.device) -> Made:
        before, after = _bytes(device, height, across, 3), _bytes(device, height, across, 3)
        tiles = torch.tensor(sides, dtype=torch.int32, device=device)
        threshold = changes.threshold_for(2.0)
        return Made(
            lambda target, tile: changes.run(before, after, tiles, threshold, target=target, tile=tile),
            lambda: changes.reference(before, after, tiles, threshold),
            (before, after, tiles),
        )

    name = f"changed tiles, {across} x {height}"
    return Case(name, "changes", costs.changes(height * across, len(sides)), make)
