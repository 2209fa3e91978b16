"""Generating latent tokens: the contexts that guidance compares, and the Euler steps of the flow."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from uare_rt.errors import UsageError
from uare_rt.kernels import dispatch
from uare_rt.model.costs import pass_bytes
from uare_rt.model.flow import Flow, Forecast, Guidance, GuidanceWarning, guide, schedule
from uare_rt.model.memory import free_memory
from uare_rt.model.unified import EMPTY, Context

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from uare_rt.model.unified import Block, UnifiedModel

__all__ = ["Branches", "Flow", "Step", "read_branches", "sample"]


@dataclass(frozen=True)
class Branches:
    """The contexts a target is generated from.

    Attributes:
        main: everything.
        text_free: everything up to the last image or the last text, whichever lets more in; shares main's memory.
        image_free: the texts alone, or None while no guidance by image is wanted.
    """

    main: Context
    text_free: Context
    image_free: Context | None = None


@dataclass(frozen=True)
class Step:
    """One evaluation, as reported to a watcher.

    Attributes:
        index: from 0.
        total: number of evaluations.
        time: flow time.
        x: latent tokens before the step, float32 [M, latent width].
        velocity: guided velocity, float32 [M, latent width].
    """

    index: int
    total: int
    time: float
    x: Tensor
    velocity: Tensor


def read_branches(model: UnifiedModel, blocks: Sequence[Block], guidance: Guidance) -> Branches:
    """Read a context in one fused pass, and what guidance compares it with.

    Args:
        model: the model.
        blocks: the context; may be empty.
        guidance: decides whether the image-free context is read.

    Returns:
        The contexts.
    """
    main = model.extend(EMPTY, blocks)[0] if blocks else EMPTY
    texts = [block for block in blocks if block.kind == "text"]
    left_out = list(blocks[-1:]) if blocks and blocks[-1].kind == "text" else []
    if guidance.by_text and not left_out:
        message = f"text_scale {guidance.text_scale} has no effect: the context does not end with a text"
        warnings.warn(message, GuidanceWarning, stacklevel=2)
    image_free = None
    if guidance.by_image:
        if len(texts) == len(blocks):
            message = f"image_scale {guidance.image_scale} has no effect: there is no image in the context"
            warnings.warn(message, GuidanceWarning, stacklevel=2)
        image_free = model.extend(EMPTY, texts)[0] if texts else EMPTY
    return Branches(main, main.before(left_out), image_free)


class _Branch:
    """One context with the forecasts that belong to it."""

    def __init__(self, context: Context, forecast: bool) -> None:
        self.context = context
        self._forecast = Forecast() if forecast else None
        self._stream: Tensor | None = None

    def advance(self) -> bool:
        """Go to the next evaluation; True if it must be computed and passed to `record`."""
        return self._forecast is None or self._forecast.advance()

    def record(self, stream: Tensor) -> None:
        if self._forecast is None:
            self._stream = stream
        else:
            self._forecast.record(stream)

    def stream(self) -> Tensor | None:
        return self._stream if self._forecast is None else self._forecast.predict()


def _velocities(model: UnifiedModel, branches: Sequence[_Branch], block: Block, batched: bool) -> list[Tensor]:
    due = [branch for branch in branches if branch.advance()]
    for group in [due] if batched and due else [[branch] for branch in due]:
        streams = model.target_streams([branch.context for branch in group], block)
        for branch, stream in zip(group, streams, strict=True):
            branch.record(stream)
    return [model.velocity(branch.stream()) for branch in branches]


def _fits(model: UnifiedModel, branches: int, tokens: int) -> bool:
    """Whether the memory that is free holds the activations of so many branches at once."""
    free = free_memory(model.device)
    return free is None or pass_bytes(model.config, tokens, model.dtype.itemsize, branches) <= free


@torch.no_grad()
def sample(
    model: UnifiedModel,
    branches: Branches,
    noise: Tensor,
    grid: tuple[int, int],
    flow: Flow,
    *,
    watch: Callable[[Step], None] | None = None,
) -> Tensor:
    """Integrate the flow from noise to latent tokens, in float32.

    Args:
        model: the model.
        branches: see `read_branches`.
        noise: standard normal [M, latent width].
        grid: latent tokens (down, across).
        flow: schedule and guidance.
        watch: called after every evaluation; may raise to stop.

    Returns:
        float32 [M, latent width].

    Raises:
        UsageError: the noise does not fit the grid, or the image-free context was not read.
    """
    expected = (grid[0] * grid[1], model.config.latent_width)
    if tuple(noise.shape) != expected:
        raise UsageError(f"noise is {list(noise.shape)}, but a grid of {grid[0]}x{grid[1]} needs {list(expected)}")
    guidance = flow.guidance
    if guidance.by_image and branches.image_free is None:
        raise UsageError("guidance by image needs the image-free context; read the branches with the same guidance")
    times, steps = schedule(flow.points, flow.shift)
    flow.warn()
    main, text_free = _Branch(branches.main, flow.forecast), _Branch(branches.text_free, flow.forecast)
    guided = [main, text_free]
    if guidance.by_image and branches.image_free is not None:
        guided.append(_Branch(branches.image_free, flow.forecast))
    batched = _fits(model, len(guided), expected[0] + 2) if flow.batched is None else flow.batched
    x = noise.to(model.device, torch.float32)
    for index, (time, step) in enumerate(zip(times.tolist(), steps.tolist(), strict=True)):
        block, moved = model.target_block(x, time, grid), None
        if guidance.active(time):
            velocity, without_text, *without_image = _velocities(model, guided, block, batched)
            image_free_velocity = without_image[0] if without_image else None
            moved = dispatch.guided_step(x, velocity, without_text, image_free_velocity, guidance, step)
            velocity = guide(velocity, without_text, image_free_velocity, guidance) if moved is None else moved[1]
        else:
            (velocity,) = _velocities(model, [main], block, batched)
        if watch is not None:
            watch(Step(index, len(times), time, x, velocity))
        x = x - velocity * step if moved is None else moved[0]
    return x
