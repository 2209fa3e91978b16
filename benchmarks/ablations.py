"""What the parts of the training are worth: small runs that differ in one thing, judged on the same pictures.

usage: ablations.py EVALSET --data PHOTOS --from WEIGHTS [--steps 300] [--arm NAME ...] [--limit 8] [-o RESULT.json]
Two groups, each with the same seeds, pictures, number of steps and fall of the rate:

- from WEIGHTS on: `unified` is stage 2 as in the recipe nano-unified; `restoration-alone` has its batches and its
  restoration and tone losses, but no assessment;
- from nothing, local faults only, 8 crops a step: `easy-to-hard` gets single faults, then pairs, then up to four
  of them; `all-at-once` gets the last from the first step; `context-free` is easy-to-hard without the verdict: tone
  and modulation read features that the model pools from the thumbnail itself, the expert attends to constants. It
  restores with the same graph, and so the same operations.

An arm's result is the mean gain in PSNR over the input on local types, as PyTorch computes it.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from results import Result, Table, add_options, bundle_facts, finish, keep_partial, run_command
from torch import Tensor

from uare_rt.model.nano import LEVEL_COUNT, QualityContext, UareNano
from uare_rt.model.presets.nano import UARE_NANO
from uare_rt.slots import SLOTS
from uare_rt.training.evalset import EvaluationSet, bicubic, psnr
from uare_rt.training.guidance import LOCAL_TYPES
from uare_rt.training.loader import Loader
from uare_rt.training.objective import objective, to_image_tensor
from uare_rt.training.recipe import Phase, Recipe, ScaleTask, load_recipe
from uare_rt.training.samples import find_photos
from uare_rt.training.state import TrainingState
from uare_rt.training.validation import hold_out
from uare_rt.views import extract_views

__all__ = ["ARMS", "ContextFree", "main", "recipe_of", "tables"]

ARMS = ("unified", "restoration-alone", "easy-to-hard", "all-at-once", "context-free")
_CONTINUED = ARMS[:2]
_LOCAL = {"noise": 1.4, "blur": 1.2, "compression": 1.4, "low_resolution": 0.3}
_DEPTHS = ((1, 1), (1, 2), (2, 4))  # faults of a picture, easy to hard


class ContextFree(UareNano):
    """The same network, guided by what it pools from the thumbnail instead of by a verdict."""

    def assess(self, views: Tensor) -> tuple[Tensor, QualityContext]:
        """No verdict: zeros for logits [B, 7, 5], constants for keys and values, and a vector of pooled features."""
        batch = views.shape[0]
        seen = self.vision(views[:, 0]).mean(dim=1)
        null = self.null_context()
        k, v = (part.expand(-1, batch, -1, -1, -1) for part in (null.k, null.v))
        vec = self.pool(torch.cat((seen, seen), dim=-1))
        return views.new_zeros(batch, len(SLOTS), LEVEL_COUNT), QualityContext(k, v, vec)


def recipe_of(arm: str, steps: int) -> Recipe:
    """The recipe of an arm."""
    if arm in _CONTINUED:
        recipe = load_recipe("nano-unified", steps)
        recipe = msgspec.structs.replace(recipe, warmup_steps=20, decay_steps=steps, ema=0.98)
        if arm == "restoration-alone":
            recipe = msgspec.structs.replace(recipe, assess_weight=0.0, compare_weight=0.0, teacher="severity")
        return recipe
    depths = _DEPTHS[-1:] if arm == "all-at-once" else _DEPTHS
    phases = tuple(
        Phase(
            start=number * steps // len(depths),
            mixtures=({"min_count": least, "max_count": most, "severity": (0.05, 0.9), "kinds": _LOCAL},),
            assess_batch=8,
            assess_mixtures=({"min_count": least, "max_count": most, "kinds": _LOCAL},),
        )
        for number, (least, most) in enumerate(depths)
    )
    recipe = load_recipe("nano-first", steps)
    return msgspec.structs.replace(
        recipe,
        tail_steps=0,
        warmup_steps=20,
        decay_steps=max(1, steps // 2),
        floor_steps=max(1, steps // 2),
        ema=0.98,
        assess_weight=0.0 if arm == "context-free" else recipe.assess_weight,
        context_dropout=0.0,
        scales={1: ScaleTask(weight=1.0, region=192, size=96, batch=8)},
        phases=phases,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("evalset", type=Path, help="folder written by make_evalset.py")
    parser.add_argument("--data", type=Path, required=True, help="training photographs")
    parser.add_argument("--from", dest="start", type=Path, help="weights that the first group goes on from")
    parser.add_argument("--steps", type=int, default=300, help="of every arm")
    parser.add_argument("--arm", action="append", choices=ARMS, help="only this one; may be repeated")
    parser.add_argument("--limit", type=int, default=8, help="photographs to judge on")
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch")
    add_options(parser, backend=False)
    chosen = parser.parse_args(arguments)
    arms = chosen.arm or [arm for arm in ARMS if chosen.start is not None or arm not in _CONTINUED]
    if chosen.start is None and any(arm in _CONTINUED for arm in arms):
        parser.error("unified and restoration-alone go on from weights: give --from")
    torch.set_num_threads(chosen.threads)
    evalset = EvaluationSet.open(chosen.evalset, chosen.limit)
    photos, _ = hold_out(find_photos(chosen.data))
    measured: dict[str, Any] = {}
    for arm in arms:
        measured[arm] = _trained(arm, chosen, photos, evalset)
        keep_partial("ablations", measured, chosen)
    result = Result(
        benchmark="ablations",
        data={"manifest_sha256": evalset.digest(), "pictures": len(evalset.names), "photos": len(photos)},
        bundle=bundle_facts(chosen.bundle),
        settings={"steps": chosen.steps},
        measured=measured,
        limits=[],
    )
    return finish(result, tables(measured), chosen)


def _trained(arm: str, chosen: argparse.Namespace, photos: list[Path], evalset: EvaluationSet) -> dict[str, Any]:
    recipe = recipe_of(arm, chosen.steps)
    torch.manual_seed(recipe.seed)
    kind = ContextFree if arm == "context-free" else UareNano
    models = [
        kind(UARE_NANO, reparameterised=recipe.reparameterised).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        for _ in range(2)
    ]
    state = TrainingState(*models, recipe)
    if arm in _CONTINUED:
        state.begin_from(chosen.start)
    began = time.perf_counter()
    with Loader(photos, recipe, 0, 1) as batches:
        for batch in batches:
            state.set_rate(batch.step)
            losses = objective(state.model, batch, recipe)
            state.model.zero_grad(set_to_none=True)
            losses.total.backward()
            torch.nn.utils.clip_grad_norm_(state.model.parameters(), recipe.clip, foreach=True)
            state.apply_gradients()
            state.step += 1
            state.update_average()
            if state.step % 50 == 0:
                sys.stderr.write(f"{arm}: step {state.step} of {recipe.steps}, loss {float(losses.restore):.3f}\n")
    gains = {name: _gain(state.average.folded().eval(), evalset, name) for name in LOCAL_TYPES}
    return {
        "gain": gains,
        "mean": round(float(np.mean(list(gains.values()))), 4),
        "seconds": round(time.perf_counter() - began),
    }


@torch.inference_mode()
def _gain(model: UareNano, evalset: EvaluationSet, kind: str) -> float:
    found = []
    for _, degraded, truth in evalset.pictures(kind):
        _, context = model.assess(torch.from_numpy(extract_views(degraded))[None])
        restored = model.restore(to_image_tensor(degraded[None]), context, len(truth) // len(degraded))
        pixels = restored[0].clamp(0, 1).mul(255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        found.append(psnr(pixels, truth) - psnr(bicubic(degraded, truth), truth))
    return round(float(np.mean(found)), 4)


def tables(measured: Mapping[str, Any]) -> list[Table]:
    """What was measured, for people."""
    rows = [
        (arm, *(f"{row['gain'][name]:+.2f}" for name in LOCAL_TYPES), f"{row['mean']:+.3f}")
        for arm, row in measured.items()
    ]
    return [Table("Gain over the input in dB", ("arm", *LOCAL_TYPES, "mean"), rows)]


if __name__ == "__main__":
    sys.exit(run_command(main))
