"""``uare-7b`` as one module: encoders, mixture of transformers, latents, codec; blocks and contexts.

A context is built from blocks. A block sees itself and every block before it, so appending them one by one
and appending them all in one fused pass leave the same cache.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from uare_rt.errors import InputError, UsageError
from uare_rt.model.costs import kv_bytes, pass_bytes
from uare_rt.model.kv_cache import Int8KVCache, stored
from uare_rt.model.memory import require
from uare_rt.model.mot import KVCache, MoT, Segment, block_causal_mask
from uare_rt.model.patches import patchify, unpatchify
from uare_rt.model.siglip import VisionEncoder
from uare_rt.model.tables import TIME_FEATURES, grid_rows, sincos_table, time_features
from uare_rt.model.vae import Autoencoder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from uare_rt.model.memory import CacheType
    from uare_rt.model.presets.uare_7b import UnifiedConfig

__all__ = ["EMPTY", "Block", "Context", "LanguageModel", "LatentTokens", "TimeEmbedder", "UnifiedModel"]


@dataclass(frozen=True)
class Block:
    """Tokens that enter a context together.

    Attributes:
        embeddings: [T, hidden].
        segments: the experts of the T tokens.
        offsets: rotary positions from the start of the block, one per token.
        causal: whether a token sees only those before it in the block; images see all of theirs.
        kind: ``text`` or ``image``; guidance leaves one or the other out.
    """

    embeddings: Tensor
    segments: tuple[Segment, ...]
    offsets: tuple[int, ...]
    causal: bool
    kind: str

    @property
    def length(self) -> int:
        """Number of tokens."""
        return self.embeddings.shape[0]

    @property
    def advance(self) -> int:
        """Rotary positions that the block takes up."""
        return self.offsets[-1] + 1


@dataclass(frozen=True)
class Context:
    """What has been read: the cache and the next rotary position."""

    cache: KVCache | Int8KVCache | None = None
    position: int = 0

    @property
    def tokens(self) -> int:
        """Number of cached tokens."""
        return 0 if self.cache is None else self.cache.tokens

    def extended(self, cache: KVCache | Int8KVCache) -> KVCache | Int8KVCache:
        """The cache followed by another of the same type."""
        return cache if self.cache is None else self.cache.extended(cache)

    def before(self, blocks: Sequence[Block]) -> Context:
        """This context as it was before ``blocks``, its last ones, were appended; shares the memory."""
        kept = self.tokens - sum(block.length for block in blocks)
        position = self.position - sum(block.advance for block in blocks)
        if self.cache is None or not kept:
            return Context(None, position)
        return Context(self.cache.first(kept), position)


EMPTY = Context()


def _merged(segments: Sequence[Segment]) -> list[Segment]:
    """Neighbours of the same expert joined, so that each is one matrix product."""
    runs = itertools.groupby(segments, key=lambda segment: segment.expert)
    return [Segment(expert, sum(segment.length for segment in run)) for expert, run in runs]


class LanguageModel(nn.Module):
    """Token embedding, mixture of transformers, output head."""

    def __init__(self, config: UnifiedConfig) -> None:
        super().__init__()
        self.embed = nn.Embedding(config.vocabulary, config.mot.hidden)
        self.mot = MoT(config.mot)
        self.head = nn.Linear(config.mot.hidden, config.vocabulary, bias=False)


class TimeEmbedder(nn.Module):
    """Flow time -> vector of the decoder's width."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(TIME_FEATURES, hidden), nn.SiLU(), nn.Linear(hidden, hidden))

    def forward(self, times: Tensor) -> Tensor:
        """float32 [N] in [0, 1] -> [N, hidden]."""
        return self.mlp(time_features(times).to(self.mlp[0].weight.dtype))


class LatentTokens(nn.Module):
    """Latent tokens into the decoder, and velocities out of it."""

    table: Tensor

    def __init__(self, config: UnifiedConfig) -> None:
        super().__init__()
        hidden = config.mot.hidden
        self.side = config.latent_side
        self.time = TimeEmbedder(hidden)
        self.inward = nn.Linear(config.latent_width, hidden)
        self.outward = nn.Linear(hidden, config.latent_width)
        self.register_buffer("table", sincos_table(config.latent_side, hidden), persistent=False)

    def forward(self, tokens: Tensor, time: float | Tensor, grid: tuple[int, int]) -> Tensor:
        """Embed latent tokens.

        Args:
            tokens: [M, latent width], row by row.
            time: flow time, 0 for a clean image.
            grid: tokens (down, across).

        Returns:
            [M, hidden].

        Raises:
            InputError: the grid is beyond the position table.
        """
        if max(grid) > self.side:
            raise InputError(
                f"an image of {grid[1]}x{grid[0]} latent tokens is beyond the position table of "
                f"{self.side}x{self.side}; resize with the model's vae_transform"
            )
        device = self.inward.weight.device
        x = self.inward(tokens.to(self.inward.weight))
        times = torch.as_tensor(time, dtype=torch.float32, device=device).reshape(1)
        return x + self.time(times) + self.table[grid_rows(*grid, self.side).to(device)].to(x.dtype)


class UnifiedModel(nn.Module):
    """The whole model; batch 1 throughout.

    Attributes:
        config: dimensions.
        cache_type: how contexts are kept between passes; the tokens of a pass see one another as computed.
    """

    cache_type: CacheType = "same"

    def __init__(self, config: UnifiedConfig) -> None:
        super().__init__()
        self.config = config
        self.language = LanguageModel(config)
        self.vision = VisionEncoder(config.vision, config.mot.hidden)
        self.latents = LatentTokens(config)
        self.codec = Autoencoder(config.codec)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.latents.inward.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """What it computes in, the codec apart."""
        return self.latents.inward.weight.dtype

    def embed_text(self, ids: Sequence[int]) -> Tensor:
        """Token ids -> [T, hidden].

        Raises:
            InputError: an id is not in the vocabulary.
        """
        wrong = [i for i in ids if not 0 <= i < self.config.vocabulary]
        if wrong:
            raise InputError(
                f"token id {wrong[0]} is outside the vocabulary of {self.config.vocabulary}; "
                "the tokenizer and the weights do not belong together"
            )
        return self.language.embed(torch.tensor(ids, dtype=torch.long, device=self.device))

    def tokens_block(self, ids: Sequence[int]) -> Block:
        """Text tokens as they are, without delimiters."""
        segments = (Segment("und", len(ids)),)
        return Block(self.embed_text(ids), segments, tuple(range(len(ids))), causal=True, kind="text")

    def text_block(self, ids: Sequence[int]) -> Block:
        """A text between ``bos`` and ``eos``."""
        special = self.config.special
        return self.tokens_block([special.bos, *ids, special.eos])

    def _image_block(self, embeddings: Tensor, expert: str) -> Block:
        """Image tokens between ``soi`` and ``eoi``, which use the und expert; all share one rotary position."""
        special = self.config.special
        soi, eoi = self.embed_text([special.soi, special.eoi]).split(1)
        count = embeddings.shape[0]
        segments = (Segment("und", 1), Segment(expert, count), Segment("und", 1))
        whole = torch.cat((soi, embeddings.to(soi.dtype), eoi))
        return Block(whole, segments, (0,) * (count + 2), causal=False, kind="image")

    def vision_block(self, image: Tensor) -> Block:
        """An image for understanding: [3, H, W] in [-1, 1], sized by ``vit_transform``."""
        return self._image_block(self.vision(image), "und")

    def latent_block(self, latent: Tensor, time: float | Tensor = 0.0) -> Block:
        """An image for generation: latent [z, h, w]; ``time`` 0 is a clean one."""
        patch = self.config.latent_patch
        grid = latent.shape[1] // patch, latent.shape[2] // patch
        return self._image_block(self.latents(patchify(latent, patch), time, grid), "gen")

    def target_block(self, x: Tensor, time: float | Tensor, grid: tuple[int, int]) -> Block:
        """The image being generated: noisy latent tokens x [M, latent width] at ``time``."""
        return self._image_block(self.latents(x, time, grid), "gen")

    def _positions(self, start: int, blocks: Sequence[Block]) -> tuple[list[int], int]:
        """Rotary positions of the tokens of consecutive blocks, and the position after them."""
        positions: list[int] = []
        for block in blocks:
            positions += [start + offset for offset in block.offsets]
            start += block.advance
        if start > self.config.position_limit:
            raise UsageError(
                f"the context needs {start} positions, but the model's limit is {self.config.position_limit}; "
                "use a shorter text or fewer images"
            )
        return positions, start

    def _read(
        self, context: Context, blocks: Sequence[Block], positions: Sequence[int], mask: Tensor | None
    ) -> tuple[Tensor, KVCache]:
        x = torch.cat([block.embeddings for block in blocks])[None]
        segments = _merged([segment for block in blocks for segment in block.segments])
        places = torch.tensor(positions, device=x.device)
        mask = None if mask is None else mask.to(x.device)
        # The new tokens' keys and values exist twice while they are stacked.
        new = 2 * kv_bytes(self.config, len(positions)) * x.element_size() // 2
        need = pass_bytes(self.config, len(positions), x.element_size()) + new
        require(f"reading {len(positions)} tokens", need, x.device, "use a smaller picture or a shorter text")
        hidden, cache = self.language.mot(x, segments, places, context.cache, mask)
        return hidden[0], cache

    def extend(self, context: Context, blocks: Sequence[Block]) -> tuple[Context, Tensor]:
        """Append blocks to a context in one pass.

        Args:
            context: what came before, left as it is.
            blocks: at least one.

        Returns:
            The longer context, and the hidden states of the new tokens after the final norm, [T, hidden].

        Raises:
            UsageError: the context would be longer than the model's position limit.
        """
        positions, end = self._positions(context.position, blocks)
        mask = None
        if len(blocks) > 1 or (blocks[0].causal and blocks[0].length > 1):
            mask = block_causal_mask([(block.length, block.causal) for block in blocks])
        hidden, cache = self._read(context, blocks, positions, mask)
        return Context(context.extended(stored(cache, self.cache_type)), end), hidden

    def extend_each(
        self, context: Context, blocks: Sequence[Block], ends: Sequence[Block]
    ) -> tuple[Context, list[Tensor]]:
        """Append blocks to a context and read several ways to go on from there, all in one pass.

        Args:
            context: what came before, left as it is.
            blocks: at least one.
            ends: blocks that each follow ``blocks`` at the same position and do not see one another.

        Returns:
            The context with ``blocks`` alone, and the hidden states of every end, [T, hidden] each.

        Raises:
            UsageError: the context would be longer than the model's position limit.
        """
        positions, end = self._positions(context.position, blocks)
        for block in ends:
            positions = positions + self._positions(end, [block])[0]
        together = [*blocks, *ends]
        mask = block_causal_mask([(block.length, block.causal) for block in together])
        shared = sum(block.length for block in blocks)
        start = shared
        for block in ends:
            mask[start : start + block.length, shared:start] = False
            start += block.length
        hidden, cache = self._read(context, together, positions, mask)
        kept = stored(cache.first(shared), self.cache_type)
        states = hidden[shared:].split([block.length for block in ends])
        return Context(context.extended(kept), end), list(states)

    def logits(self, hidden: Tensor) -> Tensor:
        """Next-token logits, float32 [T, vocabulary], of final hidden states [T, hidden]."""
        return self.language.head(hidden).float()

    def target_streams(self, contexts: Sequence[Context], block: Block) -> list[Tensor]:
        """One target after each of several contexts, all in one batch: weights are read once.

        Returns:
            For each context the residual stream of the target's latent tokens after the last layer, [M, hidden].
        """
        positions = [self._positions(context.position, [block])[0] for context in contexts]
        x = block.embeddings.expand(len(contexts), -1, -1)
        alone = len(contexts) == 1  # fused kernels take one context
        places = torch.tensor(positions[0] if alone else positions, device=x.device)
        need = pass_bytes(self.config, block.length, x.element_size(), len(contexts))
        require(f"evaluating {block.length} tokens", need, x.device, "use a smaller picture, or do not batch branches")
        caches = [context.cache for context in contexts]
        for stream, _, _ in self.language.mot.streams(x, block.segments, places, caches[0] if alone else caches):
            x = stream
        return list(x[:, 1:-1])

    def target_stream(self, context: Context, block: Block) -> Tensor:
        """The residual stream of a target's latent tokens after the last layer, [M, hidden]."""
        return self.target_streams([context], block)[0]

    def velocity(self, stream: Tensor) -> Tensor:
        """Velocity float32 [M, latent width] of a target's residual stream, see `target_stream`."""
        hidden = self.language.mot.final_norm(stream[None], [Segment("gen", stream.shape[0])])[0]
        return self.latents.outward(hidden).float()

    def picture(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Decode latent tokens [M, latent width] to an image [3, H, W], not clamped."""
        return self.codec.decode(unpatchify(tokens, grid, self.config.latent_patch))
