"""uare-7b exported and driven without PyTorch: the same answers and pictures as in PyTorch, for any dimensions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import onnx
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

import uare_rt
from uare_rt import backends
from uare_rt.bundle import Bundle
from uare_rt.errors import BackendError, BundleError, InputError, UsageError
from uare_rt.executables import Executables
from uare_rt.export import export_unified
from uare_rt.export.tracing import check_opset
from uare_rt.manifest import parse_manifest
from uare_rt.model.assessment import assess, compare, describe
from uare_rt.model.checkpoint import load_unified
from uare_rt.model.memory import MemoryOptions
from uare_rt.model.prompts import Interview, choice_ids, load_prompts
from uare_rt.model.restoration import restore
from uare_rt.vlm.codec import Codec
from uare_rt.vlm.flow import Flow, Guidance
from uare_rt.vlm.memory import decoder_pass_bytes
from uare_rt.vlm.session import UnifiedSession
from uare_rt.vlm.transforms import normalise, resize_to

sys.path.insert(0, str(Path(__file__).parents[1] / "model"))
from bagel_layout import bagel_layout
from random_checkpoint import random_checkpoint

if TYPE_CHECKING:
    from uare_rt.backends.base import Executable
    from uare_rt.bundle import GraphFile

TINY = Path(os.environ.get("UARE_MOT_FIXTURES", Path(__file__).parents[1] / "data" / "mot-tiny"))
DTYPES = {"fp16": "float16", "int8": "int8"}
FLOWS = {
    "guided": Flow(5, guidance=Guidance(4.0, 2.0, "text_channel")),
    "interval": Flow(4, guidance=Guidance(3.0, 1.5, "global", 0.3, (0.4, 1.0))),
    "plain": Flow(3),
    "forecast": Flow(25, guidance=Guidance(4.0, 2.0, "text_channel"), forecast=True),
}


def other_dimensions(target: Path) -> Path:
    """A random checkpoint with other dimensions, head size, aspect and delimiters than the reference set."""
    settings = json.loads((TINY / "config.json").read_text())
    settings["llm"] |= {"hidden_size": 96, "intermediate_size": 80, "num_hidden_layers": 2, "vocab_size": 150}
    settings["llm"] |= {"num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 24, "rope_theta": 1e4}
    settings["vit"] |= {"hidden_size": 40, "intermediate_size": 56, "num_attention_heads": 5}
    settings["vae"] |= {"ch_mult": [1, 2, 2], "z_channels": 6, "num_res_blocks": 2, "scale_factor": 0.7}
    settings["special"] = dict(zip(settings["special"], (140, 141, 142, 143), strict=True))
    settings |= {"vit_max_num_patch_per_side": 12, "max_latent_size": 16}
    settings["vae_transform"] = {"max_image_size": 96, "min_image_size": 40, "image_stride": 8}
    return random_checkpoint(target, settings, seed=5)


@pytest.fixture(scope="module", params=["reference", "other"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    source = TINY if request.param == "reference" else other_dimensions(folder / "plain")
    return bagel_layout(source, folder / "bagel", keep_config=request.param == "other")


@pytest.fixture(scope="module")
def bundle(checkpoint: Path) -> Path:
    return export_unified(checkpoint, checkpoint.with_name("tiny.uare"))


@pytest.fixture(scope="module")
def session(bundle: Path) -> UnifiedSession:
    session = uare_rt.load(bundle, backend="onnxruntime", threads=1)
    assert isinstance(session, UnifiedSession)
    return session


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return load_file(TINY / "inputs.safetensors")["raw_image"].numpy()


def test_every_graph_is_of_opset_20_and_equal_to_pytorch(bundle: Path) -> None:
    graphs = json.loads((bundle / "manifest.json").read_text())["graphs"]
    parts = {"vision", "prefill", "decode", "denoise", "velocity", "encode", "decode_image"}
    assert set(graphs) == parts | {"encode_outer", "encode_inner", "decode_inner", "decode_outer"}
    for name, spec in graphs.items():
        assert spec["relative_rms"] <= 2e-5, name
        model = onnx.load(bundle / spec["file"], load_external_data=False)
        check_opset(model)
        onnx.checker.check_model(str(bundle / spec["file"]), full_check=True)
        assert (bundle / spec["file"]).stat().st_size < 1 << 20  # weights are external


def test_answers_are_those_of_pytorch(checkpoint: Path, session: UnifiedSession, picture: np.ndarray) -> None:
    model, tokenizer = load_unified(checkpoint)
    prompts = load_prompts()
    other = np.ascontiguousarray(picture[::-1, :60])
    expected = assess(model, picture, Interview(prompts, tokenizer).questions)
    for slot, row in session.assess(picture).probabilities.items():
        np.testing.assert_allclose(row, expected.probabilities[slot], rtol=1e-4)
    preferred = compare(model, picture, other, choice_ids(prompts.compare, tokenizer))
    assert session.compare(picture, other) == pytest.approx(preferred, rel=1e-4)
    for settings in ({"limit": 4}, {"limit": 4, "temperature": 2.0, "seed": 3}):
        words = describe(model, picture, tokenizer.encode(prompts.describe), **settings)
        assert session.describe(picture, **settings) == tokenizer.decode(words)


@pytest.mark.parametrize("name", FLOWS)
def test_pictures_are_those_of_pytorch(
    checkpoint: Path, session: UnifiedSession, picture: np.ndarray, name: str
) -> None:
    model, tokenizer = load_unified(checkpoint)
    prompts = load_prompts()
    asked = name != "forecast"
    steps: list[tuple[int, int]] = []
    got = session.restore(
        picture,
        flow=FLOWS[name],
        seed=7,
        verdict=asked,
        sample_posterior=not asked,
        progress=lambda *done: steps.append(done),
    )
    expected = restore(
        model,
        picture,
        tokenizer.encode(prompts.restore),
        FLOWS[name],
        interview=Interview(prompts, tokenizer) if asked else None,
        seed=7,
        sample_posterior=not asked,
    )
    assert got.image.shape == picture.shape
    assert np.abs(got.generated.astype(int) - expected.generated).max() <= 1
    assert np.abs(got.image.astype(int) - expected.picture).max() <= 1
    count = FLOWS[name].points - 1
    assert steps == [(i + 1, count) for i in range(count)]
    assert (got.assessment is None) == (not asked)


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The contexts of every evaluation."""
    seen: list[int] = []
    run = Executables.run

    def watched(self: Executables, name: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        seen.extend(len(inputs["position"]) for _ in range(name == "denoise"))
        return run(self, name, inputs)

    monkeypatch.setattr(Executables, "run", watched)
    return seen


@pytest.mark.parametrize(
    ("guidance", "points", "forecast", "expected"),
    [
        (Guidance(4.0, 2.0, "text_channel"), 4, False, [3, 3, 3]),
        (Guidance(4.0), 4, False, [2, 2, 2]),
        (Guidance(4.0, 2.0, interval=(0.8, 1.0)), 4, False, [3, 3, 1]),
        (Guidance(4.0, 2.0), 10, True, [3, 3, 3, 3, 3, 3]),
    ],
)
def test_branches_in_one_batch_give_what_they_give_one_by_one(
    session: UnifiedSession,
    picture: np.ndarray,
    batches: list[int],
    guidance: Guidance,
    points: int,
    forecast: bool,
    expected: list[int],
) -> None:
    flows = [Flow(points, 3.0, guidance, forecast, batched=batched) for batched in (True, False)]
    together, apart = (session.restore(picture, flow=flow, seed=5).image.astype(int) for flow in flows)
    assert batches == [*expected, *[1] * sum(expected)]
    assert np.abs(together - apart).max() <= 1


@pytest.mark.parametrize(("free", "expected"), [(1 << 10, [1, 1, 1]), (1 << 40, [3]), (None, [3])])
def test_branches_are_batched_when_memory_allows(
    session: UnifiedSession,
    picture: np.ndarray,
    batches: list[int],
    monkeypatch: pytest.MonkeyPatch,
    free: int | None,
    expected: list[int],
) -> None:
    monkeypatch.setattr("uare_rt.vlm.engine.available_memory", lambda: free)
    session.restore(picture, flow=Flow(2, 3.0, Guidance(4.0, 2.0)), seed=5)
    assert batches == expected


@pytest.mark.parametrize("kind", ["fp16", "int8"])
def test_a_cache_in_fewer_bytes_gives_pytorchs_pictures(
    checkpoint: Path, picture: np.ndarray, kind: str, tmp_path: Path
) -> None:
    flow = FLOWS["guided"]
    model, tokenizer = load_unified(checkpoint, memory=MemoryOptions(cache=kind))
    interview = Interview(load_prompts(), tokenizer)
    asked = tokenizer.encode(load_prompts().restore)
    expected = restore(model, picture, asked, flow, interview=interview, seed=7)
    parts: list[float] = []
    small = export_unified(checkpoint, tmp_path / "small.uare", cache=kind, progress=lambda _, done: parts.append(done))
    assert parts == sorted(parts)
    assert (parts[0], parts[-1]) == (0, 1)
    with uare_rt.load(small, backend="onnxruntime") as session:
        got = session.restore(picture, flow=flow, seed=7)
        graph = session.manifest.graphs["denoise"]
        assert {i.dtype for i in graph.inputs if i.name in ("past_k", "past_v")} == {DTYPES[kind]}
    assert np.abs(got.generated.astype(int) - expected.generated).max() <= 1


def test_graphs_are_loaded_one_at_a_time_where_memory_is_short(
    bundle: Path, session: UnifiedSession, picture: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow = FLOWS["forecast"]
    loaded: list[str] = []
    released: list[set[str]] = []
    backend = backends.get("onnxruntime")

    class Watched:
        name, worth_sizing = backend.name, None

        def load(self, graph: GraphFile, *, threads: int | None, beside: int = 1) -> Executable:
            loaded.append(graph.name)
            return backend.load(graph, threads=threads, beside=beside)

    release = Executables.release
    monkeypatch.setattr(
        Executables, "release", lambda self, *, but: (released.append(set(but)), release(self, but=but))[1]
    )
    with UnifiedSession(Bundle.open(bundle), Watched(), threads=1, residency="one") as alone:
        got = alone.restore(picture, flow=flow, seed=3)
        assert loaded == ["encode", "vision", "prefill", "denoise", "velocity", "decode_image"]
        assert {"denoise", "velocity"} in released
        alone.assess(picture)
        assert loaded[6:] == ["vision", "prefill"]  # had been released
    assert np.array_equal(got.image, session.restore(picture, flow=flow, seed=3).image)
    monkeypatch.setattr("uare_rt.vlm.session.available_memory", lambda: 1000)
    with uare_rt.load(bundle, backend="onnxruntime") as poor:
        released.clear()
        poor.assess(picture)
        assert released


def test_the_autoencoder_runs_in_tiles(session: UnifiedSession, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in PyTorch: what is global stays global, whatever the tiles."""
    with Image.open(photo) as opened:
        image = normalise(resize_to(np.asarray(opened.convert("RGB")), (192, 128)))[None]
    sizes: list[int] = []
    run = Executables.run

    def watched(self: Executables, name: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        sizes.extend(max(x.shape[2:]) for x in inputs.values() if name == "encode_outer" and x.ndim == 4)
        return run(self, name, inputs)

    monkeypatch.setattr(Executables, "run", watched)
    codec = Codec(session.manifest.unified, session._graphs.run)
    (whole, spread), (mean, other) = codec.encode(image, None), codec.encode(image, 96)
    assert sizes
    assert max(sizes) <= 96
    for got, expected in ((mean, whole), (other, spread), (codec.decode(whole, 96), codec.decode(whole, None))):
        assert np.abs(got - expected).max() < 2 / 255
        assert np.sqrt(np.mean((got - expected) ** 2) / np.mean(expected**2)) < 1e-3
    sizes.clear()
    monkeypatch.setattr("uare_rt.vlm.codec.available_memory", lambda: 1000)
    monkeypatch.setattr("uare_rt.vlm.codec._TILE", 96)
    codec.encode(image, None)
    assert max(sizes) <= 96
    with pytest.raises(UsageError, match="tiles of 32 px are smaller than what their convolutions read"):
        session.restore(np.zeros((9, 9, 3), np.uint8), flow=Flow(2), tile=32)


def test_long_contexts_are_read_in_several_passes(
    session: UnifiedSession, picture: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One pass reads everything; where its scores would be too many, images are read one by one."""
    runs: list[str] = []
    run = Executables.run
    monkeypatch.setattr(Executables, "run", lambda self, name, inputs: (runs.append(name), run(self, name, inputs))[1])
    fused = session.restore(picture, flow=FLOWS["guided"], seed=7)
    passes = runs.count("prefill")
    assert passes == 3  # the question, the verdict, the texts without images
    monkeypatch.setattr("uare_rt.vlm.engine._PAIRS", 1000)
    runs.clear()
    parted = session.restore(picture, flow=FLOWS["guided"], seed=7)
    assert runs.count("prefill") > passes + 1
    assert np.abs(parted.generated.astype(int) - fused.generated).max() <= 1


def test_too_little_memory_is_told_before_a_step(
    session: UnifiedSession, picture: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("uare_rt.vlm.memory.SMALL", 0)
    monkeypatch.setattr("uare_rt.vlm.memory.available_memory", lambda: 1000)
    with pytest.raises(BackendError, match=r"not enough memory: encoding a picture of \d+x\d+ px needs about"):
        session.restore(picture, flow=Flow(2))
    with pytest.raises(BackendError, match=r"not enough memory: reading \d+ tokens after 0 needs about"):
        session.assess(picture)


@pytest.mark.parametrize("batched", [True, False])
def test_evaluations_are_refused_before_the_first_alone(
    session: UnifiedSession, picture: np.ndarray, monkeypatch: pytest.MonkeyPatch, batched: bool
) -> None:
    """What the first one took stays with the backend for the next, and is no longer free."""
    free = [1 << 40]
    monkeypatch.setattr("uare_rt.vlm.memory.SMALL", 0)
    monkeypatch.setattr("uare_rt.vlm.memory.available_memory", lambda: free[0])
    flow = Flow(4, guidance=Guidance(4.0, 2.0), batched=batched)

    def taken(done: int, total: int) -> None:
        free[0] = 1000 if done < total else 1 << 40

    assert session.restore(picture, flow=flow, progress=taken).evaluations == 3
    run = Executables.run

    def watched(self: Executables, name: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        assert name != "denoise"
        free[0] = 1000 if name == "prefill" else free[0]
        return run(self, name, inputs)

    monkeypatch.setattr(Executables, "run", watched)
    way_out = "or do not batch branches" if batched else "use a smaller picture or a shorter text"
    with pytest.raises(BackendError, match=rf"evaluating \d+ latent tokens after \d+ needs about .*{way_out}$"):
        session.restore(picture, flow=Flow(4, guidance=Guidance(4.0), batched=batched), verdict=False)


def test_copies_of_contexts_are_counted_as_they_are_stored(session: UnifiedSession) -> None:
    layout = session.manifest.unified
    values = 2 * layout.layers * layout.kv_heads * layout.head_dim
    for kind, width in {"same": 4, "fp16": 2, "int8": 1}.items():
        stored = msgspec.structs.replace(layout, cache=kind)
        alone, three = (decoder_pass_bytes(stored, 10, seen, 3) for seen in (0, 100))
        scores = 4 * 10 * 100 * (2 * layout.heads // layout.kv_heads + 1)
        assert three - alone == 3 * (100 * values * width + scores)


def test_a_bundle_of_other_graphs_is_refused(bundle: Path) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["unified"]["interface"] -= 1
    with pytest.raises(BundleError, match=r"graphs have interface 1, this uare-rt drives .*; export the bundle again"):
        parse_manifest(json.dumps(manifest).encode(), "old.uare")


def test_seeds_repeat_and_differ(session: UnifiedSession, picture: np.ndarray) -> None:
    flow = Flow(3)
    first, again, other = (session.restore(picture, flow=flow, seed=seed, verdict=False).image for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    with pytest.raises(UsageError, match="seed is -1"):
        session.restore(picture, flow=flow, seed=-1)


def test_a_restoration_is_stopped_between_steps(session: UnifiedSession, picture: np.ndarray) -> None:
    class Stopped(Exception):
        pass

    def stop(done: int, _total: int) -> None:
        if done == 2:
            raise Stopped

    with pytest.raises(Stopped):
        session.restore(picture, flow=Flow(9), progress=stop)
    assert session.restore(picture, flow=Flow(2), verdict=False).evaluations == 1


def test_other_samples_and_strengths(session: UnifiedSession, picture: np.ndarray) -> None:
    wide = picture.astype(np.uint16) * 257
    assert np.array_equal(session.restore(wide, flow=Flow(2), strength=0.0).image, wide)
    whole = session.restore(picture, flow=Flow(2)).image
    assert np.array_equal(session.restore(wide, flow=Flow(2)).image, whole.astype(np.uint16) * 257)


def test_a_long_text_is_refused(session: UnifiedSession, picture: np.ndarray) -> None:
    limit = session.manifest.unified.position_limit
    with pytest.raises(UsageError, match=f"but the model's limit is {limit}"):
        session.restore(picture, instruction=[1] * limit, flow=Flow(2), verdict=False)


def test_without_a_tokenizer_ids_still_restore(picture: np.ndarray, tmp_path: Path) -> None:
    """The reference's own picture, from its noise and its instruction."""
    settings = json.loads((TINY / "config.json").read_text())
    inputs, expected = (load_file(TINY / f"{part}.safetensors") for part in ("inputs", "expected_gen"))
    scales = (settings["cfg_text_scale"], settings["cfg_img_scale"])
    flow = Flow(settings["num_timesteps"], settings["timestep_shift"], Guidance(*scales, "text_channel"))
    with uare_rt.load(export_unified(TINY, tmp_path / "plain.uare"), backend="onnxruntime") as session:
        got = session.restore(
            picture,
            flow=flow,
            verdict=False,
            instruction=settings["edit_ids"],
            noise=inputs["noise"].numpy(),
        )
        with pytest.raises(InputError, match="has no tokenizer"):
            session.assess(picture)
    image = expected["sample.text_channel.image_u8"].numpy().astype(int)
    assert np.abs(got.generated - image).max() <= 1


def test_half_weights_stay_half_and_give_pytorchs_values(tmp_path: Path) -> None:
    """A checkpoint in bf16, as the release is: stored as it is, computed in float32."""
    source = tmp_path / "half"
    source.mkdir()
    (source / "config.json").write_text((TINY / "config.json").read_text())
    for name in ("ema", "ae"):
        tensors = load_file(TINY / f"{name}.safetensors")
        save_file({key: value.bfloat16() for key, value in tensors.items()}, source / f"{name}.safetensors")
    bundle = export_unified(source, tmp_path / "half.uare")
    stored = (bundle / "weights.bin").stat().st_size + (bundle / "embedding.bin").stat().st_size
    weights = sum((TINY / f"{name}.safetensors").stat().st_size for name in ("ema", "ae"))
    assert stored < 0.65 * weights
    graphs = json.loads((bundle / "manifest.json").read_text())["graphs"]
    assert {spec["relative_rms"] <= 2e-5 for spec in graphs.values()} == {True}


def test_the_session_needs_no_torch(bundle: Path, tmp_path: Path) -> None:
    script = (
        "import sys; sys.modules['torch'] = None; sys.modules['onnx'] = None; sys.modules['yaml'] = None\n"
        "import numpy as np, uare_rt\n"
        "from uare_rt.vlm.flow import Flow\n"
        f"session = uare_rt.load({str(bundle)!r}, backend='onnxruntime', threads=1)\n"
        "picture = np.arange(40 * 50 * 3, dtype=np.uint32).reshape(40, 50, 3).astype(np.uint8)\n"
        "assert session.restore(picture, flow=Flow(2)).image.shape == picture.shape\n"
        "session.describe(picture, limit=2)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
