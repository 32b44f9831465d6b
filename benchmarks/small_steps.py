"""How long a step of a small model takes, and what its parts take: cells of 8 to 40 units, short row sums, long rows.

`run_timesteps` over 1,024 steps in one call, and `run_into`, a call for each. With --against, another build of the core
takes turns with this one in the same process, and its bits are compared first.

    python benchmarks/small_steps.py [--against OTHER/_core.abi3.so] [--rounds 200] [--only NAME ...]

Prints Markdown: the minimum and the median in ns a step. A minimum is the least disturbed of many short turns.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "examples")]
import _common

_common.require("numpy", "torch", "ncps")

import numpy as np
import torch
from ncps.torch import LTC, CfC
from ncps.wirings import AutoNCP
from torch import Tensor, nn

from ltc_compiler import Config, _core
from ltc_compiler.program import Program
from ltc_torch.fx import prepare_shape
from ltc_torch.fx.nnir import to_nnir

STEPS, TURN_NS = 1024, 300_000
ROWS, CHAIN_WIDTH = 64, 16384


class Recurrent(nn.Module):
    """A recurrent network of PyTorch or ncps, and a readout of so many units if any."""

    def __init__(self, network: nn.Module, readout: int = 0) -> None:
        super().__init__()
        self.network = network
        self.readout = nn.Linear(readout, 1) if readout else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """x (1, time, features)."""
        return self.readout(self.network(x)[0])


class RowSums(nn.Module):
    """Sums of ROWS rows of 32."""

    def forward(self, x: Tensor) -> Tensor:
        return x.sum(-1)


class Chain(nn.Module):
    """Twelve operations, element by element, on one long row."""

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for n in range(6):
            y = torch.relu(y * x + 0.1 * n)
        return y


def lstm(units: int) -> nn.Module:
    return Recurrent(nn.LSTM(1, units, batch_first=True), units)


MODELS: dict[str, tuple[Any, tuple[int, ...], bool]] = {
    "LSTM-16 + Linear": (lambda: lstm(16), (1, 20, 1), True),
    "LSTM-24 + Linear": (lambda: lstm(24), (1, 20, 1), True),
    "LSTM-40 + Linear": (lambda: lstm(40), (1, 20, 1), True),
    "GRU-16 + Linear": (lambda: Recurrent(nn.GRU(1, 16, batch_first=True), 16), (1, 20, 1), True),
    "CfC(8), no backbone": (lambda: Recurrent(CfC(4, 8, backbone_layers=0)), (1, 20, 4), True),
    "CfC(8)": (lambda: Recurrent(CfC(4, 8)), (1, 20, 4), True),
    "LTC AutoNCP(32, 8)": (lambda: Recurrent(LTC(20, AutoNCP(32, 8))), (1, 20, 20), True),
    f"{ROWS} sums of 32": (RowSums, (ROWS, 32), False),
    f"18 operations on {CHAIN_WIDTH}": (Chain, (CHAIN_WIDTH,), False),
}


def compiled(name: str) -> Program:
    """One step of the model."""
    make, shape, streams = MODELS[name]
    torch.manual_seed(0)
    graph = to_nnir(prepare_shape(make().eval(), torch.randn(shape))[0])
    if streams:
        graph, _ = graph.streaming_transform(1)
    return graph.to_program(Config.preset("v80_c6b32"))


def other_core(path: Path) -> ModuleType:
    """Another build of the C++ core, beside the installed one."""
    spec = importlib.util.spec_from_file_location("other._core", path)
    if spec is None or spec.loader is None:
        sys.exit(f"{path} is no extension module")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Contestant:
    """A program on one build of the core."""

    def __init__(self, core: Any, program: Program) -> None:
        self.vm = core.VM(core.Program.parse(program.save_bytes()), True, None)
        model = program.image.models[0]
        random = np.random.default_rng(0)
        shapes = [(STEPS, *port.shape) for port in model.inputs]
        self.inputs = [random.standard_normal(shape).astype(np.float32) for shape in shapes]
        self.outputs = [np.empty((STEPS, *port.shape), np.float32) for port in model.outputs]
        self.one = [x[0] for x in self.inputs], [y[0] for y in self.outputs]

    def all_steps(self, steps: int) -> float:
        """ns a step."""
        inputs, outputs = [x[:steps] for x in self.inputs], [y[:steps] for y in self.outputs]
        begin = time.perf_counter_ns()
        self.vm.run_timesteps(0, steps, inputs, outputs)
        return (time.perf_counter_ns() - begin) / steps

    def calls(self, steps: int) -> float:
        """ns a call."""
        run, (inputs, outputs) = self.vm.run_into, self.one
        begin = time.perf_counter_ns()
        for _ in range(steps):
            run(0, inputs, outputs)
        return (time.perf_counter_ns() - begin) / steps


def measure(name: str, cores: list[Any], rounds: int) -> str:
    """A row of the table."""
    program = compiled(name)
    contestants = [Contestant(core, program) for core in cores]
    first = max(c.all_steps(64) for c in contestants)
    for c in contestants:
        c.vm.reset()
        c.all_steps(STEPS)
    for c in contestants[1:]:
        if any(a.tobytes() != b.tobytes() for a, b in zip(c.outputs, contestants[0].outputs, strict=True)):
            sys.exit(f"{name}: the two builds of the core differ")
    steps = int(min(STEPS, max(4, TURN_NS / first)))
    times: list[list[float]] = [[] for _ in range(2 * len(contestants))]
    for _ in range(rounds):
        for n, c in enumerate(contestants):
            times[2 * n].append(c.all_steps(steps))
            times[2 * n + 1].append(c.calls(steps))
    cells = [f"{min(t):.0f} ({statistics.median(t):.0f})" for t in times]
    ratio = [f"{min(times[2]) / min(times[0]):.2f}"] if len(contestants) > 1 else []
    return f"| {' | '.join([name, *cells, *ratio])} |"


def main() -> None:
    """Measure what is asked for and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--against", type=Path, help="another build of the core's extension")
    parser.add_argument("--rounds", type=_common.positive, default=200, help="interleaved turns")
    parser.add_argument("--only", nargs="+", choices=list(MODELS), default=list(MODELS), metavar="NAME")
    given = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    cores: list[Any] = [_core] + ([other_core(given.against)] if given.against else [])
    print(f"{_common.machine()}; load {os.getloadavg()[0]:.1f}\n")
    columns = ["run_timesteps", "run_into"]
    more = [*(f"{c}, other" for c in columns), "other / this"] if given.against else []
    print(f"| minimum (median), ns | {' | '.join([*columns, *more])} |")
    print(f"|---|{'---:|' * (len(columns) + len(more))}")
    for name in given.only:
        print(measure(name, cores, given.rounds), flush=True)


if __name__ == "__main__":
    main()
