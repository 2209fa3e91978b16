"""Bring one decoder layer of uare-7b at its full dimensions to every precision and compile it with TensorRT-RTX.

usage: full_size_build.py [--target sm89] -o RESULT.json

The layer is the und expert's of the `decode` graph (3584 wide, 18944 inside) with random weights in bfloat16 and a
small vocabulary. Weights go from file to file tensor by tensor. INT8 takes ranges observed on random tokens. What
is told: relative RMS against float32 through ONNX Runtime, seconds, bytes, peak memory. Nothing runs on a GPU.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from uare_rt.backends.tensorrt_build import BuildOptions, build_engine
from uare_rt.calibration.unified import WeightSink, linear_inputs, typed
from uare_rt.calibration.unified_build import observed_ranges, relative_rms
from uare_rt.export.mot_graphs import decode_graph
from uare_rt.export.weight_file import WeightFile
from uare_rt.manifest import Profile
from uare_rt.model.presets.uare_7b import UARE_7B
from uare_rt.model.unified import UnifiedModel

KINDS = ("bf16", "int8", "int4")
VOCABULARY = 1024
PAST = (0, 1024, 8192)


class RandomWeights:
    """Weights of a model that was never trained, in bfloat16."""

    def __init__(self, config: Any) -> None:
        with torch.device("meta"):
            self._shapes = {name: tensor.shape for name, tensor in UnifiedModel(config).named_parameters()}
        self._pattern = torch.randn(1 << 20, generator=torch.Generator().manual_seed(0))

    def tensor(self, name: str) -> torch.Tensor:
        """See `uare_rt.export.weight_file.WeightSource`."""
        shape = self._shapes[name]
        count, inside = shape.numel(), max(1, shape[1:].numel())
        scaled = (self._pattern / inside**0.5).to(torch.bfloat16)
        return scaled.repeat(-(-count // len(scaled)))[:count].reshape(shape)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--target", default="sm89")
    parser.add_argument("-o", "--out", type=Path, required=True)
    chosen = parser.parse_args()
    import tensorrt_rtx

    config = replace(UARE_7B, mot=replace(UARE_7B.mot, layers=1), vocabulary=VOCABULARY)
    mot = config.mot
    rng = np.random.default_rng(0)
    cache = (mot.layers, 1, mot.kv_heads, 64, mot.head_dim)
    feeds = [
        {
            "embeddings": rng.standard_normal((1, mot.hidden)).astype(np.float32),
            "positions": np.array([64], np.int64),
            "past_k": rng.standard_normal(cache).astype(np.float32),
            "past_v": rng.standard_normal(cache).astype(np.float32),
        }
        for _ in range(4)
    ]
    shapes = [(mot.layers, 1, mot.kv_heads, past, mot.head_dim) for past in PAST]
    profile = {name: Profile(min=shapes[0], opt=shapes[1], max=shapes[2]) for name in ("past_k", "past_v")}
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "source"
        source.mkdir()
        with WeightFile(source / "weights.bin", RandomWeights(config)) as weights:
            model = decode_graph(config, weights)
        (source / "decode.onnx").write_bytes(model.SerializeToString())
        found["source_bytes"] = (source / "weights.bin").stat().st_size
        ranges = observed_ranges(source, model, feeds[::2], "mse")
        for kind in KINDS:
            found[kind] = _measure(kind, model, source, ranges, feeds[1::2], profile, chosen.target, tensorrt_rtx)
            sys.stdout.write(f"{kind}: {found[kind]}\n")
    document = {
        "command": "python benchmarks/full_size_build.py -o RESULT.json",
        "machine": {"processor": platform.machine(), "tensorrt_rtx": tensorrt_rtx.__version__},
        "layer": {"hidden": mot.hidden, "mlp": mot.mlp, "linear_layers": len(linear_inputs(model))},
        "target": chosen.target,
        "peak_rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "parts": found,
    }
    chosen.out.write_text(json.dumps(document, indent=2) + "\n")


def _measure(
    kind: Any,
    model: onnx.ModelProto,
    source: Path,
    ranges: dict[str, float],
    feeds: list[dict[str, Any]],
    profile: dict[str, Profile],
    target: str,
    compiler: Any,
) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(dir=source.parent) as scratch:
        folder = Path(scratch)
        began = time.perf_counter()
        with (folder / "weights.bin").open("wb") as stream:
            sink = WeightSink(source, stream, "weights.bin")
            (folder / "decode.onnx").write_bytes(typed(model, kind, sink, ranges).SerializeToString())
            shadow = typed(model, kind, sink, ranges, rounded=True)
        rounding = time.perf_counter() - began
        (folder / "rounded.onnx").write_bytes(shadow.SerializeToString())
        apart = relative_rms(source / "decode.onnx", folder / "rounded.onnx", feeds)
        began = time.perf_counter()
        built = build_engine(compiler, folder / "decode.onnx", BuildOptions(profile, (target,)))
        return {
            "relative_rms": apart,
            "weight_bytes": (folder / "weights.bin").stat().st_size,
            "engine_bytes": len(built.engine),
            "rounding_seconds": round(rounding, 1),
            "compiling_seconds": round(time.perf_counter() - began, 1),
        }


if __name__ == "__main__":
    main()
