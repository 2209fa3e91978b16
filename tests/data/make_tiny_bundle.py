"""Make ``tiny.uare``: the graphs of a bundle with the contract's names and shapes, and a few kilobytes of weights.

It knows nothing about quality, but it behaves like the real model where that matters to the runtime: every
input changes the output, 64 px windows are averaged (so tiles must lie on the grid), convolutions reach over
tile borders, and all graphs share one external weight file. Run it again after a change of the schema::

    python tests/data/make_tiny_bundle.py tests/data/tiny.uare

``tiny-int8.uare`` is what `uare-rt build --model tests/data/tiny.uare --backend tensorrt --target sm87 --precision int8
--data tests/data/photos --max-drop-db 5` makes of it, without the report.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from uare_rt import manifest as schema
from uare_rt.bundle import write_bundle
from uare_rt.slots import SLOTS
from uare_rt.views import CROPS, VIEW_COUNT, VIEW_SIZE

WEIGHTS = "weights.bin"
GRID = 64
REACH = 6  # of the convolutions after the windows: 1 + 4 + 1
WIDTH = 8
LAYOUT = schema.ContextLayout(layers=1, kv_heads=2, tokens=4, head_dim=8, vector=16)
CONTEXT = dict(zip(("ctx_k", "ctx_v", "ctx_vec"), LAYOUT.shapes(), strict=True))


class Graph:
    """Collects nodes and weights; weights of all graphs go into one blob."""

    def __init__(self, rng: np.random.Generator, blob: bytearray) -> None:
        self.rng, self.blob = rng, blob
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def add(self, op: str, *inputs: str, name: str | None = None, **attributes: object) -> str:
        out = name or f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [out], **attributes))
        return out

    def ints(self, *values: int) -> str:
        name = f"ints_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.array(values, np.int64), name))
        return name

    def weight(self, *shape: int, gain: float = 1.0) -> str:
        name = f"weight_{len(self.weights)}"
        fan_in = int(np.prod(shape[1:])) or 1
        values = (self.rng.standard_normal(shape) * gain / np.sqrt(fan_in)).astype(np.float32)
        tensor = numpy_helper.from_array(values, name)
        raw = tensor.raw_data
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", WEIGHTS), ("offset", len(self.blob)), ("length", len(raw))):
            tensor.external_data.add(key=key, value=str(value))
        self.blob += raw
        self.weights.append(tensor)
        return name

    def model(self, name: str, inputs: dict[str, tuple], outputs: dict[str, tuple]) -> bytes:
        def values(shapes: dict[str, tuple]) -> list[onnx.ValueInfoProto]:
            return [helper.make_tensor_value_info(key, TensorProto.FLOAT, shape) for key, shape in shapes.items()]

        graph = helper.make_graph(self.nodes, name, values(inputs), values(outputs), self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        return model.SerializeToString()


def assess_graph(g: Graph) -> tuple[bytes, dict, dict]:
    inputs = {"views": (VIEW_COUNT, 3, VIEW_SIZE, VIEW_SIZE)}
    outputs = {"slot_logits": (len(SLOTS), 5), **CONTEXT}
    x = g.add("Conv", "views", g.weight(WIDTH, 3, 3, 3), strides=[2, 2])
    x = g.add("Abs", x)
    x = g.add("ReduceMean", x, g.ints(0, 2, 3), keepdims=0)
    x = g.add("Reshape", x, g.ints(1, WIDTH))
    for name, shape in outputs.items():
        flat = g.add("MatMul", x, g.weight(WIDTH, int(np.prod(shape)), gain=10.0))
        g.add("Reshape", flat, g.ints(*shape), name=name)
    return g.model("assess", inputs, outputs), inputs, outputs


def restore_graph(g: Graph, scale: int) -> tuple[bytes, dict, dict]:
    inputs = {"frame": ("N", 3, "H", "W"), **CONTEXT}
    outputs = {"restored": ("N", 3, f"{scale}*H" if scale > 1 else "H", f"{scale}*W" if scale > 1 else "W")}
    whole_windows = g.add("Pad", "frame", g.ints(0, 0, GRID, GRID), "", g.ints(2, 3))
    means = g.add("AveragePool", whole_windows, kernel_shape=[GRID, GRID], strides=[GRID, GRID])
    g.weights.append(numpy_helper.from_array(np.array([1, 1, GRID, GRID], np.float32), "repeat"))
    spread = g.add("Resize", means, "", "repeat", mode="nearest", coordinate_transformation_mode="asymmetric",
                   nearest_mode="floor")  # fmt: skip
    sides = g.add("Shape", "frame", start=2, end=4)
    spread = g.add("Slice", spread, g.ints(0, 0), sides, g.ints(2, 3))
    x = g.add("Concat", "frame", spread, axis=1)
    x = g.add("Conv", x, g.weight(WIDTH, 6, 3, 3), pads=[1, 1, 1, 1])
    pooled = g.add("Reshape", "ctx_vec", g.ints(1, LAYOUT.vector))
    gain = g.add("Reshape", g.add("MatMul", pooled, g.weight(LAYOUT.vector, WIDTH)), g.ints(1, WIDTH, 1, 1))
    agreement = g.add("ReduceMean", g.add("Mul", "ctx_k", "ctx_v"), keepdims=0)
    x = g.add("Add", g.add("Mul", x, g.add("Tanh", gain)), g.add("Tanh", agreement))
    x = g.add("Relu", x)
    x = g.add("Conv", x, g.weight(WIDTH, WIDTH, 3, 3), pads=[4] * 4, dilations=[4, 4])
    x = g.add("Relu", x)
    x = g.add("Conv", x, g.weight(3 * scale * scale, WIDTH, 3, 3, gain=0.5), pads=[1, 1, 1, 1])
    base = "frame"
    if scale > 1:
        x = g.add("DepthToSpace", x, blocksize=scale)
        g.weights.append(numpy_helper.from_array(np.array([1, 1, scale, scale], np.float32), "enlarge"))
        base = g.add("Resize", "frame", "", "enlarge", mode="nearest", coordinate_transformation_mode="asymmetric",
                     nearest_mode="floor")  # fmt: skip
    g.add("Add", base, x, name="restored")
    return g.model(f"restore_x{scale}", inputs, outputs), inputs, outputs


def make_tiny_bundle(target: Path) -> None:
    """Write the bundle; an existing one is replaced."""
    rng = np.random.default_rng(0)
    blob = bytearray()
    built = {"assess": assess_graph(Graph(rng, blob))}
    built |= {f"restore_x{scale}": restore_graph(Graph(rng, blob), scale) for scale in (1, 2, 4)}
    null = io.BytesIO()
    arrays = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in CONTEXT.items()}
    np.savez(null, **arrays)
    files: dict[str, Path | bytes] = {f"{name}.onnx": model for name, (model, _, _) in built.items()}
    files |= {WEIGHTS: bytes(blob), "null_context.npz": null.getvalue()}

    def specs(shapes: dict[str, tuple]) -> tuple[schema.TensorSpec, ...]:
        return tuple(schema.TensorSpec(name=name, dtype="float32", shape=shape) for name, shape in shapes.items())

    graphs = {
        name: schema.GraphSpec(
            file=f"{name}.onnx", opset=20, precision="fp32", inputs=specs(inputs), outputs=specs(outputs)
        )
        for name, (_, inputs, outputs) in built.items()
    }
    described = schema.Manifest(
        schema_version=schema.SCHEMA_VERSION,
        name="tiny",
        preset="tiny",
        created_by="make_tiny_bundle.py",
        license="Apache-2.0",
        source=schema.Source(
            weights_sha256=hashlib.sha256(blob).hexdigest(), recipe=None, steps=0, parameters=len(blob) // 4
        ),
        slots=SLOTS,
        scales=(1, 2, 4),
        views=schema.ViewLayout(size=VIEW_SIZE, crops=CROPS),
        context=LAYOUT,
        tiling=schema.Tiling(multiple=16, grid=GRID, before=REACH, after=GRID - 1 + REACH, bytes_per_pixel=128),
        graphs=graphs,
        null_context="null_context.npz",
        backend=schema.BackendInfo(name="onnx"),
        quality={},
        files={},
    )
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            (Path(folder) / name).write_bytes(content if isinstance(content, bytes) else content.read_bytes())
        for name in built:
            onnx.checker.check_model(str(Path(folder) / f"{name}.onnx"), full_check=True)
    write_bundle(target, described, files, overwrite=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", type=Path)
    make_tiny_bundle(parser.parse_args().target)
