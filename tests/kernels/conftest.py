"""Kernels of these tests run in Triton's interpreter, which must be known before the first of them is imported."""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ["TRITON_INTERPRET"] = "1"
sys.path.insert(0, str(Path(__file__).parent))  # importlib mode does not do it by itself
