"""Run by `test_on_gpu.py` in a process without the interpreter: every benchmark case in fp16, and attention in bf16."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from harness import as_good_as, doubles

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from kernel_cases import all_cases

from uare_rt.kernels import attention, dispatch
from uare_rt.model.mot import block_causal_mask


def main() -> None:
    device = torch.device("cuda")
    choice = dispatch.choose(device)
    assert choice.path == "triton", choice.reason
    for case in all_cases(16):
        made = case.make(device)
        got, expected = made.kernel(choice.target, None), made.torch()
        pairs = zip(got, expected, strict=True) if isinstance(got, tuple) else [(got, expected)]
        for mine, other in pairs:
            loose = "int8" in case.name
            assert torch.allclose(mine.float(), other.float(), rtol=0.02, atol=0.3 if loose else 0.02), case.name
    ranges = attention.visible_ranges(block_causal_mask([(40, True), (200, False)]).to(device))
    for dtype in (torch.float16, torch.bfloat16):
        q, k, v = (torch.randn(1, heads, 240, 128, device=device).to(dtype) for heads in (28, 4, 4))
        past = tuple(torch.randn(1, 4, 1000, 128, device=device).to(dtype) for _ in range(2))
        got = attention.run(q, k, v, past=past, ranges=ranges, target=choice.target)
        exact = attention.reference(*doubles((q, k, v)), past=doubles(past), ranges=ranges)
        assert as_good_as(got, attention.reference(q, k, v, past=past, ranges=ranges), exact), dtype


if __name__ == "__main__":
    main()
