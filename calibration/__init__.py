"""From float32 graphs to graphs of half precision and INT8: data, ranges, placement, sensitivity, proof, reports."""

from __future__ import annotations
