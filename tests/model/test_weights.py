"""Weight files: what goes in comes out, and damage is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import save_file

from uare_rt.errors import InputError
from uare_rt.model.nano import UareNano
from uare_rt.model.weights import load_nano, read_tensors, save_nano, sha256_of

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
    assert sorted(p.name for p in saved.parent.iterdir()) == ["weights.json", saved.name]


def rewrite(path: Path, change: Callable[[dict[str, torch.Tensor], dict[str, str]], object]) -> None:
    tensors, header = read_tensors(path)
    change(tensors, header)
    save_file(tensors, path, header)
    rewrite_card(path, lambda card: card.update(weights_sha256=sha256_of(path)))


def rewrite_card(weights: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = weights.with_suffix(".json")
    card = json.loads(path.read_text())
    change(card)
    path.write_text(json.dumps(card))


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
    ],
)
def test_a_file_that_does_not_fit_is_refused(
    saved: Path, change: Callable[[dict[str, torch.Tensor], dict[str, str]], object], message: str
) -> None:
    rewrite(saved, change)
    with pytest.raises(InputError, match=message) as caught:
        load_nano(saved)
    assert str(saved) in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda card: card.pop("config"), "damaged.*config"),
        (lambda card: card.pop("facts"), "damaged.*facts"),
        (lambda card: card["config"].pop("window"), "damaged.*window"),
        (lambda card: card["config"].update(window=3), "damaged.*window must be even"),
        (lambda card: card.update(format="uare-nano/9"), "holds 'uare-nano/9', expected 'uare-nano/1'"),
        (lambda card: card.update(weights_sha256="0" * 64), r"belongs to another weights\.safetensors"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(
    saved: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    rewrite_card(saved, change)
    with pytest.raises(InputError, match=rf"weights\.json: .*{message}"):
        load_nano(saved)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff"])
def test_what_is_no_config_is_refused(saved: Path, content: bytes) -> None:
    saved.with_suffix(".json").write_bytes(content)
    with pytest.raises(InputError, match=r"weights\.json: damaged"):
        load_nano(saved)


def test_weights_without_their_config_are_refused(saved: Path) -> None:
    saved.with_suffix(".json").unlink()
    with pytest.raises(InputError, match=r"weights\.json: missing; the config lies beside"):
        load_nano(saved)


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
