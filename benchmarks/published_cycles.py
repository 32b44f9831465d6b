"""Compute cycles of this compiler beside a public table of another accelerator with the same geometry.

published_cycles.csv holds the public figures, with where they come from. Each of its models is built in PyTorch,
its parameters are counted against the table's, it is compiled for the same geometry, and the program's cycles, spaced
and contiguous (docs/machine.md), are printed beside the published ones, with the ratio. `bound` is the weight blocks
of the model divided by the cores: what no schedule can go below while state-only work is not done ahead.

    python benchmarks/published_cycles.py [--config v80_c6b32] [--models lstm mlp ...] [--json FILE]
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import sys
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "examples")]
import _common

_common.require("numpy", "torch", "torchdiffeq", "ncps")

from ltc_compiler import AllocationError, Config
from ltc_compiler.program import Program
from zoo import ZooModel, sized, step_graph

TABLE = Path(__file__).parent / "published_cycles.csv"
MODES = ("spaced", "contiguous")


class Row(NamedTuple):
    """One model of the table: its family and sizes, its parameters, and the published cycles of each mode."""

    family: str
    sizes: str
    parameters: int
    cycles: dict[str, int]

    @property
    def size(self) -> dict[str, int]:
        """The sizes that are numbers, by name."""
        pairs = (item.split("=") for item in self.sizes.split(";"))
        return {name: int(value) for name, value in pairs if value.isdecimal()}


def read_table(path: Path = TABLE) -> list[Row]:
    """The models of the table, each with both modes."""
    found: dict[tuple[str, str], Row] = {}
    with path.open(encoding="utf-8") as file:
        for line in csv.DictReader(line for line in file if not line.startswith("#")):
            key = line["model"], line["hyperparams"]
            row = found.setdefault(key, Row(*key, int(line["params"]), {}))
            row.cycles[line["mode"]] = int(line["cycles"])
    return list(found.values())


def model_of(row: Row) -> ZooModel:
    """The model of the zoo's families with the sizes of the table."""
    n = row.size
    if row.family == "cnn":
        return sized.residual(n["layers"], n["channels"], n["kernel_size"])
    if row.family == "lstm":
        return sized.lstm(n["layers"], n["hidden_size"])
    if row.family == "mlp":
        return sized.mlp(*[n["n_features"]] * (n["layers"] + 1))
    if row.family == "slp":
        return sized.slp(n["input"], n["output"])
    sys.exit(f"{TABLE.name} has a model {row.family!r}, which this program does not build")


def compile_row(row: Row, config: Config) -> Program:
    """The program of one step, or of one call where the model does not stream."""
    model = model_of(row)
    parameters = sum(p.numel() for p in model.make().parameters())
    if parameters != row.parameters:
        sys.exit(f"{row.family} {row.sizes} has {parameters} parameters, the table says {row.parameters}")
    return step_graph(model).to_program(config)


def bound(row: Row, config: Config) -> int:
    """Weight blocks divided by the cores, rounded up."""
    n, blocks = row.size, config.block_rows
    per_layer = {
        "cnn": lambda: blocks(n["channels"]) * blocks(n["channels"] * n["kernel_size"]),
        "lstm": lambda: blocks(4 * n["hidden_size"]) * 2 * blocks(n["hidden_size"]),
        "mlp": lambda: blocks(n["n_features"]) ** 2,
        "slp": lambda: blocks(n["input"]) * blocks(n["output"]),
    }[row.family]()
    return -(-n.get("layers", 1) * per_layer // config.cores)


def measure(row: Row, config: Config) -> dict[str, Any]:
    """Cycles of one model in both modes, ours and the published ones."""
    program = compile_row(row, config)
    ours = {mode: program.cycle_count_per_inference(spaced=mode == "spaced") for mode in MODES}
    busy = program.cycle_summary_per_inference(spaced=False)["busy"]
    return {
        "model": f"{row.family} {row.sizes}",
        "bound": bound(row, config),
        "ours": ours,
        "published": row.cycles,
        "ratio": {mode: ours[mode] / row.cycles[mode] for mode in MODES},
        "cores": sum(any(units) for units in busy),
    }


def markdown(results: list[dict[str, Any]]) -> str:
    """The table, and the geometric means below."""
    rows = []
    for r in results:
        cells = [r["model"], str(r["bound"]), str(r["cores"])]
        for mode in MODES:
            cells += [str(r["ours"][mode]), str(r["published"][mode]), f"{r['ratio'][mode]:.2f}"]
        rows.append(cells)
    header = ["model", "bound", "cores"]
    header += [name for mode in MODES for name in (mode, "published", "ratio")]
    means = {mode: geometric_mean([r["ratio"][mode] for r in results]) for mode in MODES}
    both = geometric_mean([r["ratio"][mode] for r in results for mode in MODES])
    worst = max(r["ratio"][mode] for r in results for mode in MODES)
    named = ", ".join(f"{mode} {mean:.3f}" for mode, mean in means.items())
    summary = f"geometric mean of the ratios: {named}, both {both:.3f}; largest {worst:.2f}"
    return f"{_common.table(header, rows)}\n\n{summary}"


def geometric_mean(values: list[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))


def main() -> None:
    """Compile what is asked for; print and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=_common.preset, default=_common.preset("v80_c6b32"), metavar="NAME")
    parser.add_argument("--models", nargs="+", default=["cnn", "lstm", "mlp", "slp"], metavar="FAMILY")
    parser.add_argument("--json", type=Path, help="write the results to this file")
    options = parser.parse_args()
    rows = [row for row in read_table() if row.family in options.models]
    if not rows:
        parser.error(f"{TABLE.name} has no model of the families {', '.join(options.models)}")
    results, left_out = [], {}
    for row in rows:
        print(f"compiling {row.family} {row.sizes}", file=sys.stderr)
        try:
            results.append(measure(row, options.config))
        except AllocationError as error:
            left_out[f"{row.family} {row.sizes}"] = error.what
    print(f"{options.config.name}: {options.config.cores} cores of {options.config.block_size} lanes\n")
    if results:
        print(markdown(results))
    for name, why in left_out.items():
        print(f"{name} does not fit: {why}")
    if options.json:
        content = {"config": options.config.name, "models": results, "does not fit": left_out}
        options.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
