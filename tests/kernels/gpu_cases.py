"""Run by `test_on_gpu.py` in a process without the interpreter: the benchmark's cases, large and small."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from kernel_cases import all_cases

from uare_rt.kernels import dispatch


def main() -> None:
    device = torch.device("cuda", 0)
    choice = dispatch.choose(device)
    assert choice.path == "triton", choice.reason
    for divisor in (16, 1):
        for case in all_cases(divisor):
            made = case.make(device)
            got, expected = made.kernel(choice.target, None), made.torch()
            for mine, other in zip(
                *((part,) if torch.is_tensor(part) else part for part in (got, expected)), strict=True
            ):
                # Scores in int8 and products of int8 are near, not equal.
                loose = 0.3 if "int8" in case.name else 0.02
                assert torch.allclose(mine.float(), other.float(), rtol=0.02, atol=loose), (case.name, divisor)


if __name__ == "__main__":
    main()
