"""``uare-nano``: assessment and one-step restoration in one small mixture of transformers.

The understanding expert reads the views and answers at the slot positions; what it leaves behind (the
KV cache and a pooled vector: the quality context) guides the generation expert, whose tokens are the
bottleneck of the codec, and modulates the codec's convolutions.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uare_rt.model.codec import Codec, ToneOperator
from uare_rt.model.mot import MoT, Segment, block_causal_mask, rotary, rotate
from uare_rt.model.reparam import NormedLinear, fold
from uare_rt.model.statistics import STATISTICS, view_statistics
from uare_rt.slots import SLOTS
from uare_rt.views import VIEW_COUNT, VIEW_SIZE

if TYPE_CHECKING:
    from uare_rt.model.presets.nano import NanoConfig

__all__ = ["LATENT_STRIDE", "LEVEL_COUNT", "SCALES", "QualityContext", "UareNano"]

SCALES = (1, 2, 4)
LEVEL_COUNT = 5
LATENT_STRIDE = 16  # pixels per latent token and side
_VIEW_STRIDE = 48  # pixels per understanding token and side
_VIEW_TOKENS = (VIEW_SIZE // _VIEW_STRIDE) ** 2


@dataclass
class QualityContext:
    """What the understanding pass leaves behind for the generator.

    Attributes:
        k: keys [layers, batch, kv_heads, tokens, head_dim].
        v: values, same shape.
        vec: pooled vector [batch, C].
    """

    k: Tensor
    v: Tensor
    vec: Tensor


class ViewEncoder(nn.Module):
    """One token per 48x48 pixels of a view: its statistics, and what strided convolutions add to them.

    The convolutions read the pixels and their amplified detail (pixel minus 3x3 mean): noise, blur and
    compression show in the latter, which the pixels' own variance would drown.
    """

    detail: Tensor

    def __init__(self, channels: tuple[int, int, int, int], width: int, *, reparameterised: bool) -> None:
        super().__init__()
        a, b, c, d = channels
        kernel = (torch.eye(9)[4] - 1 / 9).reshape(3, 3)
        self.register_buffer("detail", torch.eye(3)[..., None, None] * kernel, persistent=False)
        self.statistics = nn.Sequential(
            (NormedLinear if reparameterised else nn.Linear)(STATISTICS, width),
            nn.GELU(),
            nn.Linear(width, width),
        )
        self.convs = nn.Sequential(
            nn.Conv2d(6, a, 8, stride=4, padding=2),
            nn.ReLU(),
            nn.Conv2d(a, b, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(b, c, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(c, d, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(d, width, 3, stride=3),
        )
        convs = [layer for layer in self.convs if isinstance(layer, nn.Conv2d)]
        for conv in convs:
            nn.init.kaiming_normal_(conv.weight)
        with torch.no_grad():
            convs[-1].weight.mul_(0.3)  # the statistics lead at first

    def forward(self, views: Tensor) -> Tensor:
        """[N, 3, 96, 96] in [0, 1] -> [N, 4, width]."""
        detail = F.conv2d(F.pad(views, (1, 1, 1, 1), mode="replicate"), self.detail)
        seen = self.convs(torch.cat(((views - 0.5) * 4, detail * 16), dim=1)).flatten(2).transpose(1, 2)
        known: Tensor = self.statistics(view_statistics(views, _VIEW_STRIDE))
        return seen + known


class UareNano(nn.Module):
    """The whole model; `assess` and `restore` are its two graphs.

    Args:
        config: the shape.
        reparameterised: build the layers with the branches and norms they are trained with
            (`uare_rt.model.reparam`); `folded` turns them into plain ones.
    """

    positions: Tensor
    mask: Tensor

    def __init__(self, config: NanoConfig, *, reparameterised: bool = False) -> None:
        super().__init__()
        self.config = config
        hidden = config.mot.hidden
        self.vision = ViewEncoder(config.vision_channels, hidden, reparameterised=reparameterised)
        self.view_embedding = nn.Parameter(torch.randn(VIEW_COUNT, 1, hidden) * 0.02)
        self.patch_embedding = nn.Parameter(torch.randn(1, _VIEW_TOKENS, hidden) * 0.02)
        self.slot_embedding = nn.Parameter(torch.randn(len(SLOTS), hidden) * 0.5)
        self.mot = MoT(config.mot)
        self.level_head = nn.Linear(hidden, LEVEL_COUNT)
        self.pool = nn.Linear(2 * hidden, config.context_vector)
        self.latent_embedding = nn.Parameter(torch.randn(config.window**2, hidden) * 0.02)
        self.tone = ToneOperator(config.context_vector)
        self.codec = Codec(config, SCALES, reparameterised=reparameterised)
        self.null_k = nn.Parameter(torch.zeros(self._context_shape()))
        self.null_v = nn.Parameter(torch.zeros(self._context_shape()))
        self.null_vec = nn.Parameter(torch.zeros(1, config.context_vector))
        views = [(_VIEW_TOKENS, False)] * VIEW_COUNT
        positions = torch.arange(VIEW_COUNT).repeat_interleave(_VIEW_TOKENS)
        slots = torch.arange(VIEW_COUNT, VIEW_COUNT + len(SLOTS))
        self.register_buffer("positions", torch.cat((positions, slots)), persistent=False)
        self.register_buffer("mask", block_causal_mask([*views, (len(SLOTS), True)]), persistent=False)
        self._init_weights()

    @property
    def context_tokens(self) -> int:
        """Tokens in the quality context."""
        return VIEW_COUNT * _VIEW_TOKENS + len(SLOTS)

    def _context_shape(self) -> tuple[int, int, int, int]:
        mot = self.config.mot
        return mot.layers, mot.kv_heads, self.context_tokens, mot.head_dim

    def _init_weights(self) -> None:
        depth = (2 * self.config.mot.layers) ** -0.5
        for layer in self.mot.layers:
            for expert in (layer.und, layer.gen):
                for linear in (expert.q, expert.k, expert.v, expert.o, expert.gate, expert.up, expert.down):
                    nn.init.normal_(linear.weight, std=linear.in_features**-0.5)
                with torch.no_grad():
                    expert.o.weight.mul_(depth)
                    expert.down.weight.mul_(depth)

    def assess(self, views: Tensor) -> tuple[Tensor, QualityContext]:
        """Understand a batch of images.

        Args:
            views: float [B, 9, 3, 96, 96] in [0, 1], see `uare_rt.views.extract_views`.

        Returns:
            Level logits [B, 7, 5] at the slot positions, and the quality context.
        """
        batch = views.shape[0]
        tokens = self.vision(views.flatten(0, 1)).reshape(batch, VIEW_COUNT, _VIEW_TOKENS, -1)
        tokens = (tokens + self.view_embedding + self.patch_embedding).flatten(1, 2)
        x = torch.cat((tokens, self.slot_embedding.expand(batch, -1, -1)), dim=1)
        hidden, cache = self.mot(x, [Segment("und", self.context_tokens)], self.positions, mask=self.mask)
        slots = hidden[:, -len(SLOTS) :]
        pooled = torch.cat((slots.mean(dim=1), hidden[:, : -len(SLOTS)].mean(dim=1)), dim=-1)
        return self.level_head(slots), QualityContext(cache.k, cache.v, self.pool(pooled))

    def folded(self) -> UareNano:
        """A copy whose re-parameterised layers are plain ones, as it is stored and exported."""
        model = copy.deepcopy(self)
        fold(model)
        return model

    def null_context(self) -> QualityContext:
        """The trained context for "nothing is known", batch 1."""
        return QualityContext(self.null_k[:, None], self.null_v[:, None], self.null_vec)

    def restore(self, frame: Tensor, context: QualityContext, scale: int = 1) -> Tensor:
        """Restore a batch of frames in one step.

        Args:
            frame: float [N, 3, H, W], RGB in [0, 1], H and W multiples of 16.
            context: batch N, or batch 1 shared by all.
            scale: 1, 2 or 4.

        Returns:
            float [N, 3, scale H, scale W], not clipped.
        """
        return self.repair(self.tone(frame, context.vec), context, scale)

    def repair(self, base: Tensor, context: QualityContext, scale: int = 1) -> Tensor:
        """The local part of `restore`: mend a frame whose tone is right.

        Args:
            base: output of the tone operator, [N, 3, H, W].
            context: batch N or 1.
            scale: 1, 2 or 4.

        Returns:
            float [N, 3, scale H, scale W].
        """
        latent, skips = self.codec.encode(base, context.vec)
        latent = latent + self.generate(latent, context)
        features = self.codec.decode(latent, skips, context.vec)
        return self.codec.heads[f"x{scale}"](features, base)

    def generate(self, latent: Tensor, context: QualityContext) -> Tensor:
        """The gen expert over windows of latent tokens that attend to the quality context.

        Args:
            latent: [N, D, h, w].
            context: batch N or 1.

        Returns:
            [N, D, h, w].
        """
        window, mot = self.config.window, self.mot
        batch = latent.shape[0]
        # All tokens share the position behind the context's. Scores depend on distances alone, so the few keys of
        # the context are turned back by it, and queries and keys of the tokens stay as they are.
        cos, sin = rotary(self.positions[-1:] + 1, mot.config.head_dim, mot.config.rope_theta)
        context_k = rotate(context.k, cos, -sin)
        grid = latent.permute(0, 2, 3, 1)
        plain, shifted = _Windows(grid, window, 0), _Windows(grid, window, window // 2)
        x = plain.split(grid) + self.latent_embedding
        tokens = [Segment("gen", window**2)]
        first_shifted = len(mot.layers) - self.config.shifted_layers
        mask, count = plain.mask, x.shape[0] // batch
        for index, layer in enumerate(mot.layers):
            if index == first_shifted:
                x = shifted.split(plain.merge(x))
                mask, count = shifted.mask, x.shape[0] // batch
            past = tuple(
                part if part.shape[0] == 1 else part.repeat_interleave(count, dim=0)
                for part in (context_k[index], context.v[index])
            )
            x, _, _ = layer(x, tokens, None, past, mask[:, None, None, None])
        return shifted.merge(mot.final_norm(x, tokens)).permute(0, 3, 1, 2)


class _Windows:
    """Cutting a token grid [N, h, w, D] into square windows [N * windows, side^2, D] and back.

    The grid is padded with masked tokens to whole windows, ``shift`` of them before the first token. The last axis
    stays the last: what is moved are whole tokens.
    """

    def __init__(self, grid: Tensor, side: int, shift: int) -> None:
        self.batch, self.rows, self.columns, self.width = grid.shape
        self.side, self.shift = side, shift
        # Rounded up with positive numbers only: integer division in ONNX truncates.
        self.down = (self.rows + shift + side - 1) // side
        self.across = (self.columns + shift + side - 1) // side
        # Windows of one picture repeat for every picture of the batch.
        self.mask = self.split(torch.ones_like(grid[..., :1]))[..., 0] > 0.5

    def split(self, grid: Tensor) -> Tensor:
        side = self.side
        below = self.down * side - self.rows - self.shift
        right = self.across * side - self.columns - self.shift
        x = F.pad(grid, (0, 0, self.shift, right, self.shift, below))
        x = x.reshape(self.batch, self.down, side, self.across, side, -1)
        return x.transpose(2, 3).reshape(self.batch * self.down * self.across, side * side, -1)

    def merge(self, windows: Tensor) -> Tensor:
        side, shift = self.side, self.shift
        x = windows.reshape(self.batch, self.down, self.across, side, side, self.width)
        x = x.transpose(2, 3).reshape(self.batch, self.down * side, self.across * side, self.width)
        return x[:, shift : shift + self.rows, shift : shift + self.columns]
