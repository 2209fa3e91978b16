"""The kernels as compiled code, real bf16 included. Not run so far: no machine of this project's tests has a GPU."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
# What computes; the rest of this folder is about choosing, compiling and graphs.
MODULES = (
    "attention", "attention_int8", "bad_input", "end_to_end", "flow_step", "gemm", "layer_parts", "modulation",
    "pixels", "window_attention",
)  # fmt: skip


def run(*arguments: str | Path, **extra: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"} | extra
    command = [sys.executable, *(str(argument) for argument in arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


@pytest.mark.gpu
@pytest.mark.parametrize("module", MODULES)
def test_compiled_kernels_pass_the_tests_of_the_interpreter(module: str) -> None:
    """Odd shapes, poison and hypothesis of `test_<module>.py`, on the GPU, in fp16 and bf16."""
    done = run("-m", "pytest", "-q", HERE / f"test_{module}.py", UARE_KERNEL_TESTS="gpu")
    assert done.returncode == 0, done.stdout[-5000:]


@pytest.mark.gpu
def test_the_benchmarks_calls_are_as_exact_as_torchs() -> None:
    done = run(HERE / "gpu_cases.py")
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.gpu
def test_doctors_trial_of_the_gpu_works() -> None:
    done = run("-m", "uare_rt.kernels.report")
    assert [device["works"] for device in json.loads(done.stdout)["devices"][1:]].count(True) > 0, done.stdout


def test_every_module_that_computes_is_in_the_list() -> None:
    """A new test of a kernel must not be forgotten on the GPU; it takes its target from the harness."""
    modules = {path.stem.removeprefix("test_"): path.read_text() for path in HERE.glob("test_*.py")}
    own = {name for name, text in modules.items() if re.search(r"^from harness import .*\bTARGET\b", text, re.M)}
    assert len(own) > 8
    # The graph pass is run by ONNX's evaluator; the benchmark's cases have their own test above.
    assert own - {"graph_pass", "costs"} <= set(MODULES)
