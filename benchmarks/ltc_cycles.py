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
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "examples")]
import _common

_common.require("numpy", "torch", "torchdiffeq", "ncps")

from ltc_compiler import Config, LtcError, UnsupportedError, isa
from ltc_compiler.nnir import NNIR
from zoo import ZOO, step_graph

CORES = (1, 3, 6)
NETWORKS = {  # of the zoo, and what the table calls them
    "ltc AutoNCP(32, 8)": "ncps LTC, AutoNCP(32, 8), 17 inputs, sparse",
    "ltc FullyConnected(32)": "ncps LTC, FullyConnected(32), 17 inputs",
    "ltc AutoNCP(64, 8)": "ncps LTC, AutoNCP(64, 8), 17 inputs, sparse",
    "ltc FullyConnected(64)": "ncps LTC, FullyConnected(64), 17 inputs",
    "ltc FullyConnected(128)": "ncps LTC, FullyConnected(128), 17 inputs",
    "cfc 64": "ncps CfC(64), 17 inputs",
    "gated 64": "gated ODE LTC(64), 9 Euler steps",
    "solve 17-64-8, rk4 of 4 steps": "neural ODE of 64 units, rk4, 4 steps",
}


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
    """A row per network, a column per machine; then what was refused."""
    machines = list(next(iter(results.values())))
    rows = []
    for name, columns in results.items():
        full = columns[machines[-1]] if "refused" not in columns[machines[-1]] else columns[machines[0]]
        busiest = f"{full['busiest']} {full['busy']:.0%}" if "refused" not in full else "-"
        rows.append([NETWORKS[name], *(cell(columns[m]) for m in machines), busiest])
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
        nnir = step_graph(ZOO[name])
        results[name] = {machine: measure(nnir, config) for machine, config in machines.items()}
    print(f"{options.config.name}, {options.config.clock_mhz:g} MHz\n\n{markdown(results)}")
    if options.json:
        content = {"config": options.config.name, "models": results}
        options.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
