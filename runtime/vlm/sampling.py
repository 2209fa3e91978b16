"""Generating latent tokens through graphs: the branches of guidance and the Euler steps of the flow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from uare_rt.vlm.flow import Forecast, guide, schedule

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from uare_rt.vlm.contexts import Context
    from uare_rt.vlm.engine import Engine
    from uare_rt.vlm.flow import Flow

__all__ = ["Branches", "sample"]


@dataclass(frozen=True)
class Branches:
    """The contexts a target is generated from.

    Attributes:
        main: everything.
        text_free: without the texts that guide.
        image_free: the texts alone, or None while no guidance by image is wanted.
    """

    main: Context
    text_free: Context
    image_free: Context | None


class _Branch:
    """One context with the forecasts that belong to it."""

    def __init__(self, engine: Engine, context: Context, forecast: bool) -> None:
        self._engine, self._context = engine, context
        self._forecast = Forecast() if forecast else None

    def velocity(self, x: NDArray[np.float32], rows: NDArray[np.int64], time: float) -> NDArray[np.float32]:
        if self._forecast is not None and not self._forecast.advance():
            return self._engine.velocity(self._forecast.predict())
        velocity, stream = self._engine.denoise(self._context, x, rows, time)
        if self._forecast is not None:
            self._forecast.record(stream)
        return velocity


def sample(
    engine: Engine,
    branches: Branches,
    noise: NDArray[np.float32],
    grid: tuple[int, int],
    flow: Flow,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.float32]:
    """Integrate the flow from noise to latent tokens.

    Branches are evaluated one after another.

    Args:
        engine: the model.
        branches: its contexts.
        noise: standard normal float32 [M, latent width].
        grid: latent tokens (down, across).
        flow: schedule and guidance.
        progress: called after every evaluation with the number done and the total; may raise to stop.

    Returns:
        float32 [M, latent width].
    """
    guidance = flow.guidance
    times, steps = schedule(flow.points, flow.shift)
    flow.warn()
    main, text_free = (_Branch(engine, c, flow.forecast) for c in (branches.main, branches.text_free))
    image_free = None if branches.image_free is None else _Branch(engine, branches.image_free, flow.forecast)
    rows = engine.latent_rows(grid)
    x = noise
    for done, (time, step) in enumerate(zip(times.tolist(), steps, strict=True), start=1):
        velocity = main.velocity(x, rows, time)
        if guidance.active(time):
            without_text = text_free.velocity(x, rows, time)
            without_image = None if image_free is None else image_free.velocity(x, rows, time)
            velocity = guide(velocity, without_text, without_image, guidance)
        x = np.asarray(x - velocity * step, np.float32)
        if progress is not None:
            progress(done, len(times))
    return x
