"""Photos, labels and batches, made here and by loader processes."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from uare_rt.errors import InputError, UareError
from uare_rt.slots import DEGRADATIONS
from uare_rt.training.loader import Loader
from uare_rt.training.recipe import load_recipe
from uare_rt.training.samples import Batch, PhotoStore, find_photos, make_batch, quality_of, soft_levels
from uare_rt.training.teacher import quality
from uare_rt.training.validation import hold_out

if TYPE_CHECKING:
    from collections.abc import Callable

    Write = Callable[..., Path]


def assert_same(one: Batch, other: Batch) -> None:
    for field in dataclasses.fields(Batch):
        np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name), field.name)


def test_a_batch_depends_on_recipe_photos_and_step_alone(write_recipe: Write, data: Path) -> None:
    recipe, paths = load_recipe(write_recipe()), find_photos(data)
    store = PhotoStore(paths)
    in_order = [make_batch(store, recipe, step) for step in range(6)]
    backwards = [make_batch(PhotoStore(paths), recipe, step) for step in reversed(range(6))]
    for one, other in zip(in_order, reversed(backwards), strict=True):
        assert_same(one, other)
    assert len({batch.frames.tobytes() for batch in in_order}) == 6
    longer = load_recipe(write_recipe(), 60)
    assert_same(in_order[4], make_batch(store, longer, 4))
    other_seed = make_batch(store, load_recipe(write_recipe(seed=6)), 4)
    assert other_seed.frames.tobytes() != in_order[4].frames.tobytes()


def test_batches_are_what_they_say(write_recipe: Write, data: Path) -> None:
    recipe, store = load_recipe(write_recipe(), 40), PhotoStore(find_photos(data))
    seen = set()
    for step in range(40):
        batch = make_batch(store, recipe, step)
        task = recipe.scales[batch.scale]
        seen.add(batch.scale)
        assert batch.step == step
        assert batch.frames.shape == (task.batch, task.size, task.size, 3)
        assert batch.targets.shape == (task.batch, task.size * batch.scale, task.size * batch.scale, 3)
        seen_alone = recipe.phase(step).assess_batch
        assert batch.views.shape == (task.batch + seen_alone, 9, 96, 96, 3)
        assert batch.thumbnails.shape == (task.batch + seen_alone, 96, 96, 3)
        assert batch.dropped.shape == (task.batch + seen_alone,)
        np.testing.assert_allclose(batch.levels.sum(axis=2), 1, atol=1e-6)
        assert (batch.levels >= 0).all()
        assert (batch.levels[task.batch :, 6, 0] < 1).all()  # the recipe's further pictures are all hazy
        for frame, target, levels in zip(batch.frames, batch.targets, batch.levels[: task.batch], strict=True):
            clean = (levels[1:, 0] == 1).all()
            assert clean == (levels[0, 4] == 1)  # quality is excellent where nothing was done, and only there
            if clean and batch.scale == 1:
                np.testing.assert_array_equal(frame, target)
        for levels, views, thumbnail in zip(batch.levels, batch.views, batch.thumbnails, strict=True):
            if levels[0, 4] == 1:
                np.testing.assert_array_equal(views[0], thumbnail)
    assert seen == {1, 2, 4}


def test_pairs_show_one_region_twice(write_recipe: Write, data: Path) -> None:
    phases = [
        {
            "start": 0,
            "mixtures": [{"min_count": 1, "max_count": 1}],
            "assess_batch": 5,
            "assess_mixtures": [{"min_count": 1, "max_count": 1, "severity": [0.2, 1.0]}],
        }
    ]
    recipe = load_recipe(write_recipe(phases=phases, pairs=2))
    batch = make_batch(PhotoStore(find_photos(data)), recipe, 0)
    thumbnails, views = batch.thumbnails[-5:], batch.views[-5:]
    same = [np.array_equal(thumbnails[i], thumbnails[i + 1]) for i in range(4)]
    assert same == [True, False, True, False]
    assert not np.array_equal(views[0], views[1])


def test_quality_by_reference_is_what_the_teacher_says(write_recipe: Write, data: Path) -> None:
    store, changes = PhotoStore(find_photos(data)), {"scales": {1: {"weight": 1, "region": 96, "size": 96, "batch": 3}}}
    batch = make_batch(store, load_recipe(write_recipe(teacher="reference", **changes)), 0)
    by_severity = make_batch(store, load_recipe(write_recipe(**changes)), 0)
    np.testing.assert_array_equal(batch.frames, by_severity.frames)
    np.testing.assert_array_equal(batch.levels[:, 1:], by_severity.levels[:, 1:])
    for frame, target, levels in zip(batch.frames, batch.targets, batch.levels, strict=True):
        assert 1 + levels[0] @ np.arange(5) == pytest.approx(quality(target, frame), abs=1e-5)


@pytest.mark.parametrize("workers", [1, 2])
def test_processes_give_the_batches_of_this_one_in_order(write_recipe: Write, data: Path, workers: int) -> None:
    recipe, paths = load_recipe(write_recipe()), find_photos(data)
    with Loader(paths, recipe, 1, 0) as here, Loader(paths, recipe, 1, workers) as there:
        got = list(zip(here, there, strict=True))
    assert [one.step for one, _ in got] == [1, 2, 3, 4, 5]
    for one, other in got:
        assert_same(one, other)


def test_an_error_in_a_process_arrives_here(write_recipe: Write, data: Path) -> None:
    recipe, paths = load_recipe(write_recipe()), [data / "gone.jpg"]
    with Loader(paths, recipe, 0, 1) as batches, pytest.raises(FileNotFoundError, match=r"gone\.jpg"):
        next(iter(batches))


def test_a_process_that_was_killed_is_noticed(write_recipe: Write, data: Path) -> None:
    recipe = load_recipe(write_recipe(), 10_000)
    with Loader(find_photos(data), recipe, 0, 1) as loader:
        batches = iter(loader)
        next(batches)
        (process,) = loader._processes
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        with pytest.raises(UareError, match=r"loader process 0 ended with code -9.*fewer --workers"):
            for _ in batches:
                pass
    assert not process.is_alive()


def test_processes_end_with_a_training_that_was_killed(write_recipe: Write, data: Path) -> None:
    """The parent of the loader's process dies without a word; the process must not stay."""
    program = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from uare_rt.training.loader import Loader\n"
        "from uare_rt.training.recipe import load_recipe\n"
        "if __name__ == '__main__':\n"
        "    with Loader(sorted(Path(sys.argv[2]).iterdir()), load_recipe(sys.argv[1], 10_000), 0, 1) as loader:\n"
        "        next(iter(loader))\n"
        "        os._exit(9)\n"
    )
    script = data.parent / "parent.py"
    script.write_text(program)
    command = [sys.executable, str(script), str(write_recipe()), str(data)]
    # Standard output is shared with the loader's process: it ends only when that process has ended.
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 9


@pytest.mark.parametrize(
    ("position", "expected"),
    [
        (0.0, [1, 0, 0, 0, 0]),
        (4.0, [0, 0, 0, 0, 1]),
        (2.0, [0, 0, 1, 0, 0]),
        (0.25, [0.75, 0.25, 0, 0, 0]),
        (3.5, [0, 0, 0, 0.5, 0.5]),
    ],
)
def test_levels_are_shared_by_the_nearest_two(position: float, expected: list[float]) -> None:
    levels = soft_levels(position)
    assert levels.tolist() == pytest.approx(expected)
    assert float(np.dot(levels, np.arange(5))) == pytest.approx(position)


def test_quality_falls_with_every_severity() -> None:
    clean = dict.fromkeys(DEGRADATIONS, 0.0)
    assert quality_of(clean) == 1
    for name in DEGRADATIONS:
        falling = [quality_of({**clean, name: s}) for s in (0.0, 0.25, 0.5, 1.0)]
        assert falling == sorted(falling, reverse=True)
        assert falling[-1] == pytest.approx(0.1)
        assert quality_of({**clean, "noise": 0.5, name: 1.0}) <= falling[-1]


def test_broken_and_tiny_photos_are_left_out(data: Path, caplog: pytest.LogCaptureFixture) -> None:
    good = find_photos(data)
    (data / "text.jpg").write_text("no picture")
    (data / "empty.png").touch()
    (data / "cut.jpg").write_bytes(good[0].read_bytes()[:4000])
    (data / "notes.txt").write_text("not even named like one")
    Image.new("RGB", (255, 400)).save(data / "small.png")
    (data / "deeper").mkdir()
    deeper = Path(shutil.copy(good[0], data / "deeper"))
    assert find_photos(data) == sorted([*good, deeper])
    left_out = sorted(Path(record.args[0]).name for record in caplog.records)  # type: ignore[index, arg-type]
    assert left_out == ["cut.jpg", "empty.png", "small.png", "text.jpg"]


def test_a_directory_without_a_usable_photo_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such directory"):
        find_photos(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"no photo of at least 256x256 px \(0 files left out\)"):
        find_photos(tmp_path)
    (tmp_path / "text.jpg").write_text("no picture")
    with pytest.raises(InputError, match=r"\(1 files left out\)"):
        find_photos(tmp_path)


@pytest.mark.parametrize(("count", "kept"), [(1, 0), (2, 1), (10, 1), (11, 1), (40, 2), (400, 8)])
def test_some_photos_are_held_out(count: int, kept: int) -> None:
    paths = [Path(f"{i:03}.jpg") for i in range(count)]
    train, validation = hold_out(paths)
    assert len(validation) == kept
    assert sorted([*train, *validation]) == paths
    assert hold_out(paths) == (train, validation)
