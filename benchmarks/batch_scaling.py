"""How batches of independent streams scale with the cores of this CPU: `VM.run_batch` on 1, 2, 4, ... threads.

Every stream has its own state and runs the same number of steps in one call. All numbers of threads take turns in one
process; a ratio is of medians. What the threads compute is compared with one thread's, bit for bit, before timing.

    python benchmarks/batch_scaling.py [--workloads W2 W3 ...] [--streams 64] [--rounds 30] [--json FILE]

Prints Markdown. On a busy machine a thread waits for its core, and the ratios are lower than the code's.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "examples")]
import _common

_common.require("numpy", "torch", "torchdiffeq", "ncps")

import numpy as np
import torch
from _workloads import WORKLOADS, Workload, compile_model

TURN_US = 20_000.0  # about what a call on one thread takes: waking the threads is then little of it
Row = dict[str, object]


def counts_of_threads() -> list[int]:
    """1, 2, 4, ... up to the cores that this process may use."""
    cores = len(os.sched_getaffinity(0))
    return [n for n in (1 << i for i in range(16)) if n < cores] + [cores]


def measure(workload: Workload, streams: int, rounds: int) -> Row:
    """Medians in µs by the number of threads, over interleaved calls."""
    program = compile_model(workload, workload.build())
    x = np.random.default_rng(0).standard_normal((streams, *workload.input_shape)).astype(np.float32)
    vm, threads = program.to_vm(), counts_of_threads()
    vm.run_batch(x, threads=max(threads))  # creates the streams
    begin = time.perf_counter_ns()
    vm.run_batch(x, threads=1)
    steps = max(1, int(TURN_US / ((time.perf_counter_ns() - begin) / 1000)))
    x = np.ascontiguousarray(np.repeat(x[:, None], steps, 1))
    results = []
    for n in threads:
        vm.reset()
        results.append(vm.run_batch(x, threads=n))
    if any(not np.array_equal(results[0], result) for result in results):
        sys.exit(f"{workload.title}: the number of threads changes the results")
    times: dict[int, list[float]] = {n: [] for n in threads}
    for _ in range(rounds):
        for n in threads:
            begin = time.perf_counter_ns()
            vm.run_batch(x, threads=n)
            times[n].append((time.perf_counter_ns() - begin) / 1000)
    return {"steps": steps, "us": {n: statistics.median(t) for n, t in times.items()}}


def main() -> None:
    """Measure what is asked for; print and save."""
    chosen = [key for key, workload in WORKLOADS.items() if not workload.sequence]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--workloads", nargs="+", default=["W1", "W2", "W3", "W4", "W5a", "W6"], choices=chosen, metavar="W"
    )
    parser.add_argument("--streams", type=_common.positive, default=64)
    parser.add_argument("--rounds", type=_common.positive, default=30)
    parser.add_argument("--json", type=Path, help="write the results to this file")
    given = parser.parse_args()
    torch.set_num_threads(1)
    machine = _common.machine().replace(", one core, one thread", f", {len(os.sched_getaffinity(0))} cores")
    head = f"{machine}; {given.streams} streams, load {os.getloadavg()[0]:.1f}"
    print(head, end="\n\n")
    threads, rows = counts_of_threads(), []
    results: dict[str, Row] = {}
    for key in given.workloads:
        result = results[key] = measure(WORKLOADS[key], given.streams, given.rounds)
        us = result["us"]
        rows.append([
            f"{key} {WORKLOADS[key].title}", str(result["steps"]), *(f"{us[n]:.0f}" for n in threads),
            *(f"{us[1] / us[n]:.2f}" for n in threads[1:]),
        ])  # fmt: skip
    header = ["a batch, µs", "steps", *(f"{n} thr." for n in threads), *(f"x on {n}" for n in threads[1:])]
    print(_common.table(header, rows))
    if given.json:
        saved = {"machine": head, "workloads": results}
        given.json.write_text(json.dumps(saved, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
