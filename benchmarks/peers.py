"""The same weights through other engines, and other people's systems on the same pictures: time and quality.

usage: peers.py [EVALSET] [--size 512] [--rounds 27] [--limit 4] [--slow] [--plot FILE] [-o FILE]
Every engine lives in a process of its own and turns a frame of 8 bits into a picture of 8 bits; all of them, and a
product of large matrices, run in turn. Ratios are medians over rounds. With an evaluation set (make_evalset.py) the
systems of `uare_rt.training.peers` restore its pictures, each right after uare-rt; `--slow` adds those that take a
minute a picture, on one picture.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import fmean, median
from typing import Any

import engines
import numpy as np
from evaluate import EvaluationSet
from make_evalset import psnr
from results import Limit, Result, Table, add_options, bundle_facts, finish, keep_partial, run_command, sha256_of

import uare_rt
from uare_rt.bench.limits import GEMM_FLOP, Probe
from uare_rt.bench.pairs import interleaved, ratio
from uare_rt.bench.plots import check_target, plot_quality
from uare_rt.bundle import Bundle, shipped_bundle
from uare_rt.errors import UareError
from uare_rt.machine import available_cores
from uare_rt.model.nano_costs import restore_layers
from uare_rt.model.presets.nano import UARE_NANO
from uare_rt.training.peers import PEERS, SCORERS, Peer

__all__ = ["main", "tables"]

BASE, OPENVINO, RAW = "uare-rt", "uare-rt, OpenVINO", "OpenVINO, raw"
SIZED = ", one size"
FASTEST = "uare-rt, fastest here"
MOST_OVERHEAD, LEAST_SCENE, LEAST_OF_GEMM = 1.05, 1.1, 0.7
_SETTLE = 0.25  # s; OpenMP's threads spin for 0.2 s after their work, in another process too
_PEER_ROUNDS = 3
FASTER = {"ffdnet": 8.0, "cbm3d": 100.0}
# The type of the evaluation set that a task is held against, and what a peer is told of it.
TASKS = {
    "denoise": ("noise25", 25.0),
    "deblur": ("blur2", 2.0),
    "deblock": ("jpeg20", 20.0),
    "brighten": ("lowlight", 0.0),
    "dehaze": ("haze", 2.0),
}
_DAMAGED = ("noise25", "jpeg20", "blur2")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("evalset", type=Path, nargs="?", help="folder of make_evalset.py; engines alone if not given")
    parser.add_argument("--size", type=int, default=512, help="side of the engines' frame, px, a multiple of 16")
    parser.add_argument("--rounds", type=int, default=27, help="that count")
    parser.add_argument("--threads", type=int, default=available_cores(), help="all cores if not given")
    parser.add_argument("--limit", type=int, default=4, help="pictures of the evaluation set")
    parser.add_argument("--slow", action="store_true", help="run the peers that take a minute a picture too")
    parser.add_argument("--engines", action="append", metavar="NAME", help="only these, one option for each")
    parser.add_argument("--plot", type=Path, help="picture of PSNR against time on noise25 (.svg, .png, .pdf)")
    add_options(parser, backend=False)
    chosen = parser.parse_args(arguments)
    if chosen.size < 16 or chosen.size % 16:
        parser.error(f"--size {chosen.size}: give a multiple of 16")
    if min(chosen.rounds, chosen.threads, chosen.limit) < 1:
        parser.error("--rounds, --threads and --limit are at least 1")
    unknown = set(chosen.engines or ()) - set(engines.ENGINES)
    if unknown:
        parser.error(f"--engines {', '.join(sorted(unknown))}: choose among {'; '.join(engines.ENGINES)}")
    if chosen.plot is not None:
        check_target(chosen.plot)
    evalset = None if chosen.evalset is None else EvaluationSet.open(chosen.evalset, chosen.limit)
    facts = bundle_facts(chosen.bundle)
    measured: dict[str, Any] = _engines(chosen)
    if evalset is not None:
        keep_partial("peers", measured, chosen)
        with ExitStack() as stack:
            sessions = {
                who: stack.enter_context(uare_rt.load(chosen.bundle, backend=backend, threads=chosen.threads))
                for who, backend in ((BASE, "onnxruntime"), (FASTEST, "fastest"))
            }
            measured["fastest"] = f"{sessions[FASTEST].backend} {sessions[FASTEST].precision}"
            measured["restoring"] = []
            for row in _restoring(sessions, evalset, slow=chosen.slow):
                measured["restoring"].append(row)
                keep_partial("peers", measured, chosen)
            measured["scoring"] = _scoring(sessions[BASE], evalset)
    if chosen.plot is not None:
        _plot(measured, chosen.plot)
    result = Result(
        benchmark="peers",
        data=_data(chosen),
        bundle=facts,
        settings={
            "size": chosen.size,
            "rounds": chosen.rounds,
            "threads": chosen.threads,
        },
        measured=measured,
        limits=_limits(measured),
    )
    return finish(result, tables(measured), chosen)


def _data(chosen: argparse.Namespace) -> dict[str, Any]:
    frame = hashlib.sha256(engines.frame_of(chosen.size).tobytes()).hexdigest()
    if chosen.evalset is None:
        return {"frame_sha256": frame}
    return {
        "frame_sha256": frame,
        "manifest_sha256": sha256_of([chosen.evalset / "manifest.json"]),
        "pictures": chosen.limit,
    }


class _Worker:
    """An engine in its process.

    Attributes:
        failure: why it does not run.
        graph_seconds: of the graph alone in each answer, NaN where nobody knows.
    """

    def __init__(self, name: str, chosen: argparse.Namespace) -> None:
        bundle = shipped_bundle() if chosen.bundle is None else chosen.bundle
        command = [sys.executable, engines.__file__, name, str(bundle), str(chosen.size), str(chosen.threads)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert self.process.stdout is not None
        self.graph_seconds: list[float] = []
        first = self.process.stdout.readline().strip()
        self.failure = None if first == "ready" else first or "it ended without a word"

    def ask(self, what: str) -> float:
        """Seconds that it tells; NaN, and ``failure`` says why, once it has ended: the others go on without it."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        if self.failure is None:
            try:
                self.process.stdin.write(f"{what}\n")
                self.process.stdin.flush()
                seconds, graph = map(float, self.process.stdout.readline().split())
                self.graph_seconds.append(graph)
                return seconds
            except (OSError, ValueError):
                self.failure = f"it ended while it was timed, with code {self.process.wait()}"
        return float("nan")

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


def _engines(chosen: argparse.Namespace) -> dict[str, Any]:
    rows: dict[str, dict[str, Any]] = {}
    with ExitStack() as stack:
        probe = stack.enter_context(Probe(chosen.threads))
        calls: dict[str, Callable[[], float | None]] = {"gemm": probe.gemm}
        workers: dict[str, _Worker] = {}
        for name in chosen.engines or engines.ENGINES:
            worker = _Worker(name, chosen)
            stack.callback(worker.close)
            rows[name] = {"name": name, "reason": worker.failure}
            if worker.failure is None:
                workers[name] = worker
                calls[name] = lambda worker=worker: worker.ask("run")  # type: ignore[misc]
        samples = interleaved(calls, rounds=chosen.rounds, settle=_SETTLE)
        same = _same(workers)
        for name, worker in list(workers.items()):
            if worker.failure is not None:
                rows[name]["reason"] = worker.failure
                del workers[name], samples[name]
    flops = sum(layer.flops for layer in restore_layers(UARE_NANO, chosen.size, chosen.size))
    nano = Bundle.open(shipped_bundle() if chosen.bundle is None else chosen.bundle).nano.preset == "uare-nano"
    reference = samples.get(BASE)
    for name in workers:
        wall = samples[name].wall
        graph = workers[name].graph_seconds[
            -1 - len(wall) : -1
        ]  # warm-up before them, the picture that is saved after them
        alone = wall if np.isnan(graph).any() else graph
        rows[name] |= {
            "median_ms": samples[name].median * 1e3,
            "least_ms": min(wall) * 1e3,
            "graph_ms": None if alone is wall else median(graph) * 1e3,
            "to_uare_rt": None if reference is None else ratio(wall, reference.wall),
            "of_gemm": flops / GEMM_FLOP / ratio(alone, samples["gemm"].wall) if nano else None,
            "apart_levels": same.get(name),
            "times_ms": [round(seconds * 1e3, 3) for seconds in wall],
        }
    return {
        "engines": list(rows.values()),
        "gemm_gflops": GEMM_FLOP / samples["gemm"].median / 1e9,
        "gflop": flops / 1e9,
    }


def _same(workers: Mapping[str, _Worker]) -> dict[str, int]:
    """Largest difference from the first engine, levels of 255."""
    found: dict[str, int] = {}
    reference = None
    with tempfile.TemporaryDirectory() as folder:
        for name, worker in workers.items():
            path = Path(folder, "frame.npy")
            worker.ask(f"save {path}")
            if worker.failure is not None:
                continue
            picture = np.load(path).astype(np.int16)
            reference = picture if reference is None else reference
            found[name] = int(np.abs(picture - reference).max())
    return found


def _restoring(
    sessions: Mapping[str, uare_rt.Session], evalset: EvaluationSet, *, slow: bool
) -> Iterator[dict[str, Any]]:
    for peer in PEERS:
        if peer.task == "enlarge":
            scale = int(peer.name[-1])
            kind, told = f"x{scale}", 0.0
        else:
            scale, (kind, told) = 1, TASKS[peer.task]
        row: dict[str, Any] = {"name": peer.name, "method": peer.method, "kind": kind, "licence": peer.licence}
        reason = peer.reason() or ("slow, left out" if peer.slow and not slow else None)
        row["reason"] = reason
        yield row if reason is not None else row | _held(sessions, evalset, peer, kind, told, scale)


def _held(
    sessions: Mapping[str, uare_rt.Session], evalset: EvaluationSet, peer: Peer, kind: str, told: float, scale: int
) -> dict[str, Any]:
    try:
        return _timed(sessions, evalset, peer, kind, told, scale)
    except Exception as error:  # other people's packages fail in many ways
        return {"reason": _reason(error)}


def _reason(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


def _timed(
    sessions: Mapping[str, uare_rt.Session], evalset: EvaluationSet, peer: Peer, kind: str, told: float, scale: int
) -> dict[str, Any]:
    run = peer.load()
    times: dict[str, list[float]] = {}
    quality: dict[str, list[float]] = {}

    def held(who: str, call: Callable[[], Any]) -> Any:
        seconds, result = _seconds(call)
        times.setdefault(who, []).append(seconds)
        return result

    pictures = list(evalset.pictures(kind))[: 1 if peer.slow else None]
    for at, (name, damaged, truth) in enumerate(pictures):
        context = sessions[BASE].assess(damaged).context
        calls = {
            who: partial(session.restore, damaged, scale=scale, context=context) for who, session in sessions.items()
        }
        calls["assessed"] = partial(sessions[BASE].restore, damaged, scale=scale)
        calls["peer"] = partial(run, damaged, told)
        if at == 0:  # loads what is loaded late
            for who, call in calls.items():
                if who != "peer" or not peer.slow:
                    call()
        for _ in range(1 if peer.slow else _PEER_ROUNDS):
            results = {who: held(who, call) for who, call in calls.items()}
        before = psnr(damaged, truth) if scale == 1 else evalset.input_psnr[kind][name]
        quality.setdefault("input", []).append(before)
        for who in ("peer", *sessions):
            result = results[who]
            quality.setdefault(who, []).append(psnr(result if who == "peer" else result.image, truth))
    return {
        "pictures": len(pictures),
        "median_ms": median(times["peer"]) * 1e3,
        "uare_rt_ms": median(times[BASE]) * 1e3,
        "uare_rt_with_assessment_ms": median(times["assessed"]) * 1e3,
        "fastest_ms": median(times[FASTEST]) * 1e3,
        "times_uare_rt": ratio(times["peer"], times[BASE]),
        "times_fastest": ratio(times["peer"], times[FASTEST]),
        "input_psnr": fmean(quality["input"]),
        "psnr": fmean(quality["peer"]),
        "uare_rt_psnr": fmean(quality[BASE]),
        "fastest_psnr": fmean(quality[FASTEST]),
    }


def _seconds(call: Callable[[], Any]) -> tuple[float, Any]:
    """What a call takes and gives, once the threads of the one before sleep."""
    time.sleep(_SETTLE)
    began = time.perf_counter()
    result = call()
    return time.perf_counter() - began, result


def _scoring(session: uare_rt.Session, evalset: EvaluationSet) -> list[dict[str, Any]]:
    """How often the undamaged picture gets the better score, and what a score takes."""
    scorers: dict[str, Callable[[Any], float]] = {"uare-rt assess": lambda pixels: -session.assess(pixels).score}
    rows: list[dict[str, Any]] = []
    for scorer in SCORERS:
        reason = scorer.reason()
        if reason is None:
            try:
                scorers[scorer.name] = scorer.load()
            except Exception as error:
                reason = _reason(error)
        if reason is not None:
            rows.append({"name": scorer.name, "reason": reason})
    right: dict[str, list[bool]] = {name: [] for name in scorers}
    times: dict[str, list[float]] = {name: [] for name in scorers}
    for kind in _DAMAGED:
        for _, damaged, truth in evalset.pictures(kind):
            for name, score in list(scorers.items()):
                began = time.perf_counter()
                try:
                    worse, middle = score(damaged), time.perf_counter()
                    right[name].append(worse > score(truth))
                except Exception as error:
                    rows.append({"name": name, "reason": _reason(error)})
                    del scorers[name]
                    continue
                times[name].append(middle - began)
    return rows + [
        {"name": name, "reason": None, "median_ms": median(times[name]) * 1e3, "pairs": len(right[name]),
         "right": float(np.mean(right[name]))}
        for name in scorers
    ]  # fmt: skip


def tables(measured: Mapping[str, Any]) -> list[Table]:
    """What was measured, for people."""

    def shown(value: float | None, form: str) -> str:
        return "-" if value is None else format(value, form)

    keys: tuple[tuple[str, str], ...]
    keys = (("median_ms", ".1f"), ("least_ms", ".1f"), ("to_uare_rt", ".3f"), ("graph_ms", ".1f"), ("of_gemm", ".0%"),
            ("apart_levels", "d"))  # fmt: skip
    rows = [
        (row["name"], *(shown(row.get(key), form) for key, form in keys))
        if row["reason"] is None else (f"{row['name']}: {row['reason']}", *"------")
        for row in measured["engines"]
    ]  # fmt: skip
    gemm = f"{measured['gflop']:.2f} GFLOP a frame; matrix products {measured['gemm_gflops']:.1f} GFLOP/s"
    headers = ("engine", "ms", "least", "to uare-rt", "graph alone", "of GEMM", "levels apart")
    found = [Table(f"Engines ({gemm})", headers, rows)]
    if "restoring" in measured:
        keys = (("input_psnr", ".2f"), ("psnr", ".2f"), ("uare_rt_psnr", ".2f"), ("median_ms", ".1f"),
                ("fastest_psnr", ".2f"), ("uare_rt_ms", ".1f"), ("uare_rt_with_assessment_ms", ".1f"),
                ("fastest_ms", ".1f"), ("times_uare_rt", ".2f"), ("times_fastest", ".2f"))  # fmt: skip
        headers = (
            "peer",
            "pictures of",
            "input dB",
            "its dB",
            "uare-rt dB",
            "its ms",
            "fastest dB",
            "uare-rt ms",
            "with assessment",
            "fastest ms",
            "its ms to uare-rt",
            "to fastest",
        )
        rows = [
            (row["name"], row["kind"], *(shown(row.get(key), form) for key, form in keys))
            if row["reason"] is None else (f"{row['name']}: {row['reason']}", row["kind"], *"----------")
            for row in measured["restoring"]
        ]  # fmt: skip
        found.append(Table(f"Restoring (fastest here: {measured.get('fastest', '-')})", headers, rows))
        rows = [
            (row["name"], f"{row['median_ms']:.1f}", f"{row['right']:.0%}", str(row["pairs"]))
            if row["reason"] is None else (f"{row['name']}: {row['reason']}", *"---")
            for row in measured["scoring"]
        ]  # fmt: skip
        found.append(Table("Scoring without a reference", ("system", "ms", "undamaged picture better", "pairs"), rows))
    return found


def _limits(measured: Mapping[str, Any]) -> list[Limit]:
    times = {row["name"]: row.get("times_ms") for row in measured["engines"]}

    def over(name: str, reference: str) -> float | None:
        a, b = times.get(name), times.get(reference)
        return None if a is None or b is None else ratio(a, b)

    exact = (BASE, OPENVINO, OPENVINO + SIZED)  # in float32
    shares = [row["of_gemm"] for row in measured["engines"] if row.get("of_gemm") and row["name"] in exact]
    limits = [
        Limit("restore x1, of the rate of matrix products", max(shares, default=None), LEAST_OF_GEMM, at_least=True),
        Limit("uare-rt to tuned ONNX Runtime", over(BASE, "ONNX Runtime, tuned"), MOST_OVERHEAD, at_least=False),
        Limit("uare-rt to raw OpenVINO", over(OPENVINO, RAW), MOST_OVERHEAD, at_least=False),
        Limit("uare-rt to raw OpenVINO, one size", over(OPENVINO + SIZED, RAW + SIZED), MOST_OVERHEAD, at_least=False),
    ]
    # As the frames of a scene are restored: ONNX Runtime modulates weights, OpenVINO is given the size.
    for name, general, title in (
        (BASE, "ONNX Runtime, tuned", "uare-rt, times faster than ONNX Runtime with the general graph"),
        (OPENVINO + SIZED, RAW, "uare-rt, one size, times faster than OpenVINO with the general graph"),
    ):
        limits.append(Limit(title, over(general, name), LEAST_SCENE, at_least=True))
    limits += [
        Limit(f"{name} to uare-rt", over(name, BASE), 1.0, at_least=True)
        for name in ("PyTorch eager", "PyTorch eager, channels last", "torch.compile", "ncnn, tokens in PyTorch")
    ]
    for row in measured.get("restoring", ()):
        if row["name"] in FASTER and row["reason"] is None:
            least = FASTER[row["name"]]
            limits.append(Limit(f"{row['name']} to uare-rt", row["times_uare_rt"], least, at_least=True))
            limits.append(Limit(f"{row['name']} to uare-rt, fastest here", row["times_fastest"], least, at_least=True))
    return limits


def _plot(measured: Mapping[str, Any], target: Path) -> None:
    rows = [row for row in measured.get("restoring", ()) if row["kind"] == "noise25" and row["reason"] is None]
    if not rows:
        raise UareError("--plot needs an evaluation set and a peer that runs")
    marks = [(row["name"], row["median_ms"], row["psnr"]) for row in rows]
    # A peer that ran on one picture has a mean of its own.
    most = max(rows, key=lambda row: row["pictures"])
    marks += [(BASE, most["uare_rt_ms"], most["uare_rt_psnr"]), (FASTEST, most["fastest_ms"], most["fastest_psnr"])]
    plot_quality(marks, target)


if __name__ == "__main__":
    sys.exit(run_command(main))
