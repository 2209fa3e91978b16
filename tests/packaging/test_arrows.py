"""The import arrows between rooms, and what the runtime may load at start, read from the source and from one run."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("model", "degradation", "training", "export", "calibration", "kernels")
HEAVY = {"av", "cuda", "onnx", "onnxruntime", "openvino", "tensorrt", "tensorrt_rtx", "torch", "triton"}

# Which other rooms a room may import, at any depth of its code.
ARROWS = {
    "model": {"kernels"},
    "degradation": set(),
    "training": {"model", "degradation"},
    "export": {"model", "kernels"},
    "calibration": {"runtime", "degradation"},
    "kernels": set(),
}
# The vocabulary and the contracts of the runtime, which every room shares.
SHARED = {
    "errors", "machine", "reserving", "slots", "views", "images", "bundle", "manifest", "onnx_parts", "vlm", "_version",
}  # fmt: skip
# Rooms that a command of the CLI may import when it runs.
LAZY_IN_CLI = {"export", "model", "training", "calibration"}


def imports(nodes: list[ast.stmt], *, into_functions: bool) -> Iterator[str]:
    """Full names that `nodes` import, blocks for type checkers left out."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            yield from imports(node.orelse, into_functions=into_functions)
        elif into_functions or not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            for field in ("body", "orelse", "finalbody"):
                yield from imports(getattr(node, field, []), into_functions=into_functions)
            for block in (*getattr(node, "handlers", []), *getattr(node, "cases", [])):
                yield from imports(block.body, into_functions=into_functions)


def sources(room: str) -> list[Path]:
    return sorted((ROOT / room).rglob("*.py"))


def room_of(name: str) -> str | None:
    """The room that a full name belongs to; None for other projects and for what the rooms share."""
    parts = name.split(".")
    if parts[0] != "uare_rt":
        return None
    if len(parts) > 1 and parts[1] in ROOMS:
        return parts[1]
    return None if len(parts) > 1 and parts[1] in {*SHARED, "__version__"} else "runtime"


def test_the_runtime_loads_nothing_heavy_and_no_other_room_at_start() -> None:
    wrong = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in sources("runtime")
        for name in imports(ast.parse(path.read_text()).body, into_functions=False)
        if name.split(".")[0] in HEAVY or room_of(name) in ROOMS
    }
    assert not wrong


def test_only_the_cli_reaches_into_other_rooms() -> None:
    wrong = set()
    for path in sources("runtime"):
        allowed = LAZY_IN_CLI if (ROOT / "runtime" / "cli") in path.parents else set()
        for name in imports(ast.parse(path.read_text()).body, into_functions=True):
            if room_of(name) in set(ROOMS) - allowed:
                wrong.add(f"{path.relative_to(ROOT)}: {name}")
    assert not wrong


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_import_along_the_arrows(room: str) -> None:
    wrong = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in sources(room)
        for name in imports(ast.parse(path.read_text()).body, into_functions=True)
        if room_of(name) not in {None, room, *ARROWS[room]}
    }
    assert not wrong


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("import torch", ["torch"]),
        ("try:\n    import torch\nexcept ImportError:\n    import onnx", ["torch", "onnx"]),
        ("if TYPE_CHECKING:\n    import torch\nelse:\n    import av", ["av"]),
        ("class A:\n    from torch import nn", ["torch.nn"]),
        ("def f():\n    import torch", []),
    ],
)
def test_imports_sees_what_runs_at_module_level(source: str, names: list[str]) -> None:
    assert list(imports(ast.parse(source).body, into_functions=False)) == names


def test_help_loads_nothing_heavy() -> None:
    result = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", "from uare_rt.cli import main; main()", "--help"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    loaded = {line.rpartition("|")[2].strip() for line in result.stderr.splitlines() if line.startswith("import time:")}
    assert "uare_rt.cli" in loaded
    assert not {name.split(".")[0] for name in loaded} & {*HEAVY, "numpy", "PIL", "cv2"}
