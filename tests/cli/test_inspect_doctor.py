from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from uare_rt import backends

if TYPE_CHECKING:
    from conftest import Run


def test_inspect_json_is_the_manifest(run: Run, tiny: Path) -> None:
    result = run("inspect", tiny, "--json")
    assert result.exit_code == 0
    assert_holds(json.loads(result.stdout), json.loads((tiny / "manifest.json").read_text(encoding="utf-8")))


def assert_holds(shown: object, given: object) -> None:
    """Everything given is shown; fields that a bundle leaves out may be shown with their defaults."""
    if isinstance(given, dict):
        assert isinstance(shown, dict)
        for name, value in given.items():
            assert_holds(shown[name], value)
    else:
        assert shown == given


def test_inspect_names_every_graph_and_file(run: Run, tiny: Path) -> None:
    result = run("inspect", tiny)
    assert result.exit_code == 0
    manifest = json.loads((tiny / "manifest.json").read_text(encoding="utf-8"))
    first_words = [line.split(" ")[0] for line in result.stdout.splitlines()]
    assert {*manifest["graphs"], *manifest["files"]} <= set(first_words)
    assert "restored[N,3,2*H,2*W]" in result.stdout
    assert result.stdout.splitlines()[-1].startswith(f"{tiny}: whole; 6 files match")


def test_doctor_runs_every_backend(run: Run, tiny: Path) -> None:
    result = run("doctor", "--json", "--bundle", tiny)
    assert result.exit_code == 0
    report = json.loads(result.stdout)
    found = {backend["name"]: backend for backend in report["backends"]}
    assert list(found) == list(backends.names())
    assert found["onnxruntime"]["works"]
    assert found["onnxruntime"]["seconds"] > 0
    assert all(backend["reason"] for backend in found.values())
    text = run("doctor", "--bundle", tiny).stdout
    for name, backend in found.items():
        (line,) = [line for line in text.splitlines() if line.startswith(f"{name} ")]
        assert line.endswith(backend["reason"])
        assert line.split()[1] == ("yes" if backend["works"] else "no")


def test_doctor_fails_where_nothing_runs(run: Run, tiny: Path) -> None:
    (tiny / "assess.onnx").write_bytes(b"")
    result = run("doctor", "--bundle", tiny)
    assert result.exit_code == 1
    assert "warning: bundle" in result.stdout


@pytest.mark.parametrize("command", ["inspect", "doctor"])
def test_wide_tables_are_not_cut(run: Run, tiny: Path, command: str) -> None:
    arguments = [tiny] if command == "inspect" else ["--bundle", tiny]
    assert "…" not in run(command, *arguments).stdout
