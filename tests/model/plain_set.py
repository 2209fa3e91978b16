"""A reference set as the original code's, in its files and names, made by `plain_mot` for a random checkpoint."""

from __future__ import annotations

import itertools
import json
import math
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from plain_mot import PlainMot, Read, Seen, Tokens, picture_of, tokens_of
from random_checkpoint import random_checkpoint
from safetensors.torch import load_file, save_file

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    Named = dict[str, Tensor]

# Nothing as in tests/data/mot-tiny: widths, head size, groups, tables, delimiters, aspect, guidance, schedule.
OTHER: dict[str, Any] = {
    "llm": {
        "vocab_size": 263,
        "hidden_size": 72,
        "intermediate_size": 112,
        "num_hidden_layers": 2,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "rope_theta": 50000.0,
        "rms_norm_eps": 1e-05,
        "max_position_embeddings": 300,
    },
    "vit": {
        "hidden_size": 40,
        "intermediate_size": 72,
        "num_hidden_layers": 3,
        "num_attention_heads": 5,
        "patch_size": 14,
        "layer_norm_eps": 1e-05,
    },
    "vae": {
        "in_channels": 3,
        "ch": 32,
        "ch_mult": [1, 2, 1, 2],
        "num_res_blocks": 2,
        "z_channels": 6,
        "scale_factor": 0.43,
        "shift_factor": -0.2,
    },
    "vit_max_num_patch_per_side": 12,
    "latent_patch_size": 2,
    "max_latent_size": 11,
    "special": {"bos_token_id": 7, "eos_token_id": 260, "start_of_image": 31, "end_of_image": 119},
    "vae_transform": {"max_image_size": 144, "min_image_size": 48, "image_stride": 16},
    "vit_transform": {"max_image_size": 112, "min_image_size": 42, "image_stride": 14},
    "raw_image_wh": [61, 190],
    "question_ids": [200, 4, 77, 118],
    "edit_ids": [9, 250, 1, 64, 33, 180, 91],
    "t2i_ids": [12, 240],
    "t2i_hw": [64, 32],
    "greedy_tokens": 4,
    "num_timesteps": 7,
    "timestep_shift": 1.7,
    "cfg_text_scale": 2.5,
    "cfg_img_scale": 1.4,
    "cfg_renorm_min_alt": 0.75,
    "cfg_interval_alt": [0.3, 0.8],
    "taylor_num_timesteps": 17,
}


def resized(picture: Image.Image, limits: dict[str, int]) -> Image.Image:
    """The rule of the specification, for sizes below its cap of pixels."""
    width, height = picture.size
    scale = min(limits["max_image_size"] / max(width, height), 1)
    scale = max(scale, limits["min_image_size"] / min(width, height))

    def side(length: int, scale: float) -> int:
        stride = limits["image_stride"]
        return max(stride, round(round(length * scale) / stride) * stride)

    size = side(width, scale), side(height, scale)
    if max(size) > limits["max_image_size"]:
        again = limits["max_image_size"] / max(size)
        size = side(size[0], again), side(size[1], again)
    return picture.resize(size, Image.Resampling.BICUBIC)


def made_inputs(settings: dict[str, Any]) -> Named:
    """A smooth picture with noise on it, and everything else that is given."""
    generator = torch.Generator().manual_seed(77)
    width, height = settings["raw_image_wh"]
    ramp = torch.linspace(0, 1, height)[:, None, None] * torch.tensor([0.9, 0.5, 0.2])
    waves = (torch.linspace(0, 9, width).sin()[None, :, None] + 1) / 4
    noisy = ramp + waves + torch.randn(height, width, 3, generator=generator) * 0.05
    raw = Image.fromarray((noisy.clamp(0, 1) * 255).to(torch.uint8).numpy())
    fitted = resized(raw, settings["vae_transform"])

    def pixels(image: Image.Image) -> Tensor:
        return torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).reshape(image.height, image.width, 3)

    def normal(image: Image.Image) -> Tensor:
        return (pixels(image).permute(2, 0, 1).float() / 255 - 0.5) / 0.5

    channels, stride = settings["vae"]["z_channels"], 2 ** (len(settings["vae"]["ch_mult"]) - 1)
    token, side = settings["latent_patch_size"] ** 2 * channels, settings["latent_patch_size"] * stride
    count = fitted.width // side * (fitted.height // side)
    drawn = math.prod(length // side for length in settings["t2i_hw"])
    return {
        "raw_image": pixels(raw),
        "resized_image": pixels(fitted),
        "vae_image": normal(fitted).contiguous(),
        "vit_image": normal(resized(fitted, settings["vit_transform"])).contiguous(),
        **{name: torch.tensor(settings[name]) for name in ("question_ids", "edit_ids", "t2i_ids")},
        "noise": torch.randn(count, token, generator=generator),
        "x_mid": torch.randn(count, token, generator=generator),
        "noise_t2i": torch.randn(drawn, token, generator=generator),
        "vae_eps": torch.randn(channels, fitted.height // stride, fitted.width // stride, generator=generator),
        "t_probe": torch.tensor([0.0, 0.13, 0.5, 0.77, 1.0]),
    }


class Expected:
    """Everything the files of a set hold, in the precision of ``plain``."""

    def __init__(self, plain: PlainMot, inputs: Named) -> None:
        self.plain, self.inputs, self.settings = plain, inputs, plain.settings
        self.und: Named = {}
        self.gen: Named = {}
        self.vit = plain.see(inputs["vit_image"].to(plain.dtype))
        self.vae = self._autoencoder()
        self._understanding()
        self._generation()

    def parts(self) -> dict[str, Named]:
        return {"vit": self.vit, "und": self.und, "vae": self.vae, "gen": self.gen}

    def _autoencoder(self) -> Named:
        plain, patch = self.plain, self.settings["latent_patch_size"]
        found = plain.encode(self.inputs["vae_image"])
        moments = found["moments"]
        mean, log_variance = moments.chunk(2)
        latent, sampled = plain.latent(moments), plain.latent(moments, self.inputs["vae_eps"])
        return found | {
            "mean": mean,
            "logvar": log_variance,
            "latent_mean": latent,
            "latent_sampled": sampled,
            "tokens_mean": tokens_of(latent, patch),
            "tokens_sampled": tokens_of(sampled, patch),
            "decode_of_latent_mean": plain.decode(latent),
        }

    def _kept(self, into: Named, name: str, tokens: Tokens, read: Read, keys: str) -> Seen:
        into[f"{name}.input_embed"], into[f"{name}.hidden"] = tokens.embedded, read.hidden
        if "layers" in keys:
            into |= {f"{name}.layer{i}": layer for i, layer in enumerate(read.layers)}
        if "cache" in keys:
            into[f"{name}.k"], into[f"{name}.v"] = (torch.stack(part) for part in zip(*read.context.cache, strict=True))
        return read.context

    def _understanding(self) -> None:
        plain, asked, out = self.plain, self.settings["question_ids"], self.und
        seen = plain.image(self.vit["llm_embed"], 0, gen=False)
        context = self._kept(out, "image", seen, plain.read(Seen([]), seen, gen_mode=False), "layers cache")
        text = plain.text(asked, context.position)
        context = self._kept(out, "text", text, plain.read(context, text, gen_mode=False), "layers cache")
        alone = plain.text(asked, 0)
        read = plain.read(Seen([]), alone, gen_mode=False)
        self._kept(out, "textonly", alone, read, "layers cache")
        out["textonly.logits_all"] = plain.logits(read.hidden)
        special = self.settings["special"]
        out["text.token_ids"] = torch.tensor([special["bos_token_id"], *asked, special["eos_token_id"]])
        out["text.position_ids"] = torch.tensor(text.positions)
        fed, at, logits = [special["bos_token_id"]], [], []
        for _ in range(self.settings["greedy_tokens"]):
            at.append(context.position)
            read = plain.read(context, plain.raw_text(fed[-1:], context.position), gen_mode=False)
            context = read.context
            logits.append(plain.logits(read.hidden)[0])
            fed.append(int(logits[-1].argmax()))
        out["greedy.fed_ids"], out["greedy.next_ids"] = torch.tensor(fed[:-1]), torch.tensor(fed[1:])
        out["greedy.position_ids"], out["greedy.logits"] = torch.tensor(at), torch.stack(logits)

    def _generation(self) -> None:
        plain, settings, inputs, out = self.plain, self.settings, self.inputs, self.gen
        patch, side = settings["latent_patch_size"], settings["max_latent_size"]
        unit = patch * 2 ** (len(settings["vae"]["ch_mult"]) - 1)
        grid = (inputs["vae_image"].shape[1] // unit, inputs["vae_image"].shape[2] // unit)
        out["latent_pos_ids"] = torch.tensor([r * side + c for r in range(grid[0]) for c in range(grid[1])])
        out["t_features"], out["t_embed"] = (f(inputs["t_probe"]) for f in (plain.time_features, plain.time_embedding))

        sampled = plain.latents(self.vae["tokens_sampled"], 0.0, grid, 0)
        out["ctx_vae_sampled.hidden"] = plain.read(Seen([]), sampled, gen_mode=True).hidden
        block = plain.latents(self.vae["tokens_mean"], 0.0, grid, 0)
        context = self._kept(out, "ctx_vae", block, plain.read(Seen([]), block, gen_mode=True), "layers cache")
        block = plain.image(self.vit["llm_embed"], context.position, gen=False)
        text_free = self._kept(out, "ctx_vit", block, plain.read(context, block, gen_mode=False), "")
        block = plain.text(settings["edit_ids"], text_free.position)
        main = self._kept(out, "ctx_text", block, plain.read(text_free, block, gen_mode=False), "cache")
        block = plain.text(settings["edit_ids"], 0)
        image_free = self._kept(out, "ctx_img_uncond", block, plain.read(Seen([]), block, gen_mode=False), "cache")
        contexts = [main, text_free, image_free]
        out["kv_lens"] = torch.tensor([len(context.cache[0][0]) for context in contexts])
        out["rope_pos"] = torch.tensor([context.position for context in contexts])

        self._steps(contexts, grid)
        self._samples(contexts, grid)
        self._drawn(unit)
        points = settings["taylor_num_timesteps"]
        final, steps = self._flow(contexts, inputs["noise"], grid, "global", points=points, skip=True)
        out["taylor.final"], out["taylor.traj_v"] = final, torch.stack([v for _, _, v in steps])
        out["taylor.timesteps"] = torch.stack([t for t, _, _ in steps])
        out["taylor.reference_final"], _ = self._flow(contexts, inputs["noise"], grid, "global", points=points)

    def _velocity(self, context: Seen, x: Tensor, time: float, grid: tuple[int, int]) -> tuple[Tensor, Tokens, Read]:
        block = self.plain.latents(x, time, grid, context.position)
        read = self.plain.read(context, block, gen_mode=True)
        return self.plain.velocity(read.layers[-1][1:-1]), block, read

    def _steps(self, contexts: list[Seen], grid: tuple[int, int]) -> None:
        least = self.settings["cfg_renorm_min_alt"]
        scales = self.settings["cfg_text_scale"], self.settings["cfg_img_scale"]
        for name, x, time in (("t1", self.inputs["noise"], 1.0), ("tmid", self.inputs["x_mid"], 0.6)):
            three = [self._velocity(context, x, time, grid) for context in contexts]
            v, block, read = three[0]
            found = {"cond.input_embed": block.embedded, "cond.hidden": read.hidden}
            found |= {f"cond.layer{i}": layer for i, layer in enumerate(read.layers)}
            found |= {"v_cond": v, "v_cfg_text": three[1][0], "v_cfg_img": three[2][0], "v_imgonly": v}
            vs = [v, three[1][0], three[2][0]]
            for kind in ("global", "channel", "text_channel"):
                found[f"v_{kind}.min0.textimg"] = guided(vs, *scales, kind, 0.0)
                found[f"v_{kind}.minalt.textimg"] = guided(vs, *scales, kind, least)
                found[f"v_{kind}.min0.text"] = guided(vs, scales[0], 1.0, kind, 0.0)
            self.gen |= {f"step.{name}.{key}": value for key, value in found.items()}

    def _samples(self, contexts: list[Seen], grid: tuple[int, int]) -> None:
        settings, out, noise = self.settings, self.gen, self.inputs["noise"]
        for kind in ("global", "channel", "text_channel"):
            final, steps = self._flow(contexts, noise, grid, kind)
            name = f"sample.{kind}"
            out[f"{name}.final"] = final
            out[f"{name}.traj_x"], out[f"{name}.traj_v"] = (torch.stack([s[i] for s in steps]) for i in (1, 2))
            image = self.plain.decode(picture_of(final, grid, settings["latent_patch_size"]))
            shown = (image * 0.5 + 0.5).clamp(0, 1).permute(1, 2, 0) * 255
            out[f"{name}.image_u8"] = shown.to(torch.uint8).contiguous()
            if kind == "global":
                out["sample.global.image"], out["sample.timesteps"] = image, torch.stack([s[0] for s in steps])
        out["sample.text_only_cfg_global.final"], _ = self._flow(contexts, noise, grid, "global", image=1.0)
        out["sample.nocfg.final"], _ = self._flow(contexts, noise, grid, "global", text=1.0, image=1.0)
        out["sample.imgonly_cfg.final"], _ = self._flow(contexts, noise, grid, "global", text=1.0)
        low, high = settings["cfg_interval_alt"]
        out["sample.interval_alt_text_channel_minalt.final"], _ = self._flow(
            contexts, noise, grid, "text_channel", least=settings["cfg_renorm_min_alt"], interval=(low, high)
        )

    def _drawn(self, unit: int) -> None:
        """Text to image: without the text there is nothing."""
        height, width = self.settings["t2i_hw"]
        grid = (height // unit, width // unit)
        text = self.plain.text(self.settings["t2i_ids"], 0)
        main = self.plain.read(Seen([]), text, gen_mode=False).context
        contexts = [main, Seen([]), Seen([])]
        final, _ = self._flow(contexts, self.inputs["noise_t2i"], grid, "global", image=1.0)
        self.gen["t2i.final"] = final
        self.gen["t2i.image"] = self.plain.decode(picture_of(final, grid, self.settings["latent_patch_size"]))

    def _flow(
        self,
        contexts: list[Seen],
        noise: Tensor,
        grid: tuple[int, int],
        kind: str,
        *,
        text: float | None = None,
        image: float | None = None,
        least: float = 0.0,
        interval: tuple[float, float] = (0.0, 1.0),
        points: int | None = None,
        skip: bool = False,
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor, Tensor]]]:
        """The final tokens, and time, tokens and velocity of every evaluation."""
        settings = self.settings
        text = settings["cfg_text_scale"] if text is None else text
        image = settings["cfg_img_scale"] if image is None else image
        even = torch.linspace(1, 0, points or settings["num_timesteps"])
        shift = settings["timestep_shift"]
        times = shift * even / (1 + (shift - 1) * even)
        x, steps = noise.to(self.plain.wide), []
        series = [Series(self.settings["llm"]["num_hidden_layers"]) for _ in contexts]

        def velocity(branch: int, x: Tensor, time: float) -> Tensor:
            if skip:
                if not series[branch].due():
                    return self.plain.velocity(series[branch].guess())
                v, _, read = self._velocity(contexts[branch], x, time, grid)
                series[branch].take([layer[1:-1] for layer in read.layers])
                return v
            return self._velocity(contexts[branch], x, time, grid)[0]

        for now, then in itertools.pairwise(times):
            time = float(now)
            v = velocity(0, x, time)
            low, high = torch.tensor(interval)
            if text > 1 and bool(low < now) and bool(now <= high):
                vs = [v, *(velocity(branch, x, time) for branch in (1, 2))]
                v = guided(vs, text, image, kind, least)
            steps.append((now, x, v))
            x = x - v.to(self.plain.wide) * (now - then)
        return x, steps


class Series:
    """The published forecasts as they are published: differences of every layer, of which the last is read."""

    def __init__(self, layers: int) -> None:
        self.layers: list[list[Tensor]] = [[] for _ in range(layers)]
        self.step, self.full = -1, -1

    def due(self) -> bool:
        self.step += 1
        return self.step < 5 or (self.step - 4) % 3 == 0

    def take(self, outputs: list[Tensor]) -> None:
        for index, output in enumerate(outputs):
            new = [output]
            if self.step >= 4:
                for order in range(min(6, len(self.layers[index]))):
                    new.append((new[order] - self.layers[index][order]) / (self.step - self.full))
            self.layers[index] = new
        self.full = self.step

    def guess(self) -> Tensor:
        far = self.step - self.full
        return sum(term * far**order / math.factorial(order) for order, term in enumerate(self.layers[-1]))


def guided(vs: list[Tensor], text: float, image: float, kind: str, least: float) -> Tensor:
    v, without_text, without_image = vs
    along = None if kind == "global" else -1

    def limited(g: Tensor) -> Tensor:
        size, plain = (torch.linalg.vector_norm(t, dim=along, keepdim=True) for t in (g, v))
        return g * (plain / (size + 1e-8)).clamp(least, 1.0)

    g = without_text + text * (v - without_text)
    if kind == "text_channel":
        g = limited(g)
    if image > 1:
        g = without_image + image * (g - without_image)
    return g if kind == "text_channel" else limited(g)


@torch.no_grad()
def expectations(settings: dict[str, Any], tensors: Named, inputs: Named, dtype: torch.dtype) -> dict[str, Named]:
    """All expected tensors by file: float64 results as float32, or what bfloat16 makes of them."""
    parts = Expected(PlainMot(settings, tensors, dtype), inputs).parts()
    return {
        part: {name: (t.float() if t.is_floating_point() else t).contiguous() for name, t in tensors.items()}
        for part, tensors in parts.items()
    }


def write_set(target: Path, settings: dict[str, Any]) -> Path:
    """Make a random checkpoint with inputs, expectations and the errors of a bfloat16 run."""
    random_checkpoint(target, settings, seed=5)
    tensors = load_file(target / "ema.safetensors") | load_file(target / "ae.safetensors")
    inputs = made_inputs(settings)
    save_file(inputs, target / "inputs.safetensors")
    exact, half = (expectations(settings, tensors, inputs, dtype) for dtype in (torch.float64, torch.bfloat16))
    floor = {}
    for part, expected in exact.items():
        save_file(expected, target / f"expected_{part}.safetensors")
        for name, value in expected.items():
            if value.is_floating_point():
                apart = (half[part][name].double() - value.double()).square().mean().sqrt()
                floor[f"{part}:{name}"] = {"bf16_relrms": float(apart / value.double().square().mean().sqrt())}
    (target / "noise_floor.json").write_text(json.dumps(floor))
    return target
