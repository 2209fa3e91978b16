"""A unified model as graphs: what `uare_rt.model.unified.UnifiedModel` computes, through a backend, in NumPy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from uare_rt.errors import BundleError, InputError
from uare_rt.machine import available_memory
from uare_rt.vlm.codec import Codec
from uare_rt.vlm.contexts import Block, Context, Together, arrange, check_positions
from uare_rt.vlm.memory import decoder_pass_bytes, require
from uare_rt.vlm.transforms import grid_rows, normalise, patchify, resize, unpatchify

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from uare_rt.vlm.layout import UnifiedLayout

    Run = Callable[[str, Mapping[str, NDArray[Any]]], dict[str, NDArray[Any]]]

__all__ = ["Embedding", "Engine"]

_PAIRS = 1 << 25  # of new and seen tokens in one pass, where it can be divided: 0.1 GB of scores per query head
_STORED = {"float32": "<f4", "float16": "<f2", "bfloat16": "<u2"}


class Embedding:
    """The token embedding, mapped from its file: only the rows that are looked up are read.

    Args:
        path: of the file.
        layout: of the model.

    Raises:
        BundleError: the file has another size.
    """

    def __init__(self, path: Path, layout: UnifiedLayout) -> None:
        self._bfloat = layout.embedding_dtype == "bfloat16"
        shape = (layout.vocabulary, layout.hidden)
        try:
            self._rows = np.memmap(path, _STORED[layout.embedding_dtype], "r", shape=shape)
        except (OSError, ValueError) as error:
            raise BundleError(f"{path}: is not a token embedding of {list(shape)} ({error})") from error

    def __call__(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Token ids -> float32 [T, hidden].

        Raises:
            InputError: an id is not in the vocabulary.
        """
        wrong = [i for i in ids if not 0 <= i < len(self._rows)]
        if wrong:
            raise InputError(
                f"token id {wrong[0]} is outside the vocabulary of {len(self._rows)}; "
                "the tokenizer and the weights do not belong together"
            )
        rows = np.asarray(self._rows[np.asarray(ids, np.int64)])
        if self._bfloat:  # the upper half of a float32
            return np.asarray((rows.astype(np.uint32) << np.uint32(16)).view(np.float32))
        return np.asarray(rows.astype(np.float32))


class Engine:
    """The parts of a unified model, by what they are given and what they give.

    Args:
        layout: of the model.
        embed: the token embedding.
        run: runs a graph by its name on named arrays.
    """

    def __init__(self, layout: UnifiedLayout, embed: Embedding, run: Run) -> None:
        self.layout, self.embed, self._run = layout, embed, run
        self._codec = Codec(layout, run)
        self.empty = Context.empty(layout)

    def tokens_block(self, ids: Sequence[int]) -> Block:
        """Text tokens as they are, without delimiters."""
        return Block(self.embed(ids), causal=True, kind="text")

    def text_block(self, ids: Sequence[int]) -> Block:
        """A text between ``bos`` and ``eos``."""
        special = self.layout.special
        return self.tokens_block([special.bos, *ids, special.eos])

    def _delimiters(self) -> NDArray[np.float32]:
        return self.embed([self.layout.special.soi, self.layout.special.eoi])

    def vision_block(self, picture: NDArray[np.uint8]) -> Block:
        """A picture for understanding: uint8 [H, W, 3], resized by both transforms in turn as the reference does.

        Raises:
            InputError: its shape is beyond the patch table.
        """
        layout = self.layout
        fitted = resize(resize(picture, layout.vae_transform), layout.vit_transform)
        height, width = fitted.shape[:2]
        patch, side = layout.patch, layout.patch_side
        if height % patch or width % patch or max(height, width) > side * patch:
            raise InputError(
                f"an understanding input of {width}x{height} px does not fit the patch table: sides must be multiples "
                f"of {patch} px, at most {side * patch} px; resize with the model's vit_transform"
            )
        rows = grid_rows((height // patch, width // patch), side)
        seen = self._run("vision", {"patches": patchify(normalise(fitted), patch), "rows": rows})["embeddings"]
        soi, eoi = self._delimiters()
        return Block(np.concatenate((soi[None], seen, eoi[None])), causal=False, kind="image")

    def latent_rows(self, grid: tuple[int, int]) -> NDArray[np.int64]:
        """Rows of the latent position table for a grid of tokens (down, across).

        Raises:
            InputError: the grid is beyond the table.
        """
        side = self.layout.latent_side
        if max(grid) > side:
            raise InputError(
                f"an image of {grid[1]}x{grid[0]} latent tokens is beyond the position table of "
                f"{side}x{side}; resize with the model's vae_transform"
            )
        return grid_rows(grid, side)

    def latent_block(self, latent: NDArray[np.float32]) -> Block:
        """A clean image for generation: latent float32 [z, h, w]."""
        patch = self.layout.latent_patch
        rows = self.latent_rows((latent.shape[1] // patch, latent.shape[2] // patch))
        return Block(self._delimiters(), causal=False, kind="image", latents=patchify(latent, patch), rows=rows)

    def encode(
        self, fitted: NDArray[np.uint8], tile: int | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """A picture sized by ``vae_transform`` -> mean and spread of its latent, float32 [z, h, w] each."""
        latent, spread = self._codec.encode(normalise(fitted)[None], tile)
        return latent[0], spread[0]

    def picture(
        self, tokens: NDArray[np.float32], grid: tuple[int, int], tile: int | None = None
    ) -> NDArray[np.float32]:
        """Latent tokens [M, latent width] -> image float32 [3, H, W], about [-1, 1], not clamped."""
        return np.asarray(self._codec.decode(unpatchify(tokens, grid, self.layout.latent_patch)[None], tile)[0])

    def extend(
        self, context: Context, blocks: Sequence[Block], ends: Sequence[Block] = ()
    ) -> tuple[Context, NDArray[np.float32]]:
        """Append blocks to a context and read ways to go on from there, all in one pass.

        Args:
            context: what came before, left as it is.
            blocks: at least one.
            ends: texts that each follow ``blocks`` and do not see one another.

        Returns:
            The context with ``blocks`` alone, and the next-token logits after the last token of every end, float32
            [ends, vocabulary]; without ends, of the last und token.

        Raises:
            UsageError: the context would be longer than the model's position limit.
        """
        first, blocks = self._parted(context, blocks)
        for group in first:
            context, _ = self.extend(context, group)
        inputs, position = arrange(context, blocks, ends, self.layout.position_limit)
        new = len(inputs["positions"])
        self._require(f"reading {new} tokens after {context.tokens}", new, context.tokens)
        if "latents" not in inputs:
            inputs["latents"] = np.zeros((0, self.layout.latent_width), np.float32)
            inputs["latent_rows"] = np.zeros(0, np.int64)
        out = self._run("prefill", inputs | context.past)
        return context.followed(out, sum(block.length for block in blocks), position), out["logits"]

    def _parted(self, context: Context, blocks: Sequence[Block]) -> tuple[list[Sequence[Block]], Sequence[Block]]:
        """Blocks that are read in passes of their own, lest scores become too many, and those of the last pass."""
        groups: list[list[Block]] = [[]]
        seen = context.tokens
        for block in blocks:
            new = sum(one.length for one in groups[-1])
            if groups[-1] and (new + block.length) * (seen + new + block.length) > _PAIRS:
                groups.append([])
                seen += new
            groups[-1].append(block)
        return list(groups[:-1]), groups[-1]

    def _require(self, what: str, new: int, seen: int, branches: int = 1) -> None:
        need = decoder_pass_bytes(self.layout, new, seen, branches)
        way_out = "use a smaller picture or a shorter text"
        require(what, need, way_out if branches == 1 else f"{way_out}, or do not batch branches")

    def follow(self, context: Context, token: int) -> tuple[Context, NDArray[np.float32]]:
        """Append one text token: the longer context, and the next-token logits [vocabulary]."""
        check_positions(context.position + 1, self.layout.position_limit)
        inputs: dict[str, NDArray[Any]] = {
            "embeddings": self.embed([token]),
            "positions": np.array([context.position], np.int64),
        }
        out = self._run("decode", inputs | context.past)
        return context.followed(out, 1, context.position + 1), out["logits"][0]

    def fits(self, contexts: Sequence[Context], latents: int) -> bool:
        """Whether the memory that is free holds an evaluation of so many latent tokens in all contexts at once."""
        free, seen = available_memory(), max(context.tokens for context in contexts)
        return free is None or decoder_pass_bytes(self.layout, self._target(latents), seen, len(contexts)) <= free

    def require_room(self, contexts: Sequence[Context], latents: int) -> None:
        """Refuse evaluations that there is no memory for.

        To be asked once, before the first: a backend keeps what an evaluation took for the next one.

        Args:
            contexts: evaluated at once.
            latents: tokens of the target.

        Raises:
            BackendError: there is less than one evaluation needs.
        """
        seen = max(context.tokens for context in contexts)
        what = f"evaluating {latents} latent tokens after {seen}"
        self._require(what, self._target(latents), seen, len(contexts))

    def _target(self, latents: int) -> int:
        """Tokens of a target: its latents between the delimiters."""
        return latents + len(self._delimiters())

    def denoise(
        self, contexts: Together, x: NDArray[np.float32], rows: NDArray[np.int64], time: float
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """One evaluation in each of B contexts.

        Returns:
            Velocities [B, M, latent width], and the streams [B, M, hidden] that forecasts go on from.
        """
        check_positions(int(contexts.positions.max()) + 1, self.layout.position_limit)
        own = np.ones((len(contexts.seen), self._target(len(x))), bool)
        inputs: dict[str, NDArray[Any]] = {
            "latents": x,
            "latent_rows": rows,
            "time": np.array([time], np.float32),
            "delimiters": self._delimiters(),
            "position": contexts.positions,
            "mask": np.concatenate((contexts.seen, own), axis=1),
        }
        out = self._run("denoise", inputs | contexts.past)
        return out["velocity"], out["stream"]

    def velocity(self, stream: NDArray[np.float32]) -> NDArray[np.float32]:
        """The velocity of a forecast stream."""
        return self._run("velocity", {"stream": np.asarray(stream, np.float32)})["velocity"]
