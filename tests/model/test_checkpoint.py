"""Opening checkpoints: both layouts, shards, types, and what a damaged one is told."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from bagel_layout import bagel_layout
from safetensors.torch import load_file, save_file

from uare_rt.errors import InputError
from uare_rt.model.checkpoint import Checkpoint, load_unified
from uare_rt.model.tokens import TextTokenizer

if TYPE_CHECKING:
    from collections.abc import Callable

TINY = Path(__file__).parents[1] / "data" / "mot-tiny"
NEEDED = ("config.json", "ema.safetensors", "ae.safetensors")


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A checkpoint in the layout of one file that a test may damage."""
    directory = tmp_path / "tiny"
    directory.mkdir()
    for name in NEEDED:
        shutil.copy(TINY / name, directory)
    return directory


@pytest.fixture
def bagel(tmp_path: Path) -> Path:
    """The same checkpoint in BAGEL's layout, with a tokenizer."""
    return bagel_layout(TINY, tmp_path / "bagel")


def edit_weights(directory: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(directory / "ema.safetensors")
    change(tensors)
    save_file(tensors, directory / "ema.safetensors")


def edit_config(directory: Path, change: Callable[[dict[str, dict[str, object]]], object]) -> None:
    settings = json.loads((directory / "config.json").read_text())
    change(settings)
    (directory / "config.json").write_text(json.dumps(settings))


def test_both_layouts_give_the_same_model(tiny: Path, bagel: Path) -> None:
    one, no_tokenizer = load_unified(tiny)
    other, tokenizer = load_unified(bagel)
    assert one.config == other.config
    assert no_tokenizer is None
    assert tokenizer is not None
    assert tokenizer.special == one.config.special
    for (name, a), (_, b) in zip(one.state_dict().items(), other.state_dict().items(), strict=True):
        assert torch.equal(a, b), name


def test_shards_named_by_an_index_are_one_file(bagel: Path) -> None:
    tensors = load_file(bagel / "ema.safetensors")
    names = sorted(tensors)
    shards = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for shard, held in shards.items():
        save_file({name: tensors[name] for name in held}, bagel / shard)
    index = {"weight_map": {name: shard for shard, held in shards.items() for name in held}}
    (bagel / "model.safetensors.index.json").write_text(json.dumps(index))
    (bagel / "ema.safetensors").unlink()
    model, _ = load_unified(bagel)
    assert torch.equal(model.language.head.weight, tensors["language_model.lm_head.weight"])
    (bagel / "model-2.safetensors").unlink()
    with pytest.raises(InputError, match=r"model-2\.safetensors: no such file"):
        Checkpoint(bagel)
    index["weight_map"][names[0]] = "../elsewhere.safetensors"
    (bagel / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match="outside its directory"):
        Checkpoint(bagel)


def test_position_tables_need_not_be_stored(tiny: Path) -> None:
    reference, _ = load_unified(tiny)
    stored = load_file(tiny / "ema.safetensors")
    torch.testing.assert_close(reference.latents.table, stored["latent_pos_embed.pos_embed"], rtol=0, atol=1e-6)
    torch.testing.assert_close(reference.vision.table, stored["vit_pos_embed.pos_embed"], rtol=0, atol=1e-6)
    edit_weights(tiny, lambda t: [t.pop(name) for name in ("latent_pos_embed.pos_embed", "vit_pos_embed.pos_embed")])
    model, _ = load_unified(tiny)
    assert torch.equal(model.latents.table, reference.latents.table)


def test_weights_come_in_the_type_asked_for(tiny: Path) -> None:
    model, _ = load_unified(tiny, dtype=torch.bfloat16)
    assert {p.dtype for name, p in model.named_parameters() if not name.startswith("codec.")} == {torch.bfloat16}
    assert {p.dtype for p in model.codec.parameters()} == {torch.float32}
    assert not any(p.is_meta or p.requires_grad for p in model.parameters())
    assert not any(b.is_meta for b in model.buffers())


@pytest.mark.parametrize("name", NEEDED)
def test_a_missing_file_is_named(tiny: Path, name: str) -> None:
    (tiny / name).unlink()
    with pytest.raises(InputError, match=f"{name}: no such file; a checkpoint directory needs it"):
        Checkpoint(tiny)


@pytest.mark.parametrize("name", ["llm_config.json", "vit_config.json", "tokenizer.json"])
def test_a_missing_file_of_the_bagel_layout_is_named(bagel: Path, name: str) -> None:
    (bagel / name).unlink()
    with pytest.raises(InputError, match=name):
        Checkpoint(bagel)


@pytest.mark.parametrize("name", ["ema.safetensors", "ae.safetensors"])
@pytest.mark.parametrize("kept", [0, 5, 1000, 100_000])
def test_a_truncated_file_is_named(tiny: Path, name: str, kept: int) -> None:
    (tiny / name).write_bytes((TINY / name).read_bytes()[:kept])
    with pytest.raises(InputError, match=f"{name}: not a readable safetensors file .* truncated"):
        Checkpoint(tiny)


def test_missing_unexpected_misshaped_and_mistyped_tensors_are_all_named(tiny: Path) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        del tensors["vit_model.vision_model.post_layernorm.bias"]
        tensors["something.else"] = torch.zeros(2)
        tensors["llm2vae.bias"] = torch.zeros(3)
        tensors["vae2llm.bias"] = tensors["vae2llm.bias"].to(torch.int32)

    edit_weights(tiny, change)
    with pytest.raises(InputError) as caught:
        Checkpoint(tiny)
    for fault in (
        "missing vit_model.vision_model.post_layernorm.bias",
        "unexpected something.else",
        "llm2vae.bias is [3], expected [16]",
        "vae2llm.bias is of type I32, expected one of BF16, F16, F32, F64",
    ):
        assert fault in str(caught.value)


def test_a_configuration_of_another_model_is_refused(tiny: Path) -> None:
    edit_config(tiny, lambda s: s["llm"].update(hidden_size=128))
    with pytest.raises(InputError, match=r"embed_tokens.weight is \[200, 64\], expected \[200, 128\].*; and \d+ more"):
        Checkpoint(tiny)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s["llm"].pop("vocab_size"), "vocab_size"),
        (lambda s: s["llm"].update(num_hidden_layers=0), "num_hidden_layers|>= 1"),
        (lambda s: s["vit"].update(patch_size="big"), "patch_size"),
        (lambda s: s["llm"].update(num_key_value_heads=3), "multiple of kv_heads"),
        (lambda s: s["vae"].update(ch=20), "config.json"),
        (lambda s: s["llm"].update(rope_scaling={"type": "yarn"}), "rope_scaling"),
    ],
)
def test_a_value_that_cannot_be_used_is_named(
    tiny: Path, change: Callable[[dict[str, dict[str, object]]], object], message: str
) -> None:
    edit_config(tiny, change)
    with pytest.raises(InputError, match=message):
        Checkpoint(tiny)


def test_a_file_that_is_not_json_is_refused(tiny: Path) -> None:
    (tiny / "config.json").write_text("{")
    with pytest.raises(InputError, match=r"config\.json"):
        Checkpoint(tiny)


def test_a_tokenizer_larger_than_the_embedding_is_refused(bagel: Path) -> None:
    settings = json.loads((bagel / "tokenizer.json").read_text())
    settings["model"]["vocab"]["beyond"] = 200
    (bagel / "tokenizer.json").write_text(json.dumps(settings))
    with pytest.raises(InputError, match="ids up to 200, but the embedding only 200 rows"):
        Checkpoint(bagel)


def test_a_tokenizer_without_the_delimiters_is_refused(bagel: Path) -> None:
    text = (bagel / "tokenizer.json").read_text()
    (bagel / "tokenizer.json").write_text(text.replace("<|vision_start|>", "<|other|>"))
    with pytest.raises(InputError, match=r"has no <\|vision_start\|>"):
        Checkpoint(bagel)


def test_a_damaged_tokenizer_is_refused(bagel: Path) -> None:
    (bagel / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match="tokenizer files cannot be used"):
        Checkpoint(bagel)


def test_byte_pairs_of_vocab_and_merges_are_read(tmp_path: Path) -> None:
    from tokenizers import pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {symbol: i for i, symbol in enumerate([*alphabet, "he", "lo", "\u0120he"])}
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    (tmp_path / "merges.txt").write_text("#version: 0.2\nh e\nl o\n\u0120 he\n")
    names = ["<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>"]
    added = {str(len(vocabulary) + i): {"content": name} for i, name in enumerate(names)}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": added}))
    tokenizer = TextTokenizer(tmp_path)
    ids = tokenizer.encode("hello he")
    assert [vocabulary[s] for s in ("he", "l", "lo", "\u0120he")] == ids
    assert tokenizer.decode([tokenizer.special.bos, *ids, tokenizer.special.eos]) == "hello he"
    assert tokenizer.size == len(vocabulary) + 4
    added = {str(900 + i): {"content": name} for i, name in enumerate(names)}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": added}))
    with pytest.raises(InputError, match=r"tokenizer_config\.json says 900"):
        TextTokenizer(tmp_path)


def test_no_directory_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such directory"):
        Checkpoint(tmp_path / "none")
