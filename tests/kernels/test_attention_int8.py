"""Attention with int8 scores: how far it is off, that smoothing is what makes it usable, and what it never sees."""

from __future__ import annotations

import pytest
import torch
from harness import TARGET, Memory, doubles, relative_error
from hypothesis import given, settings
from hypothesis import strategies as st

from uare_rt.errors import UsageError
from uare_rt.kernels import attention, attention_int8
from uare_rt.model.mot import block_causal_mask


def mixed(prefix: int, tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
    mask = block_causal_mask([(tokens // 3, True), (tokens - tokens // 3, False)])
    ranges = attention.visible_ranges(mask)
    assert ranges is not None
    return ranges, torch.cat((torch.ones(tokens, prefix, dtype=torch.bool), mask), dim=1)


@settings(max_examples=6, deadline=None)
@given(
    prefix=st.integers(0, 70), tokens=st.integers(1, 33), dim=st.sampled_from([8, 32, 72, 128]),
    groups=st.sampled_from([1, 3, 7]),
)  # fmt: skip
def test_it_is_near_and_its_error_is_that_of_eight_bits(prefix: int, tokens: int, dim: int, groups: int) -> None:
    memory = Memory()
    q = memory.normal(1, groups, tokens, dim)
    # Keys with a large common part, as trained ones have.
    k = memory.put((torch.randn(1, 1, prefix + tokens, dim) + 6 * torch.randn(dim)).half())
    v = memory.normal(1, 1, prefix + tokens, dim)
    ranges, _ = mixed(prefix, tokens) if tokens > 1 else (None, None)
    got = attention_int8.run(q, k, v, ranges=ranges, target=TARGET)
    past, own = (k[:, :, :prefix], v[:, :, :prefix]), (k[:, :, prefix:], v[:, :, prefix:])
    exact = attention.reference(*doubles((q, *own)), past=doubles(past) if prefix else None, ranges=ranges)
    assert relative_error(got, exact) < 0.03
    assert memory.intact()


def test_a_token_never_sees_what_the_mask_hides() -> None:
    """A poisoned value must not show; a key may not be poisoned, since all keys share scales and a mean."""
    memory = Memory()
    q, k, v = (memory.normal(1, 1, tokens, 32) for tokens in (21, 26, 26))
    ranges, mask = mixed(5, 21)
    got = attention_int8.run(q, k, v, ranges=ranges, target=TARGET)
    for token in (0, 3, 6):
        poisoned = v.clone()
        poisoned[:, :, ~mask[token]] = 6e4
        again = attention_int8.run(q, k, poisoned, ranges=ranges, target=TARGET)
        assert torch.equal(again[:, :, token], got[:, :, token])


def test_arguments_that_do_not_fit_are_refused_by_name() -> None:
    q, k = torch.zeros(1, 2, 5, 32), torch.zeros(1, 1, 4, 32)
    with pytest.raises(UsageError, match="attention int8: k's length is 4, but must be at least q's 5"):
        attention_int8.run(q, k, k, target=TARGET)
