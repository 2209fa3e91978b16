"""Rewrites a checkpoint of the reference set in the layout of BAGEL's release, with a tokenizer of whole words."""

from __future__ import annotations

import json
import re
import shutil
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer, models, pre_tokenizers

from uare_rt.model.prompts import load_prompts

if TYPE_CHECKING:
    from pathlib import Path

DELIMITERS = {
    "bos_token_id": "<|im_start|>",
    "eos_token_id": "<|im_end|>",
    "start_of_image": "<|vision_start|>",
    "end_of_image": "<|vision_end|>",
}


def words_of_the_prompts() -> list[str]:
    prompts = load_prompts()
    texts = [prompts.question, prompts.describe, prompts.restore, *prompts.compare.words]
    texts += [prompts.compare.question, prompts.compare.prefix]
    for answer in prompts.answers.values():
        texts += [answer.prefix, *answer.levels]
    return sorted({word for text in texts for word in re.findall(r"\w+|[^\w\s]+", text)})


def bagel_layout(source: Path, target: Path, *, keep_config: bool = False) -> Path:
    """Copy ``source`` to ``target`` in BAGEL's layout, or only with a tokenizer, and return ``target``."""
    target.mkdir()
    settings = json.loads((source / "config.json").read_text())
    for name in ("ema.safetensors", "ae.safetensors"):
        shutil.copy(source / name, target)
    if keep_config:
        shutil.copy(source / "config.json", target)
    else:
        _write_configs(settings, target)
    delimiters = {token: settings["special"][name] for name, token in DELIMITERS.items()}
    free = (i for i in range(settings["llm"]["vocab_size"]) if i not in delimiters.values())
    vocabulary = dict(zip(words_of_the_prompts(), free, strict=False)) | delimiters
    assert vocabulary.keys() >= set(words_of_the_prompts()), "the vocabulary is too small for the prompts"
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="image"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(list(DELIMITERS.values()))
    tokenizer.save(str(target / "tokenizer.json"))
    return target


def _write_configs(settings: dict[str, Any], target: Path) -> None:
    (target / "llm_config.json").write_text(json.dumps(settings["llm"]))
    seen = settings["vit"] | {"num_hidden_layers": settings["vit"]["num_hidden_layers"] + 1}
    (target / "vit_config.json").write_text(json.dumps(seen))
    kept = {name: settings[name] for name in ("vae_transform", "vit_transform")}
    # The class default of the latent table's side, which is wrong in BAGEL's layout.
    (target / "config.json").write_text(json.dumps(kept | {"max_latent_size": 32, "architectures": ["Bagel"]}))
