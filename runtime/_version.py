"""The version of uare-rt, in its only place: `pyproject.toml` and `CMakeLists.txt` read this file."""

from __future__ import annotations

__version__ = "0.1.0"
