"""How long one step takes on this CPU: the simulator beside PyTorch, on one core and one thread, in one process.

Every workload is a trained-size model with random weights, run one sample and one step at a time with its state carried
along. In every round each contestant gets its turn; each call is timed on its own. Before anything is timed, the
simulator's outputs over a sequence are compared with PyTorch's, plainly in fp32 and bit-accurately.

    python benchmarks/step_latency.py [--workloads W1 W2 ...] [--rounds 30] [--json FILE]

Prints Markdown, and writes JSON where asked.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
import _common

_common.require("numpy", "torch", "torchdiffeq", "ncps")

import numpy as np
import sine_ltc
import torch
from ncps.torch import LTC, CfC
from ncps.wirings import AutoNCP, FullyConnected
from torch import Tensor, nn

import ltc_compiler
import ltc_torch.fx
from ltc_compiler.program import Program

CONFIG = "v80_c6b32"
CHECKED_STEPS = 50
FP32_TOLERANCE = 1e-4  # of the largest output: rounding in another order, over CHECKED_STEPS steps


# ---------------------------------------------------------------- workloads


class StackedLSTM(nn.Module):
    """LSTM layers and a linear readout."""

    def __init__(self, layers: int, hidden: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(hidden, hidden, layers, batch_first=True)
        self.readout = nn.Linear(hidden, 32)

    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """x (1, time, hidden) -> (1, time, 32)."""
        y, state = self.lstm(x, state)
        return self.readout(y), state


def mlp() -> nn.Module:
    """256-384-384-128 with ReLU."""
    return nn.Sequential(nn.Linear(256, 384), nn.ReLU(), nn.Linear(384, 384), nn.ReLU(), nn.Linear(384, 128))


class Workload(NamedTuple):
    """A model, and the features of one step. Recurrent: forward(x (1, time, features), state) -> (y, state); else
    forward(x (1, features)) -> y.
    """

    title: str
    build: Callable[[], nn.Module]
    features: int
    recurrent: bool = True


WORKLOADS = {
    "W1": Workload("gated ODE LTC(64), 9 Euler steps, torchdiffeq", lambda: sine_ltc.LTC(64), 1, recurrent=False),
    "W2": Workload("ncps LTC, AutoNCP(32, 8), 6 unfolds", lambda: LTC(20, AutoNCP(32, 8, seed=1)), 20),
    "W3": Workload("ncps LTC, fully connected 128", lambda: LTC(8, FullyConnected(128)), 8),
    "W4": Workload("ncps CfC(64)", lambda: CfC(20, 64), 20),
    "W5a": Workload("LSTM, 2 layers of 128", lambda: StackedLSTM(2, 128), 128),
    "W5b": Workload("LSTM, 3 layers of 256", lambda: StackedLSTM(3, 256), 256),
    "W6": Workload("MLP 256-384-384-128", mlp, 256, recurrent=False),
}  # fmt: skip


class OverTime(nn.Module):
    """A recurrent model from its initial state on, outputs alone: what the compiler streams."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """x (1, time, features) -> (1, time, outputs)."""
        return self.model(x)[0]


def compile_model(model: nn.Module, workload: Workload) -> Program:
    """The program of one step."""
    if workload.recurrent:
        traced, _ = ltc_torch.fx.prepare_shape(OverTime(model).eval(), torch.rand(1, 4, workload.features))
        nnir, _ = ltc_torch.fx.nnir.to_nnir(traced).streaming_transform(1)
    else:
        traced, _ = ltc_torch.fx.prepare_shape(model, torch.rand(1, workload.features))
        nnir = ltc_torch.fx.nnir.to_nnir(traced)
    return nnir.to_program(ltc_compiler.Config.preset(CONFIG))


# ---------------------------------------------------------------- measuring


def check(model: nn.Module, workload: Workload, program: Program) -> tuple[float, float]:
    """Largest distance from PyTorch over a sequence, of the plain fp32 and of the bit-accurate simulator.

    Leaves with a message if the plain one is further away than rounding explains: its time would mean nothing.
    """
    x = torch.randn(CHECKED_STEPS, workload.features)
    with torch.no_grad():
        expected = (model(x[None])[0][0] if workload.recurrent else model(x)).numpy()
    steps = x.numpy()[:, None]
    errors = []
    for exact in (False, True):
        vm = program.to_vm(bit_accurate=exact)
        outputs = np.stack([vm.run(step)[0] for step in steps])
        errors.append(float(np.abs(outputs - expected).max()))
    bound = FP32_TOLERANCE * max(1.0, float(np.abs(expected).max()))
    if not errors[0] <= bound:
        sys.exit(f"{workload.title}: plain fp32 is {errors[0]:.1e} away from PyTorch, allowed is {bound:.1e}")
    return errors[0], errors[1]


def stepper(call: Callable[..., Any], x: Tensor, recurrent: bool, state: Any) -> Callable[[], object]:
    """One step of a PyTorch callable, which hands its state to the next."""
    if not recurrent:
        return lambda: call(x)
    held = [state]

    def step() -> object:
        y, held[0] = call(x, held[0])
        return y

    return step


def contestants(model: nn.Module, workload: Workload, program: Program) -> dict[str, Callable[[], object]]:
    """What is timed, by name."""
    row = torch.randn(1, workload.features)
    x, state = row, None
    if workload.recurrent:
        x = row[None]
        with torch.no_grad():
            _, state = model(x)
    script = _common.torchscript(model, x, *([] if state is None else [state]))
    into = program.to_vm(), row.numpy(), np.empty(program.output_shape(), np.float32)
    vm, given = program.to_vm(), row.numpy()
    return {
        "PyTorch eager": stepper(torch.no_grad()(model), x, workload.recurrent, state),
        "TorchScript": stepper(script, x, workload.recurrent, state),
        "simulator run": lambda: vm.run(given),
        "simulator run_into": lambda: into[0].run_into(into[1], into[2]),
    }


def measure(workload: Workload, rounds: int, calls: int) -> dict[str, Any]:
    """Everything about one workload, as plain values."""
    torch.manual_seed(0)
    np.random.seed(0)
    model = workload.build().eval()
    program = compile_model(model, workload)
    fp32_error, exact_error = check(model, workload, program)
    timings = _common.interleaved(contestants(model, workload, program), rounds, calls)
    return {
        "title": workload.title,
        "us": {name: timing._asdict() for name, timing in timings.items()},
        "error": {"plain_fp32": fp32_error, "bit_accurate": exact_error},
        "accelerator": {
            "config": CONFIG,
            "cycles_spaced": program.cycle_count_per_inference(),
            "cycles_contiguous": program.cycle_count_per_inference(spaced=False),
        },
    }


def markdown(results: dict[str, dict[str, Any]]) -> str:
    """Median and p99 of every contestant, in µs; the errors; the cycles."""
    names = list(next(iter(results.values()))["us"])
    rows = []
    for key, result in results.items():
        cells = [f"{key} {result['title']}"]
        cells += [f"{result['us'][name]['median']:.1f} ({result['us'][name]['p99']:.1f})" for name in names]
        cells += [f"{result['us'][names[0]]['median'] / result['us']['simulator run']['median']:.0f}"]
        cells += [f"{error:.0e}" for error in result["error"].values()]
        rows.append([*cells, str(result["accelerator"]["cycles_contiguous"])])
    header = [
        *(f"{name}, µs" for name in names),
        "eager / run",
        "error fp32",
        "error bit-accurate",
        f"cycles {CONFIG}",
    ]
    return _common.table(["one step: median (p99)", *header], rows)


def main() -> None:
    """Measure what is asked for; print and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--workloads", nargs="+", default=list(WORKLOADS), choices=list(WORKLOADS), metavar="W"
    )
    parser.add_argument("--rounds", type=int, default=30, help="interleaved rounds")
    parser.add_argument("--calls", type=int, default=50, help="calls of each contestant in a round")
    parser.add_argument("--json", type=Path, help="write the results to this file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = {}
    for key in options.workloads:
        print(f"measuring {key}", file=sys.stderr)
        results[key] = measure(WORKLOADS[key], options.rounds, options.calls)
    print(f"{_common.machine()}; {options.rounds} rounds of {options.calls} calls\n\n{markdown(results)}")
    if options.json:
        options.json.write_text(
            json.dumps({"machine": _common.machine(), "workloads": results}, indent=2) + "\n"
        )


if __name__ == "__main__":
    main()
