"""Options of `uare-rt restore` that only uare-7b takes: its flow, its seed, its own verdict."""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import Enum
from typing import TYPE_CHECKING, Annotated

import typer

from uare_rt.errors import UsageError

if TYPE_CHECKING:
    from uare_rt.vlm.flow import Flow

__all__ = [
    "FlowOptions",
    "ForecastOption",
    "ImageScaleOption",
    "RenormChoice",
    "RenormOption",
    "SeedOption",
    "StepsOption",
    "TextScaleOption",
    "VerdictOption",
]


class RenormChoice(str, Enum):
    """Over what guidance is limited, as texts because typer lists and checks those."""

    whole = "global"
    channel = "channel"
    text_channel = "text_channel"


StepsOption = Annotated[
    int | None, typer.Option("--steps", metavar="N", help="uare-7b: evaluations of the flow; 49 if not given.")
]
SeedOption = Annotated[
    int | None, typer.Option("--seed", metavar="N", help="uare-7b: the same seed gives the same picture; 0.")
]
TextScaleOption = Annotated[
    float | None, typer.Option("--text-scale", metavar="S", help="uare-7b: guidance by text; 4, and 1 is none.")
]
ImageScaleOption = Annotated[
    float | None, typer.Option("--image-scale", metavar="S", help="uare-7b: guidance by image; 2, and 1 is none.")
]
RenormOption = Annotated[
    RenormChoice | None, typer.Option("--renorm", help="uare-7b: over what guidance is limited; text_channel.")
]
ForecastOption = Annotated[
    bool | None, typer.Option("--forecast", help="uare-7b: extrapolate two of three evaluations after the fifth.")
]
VerdictOption = Annotated[
    bool | None,
    typer.Option("--verdict/--no-verdict", help="uare-7b: be guided by the model's own assessment; yes."),
]


@dataclass(frozen=True)
class FlowOptions:
    """What the caller gave; None for what was not given."""

    steps: int | None
    seed: int | None
    text_scale: float | None
    image_scale: float | None
    renorm: RenormChoice | None
    forecast: bool | None
    verdict: bool | None

    def refuse(self, model: str) -> None:
        """Refuse any of them for a model without a flow.

        Raises:
            UsageError: naming the first that was given.
        """
        for field in fields(self):
            if getattr(self, field.name) is not None:
                raise UsageError(f"--{field.name.replace('_', '-')}: {model} has no such setting, only uare-7b has")

    def flow(self) -> Flow:
        """Schedule and guidance.

        Raises:
            UsageError: a setting cannot be used.
        """
        from uare_rt.vlm.flow import EDITING, Flow, Guidance

        if self.steps is not None and self.steps < 1:
            raise UsageError(f"--steps {self.steps}: at least one evaluation is needed; 49 is usual, 8 is quick")
        usual = EDITING.guidance
        guidance = Guidance(
            text_scale=usual.text_scale if self.text_scale is None else self.text_scale,
            image_scale=usual.image_scale if self.image_scale is None else self.image_scale,
            renorm=usual.renorm if self.renorm is None else self.renorm.value,
        )
        points = EDITING.points if self.steps is None else self.steps + 1
        return Flow(points, EDITING.shift, guidance, forecast=bool(self.forecast))
