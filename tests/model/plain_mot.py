"""The unified model a second time: plain functions on a checkpoint's tensors, one token, head and layer after another.

Nothing of ``uare_rt`` is used, and nothing here is fast: it says what the specification says. The tensors of
tests/data/mot-tiny, which the original code made, hold it to account (`test_plain.py`); it then makes expectations for
checkpoints of other dimensions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

Cache = list[tuple[Tensor, Tensor]]  # keys and values of every layer, [tokens, kv heads, head width]


@dataclass
class Tokens:
    """Tokens that enter a context together; ``gen`` says which are the generation expert's."""

    embedded: Tensor
    positions: list[int]
    gen: list[bool]
    causal: bool = False


@dataclass
class Seen:
    """What was read, and the next position."""

    cache: Cache
    position: int = 0


@dataclass
class Read:
    """What came of reading tokens: the longer context, the stream after every layer, and the final states."""

    context: Seen
    layers: list[Tensor] = field(default_factory=list)
    hidden: Tensor = field(default_factory=lambda: torch.empty(0))


def sincos(side: int, width: int) -> Tensor:
    rates = 10000.0 ** -(torch.arange(width // 4).double() / (width // 4))
    rows = [
        torch.cat([(c * rates).sin(), (c * rates).cos(), (r * rates).sin(), (r * rates).cos()])
        for r in range(side)
        for c in range(side)
    ]
    return torch.stack(rows).float()


def places(grid: tuple[int, int], side: int) -> Tensor:
    return torch.tensor([r * side + c for r in range(grid[0]) for c in range(grid[1])])


def tokens_of(picture: Tensor, side: int) -> Tensor:
    """[C, H, W] -> one row for each square, channel fastest."""
    _, height, width = picture.shape
    squares = [
        picture[:, y : y + side, x : x + side].permute(1, 2, 0).flatten()
        for y in range(0, height, side)
        for x in range(0, width, side)
    ]
    return torch.stack(squares)


def picture_of(tokens: Tensor, grid: tuple[int, int], side: int) -> Tensor:
    rows = [
        torch.cat([token.reshape(side, side, -1).permute(2, 0, 1) for token in row], dim=2)
        for row in tokens.reshape(*grid, -1)
    ]
    return torch.cat(rows, dim=1)


class PlainMot:
    """A checkpoint's tensors and what is computed from them.

    Args:
        settings: ``config.json``.
        tensors: of both weight files, floating.
        dtype: float64, or bfloat16 for all but the autoencoder as the original runs: statistics, rotation of the
            generation mode and the state of the flow in float32.
    """

    def __init__(self, settings: dict[str, Any], tensors: dict[str, Tensor], dtype: torch.dtype) -> None:
        self.settings, self.llm, self.vit, self.vae = (settings, *(settings[name] for name in ("llm", "vit", "vae")))
        self.dtype = dtype
        self.wide = torch.float32 if dtype == torch.bfloat16 else torch.float64
        codec = ("encoder.", "decoder.")
        self.w = {name: t.to(self.wide if name.startswith(codec) else dtype) for name, t in tensors.items()}
        width = self.llm["hidden_size"]
        self.heads, self.kv_heads = self.llm["num_attention_heads"], self.llm["num_key_value_heads"]
        self.head = self.llm.get("head_dim") or width // self.heads
        self.latent_table = sincos(settings["max_latent_size"], width).to(dtype)
        self.patch_table = sincos(settings["vit_max_num_patch_per_side"], width).to(dtype)

    def linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x.to(self.dtype), self.w[f"{name}.weight"], self.w.get(f"{name}.bias"))

    def rms(self, x: Tensor, name: str) -> Tensor:
        wide = x.to(self.wide)
        wide = wide / (wide.square().mean(-1, keepdim=True) + self.llm["rms_norm_eps"]).sqrt()
        return self.w[f"{name}.weight"] * wide.to(x.dtype)

    # --- understanding encoder

    def see(self, image: Tensor) -> dict[str, Tensor]:
        """[3, H, W] in [-1, 1] -> every stage of the encoder."""
        name, patch = "vit_model.vision_model.", self.vit["patch_size"]
        grid = (image.shape[1] // patch, image.shape[2] // patch)
        at = places(grid, self.settings["vit_max_num_patch_per_side"])
        found = {"patches": tokens_of(image, patch), "pos_ids": at}
        x = self.linear(found["patches"], f"{name}embeddings.patch_embedding")
        x = x + self.w[f"{name}embeddings.position_embedding.weight"][at]
        found["embeddings"] = x
        for index in range(self.vit["num_hidden_layers"]):
            x = self._vision_layer(x, f"{name}encoder.layers.{index}.")
            found[f"layer{index}"] = x
        x = found["post_layernorm"] = self._layer_norm(x, f"{name}post_layernorm")
        x = found["connector"] = self.linear(_gelu(self.linear(x, "connector.fc1")), "connector.fc2")
        found["llm_embed"] = x + self.patch_table[at]
        return found

    def _layer_norm(self, x: Tensor, name: str) -> Tensor:
        weight, bias = self.w[f"{name}.weight"], self.w[f"{name}.bias"]
        return F.layer_norm(x, x.shape[-1:], weight, bias, self.vit["layer_norm_eps"])

    def _vision_layer(self, x: Tensor, name: str) -> Tensor:
        normed = self._layer_norm(x, f"{name}layer_norm1")
        q, k, v = (self.linear(normed, f"{name}self_attn.{part}_proj") for part in "qkv")
        width = x.shape[1] // self.vit["num_attention_heads"]
        heads = [attention(*(t[:, at : at + width] for t in (q, k, v))) for at in range(0, x.shape[1], width)]
        x = x + self.linear(torch.cat(heads, dim=1), f"{name}self_attn.out_proj")
        inner = _gelu(self.linear(self._layer_norm(x, f"{name}layer_norm2"), f"{name}mlp.fc1"))
        return x + self.linear(inner, f"{name}mlp.fc2")

    # --- tokens

    def embed(self, ids: list[int]) -> Tensor:
        return self.w["language_model.model.embed_tokens.weight"][torch.tensor(ids)]

    def raw_text(self, ids: list[int], start: int) -> Tokens:
        return Tokens(self.embed(ids), [start + i for i in range(len(ids))], [False] * len(ids), causal=True)

    def text(self, ids: list[int], start: int) -> Tokens:
        special = self.settings["special"]
        return self.raw_text([special["bos_token_id"], *ids, special["eos_token_id"]], start)

    def image(self, embedded: Tensor, start: int, *, gen: bool) -> Tokens:
        special = self.settings["special"]
        ends = self.embed([special["start_of_image"], special["end_of_image"]])
        count = len(embedded)
        whole = torch.cat([ends[:1], embedded.to(self.dtype), ends[1:]])
        return Tokens(whole, [start] * (count + 2), [False, *([gen] * count), False])

    def time_features(self, times: Tensor) -> Tensor:
        rates = torch.exp(-math.log(10000.0) * torch.arange(128, dtype=torch.float32) / 128)
        angles = times.float()[:, None] * rates
        return torch.cat([angles.cos(), angles.sin()], dim=1)

    def time_embedding(self, times: Tensor) -> Tensor:
        inner = F.silu(self.linear(self.time_features(times), "time_embedder.mlp.0"))
        return self.linear(inner, "time_embedder.mlp.2")

    def latents(self, tokens: Tensor, time: float, grid: tuple[int, int], start: int) -> Tokens:
        at = places(grid, self.settings["max_latent_size"])
        x = self.linear(tokens, "vae2llm") + self.time_embedding(torch.tensor([time])) + self.latent_table[at]
        return self.image(x, start, gen=True)

    # --- decoder

    def read(self, context: Seen, tokens: Tokens, *, gen_mode: bool) -> Read:
        """Append tokens; ``gen_mode`` rotates in float32, as the original does while it generates."""
        angles = self._angles(tokens.positions)
        if not gen_mode:
            angles = (angles[0].to(self.dtype), angles[1].to(self.dtype))
        gen = torch.tensor(tokens.gen)
        x, layers, cache = tokens.embedded.to(self.dtype), [], []
        for index in range(self.llm["num_hidden_layers"]):
            past = context.cache[index] if context.cache else None
            x, kept = self._layer(x, index, gen, angles, past, tokens.causal, gen_mode)
            layers.append(x)
            cache.append(kept)
        hidden = self._routed(x, gen, lambda part, end: self.rms(part, f"language_model.model.norm{end}"))
        after = max(tokens.positions) + 1
        return Read(Seen(cache, after), layers, hidden)

    def _angles(self, positions: list[int]) -> tuple[Tensor, Tensor]:
        theta, half = self.llm["rope_theta"], self.head // 2
        rates = torch.tensor([theta ** (-2 * j / self.head) for j in range(half)], dtype=torch.float64)
        angles = (torch.tensor(positions).double()[:, None] * rates).to(self.wide)[:, None]
        return angles.cos(), angles.sin()

    def _routed(self, x: Tensor, gen: Tensor, apply: Any) -> Tensor:
        parts = {end: apply(x[mask], end) for end, mask in (("", ~gen), ("_moe_gen", gen)) if mask.any()}
        out = next(iter(parts.values())).new_empty(len(x), *next(iter(parts.values())).shape[1:])
        for end, part in parts.items():
            out[gen if end else ~gen] = part
        return out

    def _layer(
        self,
        x: Tensor,
        index: int,
        gen: Tensor,
        angles: tuple[Tensor, Tensor],
        past: tuple[Tensor, Tensor] | None,
        causal: bool,
        gen_mode: bool,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        name = f"language_model.model.layers.{index}."
        made = {}
        for part, heads in (("q", self.heads), ("k", self.kv_heads), ("v", self.kv_heads)):

            def project(rows: Tensor, end: str, part: str = part, heads: int = heads) -> Tensor:
                normed = self.rms(rows, f"{name}input_layernorm{end}")
                out = self.linear(normed, f"{name}self_attn.{part}_proj{end}").reshape(len(rows), heads, self.head)
                if part == "v":
                    return out
                return self.rms(out.to(self.wide) if gen_mode else out, f"{name}self_attn.{part}_norm{end}")

            made[part] = self._routed(x, gen, project)
        q, k = (turned(made[part], *angles).to(self.dtype) for part in "qk")
        v = made["v"]
        if past is not None:
            k, v = torch.cat([past[0], k]), torch.cat([past[1], v])
        group = self.heads // self.kv_heads
        mixed = [attention(q[:, h], k[:, h // group], v[:, h // group], causal) for h in range(self.heads)]
        flat = torch.cat(mixed, dim=1)
        x = x + self._routed(flat, gen, lambda rows, end: self.linear(rows, f"{name}self_attn.o_proj{end}"))

        def feed(rows: Tensor, end: str) -> Tensor:
            normed = self.rms(rows, f"{name}post_attention_layernorm{end}")
            inner = F.silu(self.linear(normed, f"{name}mlp{end}.gate_proj"))
            inner = inner * self.linear(normed, f"{name}mlp{end}.up_proj")
            return self.linear(inner, f"{name}mlp{end}.down_proj")

        return x + self._routed(x, gen, feed), (k, v)

    def logits(self, hidden: Tensor) -> Tensor:
        return self.linear(hidden, "language_model.lm_head")

    def velocity(self, stream: Tensor) -> Tensor:
        """From the stream of a target's latent tokens after the last layer."""
        return self.linear(self.rms(stream, "language_model.model.norm_moe_gen"), "llm2vae")

    # --- autoencoder

    def encode(self, image: Tensor) -> dict[str, Tensor]:
        x, levels = self._conv(image[None].to(self.wide), "encoder.conv_in"), len(self.vae["ch_mult"])
        for level in range(levels):
            for block in range(self.vae["num_res_blocks"]):
                x = self._residual(x, f"encoder.down.{level}.block.{block}")
            if level < levels - 1:
                x = self._conv(F.pad(x, (0, 1, 0, 1)), f"encoder.down.{level}.downsample.conv", stride=2, padding=0)
        x = self._residual(x, "encoder.mid.block_1")
        x = attended = self._attention(x, "encoder.mid.attn_1")
        x = self._residual(x, "encoder.mid.block_2")
        moments = self._conv(F.silu(self._norm(x, "encoder.norm_out")), "encoder.conv_out")[0]
        return {"encoder.mid_attn_out": attended[0], "moments": moments}

    def latent(self, moments: Tensor, eps: Tensor | None = None) -> Tensor:
        count = self.vae["z_channels"]
        value = moments[:count]
        if eps is not None:
            value = value + (moments[count:] / 2).exp() * eps
        return self.vae["scale_factor"] * (value - self.vae["shift_factor"])

    def decode(self, latent: Tensor) -> Tensor:
        x = latent[None].to(self.wide) / self.vae["scale_factor"] + self.vae["shift_factor"]
        x = self._residual(self._conv(x, "decoder.conv_in"), "decoder.mid.block_1")
        x = self._residual(self._attention(x, "decoder.mid.attn_1"), "decoder.mid.block_2")
        for level in reversed(range(len(self.vae["ch_mult"]))):
            for block in range(self.vae["num_res_blocks"] + 1):
                x = self._residual(x, f"decoder.up.{level}.block.{block}")
            if level:
                x = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
                x = self._conv(x, f"decoder.up.{level}.upsample.conv")
        return self._conv(F.silu(self._norm(x, "decoder.norm_out")), "decoder.conv_out")[0]

    def _conv(self, x: Tensor, name: str, stride: int = 1, padding: int = 1) -> Tensor:
        return F.conv2d(x, self.w[f"{name}.weight"], self.w[f"{name}.bias"], stride, padding)

    def _norm(self, x: Tensor, name: str) -> Tensor:
        return F.group_norm(x, 32, self.w[f"{name}.weight"], self.w[f"{name}.bias"], 1e-6)

    def _residual(self, x: Tensor, name: str) -> Tensor:
        h = self._conv(F.silu(self._norm(x, f"{name}.norm1")), f"{name}.conv1")
        h = self._conv(F.silu(self._norm(h, f"{name}.norm2")), f"{name}.conv2")
        if f"{name}.nin_shortcut.weight" in self.w:
            x = self._conv(x, f"{name}.nin_shortcut", padding=0)
        return x + h

    def _attention(self, x: Tensor, name: str) -> Tensor:
        normed = self._norm(x, f"{name}.norm")
        q, k, v = (self._conv(normed, f"{name}.{part}", padding=0)[0].flatten(1).T for part in "qkv")
        mixed = attention(q, k, v).T.reshape(x.shape)
        return x + self._conv(mixed, f"{name}.proj_out", padding=0)


def attention(q: Tensor, k: Tensor, v: Tensor, causal: bool = False) -> Tensor:
    """One head, [T, d] on [S, d]; causal is aligned at the bottom right."""
    scores = (q @ k.T).to(torch.promote_types(q.dtype, torch.float32)) / math.sqrt(q.shape[1])
    if causal:
        later = torch.arange(len(k))[None] > torch.arange(len(q))[:, None] + len(k) - len(q)
        scores = scores.masked_fill(later, -math.inf)
    return (torch.softmax(scores, dim=-1).to(v.dtype)) @ v


def turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def _gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
