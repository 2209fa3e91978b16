"""Checkpoints in BAGEL's layout: which tensor is which weight, checked by name, read through a memory map."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from uare_rt.errors import InputError
from uare_rt.model.layout import read_config
from uare_rt.model.memory import PLAIN, MemoryOptions, Sizes, check_loading, free_memory
from uare_rt.model.quantised import QuantisedLinear, quantise_experts
from uare_rt.model.residency import ComponentLoader
from uare_rt.model.tokens import TOKENIZER_FILES, TextTokenizer
from uare_rt.model.unified import UnifiedModel

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import Tensor

    from uare_rt.model.presets.uare_7b import UnifiedConfig

__all__ = ["Checkpoint", "expected_shapes", "load_unified"]

_TABLES = ("latent_pos_embed.pos_embed", "vit_pos_embed.pos_embed")
_FLOATS = {"F64", "F32", "F16", "BF16"}
_LISTED = 20

_LAYER = {
    "input_norm": "input_layernorm{}",
    "mlp_norm": "post_attention_layernorm{}",
    **{f"{name}": f"self_attn.{name}_proj{{}}" for name in "qkvo"},
    "q_norm": "self_attn.q_norm{}",
    "k_norm": "self_attn.k_norm{}",
    **{name: f"mlp{{}}.{name}_proj" for name in ("gate", "up", "down")},
}
_VISION = {
    "patch": "embeddings.patch_embedding",
    "position": "embeddings.position_embedding",
    "post_norm": "post_layernorm",
}
_VISION_LAYER = {
    "norm1": "layer_norm1",
    "norm2": "layer_norm2",
    **{name: f"self_attn.{name}_proj" for name in ("q", "k", "v", "out")},
    "fc1": "mlp.fc1",
    "fc2": "mlp.fc2",
}
_FIXED = {
    "language.embed": "language_model.model.embed_tokens",
    "language.head": "language_model.lm_head",
    "language.mot.und_norm": "language_model.model.norm",
    "language.mot.gen_norm": "language_model.model.norm_moe_gen",
    "latents.inward": "vae2llm",
    "latents.outward": "llm2vae",
    "latents.time.mlp.0": "time_embedder.mlp.0",
    "latents.time.mlp.2": "time_embedder.mlp.2",
    "vision.connector.fc1": "connector.fc1",
    "vision.connector.fc2": "connector.fc2",
    **{f"vision.{ours}": f"vit_model.vision_model.{theirs}" for ours, theirs in _VISION.items()},
}


def stored_name(name: str) -> str:
    """The name of a `UnifiedModel` parameter in BAGEL's weight files."""
    if name.startswith("codec."):
        return name.removeprefix("codec.")
    module, _, leaf = name.rpartition(".")
    if match := re.fullmatch(r"language\.mot\.layers\.(\d+)\.(und|gen)\.(\w+)", module):
        index, expert, part = match.groups()
        return f"language_model.model.layers.{index}.{_LAYER[part].format('_moe_gen' * (expert == 'gen'))}.{leaf}"
    if match := re.fullmatch(r"vision\.layers\.(\d+)\.(\w+)", module):
        index, part = match.groups()
        return f"vit_model.vision_model.encoder.layers.{index}.{_VISION_LAYER[part]}.{leaf}"
    return f"{_FIXED[module]}.{leaf}"


def expected_shapes(config: UnifiedConfig) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
    """Names and shapes of the tensors of ``ema.safetensors`` (position tables too) and of ``ae.safetensors``."""
    with torch.device("meta"):
        model = UnifiedModel(config)
    weights: dict[str, tuple[int, ...]] = {
        "latent_pos_embed.pos_embed": tuple(model.latents.table.shape),
        "vit_pos_embed.pos_embed": tuple(model.vision.table.shape),
    }
    codec: dict[str, tuple[int, ...]] = {}
    for name, parameter in model.named_parameters():
        (codec if name.startswith("codec.") else weights)[stored_name(name)] = tuple(parameter.shape)
    return weights, codec


class _Tensors:
    """The tensors of one weight file, or of the shards that an index names."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._file_of: dict[str, Any] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.types: dict[str, str] = {}
        self.name = ""
        for path in paths:
            self.name = f"{self.name}, {path.name}" if self.name else str(path)
            try:
                file = safe_open(str(path), framework="pt")
            except FileNotFoundError:
                raise InputError(f"{path}: no such file; a checkpoint directory needs it") from None
            except (SafetensorError, OSError) as error:
                message = f"{path}: not a readable safetensors file ({error}); it may be truncated: fetch it again"
                raise InputError(message) from None
            for name in file.keys():  # noqa: SIM118
                view = file.get_slice(name)
                self._file_of[name] = file
                self.shapes[name] = tuple(view.get_shape())
                self.types[name] = view.get_dtype()

    def get(self, name: str) -> Tensor:
        """A view of the mapped file."""
        tensor: Tensor = self._file_of[name].get_tensor(name)
        return tensor

    def check(self, expected: Mapping[str, tuple[int, ...]], optional: Iterable[str] = ()) -> None:
        """Compare names, shapes and types with what a model needs.

        Raises:
            InputError: with every fault by name, at most 20 of them.
        """
        faults = [f"missing {name}" for name in sorted(expected.keys() - self.shapes.keys() - set(optional))]
        faults += [f"unexpected {name}" for name in sorted(self.shapes.keys() - expected.keys())]
        for name in sorted(expected.keys() & self.shapes.keys()):
            if self.shapes[name] != expected[name]:
                faults.append(f"{name} is {list(self.shapes[name])}, expected {list(expected[name])}")
            if self.types[name] not in _FLOATS:
                faults.append(f"{name} is of type {self.types[name]}, expected one of {', '.join(sorted(_FLOATS))}")
        if faults:
            more = f"; and {len(faults) - _LISTED} more" if len(faults) > _LISTED else ""
            raise InputError(f"{self.name}: does not fit the configuration: {'; '.join(faults[:_LISTED])}{more}")


def _weight_files(directory: Path) -> list[Path]:
    """``ema.safetensors``, or the shards of an index."""
    for name in ("ema.safetensors.index.json", "model.safetensors.index.json"):
        index = directory / name
        if (directory / "ema.safetensors").exists() or not index.is_file():
            continue
        try:
            shards = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise InputError(f"{index}: not an index of weight files (no weight_map)") from None
        if any(Path(shard).name != shard for shard in shards):
            raise InputError(f"{index}: names files outside its directory")
        return [directory / shard for shard in shards if shard != "ae.safetensors"]
    return [directory / "ema.safetensors"]


class Checkpoint:
    """A checkpoint directory, opened and checked; nothing is read until a component is asked for.

    Args:
        directory: holds ``ema.safetensors`` (or an index of shards), ``ae.safetensors`` and the configuration,
            see `uare_rt.model.layout`.

    Attributes:
        config: the model's configuration.
        tokenizer: the checkpoint's tokenizer, or None where it has none.

    Raises:
        InputError: a file is missing or damaged, tensors do not fit the configuration, or the tokenizer has ids
            that the embedding lacks.
    """

    def __init__(self, directory: str | Path) -> None:
        directory = Path(directory)
        if not directory.is_dir():
            raise InputError(f"{directory}: no such directory; give one with ema.safetensors and ae.safetensors")
        self._weights = _Tensors(_weight_files(directory))
        self._codec = _Tensors([directory / "ae.safetensors"])
        self.config = read_config(directory, self._weights.shapes, self._codec.shapes)
        try:
            weights, codec = expected_shapes(self.config)
        except ValueError as error:  # torch's own checks of dimensions
            raise InputError(f"{directory / 'config.json'}: {error}") from None
        self._weights.check(weights, optional=_TABLES)
        self._codec.check(codec)
        found = any((directory / name).is_file() for name in TOKENIZER_FILES)
        self.tokenizer = TextTokenizer(directory) if found else None
        if self.tokenizer is not None and self.tokenizer.size > self.config.vocabulary:
            raise InputError(
                f"{directory}: the tokenizer has ids up to {self.tokenizer.size - 1}, but the embedding only "
                f"{self.config.vocabulary} rows; they do not belong together"
            )

    def tensor(self, name: str) -> Tensor:
        """A parameter by its name in `UnifiedModel`, as it is stored: a view of the mapped file."""
        source = self._codec if name.startswith("codec.") else self._weights
        return source.get(stored_name(name))

    def fill(self, model: UnifiedModel, path: str, dtype: torch.dtype, device: str = "cpu") -> None:
        """Read the weights of a part of a model, tensor by tensor, straight into their type.

        Args:
            model: made for `config`, its parameters on the meta device or anywhere.
            path: of the part, for example ``vision`` or ``language.mot.layers.3``.
            dtype: of the weights; where the file has the same, CPU weights stay views of the mapped file. A
                `QuantisedLinear` is read in it and quantised.
            device: where to.
        """
        for name, module in model.get_submodule(path).named_modules(prefix=path):
            leaves = [leaf for leaf, _ in module.named_parameters(recurse=False)]
            quantised = isinstance(module, QuantisedLinear)
            if quantised:
                leaves.remove("scale")
            read = {leaf: self.tensor(f"{name}.{leaf}").to(device, dtype) for leaf in leaves}
            if quantised:
                read = dict(QuantisedLinear(read["weight"], read.get("bias"), module.kind).named_parameters())
            for leaf, value in read.items():
                setattr(module, leaf, nn.Parameter(value, requires_grad=False))


def load_unified(
    directory: str | Path,
    *,
    dtype: torch.dtype = torch.float32,
    codec_dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    memory: MemoryOptions = PLAIN,
) -> tuple[UnifiedModel, TextTokenizer | None]:
    """Load a whole checkpoint.

    Args:
        directory: see `Checkpoint`.
        dtype: of everything but the autoencoder.
        codec_dtype: of the autoencoder, which the reference keeps in float32.
        device: where to.
        memory: what is stored how, and what is loaded when.

    Returns:
        The model in eval mode, and the checkpoint's tokenizer or None.

    Raises:
        InputError: see `Checkpoint`.
        BackendError: the device does not have the memory; the message says how much is needed and what reduces it.
    """
    checkpoint = Checkpoint(directory)
    sizes = Sizes(dtype.itemsize, codec_dtype.itemsize)
    check_loading(checkpoint.config, memory, sizes, free_memory(device), str(directory))
    with torch.device("meta"):
        model = UnifiedModel(checkpoint.config)
        if memory.weights != "same":
            quantise_experts(model, memory.weights)

    def fill(path: str) -> None:
        checkpoint.fill(model, path, codec_dtype if path.startswith("codec") else dtype, device)

    for module in model.modules():
        for leaf, table in list(module.named_buffers(recurse=False)):
            setattr(module, leaf, table.to(device))
    ComponentLoader(model, fill, memory)
    model.cache_type, model.codec.tile = memory.cache, memory.tile
    return model.eval(), checkpoint.tokenizer
