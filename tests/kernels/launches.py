"""Compiles, for a GPU that is not here, every launch that the models make, as Triton would on that GPU.

The interpreter knows no types of pointers, no arguments that are compiled in because they are 1 or multiples of 16, no
registers and no shared memory. Here launches stop after the compiler, so that results are whatever memory held.
usage: launches.py TARGET...; prints JSON: per target the number of launches and of kernels, and what is wrong.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from uare_rt.kernels import ahead, checks, choice
from uare_rt.kernels.devices import LIMITS

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
sys.path.insert(0, str(Path(__file__).parents[1] / "model"))

from bagel_layout import bagel_layout
from kernel_cases import all_cases
from safetensors.torch import load_file

from uare_rt.model.checkpoint import load_unified
from uare_rt.model.flow import Guidance
from uare_rt.model.nano import UareNano
from uare_rt.model.presets.nano import UARE_NANO
from uare_rt.model.restoration import restore
from uare_rt.model.sampling import Flow
from uare_rt.views import VIEW_COUNT, VIEW_SIZE

TINY = Path(__file__).parents[1] / "data" / "mot-tiny"


class Absent:
    """A GPU that is not here, as Triton's compiler asks for it."""

    def __init__(self, target: str) -> None:
        self.number = int(target[3:])

    def get_current_device(self) -> int:
        return self.number  # Triton keeps compiled kernels by device

    def get_current_stream(self, _: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.number, 32)


class Launches:
    """What was launched, and what a GPU would have refused or run slowly."""

    def __init__(self, target: str) -> None:
        self.target, self.count = target, 0
        self.kernels: dict[str, str] = {}
        self.problems: list[str] = []

    def __call__(self, kernel: JITFunction[Any], grid: tuple[int, ...]) -> Callable[..., None]:
        def launch(*arguments: Any, **options: Any) -> None:
            self.count += 1
            name = kernel.fn.__name__
            if not all(0 < size < 2**31 for size in grid) or any(size > checks.AXIS for size in grid[1:]):
                self.problems.append(f"{name}: a grid of {grid}")
            try:
                made = kernel.run(*arguments, grid=grid, warmup=True, **options)
            except Exception as error:  # Triton's passes raise what they like
                self.problems.append(f"{name} does not compile: {type(error).__name__}: {str(error)[:400]}")
                return
            if made.hash not in self.kernels:
                self.kernels[made.hash] = name
                self._judge(name, made, {key: value for key, value in options.items() if key.isupper()})

        return launch

    def _judge(self, name: str, made: Any, constants: dict[str, Any]) -> None:
        usage = ahead._cuobjdump(made.asm["cubin"], "-res-usage")
        stack = int(re.search(r"STACK:(\d+)", usage)[1])
        if stack:
            self.problems.append(f"{name} {constants} keeps {stack} bytes per thread in memory")
        if made.metadata.shared > LIMITS[self.target].block_shared:
            self.problems.append(f"{name} {constants} needs {made.metadata.shared} bytes of shared memory")


def nano(dtype: torch.dtype) -> None:
    """Assessment and restoration, channels first and last."""
    model = UareNano(UARE_NANO).eval().to(dtype)
    views, frame = torch.rand(1, VIEW_COUNT, 3, VIEW_SIZE, VIEW_SIZE), torch.rand(1, 3, 80, 112)
    _, context = model.assess(views.to(dtype))
    model.restore(frame.to(dtype), context, 2)
    model.to(memory_format=torch.channels_last)
    model.restore(frame.to(dtype, memory_format=torch.channels_last), context, 1)


def unified(folder: Path, dtype: torch.dtype) -> None:
    """A picture through the tiny model, with every way to limit the guidance."""
    model, _ = load_unified(bagel_layout(TINY, folder))
    model.to(dtype)
    picture = load_file(TINY / "inputs.safetensors")["raw_image"].numpy()
    for renorm, batched in (("text_channel", False), ("channel", True), ("global", True)):
        flow = Flow(points=2, guidance=Guidance(4.0, 2.0, renorm), batched=batched)
        restore(model, picture, [61, 3, 150], flow, seed=3)


def cases(target: str) -> None:
    """Every benchmark case, small, in halves."""
    for case in all_cases(16):
        case.make(torch.device("cpu")).kernel(target, None)


@torch.no_grad()
def main(targets: list[str]) -> None:
    checks.interpreted = lambda: True  # tensors lie on the CPU
    found = {}
    for target in targets:
        launches = Launches(target)
        driver.set_active(Absent(target))
        JITFunction.__getitem__ = lambda kernel, grid, launches=launches: launches(kernel, grid)
        choice._choose = lambda *_, target=target: choice.Choice("triton", "compiled only", target)
        with choice.using("triton"), tempfile.TemporaryDirectory() as folder:
            cases(target)
            for dtype in (torch.float16, torch.bfloat16):
                nano(dtype)
                unified(Path(folder) / str(dtype), dtype)
        found[target] = {
            "launches": launches.count, "kernels": len(launches.kernels), "names": sorted({*launches.kernels.values()}),
            "problems": launches.problems,
        }  # fmt: skip
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
