"""Compile time and peak memory as models grow: four families from 10 thousand to 20 million parameters, wide and deep
models, long sequences and long solves.

Every case runs in a fresh process, on one thread. Its time is that of the compiler alone: recording the module,
streaming it where it streams, scheduling it. Its memory is the peak of the process less what it had taken before:
imports, and the module with its fp32 weights, whose size stands beside it.

    python benchmarks/compile_scaling.py [--cases NAME ...] [--quick] [--json FILE]

--quick compiles with quick_compile=True. Leaves with 1 if a case fails or misses its limit of seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
import _common

_common.require("numpy", "torch", "torchdiffeq", "ncps")

import torch
from ncps.torch import LTC
from ncps.wirings import FullyConnected
from torch import Tensor, nn
from torchdiffeq import odeint

import ltc_torch.fx
from ltc_compiler import Config

# A machine with room for every case: the stores alone differ from v80_c6b32.
CONFIG = replace(
    Config.v80_c6b32(), name="roomy", weight_blocks=65536, tensor_rows=65536, synapse_slots=65536,
    gather_entries=65536, instruction_slots=65536,
)  # fmt: skip


class Outputs(nn.Module):
    """A recurrent network over (time, batch, features): its outputs, without the final state."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)[0]


class Causal(nn.Module):
    """Causal convolutions of kernel 8 over (batch, channels, time), with ReLU between."""

    def __init__(self, channels: int, layers: int = 3) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv1d(channels, channels, 8) for _ in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.relu(layer(nn.functional.pad(x, (7, 0))))
        return x


class Solve(nn.Module):
    """A neural ODE with a field of one hidden layer, solved in many steps of one method."""

    def __init__(self, width: int, steps: int, method: str) -> None:
        super().__init__()
        self.field = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, width))
        self.times, self.method = torch.linspace(0.0, 1.0, steps + 1), method

    def forward(self, x: Tensor) -> Tensor:
        return odeint(lambda t, h: self.field(h), x, self.times, method=self.method)[-1]


def mlp(width: int, layers: int = 3) -> nn.Module:
    return nn.Sequential(*(m for _ in range(layers) for m in (nn.Linear(width, width), nn.ReLU())))


def lstm(width: int, layers: int = 3) -> nn.Module:
    return Outputs(nn.LSTM(width, width, layers))


def ltc(units: int) -> nn.Module:
    return Outputs(LTC(8, FullyConnected(units, 8), batch_first=False))


class Case(NamedTuple):
    """A module, the shape of its input, the axis that it is streamed along, the seconds that it may take."""

    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    stream: int | None = None
    limit: float | None = None


CASES: dict[str, Case] = {
    **{f"mlp-3x{n}": Case(partial(mlp, n), (1, n)) for n in (64, 256, 1024, 2560)},
    **{f"lstm-3x{n}": Case(partial(lstm, n), (8, 1, n), 0) for n in (32, 96, 320)},
    "lstm-3x960": Case(partial(lstm, 960), (8, 1, 960), 0, limit=10),
    **{f"ltc-{n}": Case(partial(ltc, n), (8, 1, 8), 0) for n in (32, 512, 1280)},
    "ltc-128": Case(partial(ltc, 128), (8, 1, 8), 0, limit=10),
    **{f"cnn-3x{n}": Case(partial(Causal, n), (1, n, 16), 2) for n in (20, 64, 256, 912)},
    "linear-4096": Case(partial(mlp, 4096, 1), (1, 4096)),
    "mlp-200x64": Case(partial(mlp, 64, 200), (1, 64)),
    "cnn-100x32": Case(partial(Causal, 32, 100), (1, 32, 16), 2),
    "lstm-64, 100 steps": Case(partial(lstm, 64, 1), (100, 1, 64)),
    "lstm-64, 1000 steps": Case(partial(lstm, 64, 1), (1000, 1, 64), limit=20),
    "lstm-64, 10000 steps": Case(partial(lstm, 64, 1), (10000, 1, 64)),
    "ltc-32, 100 steps": Case(partial(ltc, 32), (100, 1, 8)),
    "ltc-32, 1000 steps": Case(partial(ltc, 32), (1000, 1, 8), limit=20),
    "ltc-32, 10000 steps": Case(partial(ltc, 32), (10000, 1, 8)),
    **{f"cnn-3x64, {n} steps": Case(partial(Causal, 64), (1, 64, n)) for n in (100, 400)},
    "euler-64, 1000 steps": Case(partial(Solve, 64, 1000, "euler"), (1, 64)),
    "rk4-64, 1000 steps": Case(partial(Solve, 64, 1000, "rk4"), (1, 64)),
}


def peak() -> float:
    """MiB that this process has had resident at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(name: str, quick: bool) -> dict[str, Any]:
    """Compile a case in this process, which should be fresh."""
    case = CASES[name]
    torch.manual_seed(0)
    model, x = case.make().eval(), torch.rand(case.shape)
    parameters = sum(p.numel() for p in model.parameters())
    before, start = peak(), time.process_time()
    traced, _ = ltc_torch.fx.prepare_shape(model, x)
    nnir = ltc_torch.fx.nnir.to_nnir(traced)
    recorded = time.process_time()
    if case.stream is not None:
        nnir, _ = nnir.streaming_transform(case.stream)
    program = nnir.to_program(CONFIG, quick_compile=quick)
    end = time.process_time()
    return {
        "parameters": parameters,
        "record_s": recorded - start,
        "compile_s": end - recorded,
        "total_s": end - start,
        "peak_mib": peak() - before,
        "before_mib": before,
        "instructions": program.metrics()["instructions"],
        "program_mib": len(program.save_bytes()) / 2**20,
        "cycles": program.cycle_count_per_inference(),
        "limit_s": case.limit,
    }


def in_a_fresh_process(name: str, quick: bool) -> dict[str, Any]:
    """What `measure` says, or how the process ended."""
    command = [sys.executable, __file__, "--one", name, *(["--quick"] if quick else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-3:]
        return {"failed": " ".join(last) or f"exit status {done.returncode}"}
    return dict(json.loads(done.stdout.splitlines()[-1]))


def markdown(results: dict[str, dict[str, Any]]) -> str:
    """A row a case."""
    head = [
        "model",
        "parameters",
        "record s",
        "compile s",
        "peak MiB",
        "module MiB",
        "program MiB",
        "instructions",
    ]
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    for name, r in results.items():
        if "failed" in r:
            lines.append(f"| {name} | {r['failed']} |" + " |" * (len(head) - 2))
            continue
        cells = [f"{r['parameters']:,}", f"{r['record_s']:.2f}", f"{r['compile_s']:.2f}", f"{r['peak_mib']:.0f}",
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
