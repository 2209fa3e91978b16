"""Contexts, guided flow and pictures against the original code, tensor by tensor."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor

from uare_rt.model.flow import Guidance, guide, schedule
from uare_rt.model.sampling import Branches, Flow, Step, read_branches, sample
from uare_rt.model.tables import grid_rows, time_features
from uare_rt.model.transforms import to_pixels
from uare_rt.model.unified import EMPTY, Block, Context

sys.path.insert(0, str(Path(__file__).parent))  # these modules run without any conftest too
from mot_reference import Outputs, Reference, decoder_layers, relative_rms, stored

if TYPE_CHECKING:
    from uare_rt.model.flow import Renorm

FIXTURES = Path(os.environ.get("UARE_MOT_FIXTURES", Path(__file__).parents[1] / "data" / "mot-tiny"))

RENORMS: tuple[Renorm, ...] = ("global", "channel", "text_channel")


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference(FIXTURES, "gen")


class Run:
    """Everything the reference file holds, made through the public calls."""

    def __init__(self, reference: Reference) -> None:
        self.reference, self.model, self.inputs = reference, reference.model, reference.inputs
        self.settings = reference.settings
        self.produced: dict[str, Tensor] = {}
        stride = self.model.config.latent_stride
        height, width = self.inputs["vae_image"].shape[1:]
        self.grid = (height // stride, width // stride)
        self.latent = self.model.codec.encode(self.inputs["vae_image"])
        self.vae = self.model.latent_block(self.latent)
        self.vit = self.model.vision_block(self.inputs["vit_image"])
        self.text = self.model.text_block(self.inputs["edit_ids"].tolist())

    def guidance(self, renorm: Renorm, *, text: bool = True, image: bool = True, **more: object) -> Guidance:
        text_scale = self.settings["cfg_text_scale"] if text else 1.0
        image_scale = self.settings["cfg_img_scale"] if image else 1.0
        return Guidance(text_scale, image_scale, renorm, **more)

    def append(self, name: str, context: Context, block: Block, keys: str = "k v layers") -> Context:
        with Outputs(decoder_layers(self.reference)) as caught:
            context, hidden = self.model.extend(context, [block])
        tensors = {"input_embed": block.embeddings, "hidden": hidden}
        if "k" in keys.split():
            tensors |= {"k": stored(context.cache.k), "v": stored(context.cache.v)}
        if "layers" in keys.split():
            tensors |= caught
        self.produced |= {f"{name}.{key}": value for key, value in tensors.items()}
        return context

    def contexts(self) -> Branches:
        sampled = self.model.codec.encode(self.inputs["vae_image"], self.inputs["vae_eps"])
        _, self.produced["ctx_vae_sampled.hidden"] = self.model.extend(EMPTY, [self.model.latent_block(sampled)])
        context = self.append("ctx_vae", EMPTY, self.vae)
        text_free = self.append("ctx_vit", context, self.vit, "")
        main = self.append("ctx_text", text_free, self.text, "k v")
        image_free = self.append("ctx_img_uncond", EMPTY, self.text, "k v")
        branches = Branches(main, text_free, image_free)
        three = (main, text_free, image_free)
        self.produced["kv_lens"] = torch.tensor([c.tokens for c in three])
        self.produced["rope_pos"] = torch.tensor([c.position for c in three])
        return branches

    def embeddings(self) -> None:
        self.produced["latent_pos_ids"] = grid_rows(*self.grid, self.model.config.latent_side)
        self.produced["t_features"] = time_features(self.inputs["t_probe"])
        self.produced["t_embed"] = self.model.latents.time(self.inputs["t_probe"])

    def evaluation(self, name: str, branches: Branches, x: Tensor, time: float) -> None:
        out: dict[str, Tensor] = {}
        block = self.model.target_block(x, time, self.grid)

        def velocity(context: Context) -> Tensor:
            return self.model.velocity(self.model.target_stream(context, block))

        with Outputs(decoder_layers(self.reference)) as caught:
            out["v_cond"] = velocity(branches.main)
        out |= {f"cond.{key}": value for key, value in caught.items()}
        out["cond.input_embed"] = block.embeddings
        last = caught[f"layer{self.reference.layers - 1}"]
        out["cond.hidden"] = self.model.language.mot.final_norm(last[None], block.segments)[0]
        out["v_cfg_text"] = velocity(branches.text_free)
        out["v_cfg_img"] = velocity(branches.image_free)
        three = (out["v_cond"], out["v_cfg_text"], out["v_cfg_img"])
        least = self.settings["cfg_renorm_min_alt"]
        for renorm in RENORMS:
            out[f"v_{renorm}.min0.textimg"] = guide(*three, self.guidance(renorm))
            out[f"v_{renorm}.minalt.textimg"] = guide(*three, self.guidance(renorm, renorm_min=least))
            out[f"v_{renorm}.min0.text"] = guide(*three[:2], None, self.guidance(renorm))
        self.produced |= {f"step.{name}.{key}": value for key, value in out.items()}

    def sampled(self, branches: Branches, guidance: Guidance, **more: object) -> tuple[Tensor, list[Step]]:
        options = {"points": self.settings["num_timesteps"], "shift": self.settings["timestep_shift"]} | more
        steps: list[Step] = []
        flow = Flow(guidance=guidance, **options)
        return sample(self.model, branches, self.inputs["noise"], self.grid, flow, watch=steps.append), steps

    def samples(self, branches: Branches) -> None:
        for renorm in RENORMS:
            name = f"sample.{renorm}"
            final, steps = self.sampled(branches, self.guidance(renorm))
            self.produced[f"{name}.final"] = final
            self.produced[f"{name}.traj_x"] = torch.stack([step.x for step in steps])
            self.produced[f"{name}.traj_v"] = torch.stack([step.velocity for step in steps])
            picture = self.model.picture(final, self.grid)
            self.produced[f"{name}.image_u8"] = torch.from_numpy(to_pixels(picture))
            if renorm == "global":
                self.produced["sample.global.image"] = picture
                self.produced["sample.timesteps"] = torch.tensor([step.time for step in steps])
        alternative = self.guidance(
            "text_channel",
            renorm_min=self.settings["cfg_renorm_min_alt"],
            interval=tuple(self.settings["cfg_interval_alt"]),
        )
        variants = {
            "text_only_cfg_global": self.guidance("global", image=False),
            "nocfg": Guidance(),
            "interval_alt_text_channel_minalt": alternative,
        }
        for name, guidance in variants.items():
            self.produced[f"sample.{name}.final"], _ = self.sampled(branches, guidance)
        with pytest.warns(UserWarning, match="image_scale .* has no effect"):
            final, steps = self.sampled(branches, self.guidance("global", text=False))
        self.produced["sample.imgonly_cfg.final"] = final
        # Guidance by image alone is ignored: the guided velocity is the plain one, at any step.
        for name in ("t1", "tmid"):
            self.produced[f"step.{name}.v_imgonly"] = self.produced[f"step.{name}.v_cond"]

    def text_to_image(self) -> None:
        stride = self.model.config.latent_stride
        height, width = self.settings["t2i_hw"]
        grid = (height // stride, width // stride)
        guidance = self.guidance("global", image=False)
        flow = Flow(self.settings["num_timesteps"], self.settings["timestep_shift"], guidance)
        text = self.model.text_block(self.inputs["t2i_ids"].tolist())
        branches = read_branches(self.model, [text], guidance)
        assert branches.text_free == EMPTY
        self.produced["t2i.final"] = sample(self.model, branches, self.inputs["noise_t2i"], grid, flow)
        self.produced["t2i.image"] = self.model.picture(self.produced["t2i.final"], grid)

    def forecasts(self, branches: Branches) -> None:
        points = self.settings["taylor_num_timesteps"]
        guidance = self.guidance("global")
        final, steps = self.sampled(branches, guidance, points=points, forecast=True)
        self.produced["taylor.final"] = final
        self.produced["taylor.traj_v"] = torch.stack([step.velocity for step in steps])
        self.produced["taylor.timesteps"] = torch.tensor([step.time for step in steps])
        # After the forecasts on purpose: they must leave no state behind.
        self.produced["taylor.reference_final"], _ = self.sampled(branches, guidance, points=points)


@torch.no_grad()
def run(reference: Reference) -> dict[str, Tensor]:
    made = Run(reference)
    made.embeddings()
    branches = made.contexts()
    made.evaluation("t1", branches, made.inputs["noise"], 1.0)
    made.evaluation("tmid", branches, made.inputs["x_mid"], 0.6)
    made.samples(branches)
    made.text_to_image()
    made.forecasts(branches)
    return made.produced


@pytest.fixture(scope="module")
def produced(reference: Reference) -> dict[str, Tensor]:
    return run(reference)


def test_no_expected_tensor_is_left_out(reference: Reference, produced: dict[str, Tensor]) -> None:
    assert produced.keys() == reference.expected.keys()


def test_every_tensor_agrees(reference: Reference, produced: dict[str, Tensor]) -> None:
    assert reference.faults(produced) == []


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_within_twice_the_reference_error(dtype: torch.dtype) -> None:
    half = Reference(FIXTURES, "gen", dtype)
    # Features and times are float32 in any model: there is no error of the reference to double.
    assert half.half_faults(run(half), at_least=1e-6) == []


@torch.no_grad()
def test_branches_read_in_one_pass_are_those_read_block_by_block(reference: Reference) -> None:
    made = Run(reference)
    apart = made.contexts()
    fused = read_branches(made.model, [made.vae, made.vit, made.text], made.guidance("global"))
    for name in ("main", "text_free", "image_free"):
        one, other = getattr(fused, name), getattr(apart, name)
        assert one.position == other.position
        assert relative_rms(one.cache.k, other.cache.k) < 2e-5
        assert relative_rms(one.cache.v, other.cache.v) < 2e-5


@torch.no_grad()
def test_a_repeated_run_is_the_same_to_the_bit(reference: Reference) -> None:
    made = Run(reference)
    branches = read_branches(made.model, [made.vae, made.vit, made.text], made.guidance("channel"))
    first, _ = made.sampled(branches, made.guidance("channel"))
    made.sampled(branches, made.guidance("channel"), points=9, forecast=True)
    second, _ = made.sampled(branches, made.guidance("channel"))
    assert torch.equal(first, second)


def test_times_are_exact(reference: Reference) -> None:
    times, _ = schedule(reference.settings["num_timesteps"], reference.settings["timestep_shift"])
    assert torch.equal(times, reference.expected["sample.timesteps"])
