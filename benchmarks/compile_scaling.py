"""Compile time and peak memory as models grow: four families from 10 thousand to 20 million parameters, wide and deep
models, long sequences and long solves.

Every case runs in a fresh process, on one thread. Its time is that of the CPU, stage by stage, as the compiler logs it.
Its memory is the peak of the compilation less what the process had taken before: imports, and the module with its fp32
weights, whose size stands beside it (both from /proc, of Linux). The VM, which is made last and packs the weights once
more, is in the time alone.

    python benchmarks/compile_scaling.py [--cases NAME ...] [--quick] [--json FILE]

--quick compiles with quick_compile=True. Leaves with 1 if a case fails or misses its limit of seconds.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "examples")]
import _common

_common.require("numpy", "torch", "torchdiffeq", "ncps")

import ltc_torch.fx
from ltc_compiler import Config
from zoo import ZOO, build

# A machine with room for every case: the stores alone differ from v80_c6b32.
CONFIG = replace(
    Config.v80_c6b32(), name="roomy", weight_blocks=65536, tensor_rows=65536, synapse_slots=65536,
    gather_entries=65536, instruction_slots=65536,
)  # fmt: skip


# Models of the zoo, with the seconds that one may take. LTCs have 8 inputs.
LTC = "ltc FullyConnected({}), 8 inputs"
CASES: dict[str, float | None] = {
    **dict.fromkeys((f"mlp 3x{n}" for n in (64, 256, 1024, 2560)), None),
    **dict.fromkeys((f"lstm 3x{n}" for n in (32, 96, 320)), None),
    "lstm 3x960": 10,
    **dict.fromkeys((LTC.format(n) for n in (32, 512, 1280)), None),
    LTC.format(128): 10,
    **dict.fromkeys((f"cnn 3x{n} k8 d1" for n in (20, 64, 256, 912)), None),
    **dict.fromkeys(
        ("slp 4096-4096", "mlp 200x64", "cnn 100x32 k8 d1", "lstm 1x64, 100 steps at once"), None
    ),
    "lstm 1x64, 1000 steps at once": 20,
    "lstm 1x64, 10000 steps at once": None,
    f"{LTC.format(32)}, 100 steps at once": None,
    f"{LTC.format(32)}, 1000 steps at once": 20,
    f"{LTC.format(32)}, 10000 steps at once": None,
    **dict.fromkeys((f"cnn 3x64 k8 d1, {n} steps at once" for n in (100, 400)), None),
    **dict.fromkeys((f"solve 64, {method} of 1000 steps" for method in ("euler", "rk4")), None),
}


class Stages(logging.Handler):
    """CPU seconds of every stage, as the compiler logs them."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: dict[str, float] = defaultdict(float)

    def emit(self, record: logging.LogRecord) -> None:
        stage = record.name.rpartition(".")[2]
        self.seconds[stage] += getattr(record, "cpu_s", 0.0)


def resident(kind: str) -> float:
    """MiB of this process: VmRSS now, or VmHWM at most since `forget_peak`."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(next(line for line in lines if line.startswith(kind)).split()[1]) / 1024


def forget_peak() -> None:
    """VmHWM counts from here on."""
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def measure(name: str, quick: bool) -> dict[str, Any]:
    """Compile a case in this process, which should be fresh."""
    row, stages = ZOO[name], Stages()
    model, inputs = build(row)
    parameters = sum(p.numel() for p in model.parameters())
    logging.getLogger("ltc_compiler").addHandler(stages)
    logging.getLogger("ltc_compiler").setLevel(logging.INFO)
    forget_peak()
    before, start = resident("VmRSS"), time.process_time()
    nnir = ltc_torch.fx.nnir.to_nnir(ltc_torch.fx.prepare_shape(model, *inputs)[0])
    if row.streaming is not None:
        nnir, _ = nnir.streaming_transform(row.streaming)
    program = nnir.to_program(CONFIG, quick_compile=quick)
    peak = resident("VmHWM") - before
    program.to_vm()
    end = time.process_time()
    return {
        "parameters": parameters,
        "stages_s": dict(stages.seconds),
        "total_s": end - start,
        "peak_mib": peak,
        "before_mib": before,
        "instructions": program.metrics()["instructions"],
        "program_mib": len(program.save_bytes()) / 2**20,
        "cycles": program.cycle_count_per_inference(),
        "limit_s": CASES[name],
    }


def in_a_fresh_process(name: str, quick: bool) -> dict[str, Any]:
    """What `measure` says, or how the process ended."""
    command = [sys.executable, __file__, "--one", name, *(["--quick"] if quick else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-3:]
        return {"failed": " ".join(last) or f"exit status {done.returncode}"}
    return dict(json.loads(done.stdout.splitlines()[-1]))


COLUMNS = {  # of the table: the stages that it adds up
    "record": ("record",), "convert": ("convert", "stream"), "schedule": ("transform", "schedule"),
    "encode": ("encode", "verify"), "VM": ("vm",),
}  # fmt: skip


def markdown(results: dict[str, dict[str, Any]]) -> str:
    """A row per case."""
    head = [
        "model",
        "parameters",
        *(f"{c} s" for c in COLUMNS),
        "all s",
        "peak MiB",
        "module MiB",
        "program MiB",
    ]
    lines = ["| " + " | ".join([*head, "instructions"]) + " |", "|---|" + "---:|" * len(head)]
    for name, r in results.items():
        if "failed" in r:
            lines.append(f"| {name} | {r['failed']} |" + " |" * (len(head) - 1))
            continue
        spent = [sum(r["stages_s"].get(stage, 0.0) for stage in stages) for stages in COLUMNS.values()]
        cells = [f"{r['parameters']:,}", *(f"{s:.2f}" for s in spent), f"{r['total_s']:.2f}", f"{r['peak_mib']:.0f}",
                 f"{r['parameters'] * 4 / 2**20:.1f}", f"{r['program_mib']:.2f}", str(r["instructions"])]  # fmt: skip
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def missed(results: dict[str, dict[str, Any]]) -> list[str]:
    """The cases that failed or took longer than they may."""
    return [n for n, r in results.items() if "failed" in r or (r["limit_s"] and r["total_s"] > r["limit_s"])]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), metavar="NAME",
                        help=f"which of: {', '.join(CASES)}")  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="compile with quick_compile=True")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write all figures there, too")
    parser.add_argument("--one", choices=CASES, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(given.one, given.quick)))
        return 0
    results = {}
    for name in given.cases:
        print(f"{name} ...", file=sys.stderr, flush=True)
        results[name] = in_a_fresh_process(name, given.quick)
    print(markdown(results))
    if given.json:
        given.json.write_text(json.dumps(results, indent=1), encoding="utf-8")
    late = missed(results)
    if late:
        print(f"\nfailed or over their limit: {', '.join(late)}")
    return int(bool(late))


if __name__ == "__main__":
    sys.exit(main())
