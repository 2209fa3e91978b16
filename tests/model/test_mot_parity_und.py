"""Reading an image and a question, and answering, against the original code, tensor by tensor."""

from __future__ import annotations

import itertools
import os
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from uare_rt.errors import InputError, UsageError
from uare_rt.model.decoding import decode_text, predictions
from uare_rt.model.unified import EMPTY, Block, Context

sys.path.insert(0, str(Path(__file__).parent))  # these modules run without any conftest too
from mot_reference import Outputs, Reference, decoder_layers, relative_rms, stored

FIXTURES = Path(os.environ.get("UARE_MOT_FIXTURES", Path(__file__).parents[1] / "data" / "mot-tiny"))


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference(FIXTURES, "und")


def blocks(reference: Reference) -> tuple[Block, Block]:
    model, inputs = reference.model, reference.inputs
    return model.vision_block(inputs["vit_image"]), model.text_block(inputs["question_ids"].tolist())


def append(reference: Reference, name: str, context: Context, block: Block) -> tuple[Context, dict[str, Tensor]]:
    with Outputs(decoder_layers(reference)) as caught:
        context, hidden = reference.model.extend(context, [block])
    tensors = {"input_embed": block.embeddings, "hidden": hidden, **caught}
    tensors |= {"k": stored(context.cache.k), "v": stored(context.cache.v)}
    return context, {f"{name}.{key}": value for key, value in tensors.items()}


@torch.no_grad()
def run(reference: Reference) -> dict[str, Tensor]:
    model = reference.model
    image, text = blocks(reference)
    context, produced = append(reference, "image", EMPTY, image)
    start = context.position
    context, more = append(reference, "text", context, text)
    produced |= more
    special = model.config.special
    produced["text.token_ids"] = torch.tensor([special.bos, *reference.inputs["question_ids"].tolist(), special.eos])
    produced["text.position_ids"] = start + torch.tensor(text.offsets)
    _, more = append(reference, "textonly", EMPTY, text)
    produced |= more
    produced["textonly.logits_all"] = model.logits(produced["textonly.hidden"])
    answers = list(itertools.islice(predictions(model, context), reference.settings["greedy_tokens"]))
    produced["greedy.fed_ids"] = torch.tensor([a.fed for a in answers])
    produced["greedy.position_ids"] = torch.tensor([a.position for a in answers])
    produced["greedy.logits"] = torch.stack([a.logits for a in answers])
    produced["greedy.next_ids"] = torch.tensor([a.chosen for a in answers])
    return produced


@pytest.fixture(scope="module")
def produced(reference: Reference) -> dict[str, Tensor]:
    return run(reference)


def test_no_expected_tensor_is_left_out(reference: Reference, produced: dict[str, Tensor]) -> None:
    assert produced.keys() == reference.expected.keys()


def test_every_tensor_agrees(reference: Reference, produced: dict[str, Tensor]) -> None:
    assert reference.faults(produced) == []


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_within_twice_the_reference_error(dtype: torch.dtype) -> None:
    half = Reference(FIXTURES, "und", dtype)
    # A different choice of a token would change all that follows it.
    assert half.half_faults({name: got for name, got in run(half).items() if not name.startswith("greedy.")}) == []


@torch.no_grad()
def test_one_fused_pass_leaves_the_same_cache(reference: Reference) -> None:
    context, hidden = reference.model.extend(EMPTY, blocks(reference))
    expected = reference.expected
    assert relative_rms(stored(context.cache.k), expected["text.k"]) < 2e-5
    assert relative_rms(stored(context.cache.v), expected["text.v"]) < 2e-5
    assert relative_rms(hidden, torch.cat((expected["image.hidden"], expected["text.hidden"]))) < 2e-5
    assert context.position == 1 + len(expected["text.token_ids"])


@torch.no_grad()
def test_a_context_is_left_as_it_was(reference: Reference) -> None:
    image, text = blocks(reference)
    before, _ = reference.model.extend(EMPTY, [image])
    after, _ = reference.model.extend(before, [text])
    assert before.tokens == image.length
    assert before.position == image.advance
    shorter = after.before([text])
    assert shorter.position == before.position
    assert torch.equal(shorter.cache.k, before.cache.k)


@torch.no_grad()
def test_decoding_stops_before_eos_or_at_the_limit(reference: Reference) -> None:
    context, _ = reference.model.extend(EMPTY, blocks(reference))
    chosen = reference.expected["greedy.next_ids"].tolist()
    if reference.model.config.special.eos in chosen:
        chosen = chosen[: chosen.index(reference.model.config.special.eos)]
    assert decode_text(reference.model, context, limit=reference.settings["greedy_tokens"]) == chosen
    assert decode_text(reference.model, context, limit=2) == chosen[:2]


@torch.no_grad()
def test_sampled_decoding_repeats_with_its_seed(reference: Reference) -> None:
    context, _ = reference.model.extend(EMPTY, blocks(reference))

    def sampled(seed: int) -> list[int]:
        return decode_text(reference.model, context, limit=8, temperature=2.0, seed=seed)

    assert sampled(3) == sampled(3)
    assert len({tuple(sampled(seed)) for seed in range(4)}) > 1
    with pytest.raises(UsageError, match="temperature is -1"):
        decode_text(reference.model, context, temperature=-1)


def test_a_context_beyond_the_position_limit_is_refused(reference: Reference) -> None:
    limit = reference.model.config.position_limit
    text = reference.model.text_block([0] * (limit - 1))
    with pytest.raises(UsageError, match=f"needs {limit + 1} positions, but the model's limit is {limit}"):
        reference.model.extend(EMPTY, [text])


def test_a_token_outside_the_vocabulary_is_refused(reference: Reference) -> None:
    size = reference.model.config.vocabulary
    with pytest.raises(InputError, match=f"token id {size} is outside the vocabulary of {size}"):
        reference.model.text_block([size])
