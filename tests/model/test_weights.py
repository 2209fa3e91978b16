"""Weight files: what goes in comes out, and damage is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import save_file

from uare_rt.errors import InputError
from uare_rt.model.nano import UareNano
from uare_rt.model.weights import load_nano, read_tensors, save_nano

if TYPE_CHECKING:
    from collections.abc import Callable

    from uare_rt.model.presets.nano import NanoConfig


@pytest.fixture
def saved(tmp_path: Path, small: NanoConfig, random_model: Callable[[NanoConfig], UareNano]) -> Path:
    """Weights of a small model with random values."""
    path = tmp_path / "weights.safetensors"
    save_nano(random_model(small).float(), path, {"recipe": "abc", "steps": 7})
    return path


def test_weights_and_facts_come_back(
    saved: Path, small: NanoConfig, random_model: Callable[[NanoConfig], UareNano]
) -> None:
    model, facts = load_nano(saved)
    assert facts == {"recipe": "abc", "steps": 7}
    assert model.config == small
    assert not model.training
    expected = random_model(small).float().state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]


def rewrite(path: Path, change: Callable[[dict[str, torch.Tensor], dict[str, str]], object]) -> None:
    tensors, header = read_tensors(path)
    change(tensors, header)
    save_file(tensors, path, header)


def config_without_window(header: dict[str, str]) -> None:
    fields = json.loads(header["config"])
    del fields["window"]
    header["config"] = json.dumps(fields)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, h: t.pop("level_head.bias"), "missing level_head.bias"),
        (lambda t, h: t.update(extra=torch.zeros(1)), "unexpected extra"),
        (lambda t, h: t.update({"level_head.bias": torch.zeros(4)}), r"level_head.bias is \[4\], expected \[5\]"),
        (lambda t, h: t["level_head.bias"].fill_(torch.nan), "level_head.bias holds NaN or infinity"),
        (lambda t, h: t["pool.weight"][1].fill_(torch.inf), "pool.weight holds NaN or infinity"),
        (lambda t, h: h.update(format="uare-7b/1"), "holds 'uare-7b/1', expected 'uare-nano/1'"),
        (lambda t, h: h.pop("format"), "holds 'no known format'"),
        (lambda t, h: h.pop("config"), "its header is damaged"),
        (lambda t, h: h.update(config="{"), "its header is damaged"),
        (lambda t, h: config_without_window(h), "its header is damaged.*window"),
        (lambda t, h: h.pop("facts"), "its header is damaged"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(
    saved: Path, change: Callable[[dict[str, torch.Tensor], dict[str, str]], object], message: str
) -> None:
    rewrite(saved, change)
    with pytest.raises(InputError, match=message) as caught:
        load_nano(saved)
    assert str(saved) in str(caught.value)


def test_a_truncated_file_is_refused(saved: Path) -> None:
    whole = saved.read_bytes()
    for size in (0, 5, 200, len(whole) - 1):
        saved.write_bytes(whole[:size])
        with pytest.raises(InputError, match=r"weights\.safetensors: not a readable safetensors file"):
            load_nano(saved)


def test_a_missing_file_and_a_directory_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such weight file"):
        load_nano(tmp_path / "nothing.safetensors")
    with pytest.raises(InputError, match="not a readable safetensors file"):
        load_nano(tmp_path)
