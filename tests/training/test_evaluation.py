"""Evaluation: restoration with peers, scores, guidance, and the command that shows them."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from skimage.metrics import structural_similarity as reference_ssim
from typer.testing import CliRunner

from uare_rt.cli.app import app
from uare_rt.errors import InputError, UsageError
from uare_rt.quality import QualityContext
from uare_rt.slots import DEGRADATIONS
from uare_rt.training import st_lpips
from uare_rt.training.evalset import EvaluationSet, psnr
from uare_rt.training.evaluation import PIPELINES, evaluate_restoration, pipeline_name
from uare_rt.training.fidelity import structural_similarity
from uare_rt.training.guidance import CONTEXTS, evaluate_guidance
from uare_rt.training.peers import PEERS, SCORERS, peer
from uare_rt.training.scoring import evaluate_scores, spearman

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def evalset(tmp_path_factory: pytest.TempPathFactory) -> EvaluationSet:
    folder = tmp_path_factory.mktemp("evaluation") / "set"
    photos = ROOT / "tests" / "data" / "photos"
    subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "make_evalset.py", photos, folder, "--size", "192", "--limit", "2"],
        check=True,
        capture_output=True,
    )
    return EvaluationSet.open(folder)


class Stub:
    """A model that knows the truth of what it is shown, or pretends to."""

    def __init__(self, evalset: EvaluationSet, *, sees: bool = True) -> None:
        self.known = {
            pixels.tobytes(): (kind, evalset.picture("truth", name))
            for kind in evalset.input_psnr
            for name, pixels, _ in evalset.pictures(kind)
        }
        self.sees = sees

    def assess(self, image: np.ndarray) -> Any:
        kind, _ = self.known.get(image.tobytes(), ("unknown", None))
        context = QualityContext(np.zeros(1), np.zeros(1), np.full(1, float(sum(map(ord, kind)))))
        return SimpleNamespace(score=float(image.std()), severities=dict.fromkeys(DEGRADATIONS, 0.5), context=context)

    def restore(self, image: np.ndarray, *, scale: int = 1, context: Any = None) -> Any:
        kind, truth = self.known[image.tobytes()]
        right = context is None or context.vec[0] == float(sum(map(ord, kind)))
        result = truth if right and self.sees else np.roll(truth, 1, axis=0)
        return SimpleNamespace(image=result, assessment=self.assess(image), seconds=0.01)

    def null_context(self) -> Any:
        return QualityContext(np.zeros(1), np.zeros(1), np.zeros(1))


def test_every_pipeline_names_peers_that_exist() -> None:
    for pipelines in PIPELINES.values():
        for pipeline in pipelines:
            assert pipeline_name(pipeline)
    assert len({found.name for found in PEERS}) == len(PEERS)
    with pytest.raises(UsageError, match="ffdnet"):
        peer("nothing")


def test_a_peer_that_is_missing_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert 'pip install "uare-rt[bench]"' in str(peer("skimage-nlm").reason())
    assert "pip install --no-deps neuro-low-light" in str(peer("zero-dce++").reason())
    assert all(found.reason() for found in (*PEERS, *SCORERS))


@pytest.mark.parametrize("found", [p for p in PEERS if not p.slow], ids=lambda p: p.name)
@pytest.mark.filterwarnings("ignore")
def test_peers_that_are_installed_run(found: Any, evalset: EvaluationSet) -> None:
    if found.reason():
        pytest.skip(found.reason())
    kind = {"denoise": "noise25", "brighten": "lowlight", "dehaze": "haze", "deblur": "blur2"}.get(found.task, "x4")
    degraded, truth = evalset.pair(kind, evalset.names[0])
    told = {"denoise": 25.0, "deblur": 2.0}.get(found.task, 2.0)
    result = found.load()(degraded, told)
    assert result.dtype == np.uint8
    factor = int(found.name[-1]) if found.task == "enlarge" else 1
    assert result.shape == (degraded.shape[0] * factor, degraded.shape[1] * factor, 3)
    if found.task == "denoise":
        assert psnr(result, truth) > psnr(degraded, truth) + 1
    if found.task == "brighten":
        assert result.mean() > degraded.mean() + 10


@pytest.mark.parametrize("found", SCORERS, ids=lambda s: s.name)
@pytest.mark.filterwarnings("ignore")
def test_scorers_that_are_installed_see_heavy_blur(found: Any, evalset: EvaluationSet) -> None:
    if found.reason():
        pytest.skip(found.reason())
    pixels = np.tile(evalset.picture("truth", evalset.names[0]), (2, 2, 1))
    score = found.load()
    assert np.isfinite(score(pixels))
    assert score(pixels) == pytest.approx(score(pixels), rel=1e-6)  # BRISQUE sums in threads


def test_ssim_is_that_of_scikit_image(evalset: EvaluationSet) -> None:
    degraded, truth = evalset.pair("mix_a", evalset.names[0])
    options = {"channel_axis": 2, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    assert structural_similarity(truth, degraded) == pytest.approx(reference_ssim(truth, degraded, **options), abs=1e-4)


def test_st_lpips_is_that_of_its_package() -> None:
    if importlib.util.find_spec("stlpips_pytorch") is None:
        pytest.skip("stlpips-pytorch is not installed")
    with Image.open(ROOT / "tests" / "data" / "photos" / "tiger.jpg") as opened:
        clean = np.asarray(opened.convert("RGB"))[:160, :192].copy()
    noisy = np.clip(np.rint(clean + np.random.default_rng(7).normal(0, 25, clean.shape)), 0, 255).astype(np.uint8)
    distance = st_lpips.load()
    assert distance(clean, noisy) == pytest.approx(0.42775, abs=0.005), "stlpips-pytorch 0.0.2, shift-tolerant AlexNet"
    assert distance(clean, clean) == 0


def test_restoration_is_compared_with_the_truth(evalset: EvaluationSet) -> None:
    found = evaluate_restoration(Stub(evalset), evalset, kinds=["noise25", "x2"], peers=False)
    assert list(found) == ["noise25", "x2"]
    for kind, row in found.items():
        assert row["pictures"] == 2
        assert row["input"]["psnr"] == pytest.approx(np.mean(list(evalset.input_psnr[kind].values())), abs=2e-3)
        assert row["output"]["psnr"] > 78
        assert row["output"]["ssim"] == pytest.approx(1)
        assert row["peers"] == {}


def test_peers_restore_the_same_pictures(evalset: EvaluationSet) -> None:
    (row,) = evaluate_restoration(Stub(evalset), evalset, kinds=["blur2"]).values()
    assert set(row["peers"]) == {pipeline_name(p) for p in PIPELINES["blur2"]}
    assert row["best_peer"] == max(row["peers"], key=lambda name: row["peers"][name]["psnr"])


def test_scores_are_held_against_what_is_known(evalset: EvaluationSet) -> None:
    found = evaluate_scores(Stub(evalset), evalset, peers=False)
    assert found["blend"]["pictures"] == 30
    assert found["seeded"]["pictures"] == 16
    assert 0.2 < found["seeded"]["severity_error"] < 0.5, "the stub says 0.5 of everything"
    assert found["comparisons"]["pairs"] > 10
    assert -1 <= found["opinion_proxy"]["spearman"]["uare"] <= 1


def test_rank_correlation() -> None:
    assert spearman([1, 2, 3, 4], [10, 20, 30, 40]) == 1
    assert spearman([1, 2, 3, 4], [4, 3, 2, 1]) == -1
    assert spearman([1, 1, 1], [1, 2, 3]) is None


def test_guidance_tells_contexts_apart(evalset: EvaluationSet) -> None:
    found = evaluate_guidance(Stub(evalset), evalset, ["noise25", "blur2"])
    for row in found.values():
        assert set(row["psnr"]) == set(CONTEXTS)
        assert row["psnr"]["true"] > 78
        assert row["psnr"]["oracle"] == row["psnr"]["true"]
        assert row["psnr"]["shuffled"] == row["psnr"]["null"] < row["psnr"]["true"]
        assert row["over_null"]["null"] == 0
    with pytest.raises(InputError, match="two types"):
        evaluate_guidance(Stub(evalset), evalset, ["noise25"])


def test_a_folder_that_is_no_set_is_refused(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["eval", "--data", str(tmp_path)])
    assert done.exit_code == 1
    assert "is not an evaluation set" in done.output
    assert "make_evalset.py" in done.output


def test_unknown_types_and_parts_are_usage_errors(evalset: EvaluationSet) -> None:
    for options in (["--type", "fog"], ["--only", "speed"]):
        done = CliRunner().invoke(app, ["eval", "--data", str(evalset.folder), *options])
        assert done.exit_code == 2
        assert options[1] in done.output


def test_the_command_needs_no_torch(evalset: EvaluationSet) -> None:
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "from uare_rt.cli import main\n"
        "sys.argv = ['uare-rt', 'eval', '--data', sys.argv[1], '--type', 'noise25', '--only', 'restoration', "
        "'--backend', 'null', '--no-peers', '--json']\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", program, evalset.folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout)["restoration"]["noise25"]
    assert row["pictures"] == 2
    assert "st_lpips" not in row["output"]
