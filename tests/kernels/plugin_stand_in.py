"""Registers the plugins with a stand-in for TensorRT's plugin module; prints the number of each kernel's parameters."""

from __future__ import annotations

import json
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

SHAPES = {
    "uare_rt::Modulation": [[1, 64, -1, -1], [1, 64, 1, 1], [1, 64, 1, 1]],
    "uare_rt::WindowAttention": [
        [-1, 5, 16, 32], [-1, 1, 16, 32], [-1, 1, 16, 32], [1, 1, 43, 32], [1, 1, 43, 32], [-1, 1, 1, 1, 16],
    ],
}  # fmt: skip


class Expression:
    def __mul__(self, _: object) -> Expression:
        return self


class TensorDesc:
    def __init__(self, shape: list[int]) -> None:
        self.shape, self.shape_expr = shape, [Expression() for _ in shape]

    def like(self) -> TensorDesc:
        return self


def main() -> None:
    described: dict[str, Any] = {}
    tuned: dict[str, Any] = {}
    implemented: dict[str, Any] = {}

    def keep(into: dict[str, Any]) -> Any:
        return lambda name: lambda function: into.setdefault(name, function)

    plugin = ModuleType("tensorrt.plugin")
    plugin.__dict__.update(
        TensorDesc=TensorDesc, register=keep(described), autotune=keep(tuned), aot_impl=keep(implemented),
        KernelLaunchParams=SimpleNamespace, SymInt32=lambda value: value, SymIntExprs=lambda count: [None] * count,
        AutoTuneCombination=lambda *values: values, cdiv=lambda _, by: by,
    )  # fmt: skip
    tensorrt = ModuleType("tensorrt")
    tensorrt.__dict__.update(__version__="10.16.1", plugin=plugin)
    sys.modules |= {"tensorrt": tensorrt, "tensorrt.plugin": plugin}
    from uare_rt.kernels.tensorrt_plugins import register

    register("sm_87")
    found = {}
    for name, shapes in SHAPES.items():
        inputs = [TensorDesc(shape) for shape in shapes]
        assert described[name](*inputs) is inputs[0]
        hints = dict(described[name].__annotations__)
        assert hints.pop("return") is TensorDesc
        assert list(hints.values()) == [TensorDesc] * len(inputs)
        ((kinds, layout),) = tuned[name](*inputs, (inputs[0],))
        assert len(kinds.split(",")) == len(inputs) + 1
        assert layout == "LINEAR"
        symbol, ptx, launch, extra = implemented[name](*inputs, (inputs[0],), None)
        assert f".entry {symbol}(" in ptx
        assert launch.block_x in (128, 256)
        assert launch.shared_mem >= 0
        assert len(extra) == 1
        found[name] = ptx[ptx.index(".entry") : ptx.index(")", ptx.index(".entry"))].count(".param")
        assert found[name] == len(inputs) + len(extra) + 1
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
