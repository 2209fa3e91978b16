"""Weight files: what goes in comes out, and damage is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from uare_rt.bundle import Bundle, shipped_bundle
from uare_rt.errors import InputError
from uare_rt.model.nano import UareNano
from uare_rt.model.weights import load_nano, read_tensors, save_nano, sha256_of, weights_digest

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


def test_a_bundle_gives_back_the_weights_that_its_graphs_run(tmp_path: Path) -> None:
    """The shipped one: PyTorch with them and ONNX Runtime with its graphs agree, and they can be stored and read."""
    ort = pytest.importorskip("onnxruntime")
    model, facts = load_nano(shipped_bundle())
    source = Bundle.open(shipped_bundle()).nano.source
    assert facts == {"recipe": source.recipe, "steps": source.steps}
    assert weights_digest(shipped_bundle()) == source.weights_sha256
    assert sum(parameter.numel() for parameter in model.parameters()) == source.parameters
    save_nano(model, tmp_path / "weights.safetensors", facts)
    again, _ = load_nano(tmp_path / "weights.safetensors")
    views = torch.rand(9, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    frame = torch.rand(1, 3, 48, 80, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        logits, context = again.assess(views[None])
        restored = {scale: again.restore(frame, context, scale).numpy() for scale in (1, 2, 4)}
    session = ort.InferenceSession(str(shipped_bundle() / "assess.onnx"), providers=["CPUExecutionProvider"])
    got = session.run(["slot_logits", "ctx_vec"], {"views": views.numpy()})
    for value, expected in zip(got, (logits[0], context.vec[0]), strict=True):
        np.testing.assert_allclose(value, expected.numpy(), rtol=0, atol=1e-4)
    feed = dict(zip(("ctx_k", "ctx_v", "ctx_vec"), (context.k[:, 0], context.v[:, 0], context.vec[0]), strict=True))
    feed = {"frame": frame.numpy(), **{name: part.numpy() for name, part in feed.items()}}
    for scale, expected in restored.items():
        path = shipped_bundle() / f"restore_x{scale}.onnx"
        (value,) = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, feed)
        np.testing.assert_allclose(value, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["tiny.uare", "tiny-int8.uare"])
def test_a_bundle_without_all_weights_by_name_is_refused(data_dir: Path, name: str) -> None:
    with pytest.raises(
        InputError, match=rf"{name}: its weights cannot be read back: no .* and \d+ more; give a bundle"
    ):
        load_nano(data_dir / name)


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
