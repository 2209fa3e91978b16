from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from uare_rt.cli.train import parse_minutes
from uare_rt.errors import UsageError

if TYPE_CHECKING:
    from conftest import Run

ROOMS = {"train": "uare_rt.training", "export": "uare_rt.export"}


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Stand-ins for the rooms that need torch; they keep what they were called with."""
    calls: dict[str, Any] = {}

    def run_training(*args: object, **options: Any) -> object:
        calls["train"] = (args, options)
        state = types.SimpleNamespace(
            step=7,
            steps=9,
            loss=-5.0,
            tone_loss=-4.0,
            assess_loss=0.5,
            seconds_per_step=1800.0,
            eta_seconds=3600.0,
            validation=None,
        )
        options["progress"](state)
        state.validation = {"noise": 27.125}
        options["progress"](state)
        return types.SimpleNamespace(
            weights=Path("out/weights.safetensors"), steps=7, photos=3, finished=False, validation=state.validation
        )

    def export_bundle(*args: object, **options: object) -> object:
        calls["export"] = (args, options)
        return args[1]

    for command, function in (("train", run_training), ("export", export_bundle)):
        module = types.ModuleType(ROOMS[command])
        setattr(module, {"train": "run", "export": "export_bundle"}[command], function)
        monkeypatch.setitem(sys.modules, ROOMS[command], module)
    Path("data").mkdir()
    Path("last.safetensors").touch()
    return calls


def test_train_passes_its_options_on(run: Run, called: dict[str, Any]) -> None:
    plain = run("train", "--recipe", "nano-v1", "--data", "data", "-o", "out")
    assert plain.exit_code == 0
    assert plain.stdout.splitlines() == [
        "step 7 of 9: loss -5.000, tone -4.000, assessment 0.500, 1800.00 s/step, 1:00 left, noise 27.12 dB",
        "out/weights.safetensors: 7 steps on 3 photos, not finished, go on with --resume, noise 27.12 dB",
    ]
    args, options = called["train"]
    assert args == ("nano-v1", Path("data"), Path("out"))
    assert {name: value for name, value in options.items() if name != "progress"} == {
        "start": None,
        "resume": False,
        "steps": None,
        "threads": None,
        "time_budget": None,
        "workers": 1,
    }
    more = [
        "--from",
        "first.safetensors",
        "--resume",
        "--steps",
        9,
        "--threads",
        2,
        "--time-budget",
        "1h30m",
        "--workers",
        3,
    ]
    assert run("train", "--recipe", "nano-v1", "--data", "data", "-o", "out", *more).exit_code == 0
    _, options = called["train"]
    assert (options["start"], options["resume"]) == (Path("first.safetensors"), True)
    assert (options["steps"], options["threads"], options["time_budget"], options["workers"]) == (9, 2, 90.0, 3)


def test_export_passes_its_options_on(run: Run, called: dict[str, Any]) -> None:
    result = run("export", "last.safetensors", "-o", "new.uare", "--images", "data", "--overwrite")
    assert result.exit_code == 0
    args, options = called["export"]
    assert args == (Path("last.safetensors"), Path("new.uare"))
    assert {name: value for name, value in options.items() if name != "progress"} == {
        "overwrite": True,
        "real_images": Path("data"),
    }
    assert "uare-rt inspect new.uare" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["train", "--recipe", "r", "--data", "missing", "-o", "out"], 1, "missing: no such directory"),
        (["train", "--recipe", "r", "--data", "data", "-o", "last.safetensors"], 1, "is a file; give a directory"),
        (["train", "--recipe", "r", "--data", "data", "-o", "o", "--time-budget", "soon"], 2, "--time-budget soon"),
        (["export", "missing.safetensors", "-o", "new.uare"], 1, "no such checkpoint"),
        (["export", "last.safetensors", "-o", "data"], 1, "data: exists already; add --overwrite"),
        (["export", "last.safetensors", "-o", "new.uare", "--images", "none"], 1, "none: no such directory"),
    ],
)
def test_what_can_be_checked_is_checked_before_work(
    run: Run, called: dict[str, Any], arguments: list[str], code: int, message: str
) -> None:
    result = run(*arguments)
    assert result.exit_code == code
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert not called


@pytest.mark.parametrize("command", ["train", "export"])
def test_without_torch_the_extra_is_named(
    run: Run, called: dict[str, Any], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    class WithoutTorch:
        def __getattr__(self, name: str) -> object:
            raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setitem(sys.modules, ROOMS[command], WithoutTorch())
    arguments = {
        "train": ["--recipe", "nano-v1", "--data", "data", "-o", "out"],
        "export": ["last.safetensors", "-o", "new.uare"],
    }[command]
    result = run(command, *arguments)
    assert result.exit_code == 1
    assert result.stderr == f'error: torch is not installed; install it with: pip install "uare-rt[{command}]"\n'


@pytest.mark.parametrize(
    ("text", "minutes"), [("90m", 90), ("2h", 120), ("1h30m", 90), ("45s", 0.75), ("1h1s", 60 + 1 / 60)]
)
def test_times_are_read(text: str, minutes: float) -> None:
    assert parse_minutes(text) == pytest.approx(minutes)


@pytest.mark.parametrize("text", ["", "90", "m", "0m", "-5m", "1m2h", "1.5h", "soon"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--time-budget"):
        parse_minutes(text)
