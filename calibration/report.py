"""The report of a build: one HTML page that needs no other file."""

from __future__ import annotations

import base64
import html
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto
from PIL import Image

from uare_rt.calibration.compare import GraphProof, drop, nearness, rank_correlation
from uare_rt.calibration.sensitivity import mean_drop

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

    from uare_rt.calibration.data import Sample
    from uare_rt.calibration.observers import Histogram
    from uare_rt.calibration.precision import GraphPrecision
    from uare_rt.manifest import EngineSpec, Manifest

__all__ = ["QUALITY_HEADERS", "ReportData", "quality_rows", "write_report"]

_STYLE = """body{font:14px/1.4 sans-serif;margin:2em auto;max-width:1100px}table{border-collapse:collapse;margin:1em 0}
td,th{padding:2px 10px;text-align:right;border-bottom:1px solid #ddd}td:first-child,th:first-child{text-align:left}
.bar{display:inline-block;height:10px;background:#4477aa}.int8{color:#117733}.kept{color:#999}
figure{display:inline-block;margin:4px}figcaption{font-size:12px}img{image-rendering:pixelated;width:256px}"""
QUALITY_HEADERS = (
    "precision", "graph", "PSNR dB", "SSIM", "loss dB", "worst loss dB", "to fp32 dB", "score", "score rank", "weights",
)  # fmt: skip
_WORST = 3
_HISTOGRAM_WIDTH, _HISTOGRAM_HEIGHT, _HISTOGRAM_BARS = 220, 60, 64


@dataclass(frozen=True)
class ReportData:
    """What the report shows.

    Attributes:
        manifest: of the bundle.
        work: the graphs.
        proofs: one for each precision, float32 first.
        samples: held-out samples at the smallest scale, for pictures.
        budget: in dB.
        problems: promises that are not kept.
        seconds: of the build so far.
        sizes: of the bundle's files, in bytes.
    """

    manifest: Manifest
    work: Mapping[str, GraphPrecision]
    proofs: Sequence[GraphProof]
    samples: Sequence[Sample]
    budget: float
    problems: Sequence[str]
    seconds: float
    sizes: Mapping[str, int]


def quality_rows(proofs: Sequence[GraphProof]) -> list[tuple[str, ...]]:
    """A row for every precision and graph, under `QUALITY_HEADERS`."""
    reference = proofs[0]
    rows = []
    for proof in proofs:
        for name, quality in proof.quality.items():
            lost = drop(proof, reference, name)
            worst = int(np.argmax(lost))
            rows.append(
                (
                    f"{proof.precision}",
                    name,
                    f"{np.mean(quality.psnr):.2f}",
                    f"{np.mean(quality.ssim):.4f}",
                    f"{mean_drop(reference.quality[name], quality):+.3f}",
                    f"{lost[worst]:+.2f} ({proof.conditions[name][worst]})",
                    "-" if proof is reference else f"{nearness(proof, reference, name):.1f}",
                    f"{np.mean(quality.scores):.3f}",
                    f"{rank_correlation(proof, reference):.4f}",
                    f"{100 * proof.weights[0] / proof.weights[1]:.0f} %",
                )
            )
    return rows


def write_report(data: ReportData) -> str:
    """The page, as HTML."""
    manifest, backend = data.manifest, data.manifest.backend
    target = ", ".join(backend.target or ("any",))
    parts = [
        f"<h1>{html.escape(manifest.name)} for {backend.name} ({target})</h1>",
        "<p>" + html.escape(_summary(data)) + "</p>",
        *(f"<p><b>Missed: {html.escape(problem)}</b></p>" for problem in data.problems),
        "<h2>Quality on held-out samples</h2>",
        "<p>" + html.escape(_samples(data.proofs[0])) + "</p>",
        _table(QUALITY_HEADERS, quality_rows(data.proofs)),
        _engines(data.manifest, data.sizes),
        *(_layers(item) for item in data.work.values() if item.sensitivities),
        *(_half(item) for item in data.work.values() if len(item.plan.reasons) < len(item.graph.nodes)),
        *(_histograms(item) for item in data.work.values() if item.choice is not None),
        _pictures(data),
    ]
    body = "\n".join(part for part in parts if part)
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{manifest.name}</title><style>{_STYLE}</style>{body}"
    )


def _summary(data: ReportData) -> str:
    calibration = data.manifest.calibration
    source = "" if calibration is None else (
        f" Ranges from {calibration.samples} samples of {', '.join(calibration.sources)} "
        f"(SHA-256 {calibration.sha256[:12]}, observer {calibration.observer})."
    )  # fmt: skip
    note = data.manifest.backend.note
    return (
        f"Budget {data.budget:g} dB; measured on a CPU: float16 by rounding every tensor, INT8 through Q/DQ. "
        f"{data.seconds:.0f} s so far.{source}" + (f" {note}." if note else "")
    )


def _samples(reference: GraphProof) -> str:
    """What the samples are, and how many of them count."""
    counts = ", ".join(f"{q.counted.sum()} of {len(q.psnr)} for {name}" for name, q in reference.quality.items())
    conditions = ", ".join(dict.fromkeys(name for names in reference.conditions.values() for name in names))
    return (
        f"Samples: {conditions}. Loss is the mean over those that float32 brings nearer to the truth ({counts}). "
        "To fp32: mean PSNR of the results against those of float32."
    )


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]], raw: bool = False) -> str:
    def show(cell: str) -> str:
        return cell if raw else html.escape(cell)

    head = "".join(f"<th>{html.escape(name)}</th>" for name in headers)
    body = "".join("<tr>" + "".join(f"<td>{show(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _engines(manifest: Manifest, sizes: Mapping[str, int]) -> str:
    rows = []
    for name, spec in manifest.graphs.items():
        engine: EngineSpec | str | None = spec.engine
        seconds = "-" if engine is None or isinstance(engine, str) else f"{engine.seconds:.1f}"
        state = engine if isinstance(engine, str) else "none" if engine is None else engine.file
        size = "-" if engine is None or isinstance(engine, str) else f"{sizes[engine.file] / 1e6:.2f}"
        rows.append((name, spec.precision, state, size, seconds))
    return "<h2>Engines</h2>" + _table(("graph", "precision", "engine", "MB", "seconds"), rows)


def _layers(item: GraphPrecision) -> str:
    assert item.choice is not None
    largest = max((abs(s.drop_db) for s in item.sensitivities), default=0.0) or 1.0
    rows = []
    for s in item.sensitivities:
        reason = item.choice.kept.get(s.layer.name)
        if reason is not None and s.layer.name in item.choice.stored:
            reason += ", weights in INT8"
        state = '<span class="int8">INT8</span>' if reason is None else f'<span class="kept">{reason}</span>'
        bar = f'<span class="bar" style="width:{200 * max(s.drop_db, 0) / largest:.0f}px"></span>'
        rows.append(
            (
                html.escape(s.layer.source),
                html.escape(s.layer.name),
                f"{100 * s.share:.2f}",
                f"{s.drop_db:+.4f}",
                f"{s.drop_ssim:+.5f}",
                f"{s.score_error:.4f}",
                state,
                bar,
            )
        )
    share = f"{100 * item.int8_share('conv'):.0f} % of convolutions, {100 * item.int8_share():.0f} % of all"
    headers = ("layer", "node", "MACs %", "alone: loss dB", "loss SSIM", "scores moved", "precision", "")
    return f"<h2>{item.name}: {share} in INT8</h2>" + _table(headers, rows, raw=True)


def _half(item: GraphPrecision) -> str:
    """For every layer, without regard to INT8: its nodes in 16 bits, those in float32 and why, its largest value."""
    sources, reasons = item.graph.sources(), item.plan.reasons
    layers: dict[str, list[onnx.NodeProto]] = {}
    for node in item.graph.nodes:
        layers.setdefault(sources[node.name], []).append(node)
    rows = []
    for layer, nodes in layers.items():
        kept = Counter(reasons[node.name] for node in nodes if node.name in reasons)
        why = ", ".join(f"{count} {reason}" for reason, count in kept.items()) or "-"
        largest = max(item.seen.largest.get(name, 0.0) for node in nodes for name in node.output)
        rows.append((layer, str(len(nodes) - kept.total()), why, f"{largest:.3g}"))
    kind = "bf16" if item.plan.kind == TensorProto.BFLOAT16 else "fp16"
    headers = ("layer", f"nodes in {kind}", "in fp32, and why", "largest value")
    return f"<h2>{item.name}: {kind} and fp32</h2>" + _table(headers, rows)


def _histograms(item: GraphPrecision) -> str:
    assert item.choice is not None
    shown: dict[str, str] = {}
    for layer in item.layers:
        if layer.name in item.choice.int8:
            for name in layer.inputs:
                shown.setdefault(name, layer.source)
    figures = "".join(
        f"<figure>{_histogram(item.seen.histograms[name], item.ranges[name])}"
        f"<figcaption>{html.escape(source)}: {item.ranges[name]:.3g} of {item.seen.histograms[name].largest:.3g}"
        "</figcaption></figure>"
        for name, source in shown.items()
    )
    return f"<h2>{item.name}: magnitudes and chosen ranges</h2><p>Logarithmic counts; red: the range.</p>{figures}"


def _histogram(histogram: Histogram, chosen: float) -> str:
    counts, top = histogram.bins()
    heights = np.log1p(counts.reshape(_HISTOGRAM_BARS, -1).sum(axis=1))
    heights = heights / max(float(heights.max()), 1e-9) * _HISTOGRAM_HEIGHT
    width = _HISTOGRAM_WIDTH / _HISTOGRAM_BARS
    bars = "".join(
        f'<rect x="{i * width:.1f}" y="{_HISTOGRAM_HEIGHT - h:.1f}" width="{width:.1f}" height="{h:.1f}"/>'
        for i, h in enumerate(heights)
    )
    x = min(chosen / top if top else 1.0, 1.0) * _HISTOGRAM_WIDTH
    line = f'<line x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{_HISTOGRAM_HEIGHT}" stroke="#cc3311" stroke-width="2"/>'
    return f'<svg width="{_HISTOGRAM_WIDTH}" height="{_HISTOGRAM_HEIGHT}" fill="#4477aa">{bars}{line}</svg>'


def _pictures(data: ReportData) -> str:
    """The samples that lose most in the lowest precision, in every precision side by side."""
    if len(data.proofs) < 2:
        return ""
    graph = min(data.proofs[0].quality)
    lowest = next((p for p in data.proofs if p.precision == "int8"), data.proofs[-1])
    worst = np.argsort(drop(lowest, data.proofs[0], graph))[::-1][:_WORST]
    rows = []
    for index in worst:
        sample = data.samples[index]
        shown = [("input", sample.frame), ("truth", sample.truth)]
        shown += [(proof.precision, proof.pictures[graph][index]) for proof in data.proofs]
        rows.append(
            "".join(f"<figure>{_image(p)}<figcaption>{sample.condition}: {n}</figcaption></figure>" for n, p in shown)
        )
    return "<h2>Worst cases</h2>" + "".join(f"<div>{row}</div>" for row in rows)


def _image(pixels: NDArray[np.uint8]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return f'<img alt="" src="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}">'
