"""How near schedules come to what the machine allows: cycles over a bound, for the sweep of the zoo.

The bound of a model is the greater of two figures, both taken from its graph:

- work: the weight blocks of its products divided by the cores and 5% more, and behind it one pipeline depth: the least
  latency from a product's last block to an output;
- path: the longest way through the graph, where a product takes its blocks divided by the cores and `latency.link`, or
  all its blocks where that is less, and never less than the row tiles that hide the latency of an accumulator;
  everything else takes its latency and one cycle for each further row.

Spaced, neither counts products that depend on state alone. A bound is no proof that a schedule exists: a ratio above 1
is where to look.

    python benchmarks/bound.py [--config NAME ...] [--families lstm mlp ...] [--worst 20] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import sys
from math import ceil, prod
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "examples")]
import _common

_common.require("numpy", "torch", "torchdiffeq", "ncps")

from ltc_compiler import AllocationError, Config, isa
from ltc_compiler.bytecode.cost import row_tiles_in_flight
from ltc_compiler.ir.graph import Graph, Node, Precision, Value
from ltc_compiler.nnir import NNIR
from ltc_compiler.transforms.pipeline import run_pipeline
from zoo import SWEEP, step_graph

SPARE = 1.05  # of the work bound
BOARDS = (
    "v80_c6b32",
    "ia_840f_c3b64",
    "ia_840f_c2b64d",
    "artena_c8b32",
    "small_c2b16",
    "tiny_c1b8",
    "tiny_c2b8",
)
MODES = ("spaced", "contiguous")


# ---------------------------------------------------------------- bounds


class Way(NamedTuple):
    """When a value can be there. `early`: it depends on state and constants alone."""

    cycles: float
    early: bool


class Bounds:
    """The bounds of a graph that the passes have been over, on a machine. work: product beats on one core."""

    def __init__(self, graph: Graph, config: Config, spaced: bool) -> None:
        self.config, self.spaced = config, spaced
        self.work = 0.0
        ways = {s.value: Way(0, early=True) for s in graph.states}
        ways |= {v: Way(config.latency.io_in, early=False) for v in graph.inputs}
        self._walk(graph, ways, 1)
        ends = [ways[v].cycles for v in graph.outputs]
        self.path = max(ends, default=0) + config.latency.io_out
        self.depth = self._depth(graph) + config.latency.io_out
        self.cycles = max(SPARE * self.work / config.cores + self.depth, self.path)

    def _walk(self, graph: Graph, ways: dict[Value, Way], iterations: int) -> None:
        """Enter the way of every value; work is counted `iterations` times."""
        for node in graph.nodes:
            if node.op == "constant":
                ways.update({v: Way(0, early=True) for v in node.results})
                continue
            begin = max((ways[v].cycles for v in node.operands), default=0)
            early = all(ways[v].early for v in node.operands)
            if node.op == "scan":
                cycles = self._scan(node, ways, iterations)
            else:
                cycles = self._cycles(node)
                if node.op == "linear" and not (early and self.spaced):
                    self.work += iterations * self._beats(node)
            done = 0.0 if early and self.spaced else begin + cycles
            ways.update({v: Way(done, early) for v in node.results})

    def _scan(self, node: Node, ways: dict[Value, Way], iterations: int) -> float:
        """The iterations of the longest way from carry to carry."""
        body, carries, trips = node.body, node.attrs["carries"], node.attrs["trip_count"]
        inside = {v: Way(0, early=False) for v in body.inputs}
        self._walk(body, inside, iterations * trips)
        return trips * max((inside[v].cycles for v in body.outputs[:carries]), default=0.0)

    def _cycles(self, node: Node) -> float:
        """The latency of an op, and its beats behind the first."""
        if node.op == "linear":
            beats, latency, cores = self._beats(node), self.config.latency, self.config.cores
            rows = self.config.block_rows(node.results[0].shape[-1])
            spread = (
                beats / rows * max(rows / cores, min(rows, row_tiles_in_flight(self.config)))
            )  # no dot product is split
            return latency.matrix + min(beats, spread + latency.link)
        if node.op in ("sum", "amax"):
            return self.config.latency.reduce + self._rows(node.operands[0]) - 1
        if node.op == "relu" and node.operands[0].node is not None and node.operands[0].node.op == "linear":
            return 0  # the product's own end
        row = isa.BY_NAME.get(node.op)
        if row is None:
            return 0  # a view, or moves that a better layout might save
        wide = node.results[0].type.precision is not Precision.BF16
        name = row.latency_fp32 if row.unit == "activation" and wide else row.latency
        return getattr(self.config.latency, name) + ceil(self._rows(node.results[0]) / self.config.cores) - 1

    def _rows(self, value: Value) -> int:
        return prod(value.shape[:-1]) * self.config.block_rows(value.shape[-1]) if value.shape else 1

    def _beats(self, node: Node) -> int:
        rows, columns = node.operands[1].shape
        batch = prod(node.results[0].shape[:-1])
        hold = self.config.fp32_beats if node.operands[1].type.precision is Precision.FP32 else 1
        return batch * hold * self.config.block_rows(rows) * self.config.block_rows(columns)

    def _depth(self, graph: Graph) -> float:
        """The least latency behind a product's last block, its own included."""
        after: dict[Value, float] = dict.fromkeys(graph.outputs, 0.0)
        least = float("inf")
        for node in reversed(graph.nodes):
            left = max((after[v] for v in node.results if v in after), default=None)
            if left is None:
                continue
            if node.op == "linear":
                least = min(least, left + self.config.latency.matrix)
            for value in node.operands:
                after[value] = max(
                    after.get(value, 0.0), left + (0 if node.op == "scan" else self._cycles(node))
                )
        return 0.0 if least == float("inf") else least


# ---------------------------------------------------------------- models


def measure(nnir: NNIR, config: Config) -> dict[str, Any]:
    """Cycles and bounds of a model in both modes. Raises AllocationError where it does not fit."""
    program = nnir.to_program(config)
    graph = run_pipeline(nnir.graph)
    found: dict[str, Any] = {}
    for mode in MODES:
        bounds = Bounds(graph, config, mode == "spaced")
        cycles = program.cycle_count_per_inference(spaced=mode == "spaced")
        found[mode] = {
            "cycles": cycles,
            "work": bounds.work / config.cores,
            "depth": bounds.depth,
            "path": bounds.path,
            "ratio": cycles / bounds.cycles,
        }
    return found


# ---------------------------------------------------------------- the program


def lines(results: list[dict[str, Any]]) -> list[list[str]]:
    """The rows of the table, the worst first."""
    rows = []
    for r in sorted(results, key=lambda r: -max(r[mode]["ratio"] for mode in MODES)):
        cells = [r["model"], r["config"]]
        for mode in MODES:
            m = r[mode]
            cells += [
                f"{m['cycles']}",
                f"{m['work']:.0f}+{m['depth']:.0f}",
                f"{m['path']:.0f}",
                f"{m['ratio']:.2f}",
            ]
        rows.append(cells)
    return rows


def main() -> None:
    """Measure what is asked for; print the worst points and a mean for each family."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    presets = [_common.preset(name) for name in BOARDS]
    parser.add_argument("--config", nargs="+", type=_common.preset, default=presets, metavar="NAME")
    parser.add_argument("--families", nargs="+", metavar="FAMILY", help="default: all")
    parser.add_argument("--worst", type=_common.positive, default=1000, help="how many points to print")
    parser.add_argument("--json", type=Path, help="write the results to this file")
    options = parser.parse_args()
    chosen = [p for p in SWEEP.values() if not options.families or p.family in options.families]
    if not chosen:
        parser.error(f"the families are {', '.join(dict.fromkeys(p.family for p in SWEEP.values()))}")
    results = []
    for point in chosen:
        nnir = step_graph(point)
        for config in options.config:
            print(f"{point.name} on {config.name}", file=sys.stderr)
            try:
                found = measure(nnir, config)
            except AllocationError as error:
                print(f"  does not fit: {error.what}", file=sys.stderr)
                continue
            results.append({"family": point.family, "model": point.name, "config": config.name, **found})
    header = ["model", "board", *(name for mode in MODES for name in (mode, "work", "path", "ratio"))]
    print(_common.table(header, lines(results)[: options.worst]))
    for family in dict.fromkeys(r["family"] for r in results):
        for mode in MODES:
            ratios = [r[mode]["ratio"] for r in results if r["family"] == family]
            print(f"{family}, {mode}: mean {sum(ratios) / len(ratios):.3f}, largest {max(ratios):.3f}")
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
