"""The runs behind a comparison: fp64 in NumPy, plain fp32 and the bit-accurate machine, all steps of each.

Probes need room that no accelerator has. Bits do not depend on the configuration (docs/numerics.md), so the program
with the probes is made for a machine with one core and the largest stores, of the same block size and units.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

import numpy as np

from ltc_compiler.config import Config
from ltc_compiler.errors import AllocationError
from ltc_compiler.ir.graph import Array, Graph, Node, Precision, Value, copy_node, rewrite
from ltc_compiler.ir.run import Change, evaluate, initial_states
from ltc_compiler.program import Program
from ltc_compiler.schedule.search import Job, best_schedule
from ltc_compiler.settle import roomy, settled
from ltc_compiler.transforms.precisions import assign_precision


def schedule(graph: Graph, config: Config, optimize: bool) -> Program:
    """The program of a graph that the pipeline made."""
    job = Job(graph.name, settled(graph, config), tuple(range(config.cores)))
    return Program(best_schedule([job], config, optimize=optimize).image)


def schedule_probes(graph: Graph, config: Config) -> Program:
    """The program of a graph with probes. Raises AllocationError where there are too many values."""
    try:
        return schedule(graph, roomy(config), optimize=False)
    except AllocationError as error:
        remedy = "give fewer `iterations`, so that long scans are taken as a whole"
        where = "the program with every value as an output"
        raise AllocationError(error.store, needed=error.needed, available=error.available,
                              where=where, remedy=remedy) from error  # fmt: skip


def run_machine(program: Program, inputs: Sequence[Array], steps: int, bit_accurate: bool) -> list[Array]:
    """Every output as (steps, *shape) float32, from a fresh state. Raises InputError, as VM.run."""
    vm = program.to_vm(bit_accurate)
    outputs = [np.empty((steps, *port.shape), np.float32) for port in program.image.models[0].outputs]
    for step in range(steps):
        results = vm.run(*(array[step] for array in inputs))
        for output, result in zip(outputs, results if len(outputs) > 1 else (results,), strict=True):
            output[step] = result
    return outputs


def run_exact(graph: Graph, inputs: Sequence[Array], steps: int, change: Change | None = None) -> list[Array]:
    """The same in fp64; change: see ir/run.py."""
    states = initial_states(graph)
    rows = [
        evaluate(graph, [a[step].astype(np.float64) for a in inputs], states, change) for step in range(steps)
    ]
    return [np.stack([row[i] for row in rows]) for i in range(len(graph.outputs))]


def run_disturbed(
    graph: Graph, inputs: Sequence[Array], steps: int, target: Node, errors: Sequence[Array]
) -> list[Array]:
    """The outputs in fp64 if the results of one node are off by `errors`, (steps * iterations, *shape) each."""
    iteration = count()

    def change(node: Node, results: Sequence[Array]) -> Sequence[Array]:
        if node is not target:
            return results
        now = next(iteration)
        return [result + error[now] for result, error in zip(results, errors, strict=True)]

    return run_exact(graph, inputs, steps, change)


def widened(graph: Graph, target: Node) -> Graph:
    """The graph with one of its nodes, or of a body's, in FP32."""

    def rule(new: Graph, node: Node, operands: tuple[Value, ...]) -> tuple[Value, ...] | None:
        if node is not target:
            return None
        results = copy_node(new, node, operands)
        new.nodes[-1].precision = Precision.FP32
        return results

    return assign_precision(rewrite(graph, rule))
