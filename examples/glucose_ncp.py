"""Forecasts glucose 30 minutes ahead from real, irregular readings, one reading at a time, on the accelerator.

A sensor reports glucose every five minutes or so, with gaps of up to 27.9 hours. A liquid time-constant
network wired as a neural circuit policy (ncps) takes the time that has really passed since the last reading as
an input, so that gaps need no filling in. It is trained in PyTorch on the first 140 days, compiled, and streamed
through the simulator on the last 30, which training never saw; the days between are for choosing settings. The
bar to pass is persistence: "in 30 minutes it will be as now".

    python examples/glucose_ncp.py            about a minute
    python examples/glucose_ncp.py --short    about half of that

Data: CGM.csv.gz of the package bokeh_sampledata, public domain.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import time
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import _common

_common.require("numpy", "torch", "ncps", "bokeh_sampledata", "matplotlib", "tqdm")

import bokeh_sampledata
import numpy as np
import torch
from ncps.torch import LTC
from ncps.wirings import AutoNCP
from torch import Tensor, nn
from tqdm import tqdm

import ltc_torch.fx
from ltc_compiler.nnir import NNIR
from ltc_compiler.program import Program
from ltc_compiler.vm import VM

AHEAD = 30.0  # minutes
PERIOD = 5.0  # minutes between readings as a rule: the unit of elapsed time
TRAIN_DAYS, HELD_BACK_DAYS = 140, 30
STREAMS, CHUNK = 64, 16  # training: parallel stretches of the record, and readings between two updates
SCALE = 50.0  # mg/dL, a usual size of a change
EXPLANATION = """\
Bit-accurate: what the accelerator computes; its synapses read bf16, which moves a forecast by no more than the
last column says; the sensor itself reports whole mg/dL. Plain fp32: the same program without that rounding."""


# ---------------------------------------------------------------- the data


class Readings(NamedTuple):
    """The record, one row per reading; the last two are what the network gets."""

    minutes: np.ndarray  # (readings,) since the first
    glucose: np.ndarray  # (readings,) mg/dL
    change: np.ndarray  # (readings,) mg/dL until 30 minutes later; NaN where nobody measured
    features: np.ndarray  # (readings, 3) glucose and two slopes, roughly 0..1
    elapsed: np.ndarray  # (readings,) since the last reading, in units of 5 minutes

    def days(self, begin: int, end: int) -> Readings:
        """The readings of some days."""
        rows = slice(*np.searchsorted(self.minutes, [begin * 1440, end * 1440]))
        return Readings(*(column[rows] for column in self))


def load() -> Readings:
    """Read the record and derive features and targets."""
    path = Path(bokeh_sampledata.__file__).parent / "_data" / "CGM.csv.gz"
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = [
            (datetime.fromisoformat(row["datetime"]), float(row["glucose"])) for row in csv.DictReader(file)
        ]
    midnight = rows[0][0].replace(hour=0, minute=0)
    minutes = np.array([(when - midnight).total_seconds() / 60 for when, _ in rows])
    glucose = np.array([value for _, value in rows])

    # Three readings repeat a time. ncps divides by the elapsed time, so zero would end its training in NaN.
    new = np.diff(minutes, prepend=-np.inf) > 0
    minutes, glucose = minutes[new], glucose[new]

    elapsed = np.diff(minutes, prepend=minutes[0] - PERIOD) / PERIOD
    slopes = [slope(minutes, glucose, back) for back in (1, 3)]
    features = np.stack([glucose / 400, 0.5 + slopes[0] / 15, 0.5 + slopes[1] / 12], axis=1).clip(-0.5, 1.5)
    change = later(minutes, glucose, AHEAD, tolerance=PERIOD / 2) - glucose
    return Readings(minutes, glucose, change, features.astype(np.float32), elapsed.astype(np.float32))


def slope(minutes: np.ndarray, glucose: np.ndarray, back: int) -> np.ndarray:
    """mg/dL per 5 minutes over the last `back` readings, by the time that they really took."""
    then = np.maximum(np.arange(len(minutes)) - back, 0)
    took = np.maximum(minutes - minutes[then], PERIOD)
    return (glucose - glucose[then]) / took * PERIOD


def later(minutes: np.ndarray, values: np.ndarray, ahead: float, tolerance: float) -> np.ndarray:
    """The reading nearest to `ahead` minutes later, NaN if none is within the tolerance."""
    wanted = minutes + ahead
    after = np.searchsorted(minutes, wanted).clip(1, len(minutes) - 1)
    nearest = np.where(wanted - minutes[after - 1] < minutes[after] - wanted, after - 1, after)
    return np.where(np.abs(minutes[nearest] - wanted) <= tolerance, values[nearest], np.nan)


# ---------------------------------------------------------------- the model


class Forecaster(nn.Module):
    """An LTC with few, wired synapses, and a linear readout of its motor neurons."""

    def __init__(self, units: int, motors: int = 4) -> None:
        super().__init__()
        self.ltc = LTC(3, AutoNCP(units, motors, seed=3))
        self.readout = nn.Linear(motors, 1)

    def forward(self, features: Tensor, elapsed: Tensor) -> Tensor:
        """features (1, time, 3), elapsed (1, time) in units of 5 minutes -> change in mg/dL (1, time)."""
        motors, _ = self.ltc(features, timespans=elapsed)
        return SCALE * self.readout(motors)[..., 0]

    def step(self, features: Tensor, state: Tensor, elapsed: Tensor) -> tuple[Tensor, Tensor]:
        """One reading of each of several streams: (streams, 3), (streams, units) and (streams, 1).

        For training: ncps' LTC gets elapsed times right for one stream only, its cell for each of many.
        """
        motors, state = self.ltc.rnn_cell(features, state, elapsed)
        return SCALE * self.readout(motors)[..., 0], state


def train(model: Forecaster, readings: Readings, epochs: int) -> None:
    """Cut the record into parallel streams and walk along them, an update every CHUNK readings."""
    length = len(readings.minutes) // STREAMS
    features, elapsed, change = (
        torch.from_numpy(column[: STREAMS * length].astype(np.float32)).reshape(
            STREAMS, length, *column.shape[1:]
        )
        for column in (readings.features, readings.elapsed, readings.change)
    )
    optimizer = torch.optim.Adam(model.parameters())
    updates = epochs * -(-length // CHUNK)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.03, total_steps=updates, pct_start=0.1)
    bar = tqdm(total=updates, desc="training", mininterval=1.0)
    for _ in range(epochs):
        state = torch.zeros(STREAMS, model.ltc.state_size)
        for begin in range(0, length, CHUNK):
            state, outputs = state.detach(), []
            for t in range(begin, min(begin + CHUNK, length)):
                output, state = model.step(features[:, t], state, elapsed[:, t : t + 1])
                outputs.append(output)
            error = torch.stack(outputs, 1) - change[:, begin : begin + CHUNK]
            loss = (error[~error.isnan()] / SCALE).square().mean()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            bar.update()
            bar.set_postfix(rmse=f"{SCALE * loss.item() ** 0.5:.1f} mg/dL", refresh=False)
    bar.close()


# ---------------------------------------------------------------- compile and run


def to_step(model: Forecaster) -> NNIR:
    """The model for a whole record, turned into the model for one reading."""
    example = torch.rand(1, 8, 3), torch.rand(1, 8)
    traced, _ = ltc_torch.fx.prepare_shape(model, *example)
    whole = ltc_torch.fx.nnir.to_nnir(traced)
    step, _ = whole.streaming_transform([1, 1])  # time is axis 1 of both inputs
    return step


def stream(machine: VM, readings: Readings) -> np.ndarray:
    """One run for every reading, in order, with the time that it really took to come: mg/dL, (readings,)."""
    machine.reset()
    steps = zip(readings.features[:, None], readings.elapsed[:, None], strict=True)
    return np.array([machine.run(features, elapsed)[0] for features, elapsed in steps])


def in_pytorch(model: Forecaster, readings: Readings) -> np.ndarray:
    """The same from PyTorch, the whole record at once."""
    with torch.no_grad():
        return model(torch.from_numpy(readings.features)[None], torch.from_numpy(readings.elapsed)[None])[
            0
        ].numpy()


def equal_to_oracle(program: Program, readings: Readings, steps: int) -> int:
    """On how many readings the simulator and the independent reference machine agree in every bit, state included."""
    vm, oracle = program.to_vm(), program.to_oracle()
    equal = 0
    for f, e in zip(readings.features[:steps, None], readings.elapsed[:steps, None], strict=True):
        same = vm.run(f, e).tobytes() == oracle.run(f, e).tobytes()
        states = zip(vm.get_state().values(), oracle.get_state().values(), strict=True)
        equal += same and all(a.tobytes() == b.tobytes() for a, b in states)
    return equal


# ---------------------------------------------------------------- the report


def rmse_and_mae(readings: Readings, forecast: np.ndarray) -> tuple[float, float]:
    """Errors in mg/dL, over the readings that have a measurement 30 minutes later."""
    error = (forecast - readings.change)[~np.isnan(readings.change)]
    return float(np.sqrt(np.mean(error**2))), float(np.mean(np.abs(error)))


def error_table(readings: Readings, forecasts: dict[str, np.ndarray]) -> str:
    """RMSE and MAE of every forecast, and its distance from PyTorch's."""
    rows = []
    for name, forecast in forecasts.items():
        rmse, mae = rmse_and_mae(readings, forecast)
        apart = f"{np.abs(forecast - forecasts['PyTorch']).max():.2g}" if name.startswith("simulator") else ""
        rows.append([name, f"{rmse:.1f}", f"{mae:.1f}", apart])
    return _common.table(
        ["forecast", "RMSE mg/dL", "MAE mg/dL", "largest difference from PyTorch, mg/dL"], rows
    )


def timings(model: Forecaster, machine: VM, readings: Readings) -> str:
    """One reading at a time on this CPU: PyTorch and the simulator in turn."""
    features, elapsed = readings.features[:1], readings.elapsed[:1]
    x, e = torch.from_numpy(features), torch.from_numpy(elapsed)[None]
    state = torch.zeros(1, model.ltc.state_size)
    eager = torch.no_grad()(model.step)
    script = traced_step(model, (x, state, e))
    contestants = {
        "PyTorch, eager": lambda: eager(x, state, e),
        "PyTorch, TorchScript": lambda: script(x, state, e),
        "simulator, bit-accurate": lambda: machine.run(features, elapsed),
    }
    return _common.timing_table(_common.interleaved(contestants))


def traced_step(model: Forecaster, example: tuple[Tensor, ...]) -> torch.jit.ScriptModule:
    """The step as TorchScript, frozen."""

    class Step(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, features: Tensor, state: Tensor, elapsed: Tensor) -> tuple[Tensor, Tensor]:
            return self.model.step(features, state, elapsed)

    return _common.torchscript(Step(), *example)


def plot(readings: Readings, forecasts: dict[str, np.ndarray], path: Path) -> None:
    """The day of the record with the most readings: what was measured, and what was forecast 30 minutes before."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    days = (readings.minutes // 1440).astype(int)
    day = np.bincount(days)[days[0] + 1 :].argmax() + days[0] + 1
    rows = days == day
    hours = readings.minutes[rows] / 60 - 24 * day
    figure, axes = plt.subplots(figsize=(10, 4.5), layout="constrained")
    axes.plot(hours, readings.glucose[rows], color="black", lw=1.5, label="measured")
    for name, style in (("persistence", ":"), ("PyTorch", "-"), ("simulator, bit-accurate", "--")):
        values = readings.glucose[rows] + forecasts[name][rows]
        axes.plot(hours + AHEAD / 60, values, style, lw=1.2, label=f"{name}, 30 minutes before")
    axes.set(xlabel="hour of the day", ylabel="glucose, mg/dL", xlim=(0, 24.5))
    axes.set_title(f"Held-back day {day + 1} of the record")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> None:
    """Train, compile, stream, report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--short", action="store_true", help="a smaller network and fewer epochs")
    parser.add_argument(
        "--epochs", type=_common.positive, help="passes over the training days (12, or 3 with --short)"
    )
    parser.add_argument("--units", type=_common.positive, help="neurons (24, or 16 with --short)")
    _common.add_options(parser)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)

    torch.manual_seed(0)
    torch.set_num_threads(1)  # layers this small gain nothing from a second thread
    record = load()
    last = int(record.minutes[-1] // 1440) + 1
    first_held_back = last - HELD_BACK_DAYS
    training, validation = record.days(0, TRAIN_DAYS), record.days(TRAIN_DAYS, first_held_back)
    held_back = record.days(first_held_back, last)
    print(f"{len(record.minutes)} readings of {last} days, up to {record.elapsed.max() * PERIOD / 60:.1f} h apart;"
          f" days 1 to {TRAIN_DAYS} for training, the last {HELD_BACK_DAYS} held back")  # fmt: skip
    model = Forecaster(options.units or (16 if options.short else 24))
    train(model, training, options.epochs or (3 if options.short else 12))
    model.eval()
    rmse, mae = rmse_and_mae(validation, in_pytorch(model, validation))
    print(f"validation, days {TRAIN_DAYS + 1} to {first_held_back}: RMSE {rmse:.1f}, MAE {mae:.1f} mg/dL")

    begin = time.perf_counter()
    step = to_step(model)
    programs = {config.name: step.to_program(config) for config in options.config}
    print(f"compiled for {' and '.join(programs)} in {time.perf_counter() - begin:.1f} s")
    program = programs[options.config[0].name]

    forecasts = {
        "persistence": np.zeros_like(held_back.glucose),
        "PyTorch": in_pytorch(model, held_back),
        "simulator, bit-accurate": stream(program.to_vm(), held_back),
        "simulator, plain fp32": stream(program.to_vm(bit_accurate=False), held_back),
    }
    print(f"\nForecasts of the held-back days, {AHEAD:.0f} minutes ahead\n")
    print(error_table(held_back, forecasts))
    exact, pytorch = (
        rmse_and_mae(held_back, forecasts[k])[0] for k in ("simulator, bit-accurate", "PyTorch")
    )
    print(f"\n{EXPLANATION}\nRMSE, bit-accurate less PyTorch: {exact - pytorch:+.3f} mg/dL")
    checked = 50 if options.short else 500
    equal = equal_to_oracle(program, held_back, checked)
    print(f"simulator == reference, bit for bit, on {equal} of {checked} readings")
    print(f"\nOne reading on the accelerator\n\n{_common.accelerator_table(programs)}")
    print(
        f"\nOne reading on this machine: {_common.machine()}\n\n{timings(model, program.to_vm(), held_back)}"
    )
    picture = options.output / "glucose_ncp.png"
    plot(held_back, forecasts, picture)
    print(f"\nsaved {picture}")


if __name__ == "__main__":
    main()
