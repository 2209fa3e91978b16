"""Blocks, contexts and the masks between them, in NumPy, as the ``prefill`` graph takes them.

A pass orders its tokens gen before und, each in the order of its blocks; texts at the end of a context therefore
stay at the end of its cache, which can be cut off before them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from uare_rt.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from uare_rt.vlm.layout import UnifiedLayout

__all__ = ["Block", "Context", "Together", "arrange", "check_positions"]

_TOKENS = 3  # axis of a cache


@dataclass(frozen=True, eq=False)
class Block:
    """Tokens that enter a context together.

    Attributes:
        embeddings: float32 [U, hidden], tokens of the und expert.
        causal: whether these follow one another, each at a position of its own; else all share one.
        kind: ``text`` or ``image``.
        latents: float32 [G, latent width], tokens of the gen expert, or none.
        rows: int64 [G], their rows in the position table.
    """

    embeddings: NDArray[np.float32]
    causal: bool
    kind: str
    latents: NDArray[np.float32] | None = None
    rows: NDArray[np.int64] | None = None

    @property
    def generated(self) -> int:
        """Number of tokens of the gen expert."""
        return 0 if self.latents is None else len(self.latents)

    @property
    def length(self) -> int:
        """Number of tokens."""
        return len(self.embeddings) + self.generated

    @property
    def advance(self) -> int:
        """Rotary positions that the block takes up."""
        return len(self.embeddings) if self.causal else 1


@dataclass(frozen=True, eq=False)
class Context:
    """What has been read.

    Attributes:
        cache: keys ``k`` and values ``v`` [layers, 1, kv_heads, tokens, head_dim] as the graphs give and take them:
            float32, float16, or int8 with ``k_scale`` and ``v_scale``, float32 [layers, 1, kv_heads, tokens, 1].
        position: the next rotary position.
    """

    cache: Mapping[str, NDArray[Any]]
    position: int

    @classmethod
    def empty(cls, layout: UnifiedLayout) -> Context:
        """Nothing read yet."""
        dtypes = {"same": np.float32, "fp16": np.float16, "int8": np.int8}
        start = (layout.layers, 1, layout.kv_heads, 0)
        cache = {name: np.zeros((*start, layout.head_dim), dtypes[layout.cache]) for name in "kv"}
        if layout.cache == "int8":
            cache |= {f"{name}_scale": np.zeros((*start, 1), np.float32) for name in "kv"}
        return cls(cache, 0)

    @property
    def tokens(self) -> int:
        """Number of cached tokens."""
        return int(self.cache["k"].shape[3])

    @property
    def past(self) -> dict[str, NDArray[Any]]:
        """The cache as inputs of a graph."""
        return _as_past(self.cache)

    def followed(self, outputs: Mapping[str, NDArray[Any]], kept: int, position: int) -> Context:
        """This context with the first ``kept`` tokens of a graph's outputs after it."""
        return Context(
            {
                name: np.concatenate((part, outputs[name][..., :kept, :]), axis=_TOKENS)
                for name, part in self.cache.items()
            },
            position,
        )

    def before(self, texts: Sequence[Block]) -> Context:
        """This context as it was before its last texts."""
        kept = self.tokens - sum(block.length for block in texts)
        position = self.position - sum(block.advance for block in texts)
        return Context({name: np.ascontiguousarray(part[..., :kept, :]) for name, part in self.cache.items()}, position)


@dataclass(frozen=True, eq=False)
class Together:
    """Several contexts in one batch, the shorter ones filled up; one alone is not copied.

    Attributes:
        past: the caches as inputs of a graph, [layers, contexts, kv_heads, tokens, head_dim] and their scales.
        positions: int64 [contexts], the next rotary position of each.
        seen: bool [contexts, tokens], false for the filling.
    """

    past: dict[str, NDArray[Any]]
    positions: NDArray[np.int64]
    seen: NDArray[np.bool_]

    @classmethod
    def of(cls, contexts: Sequence[Context]) -> Together:
        """Contexts of one model, at least one."""
        longest = max(context.tokens for context in contexts)
        caches: dict[str, NDArray[Any]] = {}
        for name, first in contexts[0].cache.items():
            if len(contexts) == 1:
                caches[name] = first
                continue
            filled = np.zeros((first.shape[0], len(contexts), first.shape[2], longest, first.shape[4]), first.dtype)
            for index, context in enumerate(contexts):
                filled[:, index, :, : context.tokens] = context.cache[name][:, 0]
            caches[name] = filled
        positions = np.array([context.position for context in contexts], np.int64)
        seen = np.arange(longest) < np.array([[context.tokens] for context in contexts])
        return cls(_as_past(caches), positions, seen)


def _as_past(cache: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return {f"past_{name}": part for name, part in cache.items()}


def check_positions(end: int, limit: int) -> None:
    """Refuse a context that is too long.

    Raises:
        UsageError: it needs more positions than the model has.
    """
    if end > limit:
        raise UsageError(
            f"the context needs {end} positions, but the model's limit is {limit}; use a shorter text or fewer images"
        )


def arrange(
    context: Context, blocks: Sequence[Block], ends: Sequence[Block], limit: int
) -> tuple[dict[str, NDArray[Any]], int]:
    """The inputs of one pass.

    Args:
        context: what came before.
        blocks: appended one after another.
        ends: texts that each follow ``blocks`` and do not see one another.
        limit: rotary positions of the model.

    Returns:
        The inputs of ``prefill`` but the past, logits asked of the last token of every end (without ends, of the
        last und token), and the position after ``blocks``.

    Raises:
        UsageError: the context would be longer than the model's position limit.
    """
    together = [*blocks, *ends]
    starts = []
    position = context.position
    for block in blocks:
        starts.append(position)
        position += block.advance
    check_positions(max([position, *(position + end.advance for end in ends)]), limit)
    starts += [position] * len(ends)

    generated = [block.generated for block in together]
    read = [len(block.embeddings) for block in together]
    owner = np.concatenate([np.repeat(np.arange(len(together)), counts) for counts in (generated, read)])
    place = np.concatenate(
        [np.zeros(sum(generated), np.int64)]
        + [np.arange(count) * block.causal for count, block in zip(read, together, strict=True)]
    )
    causal = np.array([block.causal for block in together])[owner]
    # An end is later than the blocks, and neither before nor after another end.
    rank = np.minimum(np.arange(len(together)), len(blocks))[owner]
    same = owner[:, None] == owner
    own = (rank[:, None] > rank) | (same & (~causal[:, None] | (place[:, None] >= place)))
    mask = np.concatenate((np.ones((len(owner), context.tokens), bool), own), axis=1)

    lasts = np.cumsum(read)[len(blocks) :] if ends else [sum(read)]
    latents = [block.latents for block in together if block.latents is not None]
    rows = [block.rows for block in together if block.rows is not None]
    inputs = {
        "embeddings": np.concatenate([block.embeddings for block in together]),
        "positions": np.asarray(np.array(starts)[owner] + place, np.int64),
        "mask": mask,
        "rows": np.asarray(lasts, np.int64) - 1,
    }
    if latents:
        inputs |= {"latents": np.concatenate(latents), "latent_rows": np.concatenate(rows)}
    return inputs, position
