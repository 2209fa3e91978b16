"""The ONNX graphs of `uare-nano` as modules with plain tensor inputs and outputs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from uare_rt.manifest import BASE_NAME
from uare_rt.model.nano import LATENT_STRIDE, QualityContext, UareNano
from uare_rt.views import VIEW_COUNT, VIEW_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["CONTEXT_NAMES", "NanoGraph", "nano_graphs"]

CONTEXT_NAMES = ("ctx_k", "ctx_v", "ctx_vec")
_MOST_LATENT_ROWS = 2048  # frames up to 32768 px a side
_MOST_FRAMES = 64


class _Assess(nn.Module):
    def __init__(self, model: UareNano) -> None:
        super().__init__()
        self.model = model

    def forward(self, views: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        logits, context = self.model.assess(views[None])
        return logits[0], context.k[:, 0], context.v[:, 0], context.vec[0]


class _Restore(nn.Module):
    def __init__(self, model: UareNano, scale: int) -> None:
        super().__init__()
        self.model, self.scale = model, scale

    def forward(self, frame: Tensor, ctx_k: Tensor, ctx_v: Tensor, ctx_vec: Tensor) -> Tensor:
        context = QualityContext(ctx_k[:, None], ctx_v[:, None], ctx_vec[None])
        return self.model.restore(frame, context, self.scale)


@dataclass(frozen=True)
class NanoGraph:
    """One graph to export.

    Attributes:
        name: ``assess`` or ``restore_x{scale}``.
        module: what to trace, in eval mode.
        inputs: names of the inputs, in order.
        outputs: names of the outputs, in order.
        axes: for an input its dynamic axes by name; ``H`` and ``W`` are multiples of 16.
        example: makes inputs for tracing and for the comparison with PyTorch.
        values: names for values inside the graph, by the weight of the node that reads each first.
    """

    name: str
    module: nn.Module
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    axes: dict[str, dict[int, str]]
    example: Callable[[torch.Generator, tuple[int, int, int]], tuple[Tensor, ...]]
    values: dict[str, str] = field(default_factory=dict)

    def dynamic_shapes(self) -> tuple[dict[int, Any] | None, ...]:
        """The dynamic axes as `torch.export` wants them."""
        rows = torch.export.Dim("rows", min=1, max=_MOST_LATENT_ROWS)
        columns = torch.export.Dim("columns", min=1, max=_MOST_LATENT_ROWS)
        known = {
            "N": torch.export.Dim("batch", min=1, max=_MOST_FRAMES),
            "H": LATENT_STRIDE * rows,
            "W": LATENT_STRIDE * columns,
        }
        shapes = [{axis: known[label] for axis, label in self.axes.get(name, {}).items()} for name in self.inputs]
        return tuple(shape or None for shape in shapes)


def nano_graphs(model: UareNano, scales: tuple[int, ...]) -> list[NanoGraph]:
    """All graphs of a nano model: ``assess`` and one ``restore_x{scale}`` per scale."""
    context = model.null_context()
    shapes = (context.k[:, 0].shape, context.v[:, 0].shape, context.vec[0].shape)

    def views(generator: torch.Generator, _: tuple[int, int, int]) -> tuple[Tensor, ...]:
        return (torch.rand(VIEW_COUNT, 3, VIEW_SIZE, VIEW_SIZE, generator=generator),)

    def frame(generator: torch.Generator, size: tuple[int, int, int]) -> tuple[Tensor, ...]:
        batch, height, width = size
        contexts = (torch.randn(*shape, generator=generator) for shape in shapes)
        return (torch.rand(batch, 3, height, width, generator=generator), *contexts)

    graphs = [NanoGraph("assess", _Assess(model).eval(), ("views",), ("slot_logits", *CONTEXT_NAMES), {}, views)]
    axes = {"frame": {0: "N", 2: "H", 3: "W"}}
    inputs = ("frame", *CONTEXT_NAMES)
    values = {"model.codec.stem.weight": BASE_NAME}
    graphs += [
        NanoGraph(f"restore_x{scale}", _Restore(model, scale).eval(), inputs, ("restored",), axes, frame, values)
        for scale in scales
    ]
    return graphs
