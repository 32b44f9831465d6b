"""Trains a liquid time-constant network on a sine curve, compiles it, and runs it bit by bit as the accelerator would.

    dh/dt = (-h + W[x, h] * sigmoid(Wg[x, h])) / tau,   h(0) = 0,   y = readout(h(1))

torchdiffeq solves the ODE inside `forward`, in nine Euler steps; the compiler takes that as it stands and makes
of it one hardware loop. The target is y = sin(x) + 0.5 sin(3x). At the end PyTorch, the simulator and the
independent reference machine are compared, in their results and in their time, and a picture is saved.

    python examples/sine_ltc.py            about half a minute
    python examples/sine_ltc.py --quick    a few seconds, a worse fit
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import _common

_common.require("numpy", "torch", "torchdiffeq", "matplotlib", "tqdm")

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus
from torchdiffeq import odeint
from tqdm import trange

import ltc_torch
from ltc_compiler.nnir import NNIR
from ltc_compiler.program import Program
from ltc_compiler.vm import VM

EULER_STEPS = 9
EXPLANATION = """\
Bit-accurate: what the accelerator computes. By default its matmuls read bf16, and 8 bits of x show where the
curve is steep; fp32 operands take that away and cost cycles (below). Plain fp32: the same program without the
accelerator's rounding, to tell quantisation from a mistake of the compiler."""


class LTC(nn.Module):
    """The equation above, as anyone would write it with torchdiffeq."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.drive = nn.Linear(1 + hidden, hidden)
        self.gate = nn.Linear(1 + hidden, hidden)
        self.raw_tau = nn.Parameter(torch.zeros(hidden))
        self.readout = nn.Linear(hidden, 1)

    def forward(self, x: Tensor) -> Tensor:
        """x (batch, 1) -> y (batch, 1)."""
        tau = 0.1 + softplus(self.raw_tau)

        def dhdt(t: Tensor, h: Tensor) -> Tensor:
            xh = torch.cat([x, h], dim=-1)
            return (-h + self.drive(xh) * torch.sigmoid(self.gate(xh))) / tau

        h0 = x.new_zeros(x.shape[0], self.hidden)
        t = torch.linspace(0.0, 1.0, EULER_STEPS + 1)
        return self.readout(odeint(dhdt, h0, t, method="euler")[-1])


class Precise(nn.Module):
    """Any model, with matmuls that read fp32 operands: more accurate, and slower on the accelerator."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """As the model's own."""
        with ltc_torch.Fp32Activations():
            return self.model(x)


def target(x: np.ndarray) -> np.ndarray:
    """The function to learn."""
    return np.sin(x) + 0.5 * np.sin(3 * x)


def train(model: LTC, epochs: int) -> None:
    """Fit on random points between -pi and pi."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.01, total_steps=epochs, pct_start=0.1)
    bar = trange(epochs, desc="training", mininterval=1.0)
    for _ in bar:
        x = (2 * torch.rand(256, 1) - 1) * torch.pi
        y = torch.sin(x) + 0.5 * torch.sin(3 * x)
        loss = (model(x) - y).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        bar.set_postfix(rms_error=f"{loss.item() ** 0.5:.4f}", refresh=False)


def to_nnir(model: nn.Module) -> NNIR:
    """The trained model as a graph for the compiler, for one x at a time."""
    traced, _ = ltc_torch.fx.prepare_shape(model, torch.rand(1, 1))
    return ltc_torch.fx.nnir.to_nnir(traced)


def error_table(curves: dict[str, np.ndarray], x: np.ndarray) -> str:
    """Distance of every curve from PyTorch's and from the true function."""
    rows = []
    for name, y in curves.items():
        from_torch, from_truth = y - curves["PyTorch"], y - target(x)
        cells = [np.abs(from_torch).max(), np.sqrt(np.mean(from_torch**2)), np.sqrt(np.mean(from_truth**2))]
        rows.append([name, *("" if cell == 0 else f"{cell:.1e}" for cell in cells)])
    return _common.table(
        ["", "max error, against PyTorch", "rms, against PyTorch", "rms, against the function"], rows
    )


def equal_to_oracle(program: Program, points: np.ndarray, simulated: np.ndarray) -> int:
    """On how many points the simulator and the independent reference machine agree in every bit."""
    oracle = program.to_oracle()
    return sum(oracle.run(x).tobytes() == y.tobytes() for x, y in zip(points, simulated, strict=True))


def timings(model: LTC, machine: VM) -> str:
    """One call on this CPU: PyTorch and the simulator in turn."""
    x = np.full((1, 1), 0.5, np.float32)
    xt = torch.from_numpy(x)
    eager, script = torch.no_grad()(model), _common.torchscript(model, xt)
    contestants = {
        "PyTorch, eager": lambda: eager(xt),
        "PyTorch, TorchScript": lambda: script(xt),
        "simulator, bit-accurate": lambda: machine.run(x),
    }
    return _common.timing_table(_common.interleaved(contestants))


def plot(curves: dict[str, np.ndarray], x: np.ndarray, path: Path) -> None:
    """The true function, PyTorch and the simulator above; the simulator's distance from PyTorch below."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (upper, lower) = plt.subplots(
        2, 1, figsize=(8, 6), sharex=True, height_ratios=(3, 1), layout="constrained"
    )
    upper.plot(x, target(x), color="lightgray", lw=6, label="sin(x) + 0.5 sin(3x)")
    upper.plot(x, curves["PyTorch"], label="PyTorch")
    upper.plot(x, curves["simulator, bit-accurate"], "--", label="simulator, bit-accurate")
    upper.legend(frameon=False)
    upper.set_ylabel("y")
    lower.plot(x, curves["simulator, bit-accurate"] - curves["PyTorch"], color="C1", lw=1)
    lower.set(xlabel="x", ylabel="simulator - PyTorch")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> None:
    """Train, compile, run, report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--epochs", type=_common.positive, help="training steps of 256 points (3000, or 300 with --quick)"
    )
    parser.add_argument("--hidden", type=_common.positive, default=64, help="size of the state")
    parser.add_argument("--quick", action="store_true", help="train for a few seconds, check fewer points")
    _common.add_options(parser)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)

    torch.manual_seed(0)
    torch.set_num_threads(1)  # layers this small gain nothing from a second thread
    model = LTC(options.hidden)
    train(model, options.epochs or (300 if options.quick else 3000))
    model.eval()

    begin = time.perf_counter()
    nnir = to_nnir(model)
    programs = {config.name: nnir.to_program(config) for config in options.config}
    program = programs[options.config[0].name]
    precise = to_nnir(Precise(model).eval()).to_program(options.config[0])
    programs[f"{options.config[0].name}, fp32 operands"] = precise
    print(f"compiled {len(programs)} programs in {time.perf_counter() - begin:.2f} s")

    # The model has no time axis: each "step" of run_timesteps is one x, and the loop runs in C++.
    x = np.linspace(-np.pi, np.pi, 1001, dtype=np.float32)
    points = x.reshape(-1, 1, 1)
    curves = {
        "PyTorch": torch.no_grad()(model)(torch.from_numpy(x)[:, None])[:, 0].numpy(),
        "simulator, bit-accurate": program.to_vm().run_timesteps(points)[:, 0, 0],
        "the same, fp32 operands": precise.to_vm().run_timesteps(points)[:, 0, 0],
        "simulator, plain fp32": program.to_vm(bit_accurate=False).run_timesteps(points)[:, 0, 0],
    }
    print(f"\nAccuracy on {len(x)} points\n\n{error_table(curves, x)}\n\n{EXPLANATION}")
    checked = np.arange(0, len(x), 50 if options.quick else 5)
    equal = equal_to_oracle(program, points[checked], curves["simulator, bit-accurate"][checked])
    print(f"simulator == reference, bit for bit, on {equal} of {len(checked)} points")

    print(f"\nOne inference on the accelerator\n\n{_common.accelerator_table(programs)}")
    print(f"\nOne inference on this machine: {_common.machine()}\n\n{timings(model, program.to_vm())}")
    picture = options.output / "sine_ltc.png"
    plot(curves, x, picture)
    print(f"\nsaved {picture}")


if __name__ == "__main__":
    main()
