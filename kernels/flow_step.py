"""One step of the flow: guidance, its norm limit and the Euler update in one pass (two where the norm is global).

With the velocities v (everything), t (without text), i (without image), all per token::

    g = t + a (v - t)                      text guidance (arXiv 2207.12598)
    g = g r(g)                             renorm "text_channel"
    g = i + b (g - i)                      image guidance, if there is i
    g = g r(g)                             renorm "channel" or "global"
    x = x - g dt                           Euler

``r(g) = clamp(|v| / (|g| + 1e-8), least, 1)``, over each token, or over the whole tensor for "global". fp32 throughout.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from uare_rt.kernels.checks import FLOATS, Arguments
from uare_rt.kernels.jit import cdiv, power_of_two, tl, triton
from uare_rt.kernels.tiles import tile as tuned
from uare_rt.kernels.variants import Variant

if TYPE_CHECKING:
    from torch import Tensor

    from uare_rt.kernels.tiles import Tile

__all__ = ["MAX_WIDTH", "RENORMS", "reference", "run", "variants"]

MAX_WIDTH = 256
RENORMS = ("global", "channel", "text_channel")


def reference(
    x: Tensor,
    main: Tensor,
    text_free: Tensor,
    image_free: Tensor | None,
    *,
    step: float,
    text_scale: float,
    image_scale: float = 1.0,
    renorm: str = "global",
    renorm_min: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """What `run` computes, in plain torch, fp32 or wider."""
    wide = torch.promote_types(x.dtype, torch.float32)
    main, text_free = main.to(wide), text_free.to(wide)

    def limited(guided: Tensor) -> Tensor:
        axes = None if renorm == "global" else -1
        norms = [torch.linalg.vector_norm(v, dim=axes, keepdim=axes is not None) for v in (main, guided)]
        return guided * (norms[0] / (norms[1] + 1e-8)).clamp(renorm_min, 1.0)

    guided = text_free + text_scale * (main - text_free)
    if renorm == "text_channel":
        guided = limited(guided)
    if image_free is not None:
        guided = image_free.to(wide) + image_scale * (guided - image_free.to(wide))
    if renorm != "text_channel":
        guided = limited(guided)
    return x - guided * step, guided


@triton.jit
def _limit(main, guided, least):
    """The factor of every row, from fp32 blocks."""
    norms = tl.sqrt(tl.sum(main * main, axis=1)) / (tl.sqrt(tl.sum(guided * guided, axis=1)) + 1e-8)
    return tl.minimum(tl.maximum(norms, least), 1.0)[:, None]


@triton.jit
def _guided(
    main, text_free, image_free, place, inside, text_scale, image_scale, least,
    IMAGE: tl.constexpr, TEXT_LIMIT: tl.constexpr,
):  # fmt: skip
    """The plain and the guided velocity of some tokens, before the last limit."""
    plain = tl.load(main + place, mask=inside, other=0.0).to(tl.float32)
    other = tl.load(text_free + place, mask=inside, other=0.0).to(tl.float32)
    guided = other + text_scale * (plain - other)
    if TEXT_LIMIT:
        guided *= _limit(plain, guided, least)
    if IMAGE:
        other = tl.load(image_free + place, mask=inside, other=0.0).to(tl.float32)
        guided = other + image_scale * (guided - other)
    return plain, guided


@triton.jit
def flow_norm_kernel(
    main, text_free, image_free, tokens, width, text_scale, image_scale, sums,
    IMAGE: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Sums of squares of a block of tokens, for the global limit."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, WIDTH)
    inside = (row < tokens)[:, None] & (column < width)[None, :]
    place = row[:, None] * width + column[None, :]
    plain, guided = _guided(
        main, text_free, image_free, place, inside, text_scale, image_scale, 0.0, IMAGE, False
    )  # fmt: skip
    tl.store(sums + tl.program_id(0) * 2, tl.sum(tl.sum(plain * plain, axis=1), axis=0))
    tl.store(sums + tl.program_id(0) * 2 + 1, tl.sum(tl.sum(guided * guided, axis=1), axis=0))


@triton.jit
def flow_step_kernel(
    x, main, text_free, image_free, sums, tokens, width, blocks, step, text_scale, image_scale, least, out, velocity,
    RENORM: tl.constexpr, IMAGE: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Guidance, limit and update of a block of tokens."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, WIDTH)
    inside = (row < tokens)[:, None] & (column < width)[None, :]
    place = row[:, None] * width + column[None, :]
    plain, guided = _guided(
        main, text_free, image_free, place, inside, text_scale, image_scale, least, IMAGE, RENORM == "text_channel"
    )  # fmt: skip
    if RENORM == "channel":
        guided *= _limit(plain, guided, least)
    if RENORM == "global":
        before = tl.zeros((128,), tl.float32)
        after = tl.zeros((128,), tl.float32)
        for start in range(0, blocks, 128):
            at = start + tl.arange(0, 128)
            before += tl.load(sums + at * 2, mask=at < blocks, other=0.0)
            after += tl.load(sums + at * 2 + 1, mask=at < blocks, other=0.0)
        factor = tl.sqrt(tl.sum(before, axis=0)) / (tl.sqrt(tl.sum(after, axis=0)) + 1e-8)
        guided *= tl.minimum(tl.maximum(factor, least), 1.0)
    moved = tl.load(x + place, mask=inside, other=0.0) - guided * step
    tl.store(velocity + place, guided, mask=inside)
    tl.store(out + place, moved, mask=inside)


def run(
    x: Tensor,
    main: Tensor,
    text_free: Tensor,
    image_free: Tensor | None,
    *,
    step: float,
    text_scale: float,
    image_scale: float = 1.0,
    renorm: str = "global",
    renorm_min: float = 0.0,
    target: str,
    tile: Tile | None = None,
) -> tuple[Tensor, Tensor]:
    """Guide and step.

    Args:
        x: latent tokens, fp32 [M, C], C up to 256; contiguous, as all tensors here.
        main: velocity with everything in context, fp16, bf16 or fp32 [M, C].
        text_free: without the text, dtype of main.
        image_free: without the images, dtype of main, or None for no image term.
        step: the time that passes, positive.
        text_scale: see `uare_rt.model.flow.Guidance`, as the following.
        image_scale: without effect where ``image_free`` is None.
        renorm: one of `RENORMS`.
        renorm_min: smallest factor of the limit.
        target: whose tiles to use, one of `uare_rt.kernels.tiles.TARGETS`.
        tile: other block sizes.

    Returns:
        The moved tokens and the guided velocity, fp32 [M, C] each.

    Raises:
        UsageError: an argument of the wrong shape, dtype, device or stride.
    """
    check = Arguments("flow step", x.device)
    check.tensor("x", x, (None, None), (torch.float32,), contiguous=True)
    tokens, width = x.shape
    check.value("x's width", width, 0 < width <= MAX_WIDTH, f"1 to {MAX_WIDTH}")
    check.tensor("main", main, (tokens, width), FLOATS, contiguous=True)
    others = {"text_free": text_free} | ({} if image_free is None else {"image_free": image_free})
    for name, other in others.items():
        check.tensor(name, other, (tokens, width), (main.dtype,), contiguous=True)
    check.value("renorm", repr(renorm), renorm in RENORMS, f"one of {', '.join(RENORMS)}")
    if tile is None:
        tile = tuned(target, "flow_step")
    out, velocity = torch.empty_like(x), torch.empty_like(x)
    if not tokens:
        return out, velocity
    blocks = cdiv(tokens, tile.blocks["ROWS"])
    image, padded = main if image_free is None else image_free, power_of_two(width)
    constants = {"IMAGE": image_free is not None, "WIDTH": padded, **tile.blocks, **tile.options}
    sums = x
    if renorm == "global":
        sums = torch.empty(blocks, 2, dtype=torch.float32, device=x.device)
        flow_norm_kernel[(blocks,)](
            main, text_free, image, tokens, width, text_scale, image_scale, sums, **constants
        )  # fmt: skip
    flow_step_kernel[(blocks,)](
        x, main, text_free, image, sums, tokens, width, blocks, step, text_scale, image_scale, renorm_min, out,
        velocity, RENORM=renorm, **constants,
    )  # fmt: skip
    return out, velocity


def variants() -> list[Variant]:
    """What is compiled ahead of time: latent tokens of width 64, every renorm, with the image term."""
    velocities = dict.fromkeys(("main", "text_free", "image_free"), "*fp32")
    sizes = {"tokens": "i32", "width": "i32"}
    scales = {"text_scale": "fp32", "image_scale": "fp32"}
    grid, constants = ("cdiv(tokens, ROWS)", "1", "1"), {"IMAGE": True, "WIDTH": 64}
    norm = Variant(
        "flow_norm", flow_norm_kernel, velocities | sizes | scales | {"sums": "*fp32"}, constants, "flow_step", grid,
        ("width",),
    )  # fmt: skip
    types = {"x": "*fp32"} | velocities | {"sums": "*fp32"} | sizes | {"blocks": "i32", "step": "fp32"} | scales
    types |= {"least": "fp32", "out": "*fp32", "velocity": "*fp32"}
    steps = [
        Variant(
            f"flow_step_{renorm}",
            flow_step_kernel,
            types,
            {"RENORM": renorm, **constants},
            "flow_step",
            grid,
            ("width",),
        )
        for renorm in RENORMS
    ]
    return [norm, *steps]
