"""Audio models in the engines that plug-ins use, beside the simulator: nanoseconds a sample on one core.

RTNeural and NAM Core are built here, from checkouts that you name; what is not named is skipped, and a note says so.

    python benchmarks/audio_engines.py [--rtneural PATH] [--nam PATH] [--eigen PATH] [--xsimd PATH]
                                       [--models LSTM-16 ...] [--rounds 7] [--json FILE]

--rtneural, --nam: checkouts; or the environment variables RTNEURAL and NAM_CORE. --eigen: the folder that holds
`Eigen/` (RTNeural's and NAM Core's matrices; /usr/include/eigen3 by default). --xsimd: a checkout of xsimd, for
RTNeural's other backend. Every engine computes the same weights on the same samples, its output is compared with
PyTorch's before anything is timed, and all take turns; the least of the rounds is printed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "examples")]
import _common

_common.require("numpy", "torch", "ncps")

import numpy as np
import torch
from torch import nn

from ltc_compiler import Config
from ltc_torch.fx import prepare_shape
from ltc_torch.fx.nnir import to_nnir
from zoo import ZOO, build
from zoo.audio import DILATIONS, AmplifierWaveNet
from zoo.sized import Readout

HERE = Path(__file__).parent / "audio"
CONFIG = "v80_c6b32"
UNITS = (8, 16, 24, 40)
BLOCKS = (1, 16, 64, 256)  # frames of a call of NAM Core
MODELS = [*(f"LSTM-{n}" for n in UNITS), "WaveNet, standard"]
SAMPLES = 16384
FLAGS = ["-O3", "-march=native", "-ffast-math"]
FP32_TOLERANCE = 2e-3  # of the largest output: fast mathematics, and activations by approximation
BF16_TOLERANCE = 5e-2
Timed = Callable[[], float]  # one round: nanoseconds a sample


def samples(count: int = SAMPLES) -> np.ndarray:
    """What is played: a tone and some noise."""
    noise = np.random.default_rng(0).standard_normal(count)
    return (0.5 * np.sin(0.05 * np.arange(count)) + 0.1 * noise).astype(np.float32)


# ---------------------------------------------------------------- engines


class Engine:
    """A built driver, and the arguments that stay the same. Its first pass writes the output that is compared."""

    def __init__(self, program: Path, model: Path, folder: Path, block: int) -> None:
        self.output = folder / f"{program.stem}.{block}.out"
        self.command = [program, model, folder / "samples", self.output, str(block)]

    def __call__(self) -> float:
        done = subprocess.run([*self.command, "2"], check=True, capture_output=True, text=True)
        return min(map(float, done.stdout.split()))

    def outputs(self) -> np.ndarray:
        self()
        return np.fromfile(self.output, np.float32)


def compiled(name: str, sources: list[Path], includes: list[Path], defines: list[str], folder: Path) -> Path:
    """A driver of audio/, built. Raises CalledProcessError, with what the compiler says."""
    program = folder / name
    options = [*FLAGS, *(f"-D{d}" for d in defines), *(f"-I{p}" for p in (HERE, *includes))]
    subprocess.run(
        ["g++", "-std=c++20", *options, *sources, "-o", program], check=True, capture_output=True, text=True
    )
    return program


def rtneural(given: argparse.Namespace, units: int, model: nn.Module, folder: Path) -> dict[str, Engine]:
    """Its backends that can be built here."""
    lstm = model.lstm
    arrays = [lstm.weight_ih_l0, lstm.weight_hh_l0, lstm.bias_ih_l0 + lstm.bias_hh_l0]
    arrays += [model.readout.weight, model.readout.bias]
    weights = folder / f"lstm{units}"
    np.concatenate([a.detach().numpy().ravel() for a in arrays]).tofile(weights)
    found = {}
    for backend, include in (("Eigen", given.eigen), ("xsimd", given.xsimd and given.xsimd / "include")):
        if include is not None:
            defines = [
                f"HIDDEN={units}",
                f"RTNEURAL_USE_{backend.upper()}=1",
                "RTNEURAL_DEFAULT_ALIGNMENT=32",
            ]
            name = f"rtneural_{backend}_{units}"
            program = compiled(name, [HERE / "rtneural.cpp"], [given.rtneural, include], defines, folder)
            found[f"RTNeural, {backend}"] = Engine(program, weights, folder, 1)
    return found


def nam_file(model: AmplifierWaveNet, path: Path) -> Path:
    """The model as NAM Core reads it."""
    arrays = [p.detach().numpy().ravel() for array in (model.first, model.second) for p in _in_order(array)]
    weights = [*np.concatenate(arrays).tolist(), model.HEAD_SCALE]
    common = {
        "condition_size": 1,
        "kernel_size": 3,
        "dilations": DILATIONS,
        "activation": "Tanh",
        "gated": False,
    }
    layers = [
        {"input_size": 1, "head_size": 8, "channels": 16, "head_bias": False, **common},
        {"input_size": 16, "head_size": 1, "channels": 8, "head_bias": True, **common},
    ]
    config = {"layers": layers, "head": None, "head_scale": model.HEAD_SCALE}
    found = {
        "version": "0.5.4",
        "architecture": "WaveNet",
        "config": config,
        "weights": weights,
        "sample_rate": 48000,
    }
    path.write_text(json.dumps(found), encoding="utf-8")
    return path


def _in_order(array: nn.Module) -> list[nn.Parameter]:
    parts = [array.rechannel]
    for layer in array.layers:
        parts += [layer.conv, layer.input_mixer, layer.one_by_one]
    return [p for part in (*parts, array.head_rechannel) for p in part.parameters()]


def nam(given: argparse.Namespace, model: AmplifierWaveNet, folder: Path) -> dict[str, Engine]:
    """NAM Core, at every size of a block."""
    sources = [HERE / "nam.cpp", *given.nam.glob("NAM/*.cpp"), *given.nam.glob("NAM/*/*.cpp")]
    includes = [given.nam, given.nam / "NAM", given.eigen, given.nam / "Dependencies" / "nlohmann"]
    program = compiled("nam", sources, includes, ["NAM_SAMPLE_FLOAT"], folder)
    path = nam_file(model, folder / "wavenet.nam")
    return {f"NAM Core, block {b}": Engine(program, path, folder, b) for b in BLOCKS}


def simulator(
    model: nn.Module, example: torch.Tensor, axis: int, x: np.ndarray
) -> tuple[dict[str, Timed], np.ndarray]:
    """run_timesteps and run_into, and the outputs of the first."""
    step, _ = to_nnir(prepare_shape(model, example)[0]).streaming_transform(axis)
    program = step.to_program(Config.preset(CONFIG))
    vm, single = program.to_vm(), program.to_vm()
    whole = np.ascontiguousarray(x.reshape([len(x) if i == axis else 1 for i in range(3)]))
    given, taken = np.zeros((1, 1), np.float32), np.zeros(program.output_shape(), np.float32)
    outputs = vm.run_timesteps(whole)
    first = outputs[0] if isinstance(outputs, tuple) else outputs

    def sequence() -> float:
        begin = time.perf_counter_ns()
        vm.run_timesteps(whole)
        return (time.perf_counter_ns() - begin) / len(x)

    def steps() -> float:
        begin = time.perf_counter_ns()
        for _ in range(len(x)):
            single.run_into(given, taken)
        return (time.perf_counter_ns() - begin) / len(x)

    return {"run_timesteps": sequence, "run_into": steps}, np.asarray(first).ravel()


# ---------------------------------------------------------------- cases


class Mono(nn.Module):
    """An LSTM from samples to samples. (1, time, 1) -> the same."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.net = Readout(1, units, 1, outputs=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.net(x)[0]
        return y


def lstm_case(given: argparse.Namespace, units: int, folder: Path) -> tuple[dict[str, Timed], str]:
    torch.manual_seed(units)
    model, x = Mono(units).eval(), samples()
    with torch.no_grad():
        wanted = model(torch.from_numpy(x)[None, :, None]).numpy().ravel()
    timed, own = simulator(model, torch.zeros(1, 3, 1), 1, x)
    check("the simulator", own, wanted, BF16_TOLERANCE)
    if given.rtneural is None:
        return timed, "RTNeural: no checkout is named (--rtneural or RTNEURAL)"
    engines = rtneural(given, units, model.net, folder)
    for name, engine in engines.items():
        check(name, engine.outputs(), wanted, FP32_TOLERANCE)
    return engines | timed, "" if given.xsimd else "RTNeural, xsimd: no checkout is named (--xsimd)"


def wavenet_case(given: argparse.Namespace, folder: Path) -> tuple[dict[str, Timed], str]:
    model, (example,) = build(ZOO["wavenet, amplifier"])
    x = samples()
    past = (
        2 * 2 * sum(DILATIONS)
    )  # NAM Core starts from a silence that it has heard, PyTorch from zeros in every layer
    with torch.no_grad():
        wanted = model(torch.from_numpy(x)[None, None]).numpy().ravel()[past:]
    timed, own = simulator(model, example, 2, x)
    check("the simulator", own[past:], wanted, BF16_TOLERANCE)
    if given.nam is None:
        return timed, "NAM Core: no checkout is named (--nam or NAM_CORE)"
    engines = nam(given, model, folder)
    for name, engine in engines.items():
        check(name, engine.outputs()[past:], wanted, FP32_TOLERANCE)
    return engines | timed, ""


def check(name: str, found: np.ndarray, wanted: np.ndarray, tolerance: float) -> None:
    """Leave with a message if an engine computes something else: its time would mean nothing."""
    distance = float(np.abs(found - wanted).max()) / float(np.abs(wanted).max())
    if not distance <= tolerance:
        sys.exit(
            f"{name} is {distance:.1e} of the largest output away from PyTorch, allowed is {tolerance:.0e}"
        )


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    named = {"--rtneural": "RTNEURAL", "--nam": "NAM_CORE", "--xsimd": "XSIMD"}
    for option, variable in named.items():
        path = os.environ.get(variable)
        parser.add_argument(
            option, type=Path, default=Path(path) if path else None, help=f"checkout; or {variable}"
        )
    parser.add_argument(
        "--eigen", type=Path, default=Path("/usr/include/eigen3"), help="the folder with Eigen/"
    )
    parser.add_argument(
        "--models", nargs="+", choices=MODELS, default=MODELS, metavar="NAME", help=", ".join(MODELS)
    )
    parser.add_argument("--rounds", type=_common.positive, default=7)
    parser.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)), help="the core to run on")
    parser.add_argument("--json", type=Path, help="write the results to this file")
    given = parser.parse_args()
    for name in ("rtneural", "nam", "xsimd"):
        path = getattr(given, name)
        if path is not None and not path.is_dir():
            parser.error(f"--{name}: there is no folder {path}")
    return given


def main() -> None:
    """Build, compare, measure; print and save."""
    given = options()
    os.sched_setaffinity(0, {given.core})
    torch.set_num_threads(1)
    head = f"{_common.machine()}; {given.rounds} rounds of {SAMPLES} samples, load {os.getloadavg()[0]:.1f}"
    results: dict[str, dict[str, float]] = {}
    notes: dict[str, None] = {}
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        samples().tofile(folder / "samples")
        cases: dict[str, Any] = {f"LSTM-{n}": lambda n=n: lstm_case(given, n, folder) for n in UNITS}
        cases["WaveNet, standard"] = lambda: wavenet_case(given, folder)
        for title, make in ((title, cases[title]) for title in given.models):
            print(f"measuring {title}", file=sys.stderr)
            try:
                timed, note = make()
            except subprocess.CalledProcessError as error:
                sys.exit(f"{title}: {error.cmd[0]} fails:\n{(error.stderr or '')[-2000:]}")
            rounds = [{name: call() for name, call in timed.items()} for _ in range(given.rounds)]
            results[title] = {name: min(r[name] for r in rounds) for name in timed}
            notes[note] = None
    names = list(dict.fromkeys(name for r in results.values() for name in r))
    rows = [[name, *(f"{r[name]:.0f}" if name in r else "" for r in results.values())] for name in names]
    print(f"{head}\n\n{_common.table(['ns a sample', *results], rows)}")
    print("".join(f"\nNot measured: {note}" for note in notes if note))
    if given.json:
        given.json.write_text(json.dumps({"machine": head, "ns": results}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
