"""Export parts of uare-7b at their full dimensions with random weights, run each once, and tell what it took.

usage: full_size.py [--part export|vision|encode|decode_image|prefill|decode|denoise] -o RESULT.json

The parts are the whole understanding encoder, the whole autoencoder, and the decoder with one of its 28 layers, its
embedding and its head. Inputs are small: 16x16 patches, 128x128 px, 8x8 latent tokens. Weights are bfloat16, as in
the release, those of the autoencoder float32. Every part runs in a process of its own,
whose peak memory is told: all of it (peak_rss, pages of the mapped weights included) and its own (own_rss).
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from processes import run_measured

PARTS = ("vision", "encode", "decode_image", "prefill", "decode", "denoise")
AXES = {"N": 4, "G": 64, "U": 6, "S": 16, "G+U": 70, "S+G+U": 86, "H": 128, "W": 128, "h": 16, "w": 16}
AXES |= {"B": 1, "S+G+2": 82}


def export(folder: Path) -> None:
    """Write the graphs with random weights, tensor by tensor."""
    import torch

    from uare_rt.export.unified_bundle import unified_graphs
    from uare_rt.export.weight_file import WeightFile
    from uare_rt.model.presets.uare_7b import UARE_7B
    from uare_rt.model.unified import UnifiedModel

    config = replace(UARE_7B, mot=replace(UARE_7B.mot, layers=1))
    with torch.device("meta"):
        model = UnifiedModel(config)
    shapes = {name: tensor.shape for name, tensor in (*model.named_parameters(), *model.named_buffers())}
    pattern = torch.randn(1 << 16, generator=torch.Generator().manual_seed(0))

    class RandomWeights:
        def tensor(self, name: str) -> torch.Tensor:
            shape = shapes[name]
            count, inside = shape.numel(), max(1, shape[1:].numel())
            dtype = torch.float32 if name.startswith("codec") else torch.bfloat16
            scaled = (pattern / inside**0.5).to(dtype)
            return scaled.repeat(-(-count // len(scaled)))[:count].reshape(shape)

    with WeightFile(folder / "weights.bin", RandomWeights()) as weights:
        for name, proto in unified_graphs(config, weights).items():
            (folder / f"{name}.onnx").write_bytes(proto.SerializeToString())


def run(folder: Path, part: str) -> None:
    """Run one graph once on random inputs."""
    import onnx

    from uare_rt import backends
    from uare_rt.bundle import GraphFile
    from uare_rt.manifest import HALF_WEIGHTS, GraphSpec

    path = folder / f"{part}.onnx"
    graph = onnx.load(path, load_external_data=False).graph
    precision = "fp32" if part in ("encode", "decode_image") else HALF_WEIGHTS
    spec = GraphSpec(file=path.name, opset=20, precision=precision, inputs=(), outputs=())
    session = backends.get("onnxruntime").load(GraphFile(part, path, spec, None, None, 0, {}), threads=None)
    axes = AXES | ({"N": 256} if part == "vision" else {})
    rng = np.random.default_rng(0)
    feed = {}
    for value in graph.input:
        kind = value.type.tensor_type
        shape = [axes[side.dim_param] if side.dim_param else side.dim_value for side in kind.shape.dim]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
        draw = rng.standard_normal(shape) if dtype == np.float32 else np.ones(shape)
        feed[value.name] = draw.astype(dtype)
    outputs = session.run(feed)
    if not all(np.isfinite(output).all() for output in outputs.values()):
        raise SystemExit(f"{part}: not finite")
    shapes = {name: list(output.shape) for name, output in outputs.items()}
    (folder / f"{part}.json").write_text(json.dumps({"outputs": shapes, "own_rss": own_memory()}))


def own_memory() -> int:
    """Resident bytes that are not pages of a file. ONNX Runtime keeps what it allocated, so this is about the peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def measure(out: Path) -> None:
    """Every part in a process of its own."""
    results: dict[str, Mapping[str, object]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for part in ("export", *PARTS):
            took = run_measured([sys.executable, __file__, "--part", part, "-o", scratch])
            if took.exit_code:
                raise SystemExit(f"{part}: ended with {took.exit_code}: {took.stderr[-500:]}")
            facts = {} if part == "export" else json.loads((folder / f"{part}.json").read_text())
            results[part] = {"peak_rss": took.peak_rss, "cpu_seconds": round(took.cpu, 1), **facts}
        results["export"] = {**results["export"], "weight_bytes": (folder / "weights.bin").stat().st_size}
    import onnxruntime
    import torch

    machine = {"processor": platform.machine(), "onnxruntime": onnxruntime.__version__, "torch": torch.__version__}
    document = {"command": "python benchmarks/full_size.py -o RESULT.json", "machine": machine, "parts": results}
    out.write_text(json.dumps(document, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=("export", *PARTS))
    parser.add_argument("-o", "--out", type=Path, required=True)
    chosen = parser.parse_args()
    if chosen.part is None:
        measure(chosen.out)
    elif chosen.part == "export":
        export(chosen.out)
    else:
        run(chosen.out, chosen.part)


if __name__ == "__main__":
    main()
