"""uare-7b through `uare-rt`, on a checkpoint directory and on its bundle; every run is a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from uare_rt.export import export_unified

sys.path.insert(0, str(Path(__file__).parents[1] / "model"))
from bagel_layout import bagel_layout

TINY = Path(__file__).parents[1] / "data" / "mot-tiny"
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bagel_layout(TINY, tmp_path_factory.mktemp("checkpoint") / "bagel")


@pytest.fixture(scope="module")
def bundle(checkpoint: Path) -> Path:
    return export_unified(checkpoint, checkpoint.with_name("tiny.uare"))


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    Image.fromarray(load_file(TINY / "inputs.safetensors")["raw_image"].numpy()).save(path)
    return path


@pytest.fixture
def run(tmp_path: Path) -> Run:
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache")}

    def call(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "uare_rt.cli", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)

    return call


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    """The error of a failed run, which must be one line."""
    assert done.returncode in (1, 2), done.stderr
    assert "Traceback" not in done.stderr
    told = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(told) == 1, done.stderr
    return told[0]


def test_a_checkpoint_directory_is_exported_once_and_then_reused(
    run: Run, checkpoint: Path, photo: Path, tmp_path: Path
) -> None:
    arguments = ("restore", photo, "--model", checkpoint, "--steps", 2, "--seed", 1, "-o")
    first = run(*arguments, "one.png")
    assert first.returncode == 0, first.stderr
    assert "exporting it once" in first.stderr
    second = run(*arguments, "two.png")
    assert second.returncode == 0
    assert "exporting" not in second.stderr
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


def test_commands_run_on_a_bundle(run: Run, bundle: Path, photo: Path, tmp_path: Path) -> None:
    done = run("restore", photo, "--model", bundle, "--steps", 2, "--seed", 1, "-o", "out.png", "--json")
    assert done.returncode == 0, done.stderr
    (record,) = json.loads(done.stdout)
    assert (record["width"], record["height"], record["evaluations"]) == (100, 75, 2)
    assert np.asarray(Image.open(tmp_path / "out.png")).shape == (75, 100, 3)
    (assessed,) = json.loads(run("assess", photo, "--model", bundle, "--describe", "--json").stdout)
    assert 1 <= assessed["score"] <= 5
    assert isinstance(assessed["words"], str)
    compared = json.loads(run("compare", photo, "out.png", "--model", bundle, "--json").stdout)
    assert compared["better"] in ("A", "B", "tie")
    assert 0 <= compared["preference"] <= 1
    shown = run("inspect", bundle)
    assert shown.returncode == 0, shown.stderr
    assert "decode_image" in shown.stdout
    assert "keys and values as computed" in shown.stdout


def test_a_bundle_is_shown_and_run_by_doctor(run: Run, checkpoint: Path, tmp_path: Path) -> None:
    exported = run("export", checkpoint, "-o", "small.uare", "--cache", "int8")
    assert exported.returncode == 0, exported.stderr
    shown = run("inspect", "small.uare")
    assert shown.returncode == 0, shown.stderr
    assert "3 layers of 64, 4/2 heads of 16; keys and values in int8" in shown.stdout
    report = json.loads(run("doctor", "--model", "small.uare", "--json").stdout)
    found = {backend["name"]: backend for backend in report["backends"]}
    assert found["onnxruntime"]["works"]
    assert found["onnxruntime"]["seconds"] > 0
    assert not found["null"]["works"]
    assert "make one with: uare-rt export" in one_line(run("inspect", checkpoint))


def test_settings_without_effect_are_told(run: Run, bundle: Path, photo: Path) -> None:
    idle = ("--steps", 1, "--text-scale", 1, "--renorm", "channel", "--forecast")
    done = run("restore", photo, "--model", bundle, *idle, "-o", "out.png")
    assert done.returncode == 0, done.stderr
    assert "note: image_scale 2.0 has no effect while text_scale is 1.0" in done.stderr
    assert "note: renorm channel has no effect while text_scale is 1.0" in done.stderr
    assert "note: forecast has no effect" in done.stderr


def test_too_little_memory_is_one_line(bundle: Path, photo: Path, tmp_path: Path) -> None:
    """A machine with 1 kB to spare, and nothing too small to ask for."""
    script = (
        "import uare_rt.vlm.codec as codec, uare_rt.vlm.memory as memory\n"
        "memory.SMALL, memory.available_memory, codec.available_memory = 0, lambda: 1000, lambda: 1000\n"
        "from uare_rt.cli import main\nmain()\n"
    )
    command = [sys.executable, "-c", script, "restore", photo, "--model", bundle, "--steps", "1", "-o", "out.png"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, cwd=tmp_path)
    told = one_line(done)
    assert "not enough memory: encoding a picture of 96x80 px needs about" in told
    assert "use a smaller picture" in told
    assert done.returncode == 1
    assert not (tmp_path / "out.png").exists()


def test_an_interrupted_restoration_leaves_nothing(bundle: Path, photo: Path, tmp_path: Path) -> None:
    work, started = tmp_path / "work", tmp_path / "started"
    work.mkdir()
    script = (
        "import pathlib, uare_rt.vlm.engine as engine\n"
        "denoise = engine.Engine.denoise\n"
        "def told(self, *arguments):\n"
        f"    pathlib.Path({str(started)!r}).touch()\n"
        "    return denoise(self, *arguments)\n"
        "engine.Engine.denoise = told\n"
        "from uare_rt.cli import main\nmain()\n"
    )
    command = [sys.executable, "-c", script, "restore", photo, "--model", bundle, "--steps", 20_000, "-o", "out.png"]
    # A shell that runs tests in the background has its children ignore the signal.
    running = subprocess.Popen(
        list(map(str, command)),
        cwd=work,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    while not started.exists() and running.poll() is None:
        time.sleep(0.1)
    running.send_signal(signal.SIGINT)
    _, told = running.communicate(timeout=120)
    assert running.returncode == 130, told
    assert "Traceback" not in told
    assert list(work.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--steps", 0), "--steps 0: at least one evaluation"),
        (("--seed", -1), "the seed is -1"),
        (("--text-scale", -2), "text_scale is -2.0"),
        (("--tile", 8), "tiles of 8 px are smaller than what their convolutions read; give at least 44"),
        (("--scale", 2), "restores at 1 only"),
    ],
)
def test_settings_that_cannot_be_used(
    run: Run, bundle: Path, photo: Path, tmp_path: Path, arguments: tuple[object, ...], message: str
) -> None:
    assert message in one_line(run("restore", photo, "--model", bundle, "-o", "out.png", *arguments))
    assert not (tmp_path / "out.png").exists()


def test_the_small_model_has_no_such_settings(run: Run, photo: Path) -> None:
    assert "--steps: uare-nano has no such setting" in one_line(run("restore", photo, "--steps", 4, "-o", "out.png"))
    assert "--describe: uare-nano has no words" in one_line(run("assess", photo, "--describe"))


def missing(root: Path) -> None:
    (root / "ae.safetensors").unlink()


def truncated(root: Path) -> None:
    data = (root / "ema.safetensors").read_bytes()
    (root / "ema.safetensors").write_bytes(data[: len(data) // 2])


def integers(root: Path) -> None:
    tensors = load_file(root / "ae.safetensors")
    tensors["decoder.conv_in.weight"] = tensors["decoder.conv_in.weight"].to(torch.int8)
    save_file(tensors, root / "ae.safetensors")


def many_words(root: Path) -> None:
    settings = json.loads((root / "tokenizer.json").read_text())
    settings["model"]["vocab"]["far"] = 5000
    (root / "tokenizer.json").write_text(json.dumps(settings))


def edited(name: str, **values: object) -> Callable[[Path], None]:
    def edit(root: Path) -> None:
        settings = json.loads((root / name).read_text())
        (root / name).write_text(json.dumps(settings | values))

    return edit


LARGE = {"max_image_size": 512, "min_image_size": 320, "image_stride": 16}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (missing, "ae.safetensors: no such file"),
        (truncated, "may be truncated"),
        (integers, "decoder.conv_in.weight is of type I8"),
        (many_words, "the tokenizer has ids up to 5000, but the embedding only 200 rows"),
        (edited("config.json", vae_transform=LARGE), "beyond the position table"),
        (edited("config.json", vit_transform=LARGE | {"image_stride": 14}), "does not fit the patch table"),
        (edited("llm_config.json", max_position_embeddings=40), "but the model's limit is 40"),
    ],
    ids=["missing", "truncated", "integers", "words", "latent-table", "patch-table", "positions"],
)
def test_checkpoints_that_cannot_be_used(
    run: Run, checkpoint: Path, photo: Path, tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    root = Path(shutil.copytree(checkpoint, tmp_path / "damaged"))
    damage(root)
    done = run("restore", photo, "--model", root, "--steps", 1, "-o", "out.png")
    assert message in one_line(done)
    assert not (tmp_path / "out.png").exists()
