"""The list of passes between the front end and the scheduler. Read it, and stop it anywhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ltc_compiler.ir.graph import Graph
from ltc_compiler.ir.verify import verify
from ltc_compiler.transforms.addends import join_addends
from ltc_compiler.transforms.cleanup import cleanup
from ltc_compiler.transforms.fold import fold
from ltc_compiler.transforms.fuse import fuse_synapses, merge_linears
from ltc_compiler.transforms.hoist import hoist
from ltc_compiler.transforms.pieces import split_pieces
from ltc_compiler.transforms.precisions import assign_precision
from ltc_compiler.transforms.sink import sink_transpositions
from ltc_compiler.transforms.taps import pad_windows
from ltc_compiler.transforms.updates import fuse_updates


class Pass(NamedTuple):
    """A name to stop at, the pass, and whether a program needs it; the others only make it better."""

    name: str
    run: Callable[[Graph], Graph]
    required: bool


PASSES: tuple[Pass, ...] = (
    Pass("windows", pad_windows, False),
    Pass("fold", fold, True),
    Pass("hoist", hoist, True),
    Pass("cleanup", cleanup, False),
    Pass("sink", sink_transpositions, False),
    Pass("synapses", fuse_synapses, False),
    Pass("updates", fuse_updates, False),
    Pass("linears", merge_linears, False),
    Pass("refold", fold, False),
    Pass("addends", join_addends, False),
    Pass("pieces", split_pieces, False),
    Pass("recleanup", cleanup, False),
    Pass("precision", assign_precision, True),
)


def run_pipeline(graph: Graph, stop_after: str | None = None, optimize: bool = True) -> Graph:
    """The graph after every pass, verified after each; weights are constants at the end.

    stop_after: the name of the last pass to run. optimize: False runs the required passes alone.
    Raises ValueError for an unknown name, and GraphError for a graph that breaks a rule.
    """
    names = [p.name for p in PASSES]
    if stop_after is not None and stop_after not in names:
        raise ValueError(f"stop_after is {stop_after!r}; the passes are {', '.join(names)}")
    verify(graph)
    for step in PASSES:
        if step.required or optimize:
            graph = step.run(graph)
            verify(graph)
        if step.name == stop_after:
            return graph
    verify(graph, folded=True)
    return graph
