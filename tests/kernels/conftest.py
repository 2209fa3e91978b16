"""Where kernels run in these tests must be known before the first of them is imported.

By default in Triton's interpreter; with ``UARE_KERNEL_TESTS=gpu``, as `test_on_gpu.py` sets it, compiled, on a GPU.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch

# Importlib mode does not do it by itself; the first for `bagel_layout`.
sys.path.insert(0, str(Path(__file__).parents[1] / "model"))
sys.path.insert(0, str(Path(__file__).parent))

from harness import ON_GPU

if ON_GPU:
    torch.set_default_device("cuda")
    torch.backends.cudnn.allow_tf32 = False
else:
    os.environ["TRITON_INTERPRET"] = "1"


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
