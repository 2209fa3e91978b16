"""Kernels of these tests run in Triton's interpreter, which must be known before the first of them is imported."""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ["TRITON_INTERPRET"] = "1"
for folder in (Path(__file__).parent, Path(__file__).parents[1] / "model"):
    sys.path.insert(0, str(folder))  # importlib mode does not do it by itself; the latter for `bagel_layout`
