"""Generating latent tokens through graphs: the branches of guidance and the Euler steps of the flow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from uare_rt.vlm.contexts import Together
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
    """One context with the forecasts that belong to it, or with its last velocity."""

    def __init__(self, context: Context, forecast: bool) -> None:
        self.context = context
        self._forecast = Forecast() if forecast else None
        self._velocity: NDArray[np.float32] | None = None

    def advance(self) -> bool:
        """Go to the next evaluation; True if it must be computed and passed to `record`."""
        self._velocity = None
        return self._forecast is None or self._forecast.advance()

    def record(self, velocity: NDArray[np.float32], stream: NDArray[np.float32]) -> None:
        """Take a computed evaluation."""
        self._velocity = velocity
        if self._forecast is not None:
            self._forecast.record(stream)

    def velocity(self, engine: Engine) -> NDArray[np.float32]:
        """Of this evaluation, computed or forecast."""
        if self._velocity is None and self._forecast is not None:
            self._velocity = engine.velocity(self._forecast.predict())
        assert self._velocity is not None
        return self._velocity


class _Evaluator:
    """Evaluates branches, in one batch or one after another."""

    def __init__(self, engine: Engine, rows: NDArray[np.int64], batched: bool) -> None:
        self._engine, self._rows, self._batched = engine, rows, batched
        self._group: list[_Branch] = []
        self._together: Together | None = None

    def __call__(self, branches: list[_Branch], x: NDArray[np.float32], time: float) -> list[NDArray[np.float32]]:
        due = [branch for branch in branches if branch.advance()]
        for group in [due] if self._batched and due else [[branch] for branch in due]:
            computed = self._engine.denoise(self._contexts(group), x, self._rows, time)
            for branch, velocity, stream in zip(group, *computed, strict=True):
                branch.record(velocity, stream)
        return [branch.velocity(self._engine) for branch in branches]

    def _contexts(self, group: list[_Branch]) -> Together:
        """The group's contexts; kept until another group is asked for, as copying the caches takes a while."""
        if self._together is None or group != self._group:
            self._group, self._together = group, Together.of([branch.context for branch in group])
        return self._together


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

    Args:
        engine: the model.
        branches: its contexts.
        noise: standard normal float32 [M, latent width].
        grid: latent tokens (down, across).
        flow: schedule and guidance, and whether branches run in one batch.
        progress: called after every evaluation with the number done and the total; may raise to stop.

    Returns:
        float32 [M, latent width].

    Raises:
        BackendError: there is not the memory for it.
        UsageError: the context is too long.
    """
    guidance = flow.guidance
    times, steps = schedule(flow.points, flow.shift)
    flow.warn()
    contexts = [branches.main]
    if guidance.by_text:
        contexts += [branches.text_free, *([] if branches.image_free is None else [branches.image_free])]
    main, *others = [_Branch(context, flow.forecast) for context in contexts]
    batched = engine.fits(contexts, len(noise)) if flow.batched is None else flow.batched
    engine.require_room(contexts if batched else [max(contexts, key=lambda c: c.tokens)], len(noise))
    evaluate = _Evaluator(engine, engine.latent_rows(grid), batched)
    x = noise
    for done, (time, step) in enumerate(zip(times.tolist(), steps, strict=True), start=1):
        if guidance.active(time):
            velocity, without_text, *without_image = evaluate([main, *others], x, time)
            velocity = guide(velocity, without_text, without_image[0] if without_image else None, guidance)
        else:
            (velocity,) = evaluate([main], x, time)
        x = np.asarray(x - velocity * step, np.float32)
        if progress is not None:
            progress(done, len(times))
    return x
