"""Weights read back from an exported bundle: graphs name them after the parameters that they come from.

Matrices that a graph holds transposed have ``_T`` behind their name, and what is stored as fp16 ``.fp16``. Values are
those of the bundle, rounded to fp16 where it stores them so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from uare_rt.bundle import Bundle
from uare_rt.errors import InputError
from uare_rt.model.nano import UareNano
from uare_rt.model.presets.nano import UARE_NANO
from uare_rt.onnx_parts import OnnxModel

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["read_bundle"]

_PREFIX, _TRANSPOSED, _HALF = "model.", "_T", ".fp16"


def read_bundle(path: Path) -> tuple[UareNano, dict[str, Any]]:
    """The model that a bundle was exported from.

    Args:
        path: ``NAME.uare``, with float32 graphs.

    Returns:
        The model in eval mode, fp32, and what the manifest says of its training: recipe and steps.

    Raises:
        BundleError: the bundle is missing or damaged.
        InputError: it does not hold all weights of a `uare-nano` by name, as exports of earlier versions and quantised
            graphs do not.
    """
    bundle = Bundle.open(path)
    bundle = bundle.in_float32() or bundle
    model = UareNano(UARE_NANO)
    wanted = model.state_dict()
    found: dict[str, torch.Tensor] = {}
    for name in ("assess", *(name for name in bundle.nano.graphs if name.startswith("restore"))):
        graph = bundle.graph(name)
        content = OnnxModel(graph.path.read_bytes())
        for tensor in content.initializers:
            stem = tensor.removeprefix(_PREFIX).removesuffix(_HALF)
            parameter = stem if stem in wanted else stem.removesuffix(_TRANSPOSED)
            if parameter in wanted and parameter not in found:
                values = content.array(tensor, graph.path.parent).astype(np.float32)
                found[parameter] = torch.from_numpy(values if parameter == stem else values.T.copy())
    null = bundle.null_context()
    for parameter, part in (("null_k", null.k), ("null_v", null.v), ("null_vec", null.vec)):
        found[parameter] = torch.from_numpy(part.copy())
    faults = [f"no {name}" for name in wanted if name not in found]
    faults += [
        f"{name} has {found[name].numel()} values, not {tensor.numel()}"
        for name, tensor in wanted.items()
        if name in found and found[name].numel() != tensor.numel()
    ]
    faults += [f"{name} holds NaN or infinity" for name, tensor in found.items() if not tensor.isfinite().all()]
    if faults:
        more = f" and {len(faults) - 4} more" if len(faults) > 4 else ""
        raise InputError(
            f"{path}: its weights cannot be read back: {'; '.join(faults[:4])}{more}; give a bundle in float32 that "
            "this version exported (of equal weights, as untrained ones are, it may hold one), or the "
            "weights.safetensors that it was exported from"
        )
    model.load_state_dict({name: values.reshape(wanted[name].shape) for name, values in found.items()})
    return model.eval(), {"recipe": bundle.nano.source.recipe, "steps": bundle.nano.source.steps}
