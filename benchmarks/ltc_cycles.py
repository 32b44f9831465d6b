"""Cycles of one step of liquid networks: on 1, 3 and 6 cores, with and without the synapse unit, sparse and dense.

Every network is compiled for the geometry of v80_c6b32 with fewer cores or without the unit; what does not fit or
cannot be lowered says so in its place. `busy` is the part of the step in which the busiest unit works: what is
missing to 100% is latency, not lanes.

    python benchmarks/ltc_cycles.py [--config v80_c6b32] [--models NAME ...] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import replace
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
from torchdiffeq import odeint

import ltc_torch.fx
from ltc_compiler import Config, LtcError, UnsupportedError, isa
from ltc_compiler.nnir import NNIR

CORES = (1, 3, 6)


class Neural(nn.Module):
    """A neural ODE: tanh MLP of 64 units as the field, rk4 over 4 steps. (1, 17) -> (1, 8)."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.decode = nn.Linear(17, 64), nn.Linear(64, 8)
        self.field = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 64))

    def forward(self, x: Tensor) -> Tensor:
        times = torch.linspace(0.0, 1.0, 5)
        return self.decode(odeint(lambda t, h: self.field(h), self.encode(x), times, method="rk4")[-1])


class OverTime(nn.Module):
    """A recurrent network from its initial state on, outputs alone: what the compiler streams."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """x (1, time, features) -> (1, time, outputs)."""
        return self.network(x)[0]


class Network(NamedTuple):
    """A network of `features` inputs; recurrent: called with (1, time, features), else with (1, features)."""

    title: str
    build: Callable[[], nn.Module]
    features: int
    recurrent: bool = True


NETWORKS = {
    "ncp32": Network(
        "ncps LTC, AutoNCP(32, 8), 17 inputs, sparse", lambda: LTC(17, AutoNCP(32, 8, seed=1)), 17
    ),
    "dense32": Network("ncps LTC, FullyConnected(32), 17 inputs", lambda: LTC(17, FullyConnected(32, 8)), 17),
    "ncp64": Network(
        "ncps LTC, AutoNCP(64, 8), 17 inputs, sparse", lambda: LTC(17, AutoNCP(64, 8, seed=1)), 17
    ),
    "dense64": Network("ncps LTC, FullyConnected(64), 17 inputs", lambda: LTC(17, FullyConnected(64, 8)), 17),
    "dense128": Network(
        "ncps LTC, FullyConnected(128), 17 inputs", lambda: LTC(17, FullyConnected(128, 8)), 17
    ),
    "cfc64": Network("ncps CfC(64), 17 inputs", lambda: CfC(17, 64), 17),
    "gated64": Network("gated ODE LTC(64), 9 Euler steps", lambda: sine_ltc.LTC(64), 1, recurrent=False),
    "neural64": Network("neural ODE of 64 units, rk4, 4 steps", Neural, 17, recurrent=False),
}


def record(network: Network) -> NNIR:
    """The graph of one step."""
    torch.manual_seed(0)
    np.random.seed(0)
    if network.recurrent:
        model = OverTime(network.build()).eval()
        traced, _ = ltc_torch.fx.prepare_shape(model, torch.rand(1, 4, network.features))
        return ltc_torch.fx.nnir.to_nnir(traced).streaming_transform(1)[0]
    traced, _ = ltc_torch.fx.prepare_shape(network.build().eval(), torch.rand(1, network.features))
    return ltc_torch.fx.nnir.to_nnir(traced)


def measure(nnir: NNIR, config: Config) -> dict[str, Any]:
    """Cycles of one step on one machine, or why there are none."""
    try:
        program = nnir.to_program(config)
    except LtcError as error:
        return {"refused": error.entries[0].reason if isinstance(error, UnsupportedError) else error.what}
    walk = program.cycle_summary_per_inference(spaced=False)
    core, unit = max(
        ((c, u) for c in range(config.cores) for u in range(len(isa.UNITS))),
        key=lambda cu: walk["busy"][cu[0]][cu[1]],
    )
    return {
        "spaced": program.cycle_count_per_inference(),
        "contiguous": walk["latency"],
        "cores_at_work": sum(any(units) for units in walk["busy"]),
        "busiest": isa.UNITS[unit],
        "busy": walk["busy"][core][unit] / walk["total"],
        "us": program.compute_duration_per_inference_us(spaced=False),
    }


def cell(result: dict[str, Any]) -> str:
    """spaced / contiguous, or a dash."""
    return "-" if "refused" in result else f"{result['spaced']} / {result['contiguous']}"


def markdown(results: dict[str, dict[str, Any]]) -> str:
    """A row a network, a column a machine; then what was refused."""
    machines = list(next(iter(results.values())))
    rows = []
    for name, columns in results.items():
        full = columns[machines[-1]] if "refused" not in columns[machines[-1]] else columns[machines[0]]
        busiest = f"{full['busiest']} {full['busy']:.0%}" if "refused" not in full else "-"
        rows.append([NETWORKS[name].title, *(cell(columns[m]) for m in machines), busiest])
    reasons = sorted(
        {r["refused"] for columns in results.values() for r in columns.values() if "refused" in r}
    )
    notes = "".join(f"\n- : {reason}" for reason in reasons)
    return _common.table(["one step: spaced / contiguous", *machines, "busiest unit"], rows) + notes


def main() -> None:
    """Compile what is asked for; print and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=_common.preset, default=_common.preset("v80_c6b32"), metavar="NAME")
    parser.add_argument("--models", nargs="+", default=list(NETWORKS), choices=list(NETWORKS), metavar="NAME")
    parser.add_argument("--json", type=Path, help="write the results to this file")
    options = parser.parse_args()
    machines = {}
    for unit, words in ((False, ", no synapse unit"), (True, "")):
        for cores in CORES:
            plural = "" if cores == 1 else "s"
            machines[f"{cores} core{plural}{words}"] = replace(options.config, cores=cores, synapse_unit=unit)
    results: dict[str, dict[str, Any]] = {}
    for name in options.models:
        print(f"compiling {name}", file=sys.stderr)
        nnir = record(NETWORKS[name])
        results[name] = {machine: measure(nnir, config) for machine, config in machines.items()}
    print(f"{options.config.name}, {options.config.clock_mhz:g} MHz\n\n{markdown(results)}")
    if options.json:
        content = {"config": options.config.name, "models": results}
        options.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
