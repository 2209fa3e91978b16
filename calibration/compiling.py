"""Compiling the graphs of a bundle that is being built."""

from __future__ import annotations

import hashlib
import json
import time
from typing import TYPE_CHECKING, Any

from uare_rt.backends.tensorrt_build import BuildOptions, build_engine
from uare_rt.manifest import EngineSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from uare_rt.calibration.request import BuildRequest
    from uare_rt.manifest import Profile

__all__ = ["compile_graph", "said"]


def compile_graph(
    compiler: Any,
    model: Path,
    profile: Mapping[str, Profile],
    request: BuildRequest,
    progress: Callable[[float], bool],
) -> tuple[EngineSpec, dict[str, Path | bytes]]:
    """Compile one graph: what the manifest says about its engine, and the files to write.

    Args:
        compiler: the module `tensorrt` or `tensorrt_rtx`.
        model: the ONNX file, ``NAME.onnx``; weights beside it are found.
        profile: shapes of its inputs.
        request: targets and workspace.
        progress: see `uare_rt.backends.tensorrt_build.build_engine`.

    Raises:
        BackendError: it cannot be compiled.
    """
    began = time.monotonic()
    built = build_engine(compiler, model, BuildOptions(profile, request.targets, request.workspace_mib), progress)
    engine = EngineSpec(
        file=f"engines/{model.stem}.engine",
        targets=request.targets,
        version=compiler.__version__,
        onnx_sha256=hashlib.sha256(model.read_bytes()).hexdigest(),
        seconds=round(time.monotonic() - began, 1),
        layers=f"engines/{model.stem}.layers.json",
    )
    assert engine.layers is not None
    return engine, {engine.file: built.engine, engine.layers: json.dumps(built.layers, indent=0).encode()}


def said(progress: Callable[[str, float], None], text: str, index: int, total: int) -> Callable[[float], bool]:
    """The compiler's progress on one graph as progress on all of them."""

    def say(part: float) -> bool:
        progress(text, (index + part) / total)
        return True

    return say
