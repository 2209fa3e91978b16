"""Windowed attention with a shared context: exact, blind to other windows and to what lies outside the picture."""

from __future__ import annotations

import pytest
import torch
from harness import DTYPES, TARGET, Memory, as_good_as, doubles
from hypothesis import given, settings
from hypothesis import strategies as st

from uare_rt.errors import UsageError
from uare_rt.kernels import window_attention
from uare_rt.kernels.tiles import Tile


def check(windows: int, heads: int, tokens: int, length: int, contexts: int, dtype: torch.dtype, count: int) -> None:
    memory = Memory(windows)
    q = memory.normal(windows, heads, tokens, 32, dtype=dtype)
    k, v = (memory.normal(windows, 1, tokens, 32, dtype=dtype) for _ in range(2))
    context = tuple(memory.normal(contexts, 1, length, 32, dtype=dtype) for _ in range(2))
    valid = torch.rand(windows, tokens) > 0.3
    # What lies outside the picture is poison: nothing else may be touched by it.
    for tensor in (k, v):
        tensor.transpose(1, 2)[~valid] = float("inf")
    clean_k, clean_v = (torch.where(valid[:, None, :, None], part, 0) for part in (k, v))
    got = window_attention.run(
        q, k, v, context, memory.put(valid.byte()).view(torch.bool), target=TARGET, tile=Tile({"WINDOWS": count}, 4, 1)
    )
    own = window_attention.reference(q, clean_k, clean_v, context, valid)
    exact = window_attention.reference(*doubles((q, clean_k, clean_v)), doubles(context), valid)
    assert as_good_as(got, own, exact)
    assert memory.intact()


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_generator_of_nano(dtype: torch.dtype) -> None:
    check(windows=7, heads=5, tokens=16, length=43, contexts=1, dtype=dtype, count=4)


@settings(max_examples=15, deadline=None)
@given(
    per_context=st.integers(1, 7),
    heads=st.integers(1, 3),
    tokens=st.sampled_from([1, 4, 16]),
    length=st.integers(1, 40),
    contexts=st.integers(1, 3),
    count=st.sampled_from([1, 2, 8]),
)
def test_any_number_of_windows_and_contexts(
    per_context: int, heads: int, tokens: int, length: int, contexts: int, count: int
) -> None:
    check(per_context * contexts, heads, tokens, length, contexts, torch.float16, count)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"q": torch.zeros(4, 2, 3, 32)}, "q's token count is 3, but must be a power of two up to 64"),
        ({"context": (torch.zeros(3, 1, 5, 32),) * 2}, "the context's batch is 3, but must be a divisor of 4"),
        ({"context": (torch.zeros(1, 1, 200, 32),) * 2}, "the context's length is 200, but must be 1 to 128"),
        ({"valid": torch.ones(4, 3, dtype=torch.bool)}, r"valid's shape is \[4, 3\]"),
        ({"valid": torch.ones(4, 4)}, "valid's dtype is float32, but must be bool"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_by_name(change: dict[str, object], message: str) -> None:
    arguments = {
        "q": torch.zeros(4, 2, 4, 32),
        "k": torch.zeros(4, 1, 4, 32),
        "v": torch.zeros(4, 1, 4, 32),
        "context": (torch.zeros(1, 1, 5, 32),) * 2,
        "valid": torch.ones(4, 4, dtype=torch.bool),
        **change,
    }
    with pytest.raises(UsageError, match=message):
        window_attention.run(**arguments, target=TARGET)
