"""The streaming transform: a graph over a whole sequence becomes a graph of one step, with states.

Each op follows the rule that its row of the op table names (rules.py, scan_rule.py). Operands that are there earlier
than others get a delay line. Constants before a stream make its offset negative: its first -off elements, the history,
are known before the first step and become the initial contents of delay lines.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from ltc_compiler.errors import StreamingError
from ltc_compiler.ir.graph import Graph, Node, StateKind, Type
from ltc_compiler.ir.ops import OPS, scan_parts
from ltc_compiler.ir.verify import verify
from ltc_compiler.transforms.cleanup import cleanup
from ltc_compiler.transforms.fold import fold, uniform
from ltc_compiler.transforms.hoist import hoist
from ltc_compiler.transforms.streaming import rules
from ltc_compiler.transforms.streaming.blocks import blocked, check_block
from ltc_compiler.transforms.streaming.deadlines import deadlines
from ltc_compiler.transforms.streaming.delays import Memory
from ltc_compiler.transforms.streaming.scan_rule import scan
from ltc_compiler.transforms.streaming.state import finish_states
from ltc_compiler.transforms.streaming.streamer import Begin, Rule, Static, Stream, Streamer
from ltc_compiler.transforms.streaming.unmerge import unmerge
from ltc_compiler.transforms.taps import pad_windows

Axes = int | Sequence[int | None]
Tables = Literal["refuse", "wrap"]

_RULES: dict[str, Rule] = {
    "pointwise": rules.pointwise,
    "linear": rules.linear,
    "reduce": rules.reduce,
    "reshape": rules.reshape,
    "permute": rules.permute,
    "slice": rules.slice_,
    "concat": rules.concat,
    "broadcast": rules.broadcast,
    "scan": scan,
}
if astray := {
    f"{op.streaming} of {op.name}" for op in OPS.values() if op.streaming not in (*_RULES, "constant")
}:
    where = "_RULES in ltc_compiler/transforms/streaming/transform.py"
    raise ImportError(f"{where} lacks streaming rules that the op table names: {', '.join(sorted(astray))}")


def streaming_transform(graph: Graph, axes: Axes, tables: Tables = "refuse", block: int = 1) -> Graph:
    """The step graph of `graph`, streamed along `axes`: one axis for all inputs, or one (or None) for each.

    block: how many steps one run of it takes (blocks.py).

    The graph says of each input and output which axis it lost, of each output by how many steps it is late, and how
    many of its elements follow the last step (ir/graph.py). Raises StreamingError, with the user's place, for what has
    no step-by-step form.

    tables: a constant that varies along the axis is a table with a row for every step of the example. "refuse": a
    stream has as many steps (`step_limit` of the graph), and whoever runs it refuses more. "wrap": its rows come again.
    """
    verify(graph)
    if tables not in get_args(Tables):
        raise StreamingError(f"tables is {tables!r}", where=graph.name, remedy="give 'refuse' or 'wrap'")
    if graph.input_streaming_dims is not None or any(s.kind is StateKind.STREAM for s in graph.states):
        raise StreamingError("the graph is a step graph already", where=graph.name,
                             remedy="stream the graph of the whole sequence")  # fmt: skip
    dims, steps = _input_axes(graph, axes)
    check_block(block, graph.name)
    made = blocked(_step(fold(pad_windows(graph), layout=False), dims, steps, tables), block)
    if block > 1:
        made = cleanup(fold(made))
        verify(made)
    return made


def _step(whole: Graph, dims: Sequence[int | None], steps: int, tables: Tables) -> Graph:
    """The step graph of a folded graph."""
    try:
        return _stepwise(cleanup(unmerge(whole)), dims, steps, tables)
    except StreamingError as error:  # time may be merged with axes behind it
        apart = unmerge(whole, first_axis=False)
        try:
            return _stepwise(cleanup(apart), dims, steps, tables)
        except StreamingError:
            raise error from None


def _stepwise(whole: Graph, dims: Sequence[int | None], steps: int, tables: Tables) -> Graph:
    """The step graph of a graph whose merged axes stand by themselves."""
    if _has_known_steps(whole):  # what follows from them is computed in fp64, as for the whole sequence
        whole = cleanup(hoist(whole))
    first = _streamed(whole, dims, steps, None)
    planned = deadlines(whole, first.env, steps)
    streamer = _streamed(whole, dims, steps, planned) if planned else first
    assert streamer.memory is not None
    finish_states(streamer, whole)
    _outputs(streamer, streamer.memory, whole)
    if tables == "refuse" and streamer.memory.has_tables:
        streamer.graph.step_limit = steps
        streamer.graph.step_counter = streamer.memory.count(steps).name
    streamer.memory.finish()
    new = cleanup(fold(streamer.graph))
    verify(new)
    return new


def _has_known_steps(graph: Graph) -> bool:
    """Whether a loop goes over a constant that varies."""
    for node in graph.nodes:
        if node.op == "scan":
            scanned = scan_parts(node.operands, node.attrs)[1]
            for value, axis in zip(scanned, node.attrs["in_axes"], strict=True):
                array = value.constant()
                if array is not None and not uniform(array, axis):
                    return True
    return False


def _streamed(
    whole: Graph, dims: Sequence[int | None], steps: int, planned: dict[Node, int] | None
) -> Streamer:
    """The step form of every node."""
    new = Graph(whole.name, input_streaming_dims=tuple(dims))
    streamer = Streamer(new, steps, Memory(new), _RULES, planned)
    for value, dim in zip(whole.inputs, dims, strict=True):
        shape = value.shape if dim is None else value.shape[:dim] + value.shape[dim + 1 :]
        made = new.add_input(Type(shape, value.type.precision), value.name, value.role)
        streamer.env[value] = Static(made) if dim is None else Stream(made, dim, 0, steps)
    for state in whole.states:
        streamer.env[state.value] = Begin(new.copy_state(state), frozenset((state.name,)))
    streamer.run(whole)
    return streamer


def _outputs(streamer: Streamer, memory: Memory, whole: Graph) -> None:
    """Hand out the outputs, and note where their steps stood and when they come."""
    new = streamer.graph
    dims: list[int | None] = []
    late, tails = [], []
    for value, name in zip(whole.outputs, whole.output_names, strict=True):
        kind = streamer.env[value]
        if isinstance(kind, Stream):
            dims.append(kind.axis)
            late.append(max(kind.off, 0))
            tails.append(kind.length - streamer.steps + late[-1])
            new.add_output(streamer.delay(kind, late[-1], None), name)
        else:
            dims.append(None)
            late.append(0)
            tails.append(0)
            new.add_output(kind.value, name)
    new.output_streaming_dims, new.output_latencies, new.output_tails = tuple(dims), tuple(late), tuple(tails)
    new.end_marker = "" if memory.marker is None else memory.marker.name
    if any(late):
        new.step_counter = memory.count(max(late)).name


def _input_axes(graph: Graph, axes: Axes) -> tuple[tuple[int | None, ...], int]:
    """A non-negative axis or None for every input, and the number of steps."""
    given = [axes] * len(graph.inputs) if isinstance(axes, int) else list(axes)
    if len(given) != len(graph.inputs):
        raise StreamingError(f"{len(given)} axes are given for {len(graph.inputs)} inputs", where=graph.name,
                             remedy="give one axis, or one axis or None for each input")  # fmt: skip
    dims: list[int | None] = []
    lengths: dict[str, int] = {}
    for value, axis in zip(graph.inputs, given, strict=True):
        rank = value.type.rank
        if axis is not None and not -rank <= axis < rank:
            raise StreamingError(f"axis {axis} is out of range for input %{value.name} of shape {value.shape}",
                                 where=graph.name, remedy=f"use {-rank} to {rank - 1}")  # fmt: skip
        dims.append(None if axis is None else axis % rank)
        if axis is not None:
            lengths[value.name] = value.shape[axis]
    if len(set(lengths.values())) != 1:
        found = ", ".join(f"%{k}: {n}" for k, n in lengths.items()) or "no input has one"
        raise StreamingError(f"the inputs need one streamed axis of the same length ({found})", where=graph.name,
                             remedy="give every input that holds the sequence its time axis")  # fmt: skip
    return tuple(dims), next(iter(lengths.values()))
