from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest
import typer

import uare_rt
from uare_rt.cli.app import COMMANDS, app
from uare_rt.errors import BackendError, UsageError

if TYPE_CHECKING:
    from conftest import Run, Spawn

HEAVY = {"numpy", "PIL", "av", "onnxruntime", "openvino", "torch", "rich", "msgspec", "pydantic"}


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys\nfrom uare_rt.cli import main\nsys.argv = ['uare-rt', '--help']\n"
        "try:\n    main()\nexcept SystemExit as end:\n    print(end.code, *sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    code, *modules = done.stdout.splitlines()[-1].split()
    assert code == "0"
    assert not HEAVY & set(modules)
    assert not {f"uare_rt.cli.{place.module}" for place in COMMANDS.values()} & set(modules)
    for command in COMMANDS:
        assert f"\n  {command} " in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_help_tells_of_a_command_what_its_own_help_begins_with(name: str) -> None:
    group = typer.main.get_command(app)
    assert group.get_command(click.Context(group), name).get_short_help_str(limit=1000) == COMMANDS[name].summary


def test_version(run: Run) -> None:
    assert run("--version").stdout == f"uare-rt {uare_rt.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nonsense"], "No such command 'nonsense'"),
        (["rest"], "Did you mean 'restore'?"),
        (["--nonsense"], "No such option"),
        (["assess"], "Missing argument 'PATH...'"),
        (["restore", "a.jpg"], "Missing option '--out'"),
        (["restore", "a.jpg", "-o", "b.jpg", "--scale", "3"], "--scale"),
        (["restore", "a.jpg", "-o", "b.jpg", "--strength", "1.1"], "--strength"),
        (["restore", "a.jpg", "-o", "b.jpg", "--strength", "nan"], "--strength"),
        (["assess", "a.jpg", "--threads", "0"], "--threads"),
    ],
)
def test_wrong_usage_is_exit_code_2(run: Run, photo: Path, arguments: list[str], message: str) -> None:
    photo.rename("a.jpg")
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not Path("b.jpg").exists()


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (BackendError("the backend\nbroke"), 1, "error: the backend broke"),
        (UsageError("cannot use that"), 2, "error: cannot use that"),
        (PermissionError(13, "Permission denied", "x.onnx"), 1, "error: x.onnx: permission denied"),
        (OSError(28, "No space left on device"), 1, "error: no space left to write to; free some"),
        (OSError(5, "Input/output error", "x.onnx"), 1, "error: x.onnx: Input/output error"),
        (MemoryError(), 1, "error: out of memory"),
        (KeyError("slots"), 1, "error: internal error: KeyError: 'slots' (for the traceback run: uare-rt --debug"),
        (KeyboardInterrupt(), 130, "error: interrupted"),
    ],
)
def test_every_exception_is_one_line_and_a_code(
    run: Run, photo: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, line: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("uare_rt.load", fail)
    result = run("assess", photo)
    assert result.exit_code == code
    assert result.stdout == ""
    assert result.stderr.startswith(line)
    assert result.stderr.count("\n") == 1
    if not isinstance(error, KeyboardInterrupt):
        debugged = run("--debug", "assess", photo)
        assert debugged.exit_code == code
        assert "Traceback (most recent call last)" in debugged.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["assess", "photo.jpg", "--json"], ["assess", "photo.jpg"]])
def test_a_reader_that_leaves_ends_the_run_quietly(spawn: Spawn, tiny: Path, photo: Path, arguments: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    bundle = [] if arguments == ["--help"] else ["--bundle", tiny]
    done = spawn(*arguments, *bundle, stdout=writer)
    os.close(writer)
    assert done.returncode == 1
    assert done.stderr == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_standard_output_on_a_full_disk_is_one_line(spawn: Spawn, tiny: Path, photo: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = spawn("assess", photo, "--bundle", tiny, stdout=full)
    assert done.returncode == 1
    assert done.stderr.startswith("error: no space left to write to")
    assert done.stderr.count("\n") == 1


def test_ctrl_c_stops_a_run_cleanly(tiny: Path, photo: Path) -> None:
    inputs, out = Path("in"), Path("out")
    inputs.mkdir()
    for index in range(400):
        os.link(photo, inputs / f"{index:03}.jpg")
    command = [sys.executable, "-m", "uare_rt.cli", "restore", "in", "-o", "out", "--bundle", str(tiny), "--scale", "4"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    limit = time.monotonic() + 60
    while not (out / "000.jpg").exists() and time.monotonic() < limit:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors == "error: interrupted\n"
    written = sorted(path.name for path in out.iterdir())
    assert written == [f"{index:03}.jpg" for index in range(len(written))]
    assert 0 < len(written) < 400


def test_file_names_need_not_be_utf8(spawn: Spawn, tiny: Path, photo: Path) -> None:
    name = os.fsdecode(b"caf\xe9.jpg")
    photo.rename(name)
    done = spawn("assess", name, "--bundle", tiny, text=None, encoding="utf-8", errors="surrogateescape")
    assert (done.returncode, done.stderr) == (0, "")
    assert name in done.stdout


def test_standard_output_may_be_closed(spawn: Spawn, tiny: Path, photo: Path) -> None:
    done = spawn("assess", photo, "--bundle", tiny, preexec_fn=lambda: os.close(1))
    assert (done.returncode, done.stderr) == (0, "")
