"""From PyTorch to ONNX: graphs, the comparison with PyTorch, bundles."""

from __future__ import annotations

from uare_rt.export.bundling import TOLERANCE, export_bundle
from uare_rt.export.unified_bundle import export_unified

__all__ = ["TOLERANCE", "export_bundle", "export_unified"]
