"""Whole runs of the loop with a tiny model: exact resumption, interruption, full disks, bad numbers."""

from __future__ import annotations

import csv
import resource
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from uare_rt.errors import InputError, OutputError, UareError, UsageError
from uare_rt.model.nano import UareNano
from uare_rt.model.weights import load_nano, read_tensors, sha256_of
from uare_rt.training import TrainingProgress, loop, run
from uare_rt.training.objective import Losses, _comparison, objective
from uare_rt.training.recipe import load_recipe
from uare_rt.training.samples import PhotoStore, find_photos, make_batch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from uare_rt.model.presets.nano import NanoConfig

    Write = Callable[..., Path]

pytestmark = pytest.mark.usefixtures("tiny_preset")


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uare_rt.training.loop._REPORT_EVERY", 1)
    monkeypatch.setattr("uare_rt.training.validation._SIDE", 64)


def weights_of(out: Path) -> dict[str, torch.Tensor]:
    return load_nano(out / "weights.safetensors")[0].state_dict()


def assert_equal_runs(one: Path, other: Path) -> None:
    for name in ("weights.safetensors", "checkpoint.safetensors"):
        tensors, header = read_tensors(one / name)
        expected, facts = read_tensors(other / name)
        assert header == facts
        assert tensors.keys() == expected.keys()
        assert all(torch.equal(tensors[key], expected[key]) for key in tensors), name


def test_a_run_leaves_weights_metrics_and_a_report(write_recipe: Write, data: Path, tmp_path: Path) -> None:
    seen: list[TrainingProgress] = []
    report = run(write_recipe(), data, tmp_path / "out", workers=0, progress=seen.append)
    assert (report.steps, report.finished, report.skipped, report.photos) == (6, True, 0, 2)
    assert report.validation.keys() == {"noise", "jpeg", "blur", "lowlight", "haze", "mix", "clean"}
    assert all(5 < psnr < 61 for psnr in report.validation.values())
    assert [p.step for p in seen] == [1, 2, 3, 4, 5, 6]
    assert [p.validation for p in seen] == [None] * 5 + [report.validation]
    assert seen[2].eta_seconds == pytest.approx(3 * seen[2].seconds_per_step)
    with (tmp_path / "out" / "metrics.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0][:5] == ["step", "restore", "tone", "assess", "seconds_per_step"]
    assert [row[0] for row in rows[1:]] == ["1", "2", "3", "4", "5", "6"]
    assert len(rows[6]) == len(rows[0])
    _, facts = load_nano(report.weights)
    assert (facts["steps"], facts["planned_steps"], facts["photos"]) == (6, 6, 2)


def test_a_second_run_in_a_directory_is_refused_while_the_first_is_under_way(
    write_recipe: Write, data: Path, tmp_path: Path
) -> None:
    out, seen = tmp_path / "out", []

    def again(progress: TrainingProgress) -> None:
        for resume in (False, True):
            with pytest.raises(OutputError, match="out: another training is writing it; wait for it"):
                run(write_recipe(), data, out, workers=0, resume=resume)
        seen.append(progress.step)

    report = run(write_recipe(), data, out, workers=0, progress=again)
    assert report.finished
    assert seen == [1, 2, 3, 4, 5, 6]
    assert not (out / ".lock").exists()


def test_two_runs_are_the_same_and_the_seed_matters(write_recipe: Write, data: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        run(write_recipe(), data, tmp_path / name, workers=0)
    assert_equal_runs(tmp_path / "a", tmp_path / "b")
    run(write_recipe(seed=6), data, tmp_path / "c", workers=0)
    ours, others = weights_of(tmp_path / "a"), weights_of(tmp_path / "c")
    assert any(not torch.equal(ours[name], others[name]) for name in ours)


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Ctrl-C interrupts however the tests were started: a shell lets its background jobs ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("stop", [1, 3, 5])
def test_a_resumed_run_is_the_uninterrupted_one(write_recipe: Write, data: Path, tmp_path: Path, stop: int) -> None:
    recipe = write_recipe()
    run(recipe, data, tmp_path / "whole", workers=0)

    def interrupt(progress: TrainingProgress) -> None:
        if progress.step == stop:
            signal.raise_signal(signal.SIGINT)  # what Ctrl-C does

    with pytest.raises(KeyboardInterrupt):
        run(recipe, data, tmp_path / "parts", workers=0, progress=interrupt)
    assert load_nano(tmp_path / "parts" / "weights.safetensors")[1]["steps"] == stop
    report = run(recipe, data, tmp_path / "parts", workers=0, resume=True)
    assert report.finished
    assert_equal_runs(tmp_path / "parts", tmp_path / "whole")


PLAIN = {"reparameterised": False, "matrix_rate": 0.001, "assess_every": 2}


def test_a_run_begins_from_weights_and_resumes_exactly(write_recipe: Write, data: Path, tmp_path: Path) -> None:
    run(write_recipe(), data, tmp_path / "first", workers=0)
    start = tmp_path / "first" / "weights.safetensors"
    recipe = write_recipe(seed=8, **PLAIN)
    run(recipe, data, tmp_path / "whole", start=start, workers=0)
    assert load_nano(tmp_path / "whole" / "weights.safetensors")[1]["start"] == sha256_of(start)
    run(recipe, data, tmp_path / "parts", start=start, time_budget=1e-6, workers=0)
    begun, first = weights_of(tmp_path / "parts"), weights_of(tmp_path / "first")
    assert all(torch.allclose(begun[name], first[name], atol=0.05) for name in first)  # one small step away
    run(recipe, data, tmp_path / "parts", resume=True, workers=0)
    assert_equal_runs(tmp_path / "parts", tmp_path / "whole")


def test_weights_that_do_not_fit_are_no_start(
    write_recipe: Write, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_preset: NanoConfig
) -> None:
    run(write_recipe(), data, tmp_path / "first", workers=0)
    start = tmp_path / "first" / "weights.safetensors"
    with pytest.raises(UsageError, match="reparameterised"):
        run(write_recipe(), data, tmp_path / "branches", start=start, workers=0)
    monkeypatch.setattr("uare_rt.training.loop.UARE_NANO", replace(tiny_preset, widths=(8, 8, 16)))
    with pytest.raises(InputError, match="another shape"):
        run(write_recipe(**PLAIN), data, tmp_path / "wider", start=start, workers=0)
    with pytest.raises(InputError, match="no such weight file"):
        run(write_recipe(**PLAIN), data, tmp_path / "none", start=tmp_path / "none.safetensors", workers=0)


def test_assessment_stays_as_it_is_where_it_only_serves(write_recipe: Write, data: Path, tmp_path: Path) -> None:
    plan = load_recipe(write_recipe(**PLAIN))
    model = UareNano(loop.UARE_NANO)
    batch = make_batch(PhotoStore(find_photos(data)), plan, 1)
    losses = objective(model, batch, plan)
    losses.total.backward()
    assert losses.assess is None
    assert losses.tone is None
    learned = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert any(name.startswith("codec.") for name in learned)
    assert any(".gen." in name for name in learned)
    assert not any(".und." in name or name.startswith(("vision.", "tone.")) for name in learned)


def test_comparisons_ask_for_the_right_order(write_recipe: Write, data: Path) -> None:
    plan = load_recipe(write_recipe(teacher="reference", pairs=1, compare_weight=1.0))
    batch = make_batch(PhotoStore(find_photos(data)), plan, 0)
    levels = torch.from_numpy(batch.levels[:, 0])
    right, wrong = 20 * levels, 20 * levels.flip(1)
    assert float(_comparison(right, levels)) < 0.1 < float(_comparison(wrong, levels))
    assert float(_comparison(right[:1], levels[:1])) == 0


def test_a_time_budget_stops_early_and_says_so(write_recipe: Write, data: Path, tmp_path: Path) -> None:
    report = run(write_recipe(), data, tmp_path / "out", workers=0, time_budget=1e-9)
    assert (report.steps, report.finished) == (1, False)
    assert run(write_recipe(), data, tmp_path / "out", workers=0, resume=True).finished


def test_resume_without_a_checkpoint_begins(write_recipe: Write, data: Path, tmp_path: Path) -> None:
    assert run(write_recipe(), data, tmp_path / "out", workers=0, resume=True, steps=1).steps == 1


def test_an_existing_run_is_not_replaced(write_recipe: Write, data: Path, tmp_path: Path) -> None:
    run(write_recipe(), data, tmp_path / "out", workers=0, steps=1)
    before = (tmp_path / "out" / "checkpoint.safetensors").read_bytes()
    with pytest.raises(UsageError, match="holds a training already; continue it with --resume"):
        run(write_recipe(), data, tmp_path / "out", workers=0)
    assert (tmp_path / "out" / "checkpoint.safetensors").read_bytes() == before


def test_a_checkpoint_of_another_recipe_is_refused(write_recipe: Write, data: Path, tmp_path: Path) -> None:
    run(write_recipe(), data, tmp_path / "out", workers=0, steps=1)
    with pytest.raises(UsageError, match="was made by another recipe"):
        run(write_recipe(clip=0.5), data, tmp_path / "out", workers=0, resume=True)


@pytest.mark.parametrize("size", [0, 7, 5000, -1])
def test_a_truncated_checkpoint_is_refused_and_kept(write_recipe: Write, data: Path, tmp_path: Path, size: int) -> None:
    run(write_recipe(), data, tmp_path / "out", workers=0, steps=1)
    checkpoint = tmp_path / "out" / "checkpoint.safetensors"
    cut = checkpoint.read_bytes()[:size]
    checkpoint.write_bytes(cut)
    with pytest.raises(InputError, match=r"checkpoint\.safetensors: not a readable safetensors file"):
        run(write_recipe(), data, tmp_path / "out", workers=0, resume=True)
    assert checkpoint.read_bytes() == cut


def test_weights_are_no_checkpoint(write_recipe: Write, data: Path, tmp_path: Path) -> None:
    run(write_recipe(), data, tmp_path / "out", workers=0, steps=1)
    shutil.copy(tmp_path / "out" / "weights.safetensors", tmp_path / "out" / "checkpoint.safetensors")
    with pytest.raises(InputError, match="not a training checkpoint"):
        run(write_recipe(), data, tmp_path / "out", workers=0, resume=True)


def test_a_full_disk_leaves_the_previous_checkpoint(write_recipe: Write, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(write_recipe(), data, out, workers=0, steps=2)
    before = {path.name: path.read_bytes() for path in out.glob("*.safetensors")}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(OutputError, match=r"checkpoint\.safetensors: cannot be written.*free some space"):
            run(write_recipe(), data, out, workers=0, resume=True, steps=4)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {path.name: path.read_bytes() for path in out.glob("*.safetensors")} == before
    assert not list(out.glob(".*"))
    assert run(write_recipe(), data, out, workers=0, resume=True).finished


def test_a_place_that_cannot_be_written_is_refused(write_recipe: Write, data: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be created"):
        run(write_recipe(), data, tmp_path / "file" / "out", workers=0)


def poison(monkeypatch: pytest.MonkeyPatch, steps: set[int]) -> None:
    """Makes the loss of some steps NaN, gradients too."""

    def poisoned(model: object, batch: object, recipe: object) -> Losses:
        losses = objective(model, batch, recipe)  # type: ignore[arg-type]
        factor = float("nan") if batch.step in steps else 1.0  # type: ignore[attr-defined]
        return Losses(losses.total * factor, losses.restore * factor, losses.tone, losses.assess)

    monkeypatch.setattr("uare_rt.training.loop.objective", poisoned)


def test_a_step_that_is_not_finite_is_left_out(
    write_recipe: Write, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    poison(monkeypatch, {1, 4})
    seen: list[TrainingProgress] = []
    report = run(write_recipe(), data, tmp_path / "out", workers=0, progress=seen.append)
    assert (report.skipped, report.steps, report.finished) == (2, 6, True)
    assert all(value.isfinite().all() for value in weights_of(tmp_path / "out").values())
    assert all(progress.loss == progress.loss for progress in seen)
    assert [record.getMessage().split(":")[0] for record in caplog.records] == ["step 1 left out", "step 4 left out"]


def test_many_such_steps_end_the_run_with_the_batch_saved(
    write_recipe: Write, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, set(range(1, 20)))
    with pytest.raises(UareError, match=r"not finite 5 times; the last batch is in .*bad-batch-5\.safetensors"):
        run(write_recipe(), data, tmp_path / "out", workers=0, steps=20)
    batch, header = read_tensors(tmp_path / "out" / "bad-batch-5.safetensors")
    assert header == {"step": "5"}
    assert batch.keys() == {"frames", "targets", "views", "thumbnails", "levels", "dropped"}
    assert batch["frames"].dtype == torch.uint8


def test_a_single_photo_is_trained_on_without_validation(write_recipe: Write, data: Path, tmp_path: Path) -> None:
    for photo in sorted(data.iterdir())[1:]:
        photo.unlink()
    seen: list[TrainingProgress] = []
    report = run(write_recipe(), data, tmp_path / "out", workers=0, steps=2, progress=seen.append)
    assert (report.photos, report.validation, seen[-1].validation) == (1, {}, {})


def test_no_photos_is_an_input_error(write_recipe: Write, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no photo of at least"):
        run(write_recipe(), tmp_path / "empty", tmp_path / "out", workers=0)
    assert not (tmp_path / "out").exists()


def test_loader_processes_change_nothing(write_recipe: Write, data: Path, tmp_path: Path) -> None:
    run(write_recipe(), data, tmp_path / "here", workers=0)
    run(write_recipe(), data, tmp_path / "there", workers=2)
    assert_equal_runs(tmp_path / "there", tmp_path / "here")
