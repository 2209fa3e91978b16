"""Compiling a variant ahead of time, with no GPU, and reading what the compiler made of it."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uare_rt.errors import BackendError, BackendUnavailableError, MissingExtraError
from uare_rt.kernels.jit import interpreted, triton
from uare_rt.kernels.tiles import tile

if TYPE_CHECKING:
    from uare_rt.kernels.tiles import Tile
    from uare_rt.kernels.variants import Variant

__all__ = ["Compiled", "build", "stripped"]


@dataclass(frozen=True)
class Compiled:
    """One variant for one GPU.

    Attributes:
        symbol: the kernel's name in cubin and PTX.
        cubin: machine code.
        ptx: the portable assembly, without Triton's unused scratch parameters.
        scratch: pointer parameters after the kernel's own that the cubin has; the caller sets them to null.
        warps: per block.
        shared: bytes of dynamic shared memory.
        registers: per thread.
        stack: bytes per thread in local memory.
        spills: loads and stores of local memory in the machine code.
        instructions: in the machine code.
        matrix: of those, matrix products (HMMA, IMMA and their successors).
        tile: block sizes that were used.
    """

    symbol: str
    cubin: bytes
    ptx: str
    scratch: int
    warps: int
    shared: int
    registers: int
    stack: int
    spills: int
    instructions: int
    matrix: int
    tile: Tile


def build(variant: Variant, target: str) -> Compiled:
    """Compile a variant with the chosen tile of a GPU.

    Args:
        variant: what to compile.
        target: one of `uare_rt.kernels.tiles.TARGETS`.

    Raises:
        MissingExtraError: Triton is not installed.
        BackendUnavailableError: kernels run in the interpreter in this process.
        BackendError: the compiler refused the kernel or needs more than the GPU has.
    """
    if not triton.__version__:
        raise MissingExtraError("triton", "kernels")
    if interpreted():
        raise BackendUnavailableError("TRITON_INTERPRET=1 turns the compiler off; unset it to compile kernels")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    cut = tile(target, variant.key)
    constants = dict(variant.constants) | {
        name: cut.blocks[name] for name in variant.kernel.arg_names if name in cut.blocks
    }
    names = variant.kernel.arg_names
    types = {name: variant.types.get(name, "constexpr") for name in names}
    wide = [["tt.divisibility", 16]]
    hints = {(i,): wide for i, name in enumerate(names) if types[name][0] == "*" or name in variant.whole}
    source = ASTSource(variant.kernel, types, constants, hints)
    options = cut.options
    try:
        compiled = triton.compile(source, target=GPUTarget("cuda", int(target[3:]), 32), options=options)
    except Exception as error:  # Triton's passes raise what they like
        raise BackendError(f"{variant.name} does not compile for {target}: {error}") from error
    cubin, assembly = compiled.asm["cubin"], compiled.asm["ptx"]
    symbol = compiled.metadata.name
    usage = re.search(r"REG:(\d+) STACK:(\d+)", _cuobjdump(cubin, "-res-usage"))
    if usage is None:
        raise BackendError(f"{variant.name}: cuobjdump does not tell the registers of a cubin for {target}")
    code = re.findall(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\d+\s+)?([A-Z][A-Z0-9_]+)", _cuobjdump(cubin, "-sass"))
    short, removed = stripped(assembly, len(variant.types))
    if compiled.metadata.global_scratch_size or compiled.metadata.profile_scratch_size:
        raise BackendError(f"{variant.name} needs scratch memory, which no caller of the compiled kernels gives")
    return Compiled(
        symbol=symbol,
        cubin=cubin,
        ptx=short,
        scratch=removed,
        warps=compiled.metadata.num_warps,
        shared=compiled.metadata.shared,
        registers=int(usage[1]),
        stack=int(usage[2]),
        spills=sum(name in ("LDL", "STL") for name in code),
        instructions=sum(name != "NOP" for name in code),
        matrix=sum(name.endswith(("MMA", "MMA_2X", "MMA_SP")) for name in code),
        tile=cut,
    )


def stripped(ptx: str, own: int) -> tuple[str, int]:
    """PTX without the pointer parameters after the kernel's own, and how many those were.

    Triton appends pointers to scratch memory to every kernel; TensorRT passes exactly what the plugin names.

    Args:
        ptx: of one kernel.
        own: number of the kernel's own parameters.

    Raises:
        BackendError: the code reads what would be removed.
    """
    start = ptx.index("(", ptx.index(".entry"))
    end = ptx.index(")", start)
    parameters = [line.strip() for line in ptx[start + 1 : end].strip().split(",\n")]
    for parameter in parameters[own:]:
        if f"[{parameter.split()[-1]}" in ptx:
            raise BackendError(f"the kernel reads Triton's own parameter {parameter.split()[-1]}")
    kept = ",\n\t".join(parameters[:own])
    return f"{ptx[: start + 1]}\n\t{kept}\n{ptx[end:]}", len(parameters) - own


@cache
def _tool() -> Path:
    found = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    if not found.exists():
        raise BackendUnavailableError(f"cuobjdump is not where Triton keeps it ({found}); reinstall triton")
    return found


def _cuobjdump(cubin: bytes, *options: str) -> str:
    import tempfile

    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        done: Any = subprocess.run([_tool(), *options, file.name], capture_output=True, text=True, check=False)
    if done.returncode:
        raise BackendError(f"cuobjdump failed: {done.stderr.strip()[-300:]}")
    return str(done.stdout)
