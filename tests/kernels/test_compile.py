"""Ahead-of-time compilation, in processes of its own: the interpreter of the other tests turns the compiler off."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from uare_rt.kernels import ahead
from uare_rt.kernels.catalogue import OPERATORS, all_variants
from uare_rt.kernels.devices import LIMITS, occupancy
from uare_rt.kernels.table import BEGIN, END, rows, write_table
from uare_rt.kernels.tiles import TARGETS, space, tile

# What a C caller passes by the first letter of an argument's type in the manifest: type in PTX and bytes.
KINDS = {"*": (b"u64", 8), "i": (b"u32", 4), "f": (b"f32", 4)}
DOCUMENT = Path(__file__).parents[2] / "docs" / "kernels.md"


def run(*arguments: str | Path, **extra: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"} | extra
    command = [sys.executable, *(str(argument) for argument in arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def sizes_of(cubin: Path) -> list[int]:
    """Bytes of every parameter of a kernel, in order, as its machine code has them; gaps are for alignment only."""
    done = subprocess.run([ahead._tool(), "-elf", cubin], capture_output=True, text=True, check=True)
    found = re.findall(r"Ordinal\s*:\s*0x(\w+)\s+Offset\s*:\s*0x(\w+)\s+Size\s*:\s*0x(\w+)", done.stdout)
    sizes, end = [], 0
    for _, offset, size in sorted(tuple(int(part, 16) for part in entry) for entry in found):
        assert offset == -(-end // size) * size
        sizes.append(size)
        end = offset + size
    return sizes


def checked(manifest: dict[str, Any], folder: Path) -> None:
    for entry in manifest["kernels"]:
        where = f"{entry['name']} for {entry['target']}"
        assert entry["spills"] == 0, where
        assert entry["stack"] == 0, where
        assert entry["occupancy"] > 0, where
        assert entry["shared"] <= LIMITS[entry["target"]].block_shared, where
        cubin, ptx = ((folder / entry[kind]).read_bytes() for kind in ("cubin", "ptx"))
        assert cubin.startswith(b"\x7fELF"), where
        assert f".entry {entry['symbol']}(".encode() in ptx, where
        assert re.findall(rb"\.param \.(\w+)", ptx) == [
            KINDS[argument["type"][0]][0] for argument in entry["arguments"]
        ]
        assert sizes_of(folder / entry["cubin"]) == [
            *(KINDS[argument["type"][0]][1] for argument in entry["arguments"]),
            *[8] * entry["null_pointers_after_arguments"]["cubin"],
        ], where


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, subprocess.CompletedProcess[str]]:
    folder = tmp_path_factory.mktemp("aot")
    document = folder / "figures.md"
    document.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    operators = "window_attention,modulation,changes,flow_step"
    options = ("--target", "sm_87,sm_120", "--operators", operators, "--out", folder / "out", "--table", document)
    return folder / "out", document, run("-m", "uare_rt.kernels.compile", *options)


def test_the_command_writes_code_and_a_manifest(
    compiled: tuple[Path, Path, subprocess.CompletedProcess[str]],
) -> None:
    out, document, done = compiled
    assert done.returncode == 0, done.stderr
    manifest = json.loads((out / "manifest.json").read_text())
    checked(manifest, out)
    wanted = ("window_attention", "modulation", "changes", "flow_step")
    names = {variant.name for op in wanted for variant in all_variants()[op]}
    assert {(entry["name"], entry["target"]) for entry in manifest["kernels"]} == {
        (name, target) for name in names for target in ("sm_87", "sm_120")
    }
    attention = next(entry for entry in manifest["kernels"] if entry["operator"] == "window_attention")
    assert attention["matrix_instructions"] > 0
    assert attention["constants"]["WINDOWS"] == tile("sm_87", "attention.window").blocks["WINDOWS"]
    text = document.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert "`flow_step_global`" in text


@pytest.mark.parametrize(
    ("options", "extra", "code", "message"),
    [
        (("--target", "sm_75"), {}, 2, "target sm_75 is not one of sm_80"),
        (("--operators", "softmax"), {}, 2, "operator softmax is not one of attention"),
        ((), {"TRITON_INTERPRET": "1"}, 1, "TRITON_INTERPRET=1 turns the compiler off"),
        (("--out", "."), {}, 1, ". exists; name a directory that does not"),
        (
            ("--out", "/proc/kernels", "--operators", "changes", "--target", "sm_87"),
            {},
            1,
            "/proc/kernels cannot be written",
        ),
    ],
)
def test_what_cannot_be_done_is_one_line(
    options: tuple[str, ...], extra: dict[str, str], code: int, message: str
) -> None:
    done = run("-m", "uare_rt.kernels.compile", *options, **extra)
    assert done.returncode == code
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_plugins_get_the_parameters_that_tensorrt_passes() -> None:
    """With a stand-in for TensorRT's module: inputs, one integer, one output, nothing of Triton's own."""
    done = run(Path(__file__).with_name("plugin_stand_in.py"))
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout) == {"uare_rt::Modulation": 5, "uare_rt::WindowAttention": 8}


def test_the_document_shows_every_variant_and_no_spills() -> None:
    text = DOCUMENT.read_text().split(BEGIN)[1].split(END)[0]
    names = {variant.name for variants in all_variants().values() for variant in variants}
    shown = {line.split("`")[1] for line in text.splitlines() if line.startswith("| `")}
    assert shown == names
    assert f"for {len(TARGETS)} targets, 0 of" in text


def test_every_variant_has_a_tile_on_every_target_and_the_chosen_one_is_in_its_space() -> None:
    for variant in (variant for variants in all_variants().values() for variant in variants):
        for target in TARGETS:
            chosen = tile(target, variant.key)
            assert set(chosen.blocks) <= set(variant.kernel.arg_names)
            assert chosen in space(target, variant.key), (variant.key, target)


def test_names_of_variants_are_unique_and_arguments_complete() -> None:
    found = [variant for variants in all_variants().values() for variant in variants]
    assert len({variant.name for variant in found}) == len(found)
    for variant in found:
        blocks = tile("sm_87", variant.key).blocks
        names = {*variant.types, *variant.constants, *blocks}
        assert names == set(variant.kernel.arg_names), variant.name
        assert set(variant.whole) <= set(variant.types)


@pytest.mark.parametrize(
    ("target", "registers", "shared", "warps", "expected"),
    [
        ("sm_87", 32, 0, 4, (1.0, "warps")),
        ("sm_87", 255, 0, 4, (8 / 48, "registers")),
        ("sm_87", 64, 81 * 1024, 4, (8 / 48, "shared")),
        ("sm_120", 64, 60 * 1024, 4, (4 / 48, "shared")),
        ("sm_120", 32, 100 * 1024, 4, (0.0, "shared")),
        ("sm_80", 32, 0, 1, (0.5, "blocks")),
    ],
)
def test_occupancy(target: str, registers: int, shared: int, warps: int, expected: tuple[float, str]) -> None:
    assert occupancy(target, registers, shared, warps) == pytest.approx(expected)


def test_a_document_without_markers_is_refused(tmp_path: Path) -> None:
    from uare_rt.errors import OutputError

    document = tmp_path / "plain.md"
    document.write_text("nothing here\n")
    with pytest.raises(OutputError, match="has no lines"):
        write_table(document, {"triton": "3", "kernels": []})
    assert document.read_text() == "nothing here\n"
    assert rows({"triton": "3.9.0", "kernels": []})[0].startswith("Triton 3.9.0; 0 variants")


@pytest.mark.slow
@pytest.mark.parametrize("target", ["sm_87", "sm_120"])
def test_every_launch_of_the_models_compiles_as_the_gpu_would_have_it(target: str) -> None:
    """With what only launches know: arguments that are 1, alignment, tensors' types; nothing spills, all fits."""
    done = run(Path(__file__).with_name("launches.py"), target)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)[target]
    assert found["problems"] == []
    assert found["launches"] > 300
    assert {
        "attention_kernel", "attention_int8_kernel", "combine_kernel", "emit_rgb_kernel", "flow_norm_kernel",
        "flow_step_kernel", "gemm_kernel", "gemm_w8a8_kernel", "ingest_kernel", "key_mean_kernel", "list_kernel",
        "modulated_conv_kernel", "modulation_kernel", "qk_rope_kernel", "quantise_kernel", "quantise_keys_kernel",
        "routed_norm_kernel", "score_kernel", "flag_kernel", "swiglu_kernel", "window_attention_kernel",
    } == set(found["names"])  # fmt: skip


@pytest.mark.slow
def test_everything_compiles_for_every_target_without_spills(tmp_path: Path) -> None:
    done = run("-m", "uare_rt.kernels.compile", "--out", tmp_path / "all")
    assert done.returncode == 0, done.stderr
    manifest = json.loads((tmp_path / "all" / "manifest.json").read_text())
    checked(manifest, tmp_path / "all")
    assert len(manifest["kernels"]) == len(TARGETS) * sum(len(found) for found in all_variants().values())
    assert {entry["operator"] for entry in manifest["kernels"]} == set(OPERATORS)
