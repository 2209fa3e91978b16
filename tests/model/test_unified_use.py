"""Assessing and restoring a picture with the tiny checkpoint, through the calls that people use."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from bagel_layout import bagel_layout
from numpy.typing import NDArray
from safetensors.torch import load_file

from uare_rt.errors import InputError, UsageError
from uare_rt.model.assessment import answer, assess, compare, describe, picture_block
from uare_rt.model.checkpoint import load_unified
from uare_rt.model.flow import Guidance, GuidanceWarning
from uare_rt.model.prompts import Answer, Interview, QuestionIds, choice_ids, load_prompts, question_ids
from uare_rt.model.restoration import restore
from uare_rt.model.sampling import Branches, Flow, read_branches, sample
from uare_rt.model.tokens import TextTokenizer
from uare_rt.model.transforms import normalise, resize, to_pixels
from uare_rt.model.unified import EMPTY, UnifiedModel
from uare_rt.slots import DEGRADATIONS, LEVELS, SLOTS
from uare_rt.vlm.noise import Noise
from uare_rt.vlm.prompts import verdict_text

TINY = Path(__file__).parents[1] / "data" / "mot-tiny"
FLOW = Flow(points=4, guidance=Guidance(4.0, 2.0, "text_channel"))


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> tuple[UnifiedModel, TextTokenizer]:
    model, tokenizer = load_unified(bagel_layout(TINY, tmp_path_factory.mktemp("checkpoint") / "bagel"))
    assert tokenizer is not None
    return model, tokenizer


@pytest.fixture(scope="module")
def picture() -> NDArray[np.uint8]:
    return load_file(TINY / "inputs.safetensors")["raw_image"].numpy()


@pytest.fixture(scope="module")
def questions(loaded: tuple[UnifiedModel, TextTokenizer]) -> QuestionIds:
    return question_ids(load_prompts(), loaded[1])


def test_the_prompts_ask_for_every_slot_and_level(questions: QuestionIds) -> None:
    prompts = load_prompts()
    assert tuple(prompts.answers) == SLOTS
    assert [len(prompts.answers[slot].levels) for slot in SLOTS] == [len(LEVELS[slot]) for slot in SLOTS]
    assert len(questions.answers) == len(SLOTS)


@torch.no_grad()
def test_one_pass_answers_as_if_every_slot_were_asked_alone(
    loaded: tuple[UnifiedModel, TextTokenizer], picture: NDArray[np.uint8], questions: QuestionIds
) -> None:
    model, _ = loaded
    calls = []
    handle = model.language.mot.layers[0].register_forward_hook(lambda *_: calls.append(1))
    verdict = assess(model, picture, questions)
    handle.remove()
    assert len(calls) == 1
    context, _ = model.extend(EMPTY, [picture_block(model, picture)])
    context, _ = model.extend(context, [model.text_block(questions.question)])
    for slot, ids in zip(SLOTS, questions.answers, strict=True):
        follow = context
        for token in (model.config.special.bos, *ids.prefix):
            follow, hidden = model.extend(follow, [model.tokens_block([token])])
        alone = torch.softmax(model.logits(hidden)[0, list(ids.levels)].double(), dim=0)
        np.testing.assert_allclose(verdict.probabilities[slot], alone.numpy(), rtol=1e-4)
    assert verdict.context.position == context.position
    torch.testing.assert_close(verdict.context.cache.k, context.cache.k, rtol=1e-4, atol=1e-5)
    assert 1 <= verdict.score <= 5
    assert all(0 <= severity <= 1 for severity in verdict.severities.values())
    assert "quality" in verdict.sentence


def test_levels_that_begin_alike_are_refused(loaded: tuple[UnifiedModel, TextTokenizer]) -> None:
    prompts = load_prompts()
    alike = Answer("The noise in this image is", (" slight", " slight", " moderate", " strong", " severe"))
    broken = msgspec.structs.replace(prompts, answers=prompts.answers | {"noise": alike})
    with pytest.raises(InputError, match="noise: two of the levels"):
        question_ids(broken, loaded[1])


def test_prompts_without_a_slot_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "prompts.yaml"
    compare = "compare: {question: d, prefix: e, words: [f, g]}"
    path.write_text(f"question: a\nanswers: {{}}\ndescribe: b\nrestore: c\n{compare}\n")
    with pytest.raises(InputError, match=r"prompts.yaml: answers are for .*, but must be for quality"):
        load_prompts(path)
    path.write_text("question: a\nanswer: {}\n")
    with pytest.raises(InputError, match="not a file of prompts"):
        load_prompts(path)


def test_a_restored_picture_has_the_input_size_and_repeats_with_its_seed(
    loaded: tuple[UnifiedModel, TextTokenizer], picture: NDArray[np.uint8]
) -> None:
    model, tokenizer = loaded
    instruction = tokenizer.encode(load_prompts().restore)
    steps = []
    first = restore(model, picture, instruction, FLOW, seed=1, watch=lambda step: steps.append(step.index))
    again = restore(model, picture, instruction, FLOW, seed=1)
    other = restore(model, picture, instruction, FLOW, seed=2)
    assert first.picture.shape == picture.shape
    assert first.generated.shape == (80, 96, 3)
    assert np.array_equal(first.picture, again.picture)
    assert not np.array_equal(first.picture, other.picture)
    assert steps == [0, 1, 2]


def test_restoring_is_the_reference_order_of_contexts(
    loaded: tuple[UnifiedModel, TextTokenizer], picture: NDArray[np.uint8]
) -> None:
    """The reference's own picture, with its noise put in place of the seeded one."""
    model, _ = loaded
    inputs, expected = (load_file(TINY / f"{name}.safetensors") for name in ("inputs", "expected_gen"))
    guidance = Guidance(4.0, 2.0, "text_channel")
    latent = model.codec.encode(inputs["vae_image"])
    text = model.text_block(inputs["edit_ids"].tolist())
    blocks = [model.latent_block(latent), picture_block(model, picture), text]
    branches = read_branches(model, blocks, guidance)
    tokens = sample(model, branches, inputs["noise"], (5, 6), Flow(5, 3.0, guidance))
    torch.testing.assert_close(tokens, expected["sample.text_channel.final"], rtol=0, atol=1e-4)


def test_a_verdict_is_told_in_the_words_of_the_answers() -> None:
    odds = {slot: np.eye(5)[0] for slot in SLOTS} | {"quality": np.eye(5)[1], "haze": np.eye(5)[3]}
    assert verdict_text(load_prompts(), odds) == "The quality of this image is poor. The haze in this image is strong."
    worst = verdict_text(load_prompts(), {slot: np.eye(5)[4] for slot in SLOTS})
    assert worst.count(".") == len(SLOTS)
    assert all(name.split("_")[-1] in worst for name in DEGRADATIONS)


@torch.no_grad()
def test_the_models_own_verdict_guides_its_restoration(
    loaded: tuple[UnifiedModel, TextTokenizer], picture: NDArray[np.uint8]
) -> None:
    """One context, read at once, must be the same as every block appended in turn."""
    model, tokenizer = loaded
    prompts = load_prompts()
    interview, instruction = Interview(prompts, tokenizer), tokenizer.encode(prompts.restore)
    guided = restore(model, picture, instruction, FLOW, seed=1, interview=interview)
    plain = restore(model, picture, instruction, FLOW, seed=1)
    assert plain.verdict is None
    assert guided.verdict is not None
    assert not np.array_equal(guided.picture, plain.picture)

    fitted = normalise(resize(picture, model.config.vae_transform))
    images = [model.latent_block(model.codec.encode(fitted)), picture_block(model, picture)]
    texts = [interview.questions.question, interview.verdict(guided.verdict.probabilities), instruction]
    context = EMPTY
    for block in images:
        context, _ = model.extend(context, [block])
    contexts, image_free = [context], EMPTY
    for ids in texts:
        contexts.append(model.extend(contexts[-1], [model.text_block(ids)])[0])
        image_free, _ = model.extend(image_free, [model.text_block(ids)])
    branches = Branches(contexts[-1], contexts[1], image_free)
    grid = (fitted.shape[1] // model.config.latent_stride, fitted.shape[2] // model.config.latent_stride)
    noise = torch.from_numpy(Noise(1).normal(grid[0] * grid[1], model.config.latent_width))
    expected = to_pixels(model.picture(sample(model, branches, noise, grid, FLOW), grid))
    assert np.abs(guided.generated.astype(int) - expected).max() <= 1


@torch.no_grad()
def test_a_verdict_depends_on_the_context_it_is_asked_in(
    loaded: tuple[UnifiedModel, TextTokenizer], picture: NDArray[np.uint8], questions: QuestionIds
) -> None:
    model, _ = loaded
    seen = picture_block(model, picture)
    alone, after = (answer(model, blocks, questions) for blocks in ([seen], [seen, seen]))
    assert np.array_equal(alone.probabilities["quality"], assess(model, picture, questions).probabilities["quality"])
    assert after.context.tokens == alone.context.tokens + seen.length
    assert not np.allclose(alone.probabilities["quality"], after.probabilities["quality"], rtol=1e-4)


@torch.no_grad()
def test_two_pictures_are_compared_in_one_context(
    loaded: tuple[UnifiedModel, TextTokenizer], picture: NDArray[np.uint8]
) -> None:
    model, tokenizer = loaded
    choice = choice_ids(load_prompts().compare, tokenizer)
    other = np.ascontiguousarray(picture[::-1, :60])
    odds = compare(model, picture, other, choice)
    context = EMPTY
    for block in (picture_block(model, picture), picture_block(model, other), model.text_block(choice.question)):
        context, _ = model.extend(context, [block])
    _, hidden = model.extend(context, [model.tokens_block([model.config.special.bos, *choice.answer.prefix])])
    alone = torch.softmax(model.logits(hidden[-1:])[0, list(choice.answer.levels)], dim=0)
    assert odds == pytest.approx(float(alone[1]), rel=1e-4)
    assert odds != pytest.approx(compare(model, other, picture, choice), rel=1e-3)


def test_a_description_follows_the_picture_and_repeats_with_its_seed(
    loaded: tuple[UnifiedModel, TextTokenizer], picture: NDArray[np.uint8]
) -> None:
    model, tokenizer = loaded
    request = tokenizer.encode(load_prompts().describe)
    greedy = describe(model, picture, request, limit=5)
    assert 1 <= len(greedy) <= 5
    assert greedy == describe(model, picture, request, limit=5, seed=9)
    hot = [describe(model, picture, request, limit=5, temperature=5.0, seed=seed) for seed in (1, 1, 2)]
    assert hot[0] == hot[1] != hot[2]
    with pytest.raises(UsageError, match="temperature is -1"):
        describe(model, picture, request, temperature=-1.0)
    with pytest.raises(UsageError, match="limit is 0"):
        describe(model, picture, request, limit=0)


def test_a_sampled_posterior_differs_from_the_mean_and_repeats(
    loaded: tuple[UnifiedModel, TextTokenizer], picture: NDArray[np.uint8]
) -> None:
    model, tokenizer = loaded
    instruction = tokenizer.encode(load_prompts().restore)
    mean = restore(model, picture, instruction, FLOW, seed=1)
    sampled = [restore(model, picture, instruction, FLOW, seed=1, sample_posterior=True) for _ in range(2)]
    assert np.array_equal(sampled[0].picture, sampled[1].picture)
    assert not np.array_equal(sampled[0].picture, mean.picture)


def test_no_evaluation_is_refused(loaded: tuple[UnifiedModel, TextTokenizer], picture: NDArray[np.uint8]) -> None:
    with pytest.raises(UsageError, match="0 time points make no evaluation"):
        restore(loaded[0], picture, [1], Flow(points=0))


def test_a_picture_beyond_the_tables_is_refused(loaded: tuple[UnifiedModel, TextTokenizer]) -> None:
    model, _ = loaded
    side = model.config.latent_side
    with pytest.raises(InputError, match="beyond the position table of 8x8"):
        model.latent_block(torch.zeros(model.config.codec.latent_channels, 2, 2 * (side + 1)))


def test_guidance_that_compares_a_context_with_itself_is_told(
    loaded: tuple[UnifiedModel, TextTokenizer], picture: NDArray[np.uint8]
) -> None:
    model, _ = loaded
    with pytest.warns(GuidanceWarning, match="does not end with a text"):
        read_branches(model, [picture_block(model, picture)], Guidance(4.0))
    with pytest.warns(GuidanceWarning, match="no image in the context"):
        read_branches(model, [model.text_block([1])], Guidance(4.0, 2.0))


def test_noise_of_another_size_is_refused(loaded: tuple[UnifiedModel, TextTokenizer]) -> None:
    model, _ = loaded
    branches = read_branches(model, [model.text_block([1])], Guidance())
    with pytest.raises(UsageError, match=r"noise is \[3, 16\], but a grid of 2x2 needs \[4, 16\]"):
        sample(model, branches, torch.zeros(3, 16), (2, 2), FLOW)
