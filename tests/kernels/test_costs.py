"""The cost model counts what the tensors of a call hold and what torch counts; the benchmark's calls work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from harness import TARGET
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from uare_rt.kernels.costs import Cost

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

from kernel_cases import Case, all_cases  # noqa: E402

CASES = all_cases(64)
COUNTED = ("attention", "SwiGLU", "linear", "modulated convolution", "window attention")


def outputs_of(result: object) -> tuple[Tensor, ...]:
    return result if isinstance(result, tuple) else (result,)


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_bytes_are_those_of_the_tensors_and_both_ways_agree(case: Case) -> None:
    made = case.make(torch.device("cpu"))
    got, expected = (tuple(part.clone() for part in outputs_of(call())) for call in (
        made.torch, lambda: made.kernel(TARGET, None)
    ))  # fmt: skip
    size = sum(part.numel() * part.element_size() for part in (*made.inputs, *got))
    assert case.cost.bytes == size
    for mine, other in zip(got, expected, strict=True):
        assert mine.shape == other.shape
        # Scores in int8 and products of int8 are near, not equal.
        loose = "int8" in case.name
        assert torch.allclose(mine.float(), other.float(), rtol=0.02, atol=0.3 if loose else 0.02)


@pytest.mark.parametrize("case", [case for case in CASES if case.name.startswith(COUNTED)], ids=lambda case: case.name)
def test_operations_are_those_that_torch_counts(case: Case) -> None:
    made = case.make(torch.device("cpu"))
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        made.torch()
    assert case.cost.operations + case.cost.eight_bit == counter.get_total_flops()


def test_the_floor_is_the_longer_of_traffic_and_arithmetic() -> None:
    assert Cost(10**9).floor(100, 10, 20) == pytest.approx(0.01)
    assert Cost(1, 10**12).floor(100, 10, 20) == pytest.approx(0.1)
    assert Cost(1, 10**12, 10**12).floor(100, 10, 20) == pytest.approx(0.15)
    assert Cost(4, 8).intensity == 2


def test_the_benchmark_gives_floors_without_a_gpu(tmp_path: Path) -> None:
    output, document = tmp_path / "kernels.json", tmp_path / "doc.md"
    document.write_text("a\n<!-- floors:begin -->\n<!-- floors:end -->\nb\n")
    command = [sys.executable, str(BENCHMARKS / "kernels.py"), "--table", str(document), "-o", str(output)]
    hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}  # on a GPU it would time every case
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=hidden)
    assert done.returncode == 0, done.stderr
    found = json.loads(output.read_text())["measured"]
    assert not found["seconds"]
    assert all(row["floor_thor"] > 0 for row in found["costs"].values())
    assert document.read_text().count("| window attention") == 1
    tuned = subprocess.run([*command[:2], "--tune"], capture_output=True, text=True, check=False)
    assert tuned.returncode == 1
    assert tuned.stderr.startswith("error: --tune times kernels, and there is no CUDA device here")
