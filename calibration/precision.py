"""All graphs of a bundle in one precision: observed, placed, and proven on held-out samples."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from uare_rt.calibration.evaluation import Verdict, assess_all, frame_of, judge, measure_restoration, restore_all
from uare_rt.calibration.execution import Executor
from uare_rt.calibration.half import HalfPlan, plan_half, to_half
from uare_rt.calibration.layers import Layer, find_layers
from uare_rt.calibration.metrics import spearman
from uare_rt.calibration.observation import Known, Observations, observe
from uare_rt.calibration.qdq import place
from uare_rt.calibration.rounding import rounded
from uare_rt.calibration.sensitivity import (
    Choice,
    Quality,
    Sensitivity,
    choose,
    choose_stored,
    keeps_flawless,
    measure_layers,
    score_error,
)
from uare_rt.calibration.switches import Switchable
from uare_rt.calibration.weights import RoundedWeight, round_weight
from uare_rt.views import extract_views

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from uare_rt.calibration.data import Sample
    from uare_rt.calibration.graph import Graph
    from uare_rt.calibration.observers import Observer

__all__ = [
    "LEAST_SPEARMAN",
    "GraphPrecision",
    "Proved",
    "SampleSets",
    "Typed",
    "half_precision",
    "int8",
    "naive_int8",
    "observe_all",
    "prove",
]

LEAST_SPEARMAN = 0.995
_ASSESS_SHARE = 0.3  # of the budget, for what a changed context does to restoration
_MARGIN = 0.8  # of the budget, kept for other pictures than the searched ones
_LARGEST_SCORE_ERROR = 0.04  # RMS, in levels of 1..5
_ALONE = slice(1, None, 2)  # samples that tell which of the layers are the sensitive ones
_ALL = slice(None)
Runner = Callable[[Mapping[str, Any]], dict[str, Any]]
Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class SampleSets:
    """Samples by scale of the truth.

    Attributes:
        calibration: to observe ranges on; one list for all graphs.
        search: to measure sensitivity on.
        held_out: to prove the result on, from other pictures where there are any.
    """

    calibration: Sequence[Sample]
    search: Mapping[int, Sequence[Sample]]
    held_out: Mapping[int, Sequence[Sample]]


@dataclass
class GraphPrecision:
    """One graph and what is known about it.

    Attributes:
        name: of the graph.
        graph: in float32.
        layers: what INT8 could take.
        seen: ranges.
        plan: what half precision leaves in float32; everything where the target computes in float32.
        ranges: chosen range by tensor.
        weights: in INT8, by layer.
        sensitivities: of every layer, where INT8 was asked for.
        choice: the mixed precision, likewise.
    """

    name: str
    graph: Graph
    layers: list[Layer]
    seen: Observations
    plan: HalfPlan
    ranges: Mapping[str, float] = field(default_factory=dict)
    weights: dict[str, RoundedWeight] = field(default_factory=dict)
    sensitivities: list[Sensitivity] = field(default_factory=list)
    choice: Choice | None = None

    @property
    def scale(self) -> int:
        """Of the output; 1 for the assessment."""
        return int(self.name.removeprefix("restore_x")) if self.name.startswith("restore_x") else 1

    def int8_share(self, kind: str | None = None) -> float:
        """Share of the multiplications of layers of a kind (None: all) that run in INT8, 0..1."""
        mine = [layer for layer in self.layers if kind in (None, layer.kind)]
        total = sum(self.seen.macs[layer.name] for layer in mine)
        chosen = self.choice.int8 if self.choice is not None else frozenset()
        return sum(self.seen.macs[layer.name] for layer in mine if layer.name in chosen) / total if total else 0.0


@dataclass(frozen=True)
class Typed:
    """Graphs in one precision.

    Attributes:
        precision: `fp32`, `fp16`, `bf16`, `int8`, or `naive int8` for comparison.
        graphs: typed, by name.
    """

    precision: str
    graphs: Mapping[str, Graph]


def observe_all(
    graphs: Mapping[str, Graph], samples: Sequence[Sample], *, half: int | None, progress: Progress
) -> dict[str, GraphPrecision]:
    """Run every graph in float32 on the calibration samples.

    Args:
        graphs: in float32, `assess` and `restore_x*`.
        samples: truth is not looked at.
        half: ONNX type of 16 bits to plan for, FLOAT16 or BFLOAT16; None: what is not INT8 stays in float32.
        progress: called with what is done and the finished part.
    """
    verdicts = assess_all(Executor(graphs["assess"]).run, samples)
    found, known = {}, Known()
    for index, (name, graph) in enumerate(graphs.items()):
        progress(f"observing {name}", index / len(graphs))
        layers = find_layers(graph)
        feeds: Sequence[Mapping[str, NDArray[np.float32]]] = (
            [{"views": extract_views(sample.frame)} for sample in samples]
            if name == "assess"
            else [{"frame": frame_of(s), **verdict.context} for s, verdict in zip(samples, verdicts, strict=True)]
        )
        seen = observe(graph, layers, feeds, known)
        plan = (
            HalfPlan(dict.fromkeys((node.name for node in graph.nodes), "cpu"))
            if half is None
            else plan_half(graph, seen.largest, kind=half)
        )
        found[name] = GraphPrecision(name, graph, layers, seen, plan)
    return found


def half_precision(work: Mapping[str, GraphPrecision], precision: str) -> Typed:
    """Every graph in 16 bits where its plan allows it; ``precision`` is what that is called."""
    return Typed(precision, {name: to_half(item.graph, item.plan) for name, item in work.items()})


def int8(
    work: Mapping[str, GraphPrecision],
    samples: Mapping[int, Sequence[Sample]],
    *,
    observer: Observer,
    budget: float,
    progress: Progress,
) -> Typed:
    """Every graph in mixed precision with INT8, within a budget of quality.

    The assessment is chosen first, by its scores and by what its context does to restoration at scale 1; restore graphs
    are then measured with the context that they will get.

    Args:
        work: gets ranges, sensitivities and choices.
        samples: to search on, by scale.
        observer: for activations.
        budget: largest mean loss of PSNR against float32, in dB.
        progress: called with what is done and the finished part.
    """
    known: dict[str, tuple[float, float, float]] = {}
    assess = work["assess"]
    _round_weights(work.values())
    first = min(samples)
    full = {name: Executor(item.graph) for name, item in work.items()}
    exact = {scale: assess_all(full["assess"].run, chosen) for scale, chosen in samples.items()}
    switchable = _switchable(assess, observer)

    def assess_with(names: Collection[str], stored: Collection[str], which: Sequence[Sample]) -> list[Verdict]:
        return assess_all(lambda feeds: switchable.run(feeds, names, stored), which)

    def measure_assessment(names: Collection[str], stored: Collection[str] = (), part: slice = _ALL) -> Quality:
        which = samples[first][part]
        return measure_restoration(full[f"restore_x{first}"].run, which, assess_with(names, stored, which))

    reference = measure_restoration(full[f"restore_x{first}"].run, samples[first], exact[first])
    _search(assess, measure_assessment, reference, _ASSESS_SHARE * budget, known, progress)
    assert assess.choice is not None
    verdicts = {s: assess_with(assess.choice.int8, assess.choice.stored, which) for s, which in samples.items()}
    for name, item in work.items():
        if name == "assess":
            continue
        scale = item.scale
        restore = _switchable(item, observer)

        def measure(
            names: Collection[str],
            stored: Collection[str] = (),
            part: slice = _ALL,
            restore: Switchable = restore,
            scale: int = scale,
        ) -> Quality:
            which, guided = samples[scale][part], verdicts[scale][part]
            return measure_restoration(lambda feeds: restore.run(feeds, names, stored), which, guided)

        reference = measure_restoration(full[name].run, samples[scale], exact[scale])
        _search(item, measure, reference, _MARGIN * budget, known, progress)
    return Typed("int8", {name: to_half(_placed(item), item.plan) for name, item in work.items()})


def _round_weights(items: Iterable[GraphPrecision]) -> None:
    """Round every weight once, so that graphs which share it hold the same levels."""
    known: dict[str, RoundedWeight] = {}
    for item in items:
        for layer in item.layers:
            if layer.weight is None:
                continue
            if layer.key not in known:
                weight = np.asarray(item.graph.constants[layer.weight], np.float32)
                moments = item.seen.moments.get(layer.name)
                known[layer.key] = round_weight(weight, layer.axis, moments, biased=layer.bias is not None)
            item.weights[layer.name] = known[layer.key]


def naive_int8(work: Mapping[str, GraphPrecision]) -> Typed:
    """What quantisation without measurement gives: every layer with weights, percentile ranges."""
    graphs = {}
    for name, item in work.items():
        ranges = {tensor: histogram.range("percentile") for tensor, histogram in item.seen.histograms.items()}
        layers = [layer for layer in item.layers if layer.weight is not None and _has_range(layer, ranges)]
        graphs[name] = to_half(place(item.graph, layers, ranges), item.plan)
    return Typed("naive int8", graphs)


@dataclass(frozen=True)
class Proved:
    """What a restore graph made of samples.

    Attributes:
        quality: against the truth.
        pictures: as a file would hold them, uint8 [H, W, 3] each.
    """

    quality: Quality
    pictures: Sequence[NDArray[np.uint8]]


def prove(typed: Typed, samples: Mapping[int, Sequence[Sample]]) -> dict[str, Proved]:
    """What every restore graph makes of samples, guided by the assessment in the same precision, by graph name."""
    assess = Executor(rounded(typed.graphs["assess"])).run
    found = {}
    for name, graph in typed.graphs.items():
        if name != "assess":
            chosen = samples[int(name.removeprefix("restore_x"))]
            verdicts = assess_all(assess, chosen)
            restored = restore_all(Executor(rounded(graph)).run, chosen, verdicts)
            pictures = [np.clip(np.rint(picture), 0, 255).astype(np.uint8) for picture in restored]
            found[name] = Proved(judge(restored, chosen, verdicts), pictures)
    return found


def accepts_scores(reference: Quality, other: Quality) -> bool:
    """Whether scores still rank pictures as they did."""
    alike = score_error(reference, other) <= _LARGEST_SCORE_ERROR
    return spearman(reference.scores, other.scores) >= LEAST_SPEARMAN and alike


def _switchable(item: GraphPrecision, observer: Observer) -> Switchable:
    item.ranges = {name: histogram.range(observer) for name, histogram in item.seen.histograms.items()}
    usable = [layer for layer in item.layers if _has_range(layer, item.ranges)]
    return Switchable(rounded(to_half(item.graph, item.plan)), item.graph, usable, item.ranges, item.weights)


def _has_range(layer: Layer, ranges: Mapping[str, float]) -> bool:
    """A tensor that was zero for every sample tells nothing about its range."""
    residual = () if layer.residual is None else (layer.residual,)
    return all(ranges[name] > 0 for name in (*layer.inputs, *residual))


def _search(
    item: GraphPrecision,
    measure: Callable[..., Quality],
    reference: Quality,
    budget: float,
    known: dict[str, tuple[float, float, float]],
    progress: Progress,
) -> None:
    usable = [layer for layer in item.layers if _has_range(layer, item.ranges)]

    def advance(done: int, total: int) -> None:
        progress(f"measuring layers of {item.name}", done / total)

    alone = partial(measure, part=_ALONE)
    item.sensitivities = measure_layers(usable, item.seen.macs, alone, known, advance)
    known.update({s.layer.key: (s.drop_db, s.drop_ssim, s.score_error) for s in item.sensitivities if s.layer.key})
    progress(f"choosing the mixed precision of {item.name}", 0.0)

    def accept(quality: Quality) -> bool:
        return keeps_flawless(reference, quality) and (item.name != "assess" or accepts_scores(reference, quality))

    choice = choose(
        item.sensitivities, measure, reference, budget, largest_score_error=_LARGEST_SCORE_ERROR, accept=accept
    )
    # Where the budget is spent already, weights may cost no more than that.
    allowed = max(budget, choice.drop_db)
    stored = choose_stored(
        item.sensitivities, choice.kept, lambda names: measure(choice.int8, names), reference, allowed, accept=accept
    )
    unusable = {layer.name: "no range" for layer in item.layers if layer not in usable}
    item.choice = Choice(choice.int8, choice.drop_db, {**choice.kept, **unusable}, stored)


def _placed(item: GraphPrecision) -> Graph:
    assert item.choice is not None
    chosen = [layer for layer in item.layers if layer.name in item.choice.int8]
    stored = [layer for layer in item.layers if layer.name in item.choice.stored]
    return place(item.graph, chosen, item.ranges, item.weights, stored=stored)
