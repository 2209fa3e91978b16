"""One place chooses between Triton and torch, says which and why, and both give the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch
from harness import Memory

from uare_rt.errors import UsageError
from uare_rt.kernels import choice, dispatch
from uare_rt.kernels.report import full_report
from uare_rt.model.codec import ModulatedConv
from uare_rt.model.mot import MoTConfig, MoTLayer, Segment, attend, block_causal_mask, rotary


def arguments(dim: int = 16, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, ...]:
    memory = Memory()
    return tuple(memory.normal(1, heads, 6, dim, dtype=dtype) for heads in (4, 2, 2))


def last_call(operator: str) -> dict[str, object]:
    return [call for call in dispatch.report()["calls"] if call["operator"] == operator][-1]


def last_count(operator: str) -> int:
    """Calls of an operator that went through Triton so far."""
    calls = dispatch.report()["calls"]
    return sum(call["count"] for call in calls if call["operator"] == operator and call["path"] == "triton")


def test_cpu_tensors_stay_with_torch_unless_triton_is_asked_for() -> None:
    assert dispatch.choose(torch.device("cpu")).path == "reference"
    assert dispatch.attention(*arguments(), past=None, mask=None) is None
    with dispatch.using("triton"):
        assert dispatch.choose(torch.device("cpu")) == dispatch.Choice(
            "triton", "Triton's interpreter, on the CPU", "sm_87"
        )


@pytest.mark.parametrize("masked", [False, True])
def test_the_layers_attention_is_the_same_either_way(masked: bool) -> None:
    q, k, v = arguments()
    past = tuple(torch.randn(1, 2, 5, 16) for _ in range(2))
    mask = block_causal_mask([(2, True), (4, False)]) if masked else None
    own = attend(q, k, v, past=past, mask=mask)
    with dispatch.using("triton"):
        got = attend(q, k, v, past=past, mask=mask)
    assert not torch.equal(got, own)  # another summation order: both ways really ran
    assert torch.allclose(got, own, atol=1e-6)
    assert last_call("attention")["path"] == "triton"


def test_a_mask_that_changes_is_read_again() -> None:
    q, k, v = arguments()
    mask = block_causal_mask([(6, True)])
    with dispatch.using("triton"):
        attend(q, k, v, mask=mask)
        mask[:] = True
        got = attend(q, k, v, mask=mask)
    assert torch.allclose(got, attend(q, k, v), atol=1e-6)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"dim": 12}, "a head dim of 12; the kernel takes multiples of 8 up to 128"),
        ({"dtype": torch.bfloat16}, "the interpreter is unreliable with bf16"),
    ],
)
def test_what_the_kernel_cannot_do_goes_the_torch_way_with_a_reason(change: dict[str, object], reason: str) -> None:
    q, k, v = arguments(**change)
    with dispatch.using("triton"):
        assert dispatch.attention(q, k, v, past=None, mask=None) is None
    assert reason in [call["reason"] for call in dispatch.report()["calls"]]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"past": torch.float64}, "torch.float64 tensors beside torch.float32 ones"),
        ({"batch": 70000}, "70000 rows of a batch; the kernels take 65535"),
        ({"largest": 383}, "a tensor that reaches over 384 elements; the kernels count up to 383"),
        ({"autocast": True}, "autocast chooses the types; the kernels take tensors as they are"),
    ],
)
def test_what_a_launch_would_get_wrong_goes_the_torch_way_with_a_reason(
    change: dict[str, object], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "LARGEST", change.get("largest", choice.LARGEST))
    q, k, v = arguments()
    past = tuple(torch.zeros(1, 2, 3, 16, dtype=change.get("past", torch.float32)) for _ in range(2))
    q, k, v = (part.expand(change.get("batch", 1), -1, -1, -1) for part in (q, k, v))
    with dispatch.using("triton"), torch.autocast("cpu", enabled="autocast" in change):
        assert dispatch.attention(q, k, v, past=past, mask=None) is None
    assert reason in [call["reason"] for call in dispatch.report()["calls"]]


def test_compiled_products_in_float32_go_the_torch_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "_choose", lambda *_: choice.Choice("triton", "a GPU", "sm_87"))
    monkeypatch.setattr("uare_rt.kernels.jit.interpreted", lambda: False)
    with dispatch.using("triton"):
        assert dispatch.attention(*arguments(), past=None, mask=None) is None
    reason = "products in float32, which kernels compute without the GPU's matrix units"
    assert reason in [call["reason"] for call in dispatch.report()["calls"]]
    assert choice.decide("attention", arguments(dtype=torch.bfloat16)).path == "triton"
    assert choice.decide("modulation", arguments()).path == "triton"


def test_positions_of_each_entry_of_a_batch_go_the_torch_way() -> None:
    layer = MoTLayer(MoTConfig(hidden=24, layers=1, heads=4, kv_heads=2, head_dim=8, mlp=40)).requires_grad_(False)
    rope = tuple(part[:, None] for part in rotary(torch.arange(6).reshape(2, 3), 8, 1e4))
    with dispatch.using("triton"):
        assert dispatch.layer(layer, torch.randn(2, 3, 24), [Segment("und", 3)], rope, None, None) is None
    reasons = [call["reason"] for call in dispatch.report()["calls"] if call["operator"] == "layer"]
    assert "positions that differ between the entries of a batch" in reasons


@pytest.mark.parametrize(
    ("layout", "operator"), [(torch.contiguous_format, "modulation"), (torch.channels_last, "modulated_conv")]
)
@pytest.mark.parametrize("pictures", [1, 2])
def test_the_codecs_convolution_is_the_same_either_way(
    layout: torch.memory_format, operator: str, pictures: int
) -> None:
    block = ModulatedConv(24, 16, reparameterised=False).requires_grad_(False)
    block.modulation.weight.normal_(std=0.2)
    block.to(memory_format=layout)
    x, context = torch.randn(2, 24, 7, 9).to(memory_format=layout), torch.randn(pictures, 16)
    own, before = block(x, context), last_count(operator)
    with dispatch.using("triton"):
        got = block(x, context)
    assert last_count(operator) == before + 1
    assert torch.allclose(got, own, atol=1e-5)
    assert got.stride() == own.stride()


def test_a_convolution_that_is_trained_and_one_of_another_shape_keep_their_own_code() -> None:
    x, factors = torch.randn(1, 8, 5, 5).to(memory_format=torch.channels_last), torch.randn(1, 8, 1, 1)
    conv = torch.nn.Conv2d(8, 8, 3, padding=1).to(memory_format=torch.channels_last)
    with dispatch.using("triton"):
        assert dispatch.modulated_conv(conv, x, factors, factors) is None
        wide = torch.nn.Conv2d(8, 8, 5, padding=2).requires_grad_(False).to(memory_format=torch.channels_last)
        before = last_count("modulation")
        got = dispatch.modulated_conv(wide, x, factors, factors)
    assert last_count("modulation") == before + 1
    assert torch.allclose(got, torch.nn.functional.leaky_relu(wide(x) * (1 + factors) + factors, 0.1), atol=1e-5)
    reasons = [call["reason"] for call in dispatch.report()["calls"] if call["operator"] == "modulated_conv"]
    assert "gradients are wanted; the kernels have none" in reasons


def test_a_recorded_convolution_holds_plain_operators() -> None:
    block = ModulatedConv(8, 4, reparameterised=False)
    example = (torch.randn(1, 8, 6, 6), torch.randn(1, 4))
    with dispatch.using("triton"):
        names = [str(node.target) for node in torch.export.export(block, example).graph.nodes]
    plain = [str(node.target) for node in torch.export.export(block, example).graph.nodes]
    assert names == plain
    assert sum("conv2d" in name for name in names) == sum("leaky_relu" in name for name in names) == 1


def test_gradients_go_the_torch_way() -> None:
    q, k, v = arguments()
    with dispatch.using("triton"):
        attend(q.requires_grad_(), k, v).sum().backward()
    assert q.grad is not None


def test_gpus_without_tiles_are_told() -> None:
    assert choice.of_gpu(8, 7).path == "triton"
    old = choice.of_gpu(7, 5)
    assert (old.path, old.reason[:19]) == ("reference", "sm_75 has no tiles;")


def test_settings_and_operators_are_checked() -> None:
    with (
        pytest.raises(UsageError, match="UARE_KERNELS is 'fast', but must be one of auto, reference, triton"),
        dispatch.using("fast"),
    ):
        pass
    with pytest.raises(UsageError, match="'softmax' is no operator"):
        dispatch.call("softmax", torch.zeros(1))


def test_insisting_on_triton_fails_without_the_interpreter() -> None:
    code = (
        "import torch; from uare_rt.kernels import dispatch\n"
        "from uare_rt.errors import BackendUnavailableError\n"
        "x = torch.zeros(1, 2, 4, 16)\n"
        "try: dispatch.attention(x, x, x, past=None, mask=None)\n"
        "except BackendUnavailableError as error: print(error)"
    )
    environment = {"UARE_KERNELS": "triton", "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert "cannot use Triton: a cpu tensor; Triton runs on CUDA devices" in done.stdout, done.stderr


def test_without_triton_the_references_remain() -> None:
    code = (
        "import sys; sys.modules['triton'] = None\n"
        "import torch; from uare_rt.kernels import attention, dispatch\n"
        "x = torch.ones(1, 2, 4, 16)\n"
        "print(attention.reference(x, x, x).shape, dispatch.choose(torch.device('cuda')).reason)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "Triton is not installed" in done.stdout, done.stderr


@pytest.mark.parametrize("kind", ["text and image", "windows"])
def test_a_whole_layer_is_the_same_either_way(kind: str) -> None:
    layer = MoTLayer(MoTConfig(hidden=24, layers=1, heads=4, kv_heads=2, head_dim=8, mlp=40)).requires_grad_(False)
    for parameter in layer.parameters():
        parameter.normal_(std=0.3)
    if kind == "windows":
        x, segments, rope = torch.randn(5, 4, 24), [Segment("gen", 4)], rotary(torch.tensor([9]), 8, 1e4)
        past, mask = tuple(torch.randn(1, 2, 7, 8) for _ in range(2)), (torch.rand(5, 4) > 0.4)[:, None, None, None]
    else:
        x, segments = torch.randn(1, 9, 24), [Segment("und", 3), Segment("gen", 5), Segment("und", 1)]
        rope, mask = rotary(torch.arange(9), 8, 1e4), block_causal_mask([(2, True), (7, False)])
        past = tuple(torch.randn(1, 2, 6, 8) for _ in range(2))
    own = layer(x, segments, rope, past, mask)
    with dispatch.using("triton"):
        got = layer(x, segments, rope, past, mask)
    assert last_call("layer")["path"] == "triton"
    for mine, expected in zip(got, own, strict=True):
        assert mine.shape == expected.shape
        assert torch.allclose(mine, expected, atol=1e-5, rtol=1e-5)


def test_the_report_of_this_machine_tries_what_it_names() -> None:
    command = [sys.executable, "-m", "uare_rt.kernels.report"]
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    found = json.loads(done.stdout)
    assert found["devices"][0]["name"] == "cpu"
    assert found["devices"][0]["works"] is None
    with dispatch.using("triton"):
        tried = full_report()
    assert tried["devices"][0]["works"] is True


def test_a_graph_that_is_recorded_holds_plain_operators() -> None:
    q, k, v = arguments()
    with dispatch.using("triton"):
        program = torch.export.export(Attend(), (q, k, v))
    assert torch.allclose(program.module()(q, k, v), attend(q, k, v))


class Attend(torch.nn.Module):
    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return attend(q, k, v)


def test_operators_are_called_by_name_with_or_without_triton() -> None:
    frame = torch.randint(0, 256, (5, 7, 3), dtype=torch.uint8)
    plain = dispatch.call("ingest", frame, multiple=8)
    with dispatch.using("triton"):
        assert torch.equal(dispatch.call("ingest", frame, multiple=8), plain)
    assert last_call("ingest")["path"] == "triton"
