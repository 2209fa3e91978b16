"""`uare-rt plan`: the specification's figures, without PyTorch, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from uare_rt import backends
from uare_rt.backends.base import Capability

if TYPE_CHECKING:
    from conftest import Run


def planned(run: Run, *options: object) -> dict:
    result = run("plan", *options, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.mark.parametrize(
    ("device", "options", "restore", "w8a8"),
    [
        ("orin-agx-64", (), 246, 153),
        ("thor", ("--size", 512), 8.40, 4.51),
        ("rtx4090", ("--size", 512, "--steps", 8, "--cfg", 1), 0.95, 0.32),
        ("orin-agx-64", ("--forecast",), 97.9, 60.6),
    ],
)
def test_floors_are_those_of_the_specification(
    run: Run, device: str, options: tuple[object, ...], restore: float, w8a8: float
) -> None:
    floor = planned(run, "--device", device, *options)["floor"]
    assert floor["bf16"]["restore"] == pytest.approx(restore, rel=6e-3, abs=0.008)
    assert floor["int8"]["restore_w8a8"] == pytest.approx(w8a8, rel=6e-3, abs=0.008)
    assert floor["bf16"]["restore_w8a8"] is None


def test_memory_phases_and_tokens_are_told(run: Run) -> None:
    plan = planned(run, "--device", "orin-nx-16", "--cfg", "4,2", "--cfg-interval", "0.4,1")
    assert plan["tokens"] == {"latent": 4096, "image": 4900, "text": 34}
    assert plan["evaluations"] == 49
    times = {phase["name"]: phase["times"] for phase in plan["phases"]}
    assert (times["evaluation, branches: 3"], times["evaluation, branches: 1"]) == (41, 8)
    memory = plan["memory"]
    assert memory["bf16"]["parts"]["cache"] == pytest.approx(518e6 + 34 * 57_344, rel=1e-3)
    weights = [
        sum(memory[kind]["parts"][part] for part in ("gen_expert", "und_attention", "und_mlp")) for kind in memory
    ]
    assert [round(held / 1e9, 2) for held in weights] == [26.10, 13.05, 6.73]
    assert [memory[kind]["fits"] for kind in memory] == [False, False, True]
    assert memory["int8"]["smallest_fits"]
    evaluation = next(phase for phase in plan["phases"] if phase["name"] == "evaluation, branches: 3")
    assert evaluation["flops"] == pytest.approx(210.4e12, rel=1e-3)
    assert evaluation["bytes"]["int4"] < evaluation["bytes"]["int8"] < evaluation["bytes"]["bf16"]


def test_a_picture_is_planned_at_the_size_it_is_worked_on(run: Run) -> None:
    plan = planned(run, "--device", "thor", "--size", "4000x3000")
    assert plan["size"] == [4000, 3000]
    assert plan["worked_size"] == [1024, 768]


def test_people_get_tables(run: Run) -> None:
    result = run("plan", "--device", "orin-agx-64")
    assert result.exit_code == 0
    for text in ("orin-agx-64: 64 GB, 204.8 GB/s", "und mlp", "evaluation, branches: 3", "not measured", "data sheet"):
        assert text in result.stdout


def test_it_needs_no_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = None; sys.argv[1:] = ['plan', '--device', 'thor'];"
        "from uare_rt.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "restore, 16-bit arithmetic" in done.stdout


def test_guidance_that_does_nothing_is_told(run: Run) -> None:
    result = run("plan", "--device", "thor", "--cfg", "1,2")
    assert result.exit_code == 0
    assert "note: image_scale 2.0 has no effect while text_scale is 1.0" in result.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--device", "toaster"), "--device toaster: not in the table; one of orin-agx-64, orin-nx-16, thor, rtx4090"),
        (("--device", "thor", "--preset", "uare-8b"), "--preset uare-8b: can only plan for uare-7b"),
        (("--device", "toaster", "--preset", "uare-nano"), "--device toaster: not in the table; one of orin-agx-64"),
        (("--device", "thor", "--steps", "0"), "--steps 0: no evaluation"),
        (("--device", "thor", "--size", "0"), "--size 0: not a size"),
        (("--device", "thor", "--size", "big"), "--size big: not a size; write for example 1024 or 1280x720"),
        (("--device", "thor", "--cfg", "4,2,1"), "--cfg 4,2,1: not understood; write for example 4,2"),
        (("--device", "thor", "--cfg", "nan"), "text_scale is nan"),
        (("--device", "thor", "--cfg-interval", "1"), "--cfg-interval 1: not understood"),
    ],
)
def test_what_cannot_be_planned_is_one_line_and_wrong_usage(run: Run, options: tuple[str, ...], message: str) -> None:
    result = run("plan", *options)
    assert result.exit_code == 2
    assert f"error: {message}" in result.stderr
    assert "Traceback" not in result.output
    assert not result.stdout


def test_nano_is_planned_layer_by_layer_without_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = None; sys.argv[1:] = "
        "['plan', '--preset', 'uare-nano', '--device', 'orin-nx-16', '--size', '1280x720', '--json'];"
        "from uare_rt.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    pixels = 1280 * 720
    assert sum(layer["flops"] for layer in plan["layers"]) / pixels == pytest.approx(48.4e3, rel=0.02)
    assert plan["assumed"] == {"efficiency": 0.5, "launch_seconds": 3e-6}
    for label in ("fp16", "int8"):
        least, expected = plan["floor_seconds"][label], plan["expected_seconds"][label]
        assert least == pytest.approx(sum(layer["seconds"][label] for layer in plan["layers"]))
        assert expected > 2 * least
    # 15 TFLOPS and 44.6 GFLOP alone take 3 ms.
    assert 3e-3 < plan["floor_seconds"]["fp16"] < 12e-3
    assert plan["floor_seconds"]["int8"] < plan["floor_seconds"]["fp16"]


@pytest.mark.parametrize("openvino", [True, False], ids=["with OpenVINO", "base install"])
def test_nano_on_paper_is_held_against_this_machine(run: Run, monkeypatch: pytest.MonkeyPatch, openvino: bool) -> None:
    if not openvino:
        absent = Capability("openvino", False, "openvino is not installed")
        monkeypatch.setattr(type(backends.get("openvino")), "probe", lambda self: absent)
    available = {name for name in ("onnxruntime", "openvino") if backends.get(name).probe().available}
    plan = planned(run, "--preset", "uare-nano", "--device", "this", "--size", "64")
    assert plan["device"]["source"] == "measured in this run"
    assert set(plan["measured_seconds"]) == available
    for name, seconds in plan["measured_seconds"].items():
        assert plan["measured_efficiency"][name] == pytest.approx(plan["floor_seconds"]["fp32"] / seconds)
    result = run("plan", "--preset", "uare-nano", "--device", "thor")
    for text in ("head 3x3", "frames/s) expected", "nothing was measured on such a device"):
        assert text in result.stdout
