"""From PyTorch to ONNX: graphs, tracing, the comparison with PyTorch, bundles."""

from __future__ import annotations

from uare_rt.export.bundling import TOLERANCE, export_bundle

__all__ = ["TOLERANCE", "export_bundle"]
