"""The decoder's graphs of ``uare-7b``: ``prefill``, ``decode``, ``denoise`` and ``velocity``.

Tokens of the gen expert come before those of the und expert: attention does not mind the order, every token
brings its own rotary position, and a text at the end of a context stays at the end of its cache.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from uare_rt.export.graph_writer import GraphWriter
from uare_rt.model.tables import time_features

if TYPE_CHECKING:
    import onnx

    from uare_rt.export.weight_file import Weights
    from uare_rt.model.mot_config import MoTConfig
    from uare_rt.model.presets.uare_7b import UnifiedConfig
    from uare_rt.vlm.layout import CacheType

__all__ = ["decode_graph", "denoise_graph", "prefill_graph", "velocity_graph"]

_HIDDEN = -3e4  # as in the model: added to scores that must not count
_END = np.iinfo(np.int64).max
_CACHE_DTYPES = {"same": "float32", "fp16": "float16", "int8": "int8"}
_LARGEST = 127  # of the int8 levels, as in the model


@dataclass(frozen=True)
class _Bias:
    """Added to scores: [T, S + T], or where it is not ``of_queries`` the same for all of a branch, [B, 1, 1, S + T]."""

    value: str
    of_queries: bool


@dataclass(frozen=True)
class _Tokens:
    """Values of the residual stream [B * T, hidden] by expert, gen first; None where there is no token of the expert.

    Of several branches, one after another.
    """

    gen: str | None
    und: str | None
    generated: str = ""  # [1], tokens of the gen expert in one branch

    def present(self) -> list[tuple[str, str]]:
        """Expert and value of the experts that have tokens."""
        return [(name, x) for name, x in (("gen", self.gen), ("und", self.und)) if x is not None]


def _rms_norm(g: GraphWriter, x: str, module: str, eps: float) -> str:
    """RMSNorm over the last axis."""
    mean = g.op("ReduceMean", g.op("Mul", x, x), g.ints(-1), keepdims=1)
    scale = g.op("Sqrt", g.op("Add", mean, g.constant(eps)))
    return g.op("Mul", g.op("Div", x, scale), g.weight(f"{module}.weight"))


class _Decoder:
    """Writes the layers of the mixture of transformers into a graph.

    Args:
        g: the graph.
        config: of the layers.
        positions: rotary positions [B, T], or [B, 1] where all tokens of a branch share one.
        kind: how keys and values are stored.
        branches: ``B``; a value [1] of it where it is dynamic.
    """

    def __init__(
        self, g: GraphWriter, config: MoTConfig, positions: str, kind: CacheType, branches: str | None = None
    ) -> None:
        self.g, self.config, self.kind, self.branches = g, config, kind, branches
        start = (config.layers, 1 if branches is None else "B", config.kv_heads, "S")
        dtype = _CACHE_DTYPES[kind]
        self.past = {name: g.input(f"past_{name}", dtype, (*start, config.head_dim)) for name in "kv"}
        if kind == "int8":
            scales = {f"{name}_scale": g.input(f"past_{name}_scale", "float32", (*start, 1)) for name in "kv"}
            self.past |= scales
        self.keys: list[str] = []
        self.values: list[str] = []
        exponent = torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim
        angles = g.op(
            "Mul",
            g.op("Unsqueeze", g.cast(positions, "float32"), g.ints(2, 3)),
            g.constant((config.rope_theta**-exponent).numpy()[None, None, None]),
        )
        self.turn = g.op("Cos", angles), g.op("Sin", angles)

    def norm(self, x: str, module: str) -> str:
        """A norm of the model."""
        return _rms_norm(self.g, x, module, self.config.eps)

    def _cached(self, name: str, index: int) -> str:
        """Keys or values of a layer as they were read, [B, kv_heads, S, head_dim], float32 for this layer only."""
        g = self.g
        layer = g.op("Gather", self.past[name], g.constant(index, np.int64), axis=0)
        if self.kind == "same":
            return layer
        wide = g.cast(layer, "float32")
        if self.kind == "fp16":
            return wide
        return g.op("Mul", wide, g.op("Gather", self.past[f"{name}_scale"], g.constant(index, np.int64), axis=0))

    def _heads(self, x: str, module: str, heads: int) -> str:
        """[B * T, hidden] -> [B, T, heads, head_dim]."""
        g, config = self.g, self.config
        projected = g.linear(x, module, bias=config.qkv_bias)
        if self.branches is None:
            return g.op("Reshape", projected, g.ints(1, -1, heads, config.head_dim))
        shape = g.op("Concat", self.branches, g.ints(-1, heads, config.head_dim), axis=0)
        return g.op("Reshape", projected, shape)

    def _joined(self, parts: list[str]) -> str:
        return parts[0] if len(parts) == 1 else self.g.op("Concat", *parts, axis=1)

    def _rotated(self, x: str) -> str:
        g = self.g
        cos, sin = self.turn
        first, second = g.ops("Split", 2, x, axis=3, num_outputs=2)
        turned = (
            g.op("Sub", g.op("Mul", first, cos), g.op("Mul", second, sin)),
            g.op("Add", g.op("Mul", second, cos), g.op("Mul", first, sin)),
        )
        return g.op("Concat", *turned, axis=3)

    def _attend(self, q: str, k: str, v: str, bias: _Bias | None) -> str:
        """[B, T, heads, d] and [B, kv_heads, S + T, d] twice -> [B, T, heads * d]."""
        g, config = self.g, self.config
        q = g.op("Mul", q, g.constant(config.head_dim**-0.5))
        q = g.op("Transpose", q, perm=[0, 2, 1, 3])
        # One key head after another: the scores of only one are held.
        mixed = self._joined(
            [self._of_head(*parts, bias) for parts in zip(*map(self._by_head, (q, k, v)), strict=True)]
        )
        mixed = g.op("Transpose", mixed, perm=[0, 2, 1, 3])
        return g.op("Reshape", mixed, g.ints(0, 0, config.heads * config.head_dim))

    def _by_head(self, x: str) -> list[str]:
        count = self.config.kv_heads
        return [x] if count == 1 else self.g.ops("Split", count, x, axis=1, num_outputs=count)

    def _of_head(self, q: str, k: str, v: str, bias: _Bias | None) -> str:
        """One key head: q [B, groups, T, d], k and v [B, 1, S + T, d] -> [B, groups, T, d]."""
        g, config = self.g, self.config
        k = g.op("Transpose", k, perm=[0, 1, 3, 2])
        together = bias is None or not bias.of_queries
        if together:  # one matrix product, whatever the number of queries
            q = g.op("Reshape", q, g.ints(0, 1, -1, config.head_dim))
        scores = g.op("MatMul", q, k)
        if bias is not None:
            scores = g.op("Add", scores, bias.value)
        mixed = g.op("MatMul", g.op("Softmax", scores, axis=-1), v)
        if together:
            mixed = g.op("Reshape", mixed, g.ints(0, config.heads // config.kv_heads, -1, config.head_dim))
        return mixed

    def layer(self, index: int, tokens: _Tokens, bias: _Bias | None) -> _Tokens:
        """One layer; its keys and values of the new tokens are kept for `cache`."""
        g, config = self.g, self.config
        stem = f"language.mot.layers.{index}"
        q, k, v = [], [], []
        for expert, x in tokens.present():
            normed = self.norm(x, f"{stem}.{expert}.input_norm")
            q.append(self.norm(self._heads(normed, f"{stem}.{expert}.q", config.heads), f"{stem}.{expert}.q_norm"))
            k.append(self.norm(self._heads(normed, f"{stem}.{expert}.k", config.kv_heads), f"{stem}.{expert}.k_norm"))
            v.append(self._heads(normed, f"{stem}.{expert}.v", config.kv_heads))
        new = [g.op("Transpose", x, perm=[0, 2, 1, 3]) for x in (self._rotated(self._joined(k)), self._joined(v))]
        self.keys.append(new[0])
        self.values.append(new[1])
        whole = [g.op("Concat", self._cached(name, index), own, axis=2) for name, own in zip("kv", new, strict=True)]
        mixed = self._attend(self._rotated(self._joined(q)), *whole, bias)
        after = {}
        for (expert, x), part in zip(tokens.present(), self._parted(mixed, tokens), strict=True):
            x = g.op("Add", x, g.linear(part, f"{stem}.{expert}.o", bias=False))
            normed = self.norm(x, f"{stem}.{expert}.mlp_norm")
            gate = g.silu(g.linear(normed, f"{stem}.{expert}.gate", bias=False))
            inner = g.op("Mul", gate, g.linear(normed, f"{stem}.{expert}.up", bias=False))
            after[expert] = g.op("Add", x, g.linear(inner, f"{stem}.{expert}.down", bias=False))
        return replace(tokens, **after)

    def _parted(self, x: str, tokens: _Tokens) -> list[str]:
        """[B, T, width] -> [B * T, width] of every expert that has tokens."""
        g = self.g
        parts = [x]
        if tokens.gen is not None and tokens.und is not None:
            zero, end, axis = g.ints(0), g.ints(_END), g.ints(1)
            parts = [g.op("Slice", x, zero, tokens.generated, axis), g.op("Slice", x, tokens.generated, end, axis)]
        return [g.op("Reshape", part, g.ints(-1, self.config.heads * self.config.head_dim)) for part in parts]

    def layers(self, tokens: _Tokens, bias: _Bias | None = None) -> _Tokens:
        """All layers."""
        for index in range(self.config.layers):
            tokens = self.layer(index, tokens, bias)
        return tokens

    def cache(self, tokens: int | str) -> None:
        """Give out the keys and values of the new tokens, in the type of the cache."""
        g, config = self.g, self.config
        start = (config.layers, 1, config.kv_heads, tokens)
        for name, parts in (("k", self.keys), ("v", self.values)):
            stacked = g.op("Concat", *(g.op("Unsqueeze", x, g.ints(0)) for x in parts), axis=0)
            if self.kind == "int8":
                largest = g.op("ReduceMax", g.op("Abs", stacked), g.ints(-1), keepdims=1)
                scale = g.op("Div", largest, g.constant(_LARGEST))
                g.output(f"{name}_scale", scale, (*start, 1))
                # All zeros have a scale of zero, and stay zeros.
                above_zero = g.op("Max", scale, g.constant(np.finfo(np.float32).tiny))
                stacked = g.op("Round", g.op("Div", stacked, above_zero))
            dtype = _CACHE_DTYPES[self.kind]
            kept = stacked if dtype == "float32" else g.cast(stacked, dtype)
            g.output(name, kept, (*start, config.head_dim), dtype)

    def logits(self, x: str, vocabulary: int, rows: int | str) -> None:
        """Give out the next-token logits of final und tokens."""
        hidden = self.norm(x, "language.mot.und_norm")
        self.g.output("logits", self.g.linear(hidden, "language.head", bias=False), (rows, vocabulary))


def _latents(g: GraphWriter, config: UnifiedConfig, count: str, time: str | None) -> str:
    """Embedded latent tokens; ``time`` is a float32 [1] value, None a clean image."""
    latents = g.input("latents", "float32", (count, config.latent_width))
    rows = g.input("latent_rows", "int64", (count,))
    if time is None:
        features = g.constant(time_features(torch.zeros(1)).numpy())
    else:
        half = torch.arange(128, dtype=torch.float32) / 128
        rates = g.constant(torch.exp(-np.log(10000.0) * half).numpy()[None])
        angles = g.op("Mul", g.op("Unsqueeze", time, g.ints(1)), rates)
        features = g.op("Concat", g.op("Cos", angles), g.op("Sin", angles), axis=1)
    embedded = g.linear(g.silu(g.linear(features, "latents.time.mlp.0")), "latents.time.mlp.2")
    x = g.op("Add", g.linear(latents, "latents.inward"), embedded)
    return g.op("Add", x, g.op("Gather", g.weight("latents.table"), rows, axis=0))


def _velocity(g: GraphWriter, config: UnifiedConfig, stream: str) -> str:
    hidden = _rms_norm(g, stream, "language.mot.gen_norm", config.mot.eps)
    return g.linear(hidden, "latents.outward")


def prefill_graph(config: UnifiedConfig, weights: Weights, cache: CacheType = "same") -> onnx.ModelProto:
    """Append clean latent tokens and und tokens to a context in one pass.

    Inputs ``latents`` [G, latent width] and their ``latent_rows`` in the position table (G may be 0), ``embeddings``
    [U, hidden], ``positions`` [G + U], ``mask`` [G + U, S + G + U] true where attention is allowed, ``past_k`` and
    ``past_v`` [layers, 1, kv_heads, S, head_dim] (S may be 0), ``rows`` [N] of the und tokens whose logits are wanted.
    Outputs ``logits`` [N, vocabulary], and ``k`` and ``v`` of the new tokens.
    """
    g = GraphWriter("prefill", weights)
    gen = _latents(g, config, "G", None)
    und = g.input("embeddings", "float32", ("U", config.mot.hidden))
    positions = g.input("positions", "int64", ("G+U",))
    decoder = _Decoder(g, config.mot, g.op("Unsqueeze", positions, g.ints(0)), cache)
    mask = g.input("mask", "bool", ("G+U", "S+G+U"))
    rows = g.input("rows", "int64", ("N",))
    bias = _Bias(g.op("Where", mask, g.constant(0.0), g.constant(_HIDDEN)), of_queries=True)
    tokens = decoder.layers(_Tokens(gen, und, g.op("Shape", gen, end=1)), bias)
    assert tokens.und is not None
    decoder.logits(g.op("Gather", tokens.und, rows, axis=0), config.vocabulary, "N")
    decoder.cache("G+U")
    return g.model()


def decode_graph(config: UnifiedConfig, weights: Weights, cache: CacheType = "same") -> onnx.ModelProto:
    """Append one und token: ``embeddings`` [1, hidden], ``positions`` [1] and the past -> ``logits``, ``k``, ``v``."""
    g = GraphWriter("decode", weights)
    und = g.input("embeddings", "float32", (1, config.mot.hidden))
    positions = g.input("positions", "int64", (1,))
    decoder = _Decoder(g, config.mot, g.op("Unsqueeze", positions, g.ints(0)), cache)
    tokens = decoder.layers(_Tokens(None, und))
    assert tokens.und is not None
    decoder.logits(tokens.und, config.vocabulary, 1)
    decoder.cache(1)
    return g.model()


def denoise_graph(config: UnifiedConfig, weights: Weights, cache: CacheType = "same") -> onnx.ModelProto:
    """One evaluation of the flow in each of B contexts, the branches of guidance: weights are read once for all.

    Inputs ``latents`` [G, latent width], ``latent_rows`` [G], ``time`` [1], ``delimiters`` [2, hidden] (the embedded
    start and end of an image), ``position`` [B] shared by all tokens of a branch, ``mask`` [B, S + G + 2] false for
    the filling of shorter contexts, ``past_k`` and ``past_v`` [layers, B, kv_heads, S, head_dim]. Outputs
    ``velocity`` [B, G, latent width], and the ``stream`` [B, G, hidden] it was read from, which forecasts need.
    """
    g = GraphWriter("denoise", weights)
    latents = _latents(g, config, "G", g.input("time", "float32", (1,)))
    delimiters = g.input("delimiters", "float32", (2, config.mot.hidden))
    position = g.input("position", "int64", ("B",))
    branches = g.op("Shape", position)
    decoder = _Decoder(g, config.mot, g.op("Unsqueeze", position, g.ints(1)), cache, branches)
    mask = g.input("mask", "bool", ("B", "S+G+2"))
    bias = _Bias(
        g.op("Unsqueeze", g.op("Where", mask, g.constant(0.0), g.constant(_HIDDEN)), g.ints(1, 2)), of_queries=False
    )
    flat, every = g.ints(-1, config.mot.hidden), g.op("Concat", branches, g.ints(1, 1), axis=0)
    gen, und = (g.op("Reshape", g.op("Expand", x, every), flat) for x in (latents, delimiters))
    tokens = decoder.layers(_Tokens(gen, und, g.op("Shape", latents, end=1)), bias)
    assert tokens.gen is not None
    outputs = {
        "velocity": (_velocity(g, config, tokens.gen), config.latent_width),
        "stream": (tokens.gen, config.mot.hidden),
    }
    for name, (value, width) in outputs.items():
        by_branch = g.op("Concat", branches, g.ints(-1, width), axis=0)
        g.output(name, g.op("Reshape", value, by_branch), ("B", "G", width))
    return g.model()


def velocity_graph(config: UnifiedConfig, weights: Weights) -> onnx.ModelProto:
    """The velocity of a forecast ``stream`` [G, hidden], as ``denoise`` reads it from its own."""
    g = GraphWriter("velocity", weights)
    stream = g.input("stream", "float32", ("G", config.mot.hidden))
    g.output("velocity", _velocity(g, config, stream), ("G", config.latent_width))
    return g.model()
