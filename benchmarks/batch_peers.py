"""Batches of independent streams: `VM.run_batch` beside ONNX Runtime, OpenVINO and PyTorch on as many threads.

Every contestant takes one step of all streams at a time, with the state carried along; the simulator takes several in
a call. All compute from the same weights, are compared with PyTorch over the first steps, and take turns.

    python benchmarks/batch_peers.py [--workloads W4 W5a ...] [--streams 256] [--threads N] [--rounds 10] [--json FILE]

Prints Markdown: medians, in thousands of steps of a stream per second.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "examples")]
import _common

_common.require("numpy", "torch", "torchdiffeq", "ncps")

import numpy as np
import torch
from _peers import IN_BATCHES, Case, Contestant, eager_step
from _workloads import WORKLOADS, Workload, compile_model, module_of, step_of
from step_latency import BF16_TOLERANCE, FP32_TOLERANCE

STEPS = 16  # of a call of the simulator
CHECKED = 3


def case_of(workload: Workload, streams: int) -> Case:
    """The model with random weights, a row of the input for every stream, and initial states for each."""
    model = workload.build()
    program, module = compile_model(workload, model), module_of(model)
    step = step_of(workload, module).eval()
    step.initial = [s.expand(streams, *s.shape[1:]).contiguous() for s in step.initial]
    return Case(workload, module, step, program, torch.randn(streams, workload.input_shape[1]))


def simulator(case: Case, threads: int) -> Contestant:
    """STEPS steps in a call. Its output is that of the step before the last CHECKED, for the comparison."""
    vm, x = case.program.to_vm(), case.x.numpy()[:, None, None]
    whole, few = (np.ascontiguousarray(np.repeat(x, n, 1)) for n in (STEPS, CHECKED))
    first = vm.run_batch(few, threads=threads)
    outputs = np.asarray(first[0] if isinstance(first, tuple) else first)[:, -1]
    return lambda: vm.run_batch(whole, threads=threads), lambda: outputs


def contestants(case: Case, threads: int) -> tuple[dict[str, Callable[[], object]], list[str]]:
    """Those that work and agree with PyTorch, and why others are left out."""
    calls, notes = {}, []
    wanted: np.ndarray | None = None
    made = {"PyTorch": lambda: eager_step(case), "simulator": lambda: simulator(case, threads)}
    made |= {name: lambda make=make: make(case, threads) for name, make in IN_BATCHES.items()}
    for name, make in made.items():
        try:
            call, read = make()
            for _ in range(0 if name == "simulator" else CHECKED):
                call()
        except Exception as error:  # whatever a runtime raises: the others go on
            notes.append(
                f"{name}: {type(error).__name__}: {str(error).splitlines()[0][:100] if str(error) else ''}"
            )
            continue
        found = np.array(read(), np.float32).reshape(len(case.x), -1)
        wanted = found if wanted is None else wanted
        bound = BF16_TOLERANCE if name in ("simulator", "OpenVINO bf16") else FP32_TOLERANCE
        distance = float(np.abs(found - wanted).max()) / max(1.0, float(np.abs(wanted).max()))
        if not distance <= bound:
            sys.exit(
                f"{case.workload.title}: {name} is {distance:.1e} away from PyTorch, allowed is {bound:.0e}"
            )
        calls[name] = call
    return calls, notes


def measure(
    workload: Workload, streams: int, threads: int, rounds: int
) -> tuple[dict[str, float], list[str]]:
    """Thousands of steps a second, by contestant."""
    calls, notes = contestants(case_of(workload, streams), threads)
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            repeats = 1 if name == "simulator" else STEPS
            call()
            begin = time.perf_counter_ns()
            for _ in range(repeats):
                call()
            times[name].append((time.perf_counter_ns() - begin) / 1e9)
    return {name: streams * STEPS / statistics.median(t) / 1000 for name, t in times.items()}, notes


def main() -> None:
    """Measure what is asked for; print and save."""
    chosen = [key for key, workload in WORKLOADS.items() if not workload.sequence and workload.batch == 1]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--workloads", nargs="+", default=["W4", "W5a", "W5b", "W6"], choices=chosen, metavar="W"
    )
    parser.add_argument("--streams", type=_common.positive, default=256)
    parser.add_argument("--threads", type=_common.positive, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=_common.positive, default=10)
    parser.add_argument("--json", type=Path, help="write the results to this file")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    warnings.filterwarnings("ignore")
    machine = _common.machine().replace(", one core, one thread", f", {given.threads} threads")
    head = f"{machine}; {given.streams} streams, load {os.getloadavg()[0]:.1f}"
    results, notes = {}, set()
    for key in given.workloads:
        print(f"measuring {key}", file=sys.stderr)
        results[key], missing = measure(WORKLOADS[key], given.streams, given.threads, given.rounds)
        notes.update(missing)
    names = list(dict.fromkeys(name for r in results.values() for name in r))
    rows = [
        [f"{key} {WORKLOADS[key].title}", *(f"{r[name]:.0f}" if name in r else "" for name in names)]
        for key, r in results.items()
    ]
    print(f"{head}\n\n{_common.table(['thousand steps/s', *names], rows)}")
    print("".join(f"\nNot measured: {note}" for note in sorted(notes)))
    if given.json:
        given.json.write_text(
            json.dumps({"machine": head, "ksteps": results}, indent=2) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
