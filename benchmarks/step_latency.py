"""How long one step takes on this CPU: the simulator beside what a user would otherwise run, on one core.

Random weights at trained sizes, one call at a time with the state carried along, every contestant in one process. In
every round each gets its turn; each call is timed on its own. Before anything is timed, the outputs of all contestants
over the first calls are compared with PyTorch's. The limit is what the row's arithmetic costs at the least on this CPU:
bare kernels from packed weights, and an empty call from Python.

    python benchmarks/step_latency.py [--workloads W1 W2 ...] [--peers NAME ...|all|none] [--rounds 20] [--full]
                                      [--patience 120] [--json FILE] [--markdown FILE] [--plot FILE]

Prints Markdown; --json is written anew after every workload. --full: every peer, and 100,000 calls of the simulator
for its 99th percentile. Those that compile long are rehearsed in a process of their own, for
--patience seconds at most.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "examples")]
import _common

_common.require("numpy", "torch", "torchdiffeq", "ncps")

import _limits
import numpy as np
import torch
from _peers import OURS, PEERS, REDUCED, SLOW_TO_BUILD, UNTIMED, Case
from _workloads import WORKLOADS, Workload, compile_model, module_of, step_of

CHECKED_CALLS = 8
FP32_TOLERANCE = 1e-4  # of the largest output: sums in another order, over CHECKED_CALLS steps
BF16_TOLERANCE = 3e-2  # of the largest output: products of bf16 values
PACKAGES = ("torch", "onnxruntime", "openvino", "jax", "numba", "numpy")
TURN_US = 20_000.0  # about what one turn of a contestant may take
P99_CALLS = 100_000
P99_SECONDS = 60.0

Result = dict[str, Any]


def prepare(workload: Workload) -> Case:
    """The model with random weights, compiled, and an input."""
    model = workload.build()
    program, module = compile_model(workload, model), module_of(model)
    x = torch.randn(workload.input_shape)
    return Case(workload, module, step_of(workload, module).eval(), program, x)


def rehearsed(key: str, name: str, patience: int) -> None:
    """Build a contestant in a process of its own, as some compile long or crash: RuntimeError if it does not work.

    What it left in its cache makes the build here quick. patience: in seconds; 0 for none of this.
    """
    if patience == 0:
        return
    command = [
        sys.executable,
        __file__,
        "--workloads",
        key,
        "--peers",
        name,
        "--rounds",
        "1",
        "--patience",
        "0",
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=patience)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"not ready within {patience} s") from None
    if done.returncode != 0:
        raise RuntimeError((done.stderr.strip().splitlines() or ["it crashed"])[-1])


def build(
    key: str, case: Case, names: list[str], patience: int
) -> tuple[dict[str, Callable[[], object]], Result, Result]:
    """The contestants that work, the distance of each from PyTorch, and why the others do not.

    Leaves with a message if one that should agree does not: its time would mean nothing.
    """
    calls: dict[str, Callable[[], object]] = {}
    errors: Result = {}
    skipped: Result = {}
    reference: np.ndarray | None = None
    for name in names:
        try:
            if name in SLOW_TO_BUILD:
                rehearsed(key, name, patience)
            call, read = (PEERS | OURS | UNTIMED)[name](case)
            outputs = []
            for _ in range(CHECKED_CALLS):
                call()
                outputs.append(np.array(read(), np.float32).ravel())
        except Exception as error:  # whatever a runtime raises: the others go on
            skipped[name] = (
                f"{type(error).__name__}: {str(error).splitlines()[0][:120] if str(error) else ''}"
            )
            continue
        found = np.stack(outputs)
        reference = found if reference is None else reference
        errors[name] = float(np.abs(found - reference).max())
        bound = (BF16_TOLERANCE if name in REDUCED else FP32_TOLERANCE) * max(
            1.0, float(np.abs(reference).max())
        )
        if not errors[name] <= bound:
            sys.exit(
                f"{case.workload.title}: {name} is {errors[name]:.1e} away from PyTorch, allowed is {bound:.1e}"
            )
        if name not in UNTIMED:
            calls[name] = call
    return calls, errors, skipped


def timed(call: Callable[[], object], calls: int) -> list[float]:
    """Microseconds of each call, after a few that fill the caches."""
    clock, times = time.perf_counter_ns, []
    for _ in range(5):
        call()
    for _ in range(calls):
        begin = clock()
        call()
        times.append((clock() - begin) / 1000)
    return times


def interleaved(
    calls: dict[str, Callable[[], object]], rounds: int, bare: Callable[[int], np.ndarray] | None
) -> dict[str, list[float]]:
    """Microseconds of single calls over the rounds; slow contestants get fewer calls per round.

    bare: times the bare kernels for a number of calls; it is a contestant of the name "limit".
    """
    turn = {
        name: max(3, min(200, int(TURN_US / statistics.median(timed(call, 3)))))
        for name, call in calls.items()
    }
    samples: dict[str, list[float]] = {name: [] for name in calls}
    if bare is not None:
        turn["limit"], samples["limit"] = max(3, min(200, int(TURN_US / float(np.median(bare(3)))))), []
    for _ in range(rounds):
        for name, times in samples.items():
            times += bare(turn[name]).tolist() if bare and name == "limit" else timed(calls[name], turn[name])
    return samples


def summary(times: list[float]) -> Result:
    """Median and 99th percentile in µs, of how many calls."""
    return {"median": statistics.median(times), "p99": float(np.percentile(times, 99)), "calls": len(times)}


def measure(key: str, peers: list[str], rounds: int, full: bool, patience: int) -> Result:
    """Everything about one workload, as plain values."""
    workload = WORKLOADS[key]
    case = prepare(workload)
    names = ["PyTorch eager", *(p for p in peers if p != "PyTorch eager"), *OURS, *UNTIMED]
    calls, errors, skipped = build(key, case, names, patience)
    bare, listed = None, _limits.work(case.program)
    try:
        x, y = case.x.numpy(), np.empty(case.program.output_shape(), np.float32)
        empty = _limits.kernels().empty
        calls["empty call"] = lambda: empty(x, y)
        repeated = listed * len(case.x) if workload.sequence else listed
        bare = lambda n: _limits.measure(repeated, n)  # noqa: E731
    except (OSError, subprocess.CalledProcessError) as error:
        skipped["limit"] = str(error)
    us = {name: summary(times) for name, times in interleaved(calls, rounds, bare).items()}
    bound = {}
    if bare is not None:
        kernel, call = us.pop("limit")["median"], us.pop("empty call")["median"]
        bound = {"kernel": kernel, "call": call, "sum": kernel + call}
    if full:
        ours = "run" if workload.sequence else "run_into"
        count = min(P99_CALLS, int(P99_SECONDS * 1e6 / us[ours]["median"]))
        us[ours] = summary(timed(calls[ours], count))
    return {
        "title": workload.title, "us": us, "limit": bound, "error": errors, "skipped": skipped,
        "config": workload.config,
        "cycles_spaced": case.program.cycle_count_per_inference(),
        "cycles_contiguous": case.program.cycle_count_per_inference(spaced=False),
        "us_spaced": case.program.compute_duration_per_inference_us(),
    }  # fmt: skip


# ---------------------------------------------------------------- what is printed


def best(result: Result) -> tuple[str, float]:
    """The fastest of the others and its median."""
    others = {name: t["median"] for name, t in result["us"].items() if name not in OURS}
    return min(others.items(), key=lambda item: item[1])


def ours(result: Result) -> Result:
    """The simulator's times with a given output, where there are such."""
    return result["us"].get("run_into", result["us"]["run"])


def markdown(results: dict[str, Result]) -> str:
    """The simulator beside the best of the others and the limit; then the median of everyone."""
    rows, everyone = [], list(dict.fromkeys(n for r in results.values() for n in r["us"]))
    for key, r in results.items():
        name, peer = best(r)
        mine, bound = ours(r), r["limit"].get("sum")
        rows.append([
            f"{key} {r['title']}", f"{r['us']['run']['median']:.2f}", f"{mine['median']:.2f}", f"{mine['p99']:.2f}",
            f"{peer:.1f} {name}", f"{peer / mine['median']:.1f}",
            f"{bound:.2f}" if bound else "", f"{mine['median'] / bound:.2f}" if bound else "",
        ])  # fmt: skip
    header = [
        "one call, µs",
        "run",
        "run_into",
        "p99",
        "best of the others",
        "times ours",
        "limit",
        "ours / limit",
    ]
    lines = [_common.table(header, rows), "", "Median (p99), µs:", ""]
    cells = [
        [name, *(_cell(r["us"].get(name)) for r in results.values())] for name in everyone
    ]  # fmt: skip
    lines.append(_common.table(["", *results], cells))
    lines += ["", "Cycles of the modelled machine:", ""]
    counts = [
        [key, r["config"], str(r["cycles_spaced"]), str(r["cycles_contiguous"]), f"{r['us_spaced']:.2f}"]
        for key, r in results.items()
    ]
    lines.append(_common.table(["", "machine", "spaced", "contiguous", "spaced, µs"], counts))
    notes = {f"- {name}: {why}" for r in results.values() for name, why in r["skipped"].items()}
    return "\n".join([*lines, *(["", "Not measured:", "", *sorted(notes)] if notes else [])])


def _cell(times: Result | None) -> str:
    return "" if times is None else f"{times['median']:.1f} ({times['p99']:.1f})"


def plot(results: dict[str, Result], path: Path) -> None:
    """Bars of medians on a logarithmic axis; the limit as a line."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = list(dict.fromkeys(n for r in results.values() for n in r["us"]))
    figure, axes = plt.subplots(figsize=(1.2 * len(results) + 3, 5))
    width = 0.8 / len(names)
    for n, name in enumerate(names):
        places = [i + n * width for i, r in enumerate(results.values()) if name in r["us"]]
        heights = [r["us"][name]["median"] for r in results.values() if name in r["us"]]
        axes.bar(places, heights, width, label=name, color="black" if name in OURS else None)
    for i, r in enumerate(results.values()):
        if r["limit"]:
            axes.hlines(
                r["limit"]["sum"], i - width, i + 0.8, colors="red", label="limit" if i == 0 else None
            )
    axes.set(
        yscale="log",
        ylabel="µs a call",
        xticks=[i + 0.4 for i in range(len(results))],
        xticklabels=list(results),
    )
    axes.legend(fontsize=7, ncols=2)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def environment() -> Result:
    """What the figures depend on."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "machine": _common.machine(), "versions": versions, "threads": 1,
        "core": sorted(os.sched_getaffinity(0)), "load": os.getloadavg()[0],
    }  # fmt: skip


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--workloads", nargs="+", default=list(WORKLOADS), choices=list(WORKLOADS), metavar="W"
    )
    parser.add_argument(
        "--peers", nargs="+", choices=[*PEERS, "all", "none"], metavar="NAME", help=", ".join(PEERS)
    )
    parser.add_argument("--rounds", type=_common.positive, default=20, help="interleaved rounds")
    parser.add_argument(
        "--full", action="store_true", help="every peer; p99 of the simulator over 100,000 calls"
    )
    parser.add_argument(
        "--patience", type=int, default=120, help="seconds that torch.compile or AOTInductor may take"
    )
    parser.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)), help="the core to run on")
    parser.add_argument("--json", type=Path, help="write the results to this file")
    parser.add_argument("--markdown", type=Path, help="write the tables to this file")
    parser.add_argument("--plot", type=Path, help="draw the medians into this file")
    return parser.parse_args()


def main() -> None:
    """Measure what is asked for; print and save."""
    given = options()
    os.sched_setaffinity(0, {given.core})
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    peers = given.peers or (["all"] if given.full else [p for p in PEERS if p not in SLOW_TO_BUILD])
    chosen = [p for p in PEERS if "all" in peers or p in peers]
    results: dict[str, Result] = {}
    about = environment()
    for key in given.workloads:
        print(f"measuring {key}", file=sys.stderr)
        results[key] = measure(key, chosen, given.rounds, given.full, given.patience)
        if given.json:
            saved = json.dumps({**about, "workloads": results}, indent=2) + "\n"
            given.json.write_text(saved, encoding="utf-8")
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    head = f"{about['machine']}; core {about['core']}, 1 thread, load {about['load']:.1f}; {versions}"
    text = f"{head}\n\n{markdown(results)}\n"
    print(text)
    if given.markdown:
        given.markdown.write_text(text, encoding="utf-8")
    if given.plot:
        plot(results, given.plot)


if __name__ == "__main__":
    main()
