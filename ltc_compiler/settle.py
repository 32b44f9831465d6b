"""Programs of graphs with a prologue: the machine computes the initial states of a stream once, at compile time.

The prologue (transforms/streaming/prologue.py) is compiled and run like any other graph, bit-accurate and in plain
fp32; what comes out becomes the initial values of the program's states. So a stream begins with the bits that the whole
sequence has there, and no step pays for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ltc_compiler.config import Config
from ltc_compiler.ir.graph import Graph, rewrite
from ltc_compiler.program import Program
from ltc_compiler.schedule.compile import compile_graphs, schedule_graphs
from ltc_compiler.schedule.listing import listing
from ltc_compiler.schedule.search import Job
from ltc_compiler.stages import stage

LARGEST = 65536  # rows, blocks, slots, entries and instructions


def roomy(config: Config) -> Config:
    """One core of a machine with as much of everything as can be: bits do not depend on how much there is."""
    stores = (
        "weight_blocks",
        "tensor_rows",
        "synapse_slots",
        "gather_entries",
        "instruction_slots",
        "input_rows",
        "output_rows",
    )
    return replace(config, cores=1, **dict.fromkeys(stores, LARGEST))  # type: ignore[arg-type]


def settled(graph: Graph, config: Config) -> Graph:
    """The graph with the initial values that a machine computes; itself where no prologue says them.

    Raises what compiling the prologue raises.
    """
    if graph.prologue is None:
        return graph
    placed = rewrite(graph.prologue, lambda *_: None)
    for node in placed.walk():
        node.cores = ()  # of the user's machine, which this is not
    prologue = Program(compile_graphs([Job("prologue", placed, (0,))], roomy(config), optimize=False))
    exact, plain = (_run(prologue, bit_accurate) for bit_accurate in (True, False))
    new = rewrite(graph, lambda *_: None)
    new.prologue = None
    for state in new.states:
        if state.begins:
            state.initial, state.plain = exact[state.begins], plain[state.begins]
            state.begins = ""
    return new


def _run(prologue: Program, bit_accurate: bool) -> dict[str, np.ndarray]:
    """Its outputs by name."""
    found = prologue.to_vm(bit_accurate).run()
    arrays = found if isinstance(found, tuple) else (found,)
    names = [port.name for port in prologue.image.models[0].outputs]
    return {name: array.astype(np.float64) for name, array in zip(names, arrays, strict=True)}


def compile_models(
    jobs: Sequence[Job], config: Config, *, optimize: bool = True, quick: bool = False
) -> Program:
    """The program of several models, with prologues or without; keywords and errors are those of compile_graphs."""
    ready = [replace(job, graph=settled(job.graph, config)) for job in jobs]
    image = compile_graphs(ready, config, optimize=optimize, quick=quick)
    with stage("verify", ", ".join(job.name for job in jobs)):
        return Program(image)


def compile_model(
    graph: Graph, config: Config, name: str | None = None, *, optimize: bool = True, quick: bool = False
) -> Program:
    """compile_models, of one model on all cores."""
    job = Job(name or graph.name, graph, tuple(range(config.cores)))
    return compile_models([job], config, optimize=optimize, quick=quick)


def schedule_text(graph: Graph, config: Config, *, optimize: bool = True, quick: bool = False) -> str:
    """The schedule behind compile_model, as text; keywords and errors are the same."""
    job = Job(graph.name, settled(graph, config), tuple(range(config.cores)))
    return listing(schedule_graphs([job], config, optimize=optimize, quick=quick))
