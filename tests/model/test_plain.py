"""A second reference set, of other dimensions, for the parity modules; what makes it is held to the original code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mot_reference import LEVELS, TOLERANCE, relative_rms
from plain_set import OTHER, expectations, write_set
from safetensors.torch import load_file

TINY = Path(__file__).parents[1] / "data" / "mot-tiny"
PARITY = sorted(Path(__file__).parent.glob("test_mot_parity_*.py"))


def parity(fixtures: Path) -> subprocess.CompletedProcess[str]:
    """The parity modules as a stranger runs them on a set of their own: nothing but themselves sees to it."""
    command = [sys.executable, "-m", "pytest", "-q", "--noconftest", "-p", "no:cacheprovider", *map(str, PARITY)]
    environment = os.environ | {"UARE_MOT_FIXTURES": str(fixtures)}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def test_the_plain_functions_are_the_original_code() -> None:
    settings = json.loads((TINY / "config.json").read_text())
    tensors = load_file(TINY / "ema.safetensors") | load_file(TINY / "ae.safetensors")
    made = expectations(settings, tensors, load_file(TINY / "inputs.safetensors"), torch.float64)
    for part, named in made.items():
        original = load_file(TINY / f"expected_{part}.safetensors")
        assert named.keys() == original.keys()
        for name, value in named.items():
            if value.is_floating_point():
                assert relative_rms(value, original[name]) <= TOLERANCE, name
            else:
                allowed = LEVELS if value.dtype == torch.uint8 else 0
                assert (value.int() - original[name].int()).abs().max() <= allowed, name


def test_a_checkpoint_of_other_dimensions_passes_every_parity_test(tmp_path: Path) -> None:
    done = parity(write_set(tmp_path / "other", OTHER))
    assert done.returncode == 0, done.stdout
    assert "passed" in done.stdout
    assert "skipped" not in done.stdout


@pytest.mark.parametrize("lacking", ["directory", "expected_gen.safetensors"])
def test_a_set_that_cannot_be_read_fails(tmp_path: Path, lacking: str) -> None:
    fixtures = tmp_path / "set"
    if lacking != "directory":
        fixtures.mkdir()
        for path in TINY.iterdir():
            if path.name != lacking:
                (fixtures / path.name).symlink_to(path)
    done = parity(fixtures)
    assert done.returncode == 1, done.stdout
    assert "cannot be read" in done.stdout
    assert "skipped" not in done.stdout
