"""Weight files: safetensors with the config in a JSON file of the same name beside it, never pickle."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from uare_rt.bundle import Bundle, is_bundle
from uare_rt.errors import InputError, OutputError
from uare_rt.model.bundle_weights import read_bundle
from uare_rt.model.mot import MoTConfig
from uare_rt.model.nano import UareNano
from uare_rt.model.presets.nano import NanoConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

__all__ = ["load_nano", "read_tensors", "save_nano", "sha256_of", "weights_digest", "write_tensors"]

_FORMAT = "uare-nano/1"


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file under a temporary name and rename it when complete.

    Args:
        path: target, replaced if it exists.
        tensors: name to tensor, made contiguous here.
        metadata: text stored in the file's header.

    Raises:
        OutputError: no space or no permission; an existing file is left as it was.
    """
    temporary = path.with_name(f".{path.name}.partial")
    try:
        save_file({k: v.detach().contiguous() for k, v in tensors.items()}, temporary, dict(metadata))
        os.replace(temporary, path)
    except (SafetensorError, OSError) as error:
        raise OutputError(f"{path}: cannot be written ({error}); free some space or check the permissions") from None
    finally:
        temporary.unlink(missing_ok=True)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read all tensors and the header's metadata of a safetensors file.

    Raises:
        InputError: the file is missing or damaged.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except FileNotFoundError:
        raise InputError(f"{path}: no such weight file") from None
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a readable safetensors file ({error}); it may be truncated") from None


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal text."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def weights_digest(path: Path) -> str:
    """SHA-256 of a weight file; of a bundle, that of the file that it was exported from.

    Raises:
        BundleError: the bundle is damaged.
    """
    return Bundle.open(path).nano.source.weights_sha256 if is_bundle(path) else sha256_of(path)


def _write_text(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.partial")
    try:
        temporary.write_text(text, "utf-8")
        os.replace(temporary, path)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error}); free some space or check the permissions") from None
    finally:
        temporary.unlink(missing_ok=True)


def save_nano(model: UareNano, path: Path, facts: Mapping[str, Any]) -> None:
    """Save a nano model: the tensors, and beside them a JSON file with config, facts and the tensors' SHA-256.

    Args:
        model: the model, any device.
        path: ``*.safetensors``; the JSON file has the same name with the suffix ``.json``.
        facts: JSON-ready facts (recipe, steps, data).

    Raises:
        OutputError: no space or no permission.
    """
    write_tensors(path, {k: v.float() for k, v in model.state_dict().items()}, {"format": _FORMAT})
    card = {
        "format": _FORMAT,
        "weights_sha256": sha256_of(path),
        "config": dataclasses.asdict(model.config),
        "facts": dict(facts),
    }
    _write_text(path.with_suffix(".json"), json.dumps(card, indent=2, sort_keys=True) + "\n")


def _config_from(fields: dict[str, Any]) -> NanoConfig:
    fields = {**fields, "mot": MoTConfig(**fields["mot"])}
    return NanoConfig(**{k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()})


def _read_card(weights: Path) -> tuple[NanoConfig, dict[str, Any]]:
    path = weights.with_suffix(".json")
    try:
        card = json.loads(path.read_text("utf-8"))
        if card["format"] != _FORMAT:
            raise InputError(f"{path}: holds {card['format']!r}, expected {_FORMAT!r}")
        if card["weights_sha256"] != sha256_of(weights):
            raise InputError(f"{path}: belongs to another {weights.name}; copy both files of one training")
        return _config_from(card["config"]), dict(card["facts"])
    except FileNotFoundError:
        raise InputError(f"{path}: missing; the config lies beside {weights.name}, copy both files") from None
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: damaged ({type(error).__name__}: {error}); copy both files again") from None


def load_nano(path: Path) -> tuple[UareNano, dict[str, Any]]:
    """Load a nano model saved by `save_nano`, or read back from an exported bundle.

    Args:
        path: ``*.safetensors``, or a bundle ``NAME.uare``.

    Returns:
        The model in eval mode, fp32, and the training facts.

    Raises:
        BundleError: the bundle is damaged.
        InputError: not a nano weight file, its JSON file is missing, damaged or of other weights, or its tensors do
            not fit its config or are not finite (each named).
    """
    if is_bundle(path):
        return read_bundle(path)
    tensors, header = read_tensors(path)
    if header.get("format") != _FORMAT:
        raise InputError(
            f"{path}: holds {header.get('format', 'no known format')!r}, expected {_FORMAT!r}; "
            "give the .safetensors written by uare-rt train"
        )
    config, facts = _read_card(path)
    model = UareNano(config)
    expected = model.state_dict()
    faults = [f"missing {name}" for name in expected.keys() - tensors.keys()]
    faults += [f"unexpected {name}" for name in tensors.keys() - expected.keys()]
    faults += [
        f"{name} is {list(tensors[name].shape)}, expected {list(expected[name].shape)}"
        for name in expected.keys() & tensors.keys()
        if tensors[name].shape != expected[name].shape
    ]
    faults += [f"{name} holds NaN or infinity" for name, tensor in tensors.items() if not tensor.isfinite().all()]
    if faults:
        raise InputError(f"{path}: cannot be used: {'; '.join(sorted(faults)[:8])}")
    model.load_state_dict(tensors)
    return model.eval(), facts
