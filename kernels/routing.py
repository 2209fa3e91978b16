"""Which tokens use which expert, as a table of row blocks: indices only, one entry per program.

The tokens of a mixture of transformers come in runs of one expert. A grouped kernel has one program per block of
rows of one run, which picks its expert's weights; no token is computed twice and none is masked out.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import torch

from uare_rt.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

__all__ = ["EXPERTS", "Run", "block_table", "runs_of"]

EXPERTS = ("und", "gen")


class Run(NamedTuple):
    """Consecutive tokens of one expert (0 und, 1 gen)."""

    expert: int
    length: int


def runs_of(segments: Sequence[tuple[str, int]]) -> tuple[Run, ...]:
    """Runs of (expert's name, length) pairs.

    Raises:
        UsageError: no such expert, or a negative length.
    """
    for expert, length in segments:
        if expert not in EXPERTS or length < 0:
            raise UsageError(f"segment ({expert!r}, {length}) must be one of {', '.join(EXPERTS)} and a length")
    return tuple(Run(EXPERTS.index(expert), length) for expert, length in segments if length)


@lru_cache(maxsize=256)
def block_table(runs: tuple[Run, ...], rows: int, device: torch.device) -> Tensor:
    """Blocks of at most ``rows`` tokens that do not cross runs.

    Args:
        runs: in order.
        rows: tokens per block.
        device: where the table goes.

    Returns:
        int32 [blocks, 3] of (first token, token after the last, expert).
    """
    entries, start = [], 0
    for run in runs:
        stop = start + run.length
        entries += [(first, min(first + rows, stop), run.expert) for first in range(start, stop, rows)]
        start = stop
    return torch.tensor(entries, dtype=torch.int32, device=device).reshape(-1, 3)
