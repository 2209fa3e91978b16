"""Sessions of ``uare-7b``: a unified model's graphs on a backend, assessing, describing, comparing, restoring."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from uare_rt.errors import InputError, UsageError
from uare_rt.executables import Executables
from uare_rt.frames import check_frame, from_unit, to_uint8, to_unit
from uare_rt.machine import available_memory
from uare_rt.quality import Judgement, read_slots
from uare_rt.slots import SLOTS, softmax
from uare_rt.vlm.decoding import LIMIT, check_decoding, pick
from uare_rt.vlm.engine import Embedding, Engine
from uare_rt.vlm.flow import EDITING
from uare_rt.vlm.noise import Noise
from uare_rt.vlm.prompts import Interview, choice_ids
from uare_rt.vlm.sampling import Branches, sample
from uare_rt.vlm.tokens import TextTokenizer
from uare_rt.vlm.transforms import resize, resize_to, to_pixels

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import TypeAlias

    from numpy.typing import NDArray

    from uare_rt.backends.base import Backend
    from uare_rt.bundle import Bundle
    from uare_rt.manifest import UnifiedManifest
    from uare_rt.vlm.contexts import Block, Context
    from uare_rt.vlm.flow import Flow
    from uare_rt.vlm.prompts import AnswerIds

__all__ = ["RestoredPicture", "UnifiedSession"]

Residency: TypeAlias = Literal["all", "one"]
_TOGETHER = ("denoise", "velocity")  # forecasts alternate between them
_DECODERS = 3  # graphs that hold the decoder's weights


@dataclass(frozen=True, eq=False)
class RestoredPicture:
    """A restored image.

    Attributes:
        image: dtype and size of the input, [H, W, 3], RGB.
        generated: uint8 [H', W', 3], as decoded at the size the model works at.
        assessment: of the input, as the model said it before it restored; None where it was not asked.
        evaluations: of the flow.
        seconds: wall time of the whole call.
    """

    image: NDArray[Any]
    generated: NDArray[np.uint8]
    assessment: Judgement | None
    evaluations: int
    seconds: float


class UnifiedSession:
    """A ``uare-7b`` bundle on a backend. Made by ``uare_rt.load``; needs no PyTorch.

    Graphs are loaded when they are first needed. As a context manager it closes itself.

    Args:
        bundle: an opened bundle.
        backend: where its graphs run.
        threads: processor threads for one run; None takes all cores this process may use.
        residency: ``all`` keeps every graph that was loaded; ``one`` releases the graphs of the other steps before it
            loads one; None takes ``one`` where the memory that is free would not hold the weights of all.
    """

    def __init__(
        self, bundle: Bundle, backend: Backend, *, threads: int | None = None, residency: Residency | None = None
    ) -> None:
        self._bundle, self._manifest = bundle, bundle.unified
        layout = self._manifest.unified
        self._graphs = Executables(bundle, backend, threads)
        self._alone = _alone(bundle) if residency is None else residency == "one"
        self._engine = Engine(layout, Embedding(bundle.file(layout.embedding), layout), self._run)
        self._tokenizer: TextTokenizer | None = None

    @property
    def manifest(self) -> UnifiedManifest:
        """What the bundle contains."""
        return self._manifest

    @property
    def backend(self) -> str:
        """Name of the backend in use."""
        return self._graphs.backend

    @property
    def scales(self) -> tuple[int, ...]:
        """Output scales that the bundle offers."""
        return self._manifest.scales

    def assess(self, image: NDArray[Any]) -> Judgement:
        """Say how good an image is and what is wrong with it, in one pass of the decoder.

        Args:
            image: uint8, uint16 or float32 in [0, 1], [H, W, 3], RGB, any size.

        Raises:
            InputError: the array is of another kind, or its shape is beyond the patch table.
            BackendError: inference failed.
            UsageError: the session is closed.
        """
        interview = self._interview()
        seen = self._engine.vision_block(_pixels(image))
        return self._asked([seen], interview)[1]

    def describe(self, image: NDArray[Any], *, limit: int = LIMIT, temperature: float = 0.0, seed: int = 0) -> str:
        """Describe an image's quality in the model's own words.

        Args:
            image: as for `assess`.
            limit: tokens, at most.
            temperature: 0 picks the most likely words, above 0 samples.
            seed: of the samples.

        Raises:
            UsageError: a setting cannot be used, or the answer came to the model's position limit.
            InputError: as for `assess`.
        """
        check_decoding(temperature, limit)
        engine, tokenizer = self._engine, self._texts()
        request = engine.text_block(tokenizer.encode(self._manifest.unified.prompts.describe))
        context, _ = engine.extend(engine.empty, [engine.vision_block(_pixels(image)), request])
        special, noise = self._manifest.unified.special, Noise(seed)
        ids: list[int] = []
        token = special.bos
        while len(ids) < limit:
            context, logits = engine.follow(context, token)
            token = pick(logits, temperature, noise)
            if token == special.eos:
                break
            ids.append(token)
        return tokenizer.decode(ids)

    def compare(self, first: NDArray[Any], second: NDArray[Any]) -> float:
        """The probability, 0 to 1, that the second image is the better one, both in one context.

        Args:
            first: as for `assess`.
            second: as for `assess`, of any size.

        Raises:
            InputError: as for `assess`.
            UsageError: both are too large for one context, or the session is closed.
        """
        engine = self._engine
        choice = choice_ids(self._manifest.unified.prompts.compare, self._texts())
        seen = [engine.vision_block(_pixels(image)) for image in (first, second)]
        _, (odds,) = self._odds([*seen, engine.text_block(choice.question)], [choice.answer])
        return float(odds[1])

    def restore(
        self,
        image: NDArray[Any],
        *,
        flow: Flow = EDITING,
        seed: int = 0,
        verdict: bool = True,
        instruction: Sequence[int] | None = None,
        sample_posterior: bool = False,
        strength: float = 1.0,
        tile: int | None = None,
        noise: NDArray[np.float32] | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> RestoredPicture:
        """Restore an image.

        The same seed gives the same picture as in PyTorch, but for rounding.

        Args:
            image: uint8, uint16 or float32 in [0, 1], [H, W, 3], RGB, any size; the model works in 8 bits.
            flow: schedule and guidance.
            seed: of the noise, and of the posterior's before it; 0 to 2^64 - 1.
            verdict: let the model assess the image in the same context first, and be guided by its own verdict.
            instruction: token ids without delimiters; None takes the preset's text.
            sample_posterior: sample the input's latent as the reference does, instead of taking its mean.
            strength: 0 gives back the input, 1 the full restoration.
            tile: pixels along the side of what the autoencoder works on at once; None takes the whole picture, and
                tiles where memory does not allow that.
            noise: start of the flow, standard normal float32 [M, latent width], instead of the seed's.
            progress: called after every evaluation with the number done and the total; may raise to stop.

        Raises:
            InputError: the array is of another kind, or its shape is beyond a position table.
            UsageError: a setting cannot be used, the context is too long, or the session is closed.
            BackendError: inference failed, or there is not the memory for it.
        """
        began = time.perf_counter()
        if not 0.0 <= strength <= 1.0:
            raise UsageError(f"strength is {strength}, but must be from 0 to 1")
        layout, engine = self._manifest.unified, self._engine
        pixels = _pixels(image)
        interview = self._interview() if verdict else None
        if instruction is None:
            instruction = self._texts().encode(layout.prompts.restore)
        fitted = resize(pixels, layout.vae_transform)
        grid = (fitted.shape[0] // layout.latent_stride, fitted.shape[1] // layout.latent_stride)
        engine.latent_rows(grid)  # too large a picture is told before any work
        latent, start = self._latent(fitted, grid, Noise(seed), sample_posterior, tile)
        images = [engine.latent_block(latent), engine.vision_block(pixels)]
        branches, assessment = self._branches(images, engine.text_block(instruction), interview, flow)
        if noise is not None:
            if noise.shape != start.shape:
                raise UsageError(f"noise is {list(noise.shape)}, but this image needs {list(start.shape)}")
            start = np.asarray(noise, np.float32)
        tokens = sample(engine, branches, start, grid, flow, progress=progress)
        generated = to_pixels(engine.picture(tokens, grid, tile))
        restored = _blended(image, resize_to(generated, (image.shape[1], image.shape[0])), strength)
        return RestoredPicture(restored, generated, assessment, flow.points - 1, time.perf_counter() - began)

    def close(self) -> None:
        """Give back the memory of the graphs. Calls that are under way finish; later ones fail."""
        self._graphs.close()

    def __enter__(self) -> UnifiedSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, name: str, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        if self._alone:
            self._graphs.release(but=_TOGETHER if name in _TOGETHER else (name,))
        return self._graphs.run(name, inputs)

    def _texts(self) -> TextTokenizer:
        if self._tokenizer is None:
            files = self._manifest.unified.tokenizer
            if not files:
                raise InputError(
                    f"bundle {self._bundle.path} has no tokenizer, for its checkpoint had none: it reads no prompts; "
                    "put the tokenizer's files beside the checkpoint and export it again"
                )
            self._tokenizer = TextTokenizer(self._bundle.file(files[0]).parent)
        return self._tokenizer

    def _interview(self) -> Interview:
        return Interview(self._manifest.unified.prompts, self._texts())

    def _latent(
        self, fitted: NDArray[np.uint8], grid: tuple[int, int], draw: Noise, sampled: bool, tile: int | None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The input's latent, and the noise that the flow starts from."""
        layout = self._manifest.unified
        latent, spread = self._engine.encode(fitted, tile)
        if sampled:
            latent = latent + spread * draw.normal(*latent.shape)
        return latent, draw.normal(grid[0] * grid[1], layout.latent_width)

    def _odds(self, blocks: Sequence[Block], answers: Sequence[AnswerIds]) -> tuple[Context, list[NDArray[np.float64]]]:
        """The context of ``blocks``, and for every forced answer the odds of its words."""
        engine, bos = self._engine, self._manifest.unified.special.bos
        forced = [engine.tokens_block([bos, *answer.prefix]) for answer in answers]
        context, logits = engine.extend(engine.empty, blocks, forced)
        return context, [softmax(row[list(a.levels)]) for row, a in zip(logits, answers, strict=True)]

    def _asked(self, blocks: Sequence[Block], interview: Interview) -> tuple[Context, Judgement]:
        question = self._engine.text_block(interview.questions.question)
        context, odds = self._odds([*blocks, question], interview.questions.answers)
        return context, Judgement(**read_slots(dict(zip(SLOTS, odds, strict=True))))

    def _branches(
        self, images: Sequence[Block], asked: Block, interview: Interview | None, flow: Flow
    ) -> tuple[Branches, Judgement | None]:
        """The contexts of a restoration; texts that guide are the verdict, if there is one, and the instruction."""
        engine = self._engine
        if interview is None:
            main, _ = engine.extend(engine.empty, [*images, asked])
            text_free, texts, assessment = main.before([asked]), [asked], None
        else:
            text_free, assessment = self._asked(images, interview)
            rows = {slot: np.array(levels) for slot, levels in assessment.probabilities.items()}
            said = engine.text_block(interview.verdict(rows))
            main, _ = engine.extend(text_free, [said, asked])
            texts = [engine.text_block(interview.questions.question), said, asked]
        image_free = engine.extend(engine.empty, texts)[0] if flow.guidance.by_image else None
        return Branches(main, text_free, image_free), assessment


def _alone(bundle: Bundle) -> bool:
    """Whether the memory would not hold what the graphs make of the weights: each of the decoder's has its own."""
    free, weights = available_memory(), max(entry.bytes for entry in bundle.unified.files.values())
    return free is not None and _DECODERS * weights > free


def _pixels(image: NDArray[Any]) -> NDArray[np.uint8]:
    check_frame(image)
    return to_uint8(image)


def _blended(image: NDArray[Any], restored: NDArray[np.uint8], strength: float) -> NDArray[Any]:
    """The restored pixels in the input's dtype, mixed with the input."""
    if strength == 1 and image.dtype == np.uint8:
        return restored
    whole = to_unit(restored)
    if strength < 1:
        base = to_unit(image)
        whole = base + np.float32(strength) * (whole - base)
    return from_unit(whole, image.dtype)
