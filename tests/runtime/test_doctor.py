"""The doctor runs what it reports, and has a reason for the rest."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from uare_rt import backends
from uare_rt.backends.base import Capability
from uare_rt.doctor import diagnose, package_warnings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import pytest
    from numpy.typing import NDArray


def test_every_backend_is_run_or_excused(tiny: Path) -> None:
    report = diagnose(tiny)
    by_name = {entry.name: entry for entry in report.backends}
    assert tuple(by_name) == backends.names()
    assert by_name["onnxruntime"].works
    assert by_name["onnxruntime"].seconds is not None
    for entry in report.backends:
        assert entry.reason
        assert entry.works == (entry.seconds is not None)
        assert entry.difference is None or entry.difference < 1e-3
    assert report.cores >= 1
    assert report.default_backend in by_name
    assert report.packages["onnxruntime"] == by_name["onnxruntime"].version
    assert json.loads(json.dumps(report.to_dict()))["python"] == report.python


def test_without_a_bundle_nothing_is_claimed(tmp_path: Path) -> None:
    report = diagnose(tmp_path / "absent.uare")
    assert not any(entry.works for entry in report.backends)
    assert any("no bundle at" in warning for warning in report.warnings)


def test_wrong_results_do_not_count_as_working(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sound = backends.get("onnxruntime")

    class Wrong:
        name = "openvino"
        worth_sizing = None
        runs_parts = False
        precisions = ()

        def probe(self) -> Capability:
            return Capability(self.name, True, "lies", "1", ("CPU",))

        def load(self, graph: Any, *, threads: int | None, beside: int = 1) -> Any:
            inner = sound.load(graph, threads=threads, beside=beside)

            class Shifted:
                def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
                    return {name: value + np.float32(0.3) for name, value in inner.run(inputs).items()}

                def close(self) -> None:
                    inner.close()

            return Shifted()

    monkeypatch.setitem(backends._BACKENDS, "openvino", Wrong())
    entry = next(entry for entry in diagnose(tiny).backends if entry.name == "openvino")
    assert not entry.works
    assert "wrong by" in entry.reason


def test_clashing_packages_are_noticed() -> None:
    assert package_warnings({"onnxruntime": "1.20", "numpy": "2.0"}) == []
    (clash,) = package_warnings({"onnxruntime": "1.20", "onnxruntime-gpu": "1.20"})
    assert "pip uninstall onnxruntime onnxruntime-gpu" in clash
    (old,) = package_warnings({"tensorrt": "8.6.2.3"})
    assert "8.6.2.3 is too old" in old
    assert package_warnings({"tensorrt": "10.3.0"}) == package_warnings({"tensorrt": "11.4.1"}) == []


def test_it_says_which_way_the_kernels_go(tmp_path: Path) -> None:
    report = diagnose(tmp_path / "absent.uare")
    if "torch" in report.packages:
        assert report.kernels[0].startswith("cpu: torch (")
    else:
        assert report.kernels == ()


def test_it_says_which_models_the_kernels_cannot_take(altered: Callable[..., Path]) -> None:
    def heads_of_twelve(manifest: dict[str, Any]) -> None:
        manifest["context"]["head_dim"] = 12
        for graph in manifest["graphs"].values():
            for tensor in (*graph["inputs"], *graph["outputs"]):
                if tensor["name"] in ("ctx_k", "ctx_v"):
                    tensor["shape"][-1] = 12

    report = diagnose(altered(heads_of_twelve))
    if "torch" in report.packages:
        reason = "a head dim of 12; the kernel takes multiples of 8 up to 128"
        assert report.kernels[-1] == f"attention of the bundle's model: torch ({reason})"
    else:
        assert report.kernels == ()
