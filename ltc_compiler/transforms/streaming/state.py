"""States of the whole graph under streaming: module state and tied ports that the loop over time carries.

A call of the whole model begins with a state and leaves its next value behind; a step of the stream does the same. Both
mean one thing where the state is what the loop over time starts from, and ends with: then the step graph keeps the
state as it is, and each step reads its carries off it. Layout may stand in between (layers that are stacked, an axis
more). Whether it is undone is tried out with numbers: what the loop ends with, written into the state and read again,
must come back, and all else in the state must stay.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from ltc_compiler.errors import StreamingError
from ltc_compiler.ir.graph import Array, Graph, State, Value, copy_node
from ltc_compiler.ir.run import evaluate
from ltc_compiler.transforms.cleanup import eliminate_dead_code
from ltc_compiler.transforms.streaming.streamer import Begin, Stream, Streamer

REMEDY = (
    "start the loop over time from it (one that Python writes, in an example of at least 3 steps), and keep in it what"
    " the loop ends with; or let every sequence start anew (module_state='reset')"
)


def finish_states(streamer: Streamer, whole: Graph) -> None:
    """Set the next values of the states that the whole graph has. Raises StreamingError where no loop carries one."""
    lost = _not_carried(streamer, whole) if whole.states else set()
    for state, made in zip(whole.states, streamer.graph.states, strict=False):
        assert state.next is not None
        if state in lost:
            what = f"the {state.kind.value} state {state.name!r} is not what the loop over time ends with"
            node = state.next.node
            raise StreamingError(
                what, where=str(node.source) if node is not None else state.name, remedy=REMEDY
            )
        made.next = streamer.env[state.next].value
    for value, name in zip(whole.outputs, whole.output_names, strict=True):
        kind = streamer.env[value]
        if isinstance(kind, Begin):
            raise StreamingError(f"the output {name!r} reads {kind.names} as before the sequence", where=name,
                                 remedy=REMEDY)  # fmt: skip


def _not_carried(streamer: Streamer, whole: Graph) -> set[State]:
    """The states from which no carry starts, or which do not hold what their carries end with beside what was there."""
    drawn = np.random.default_rng(0)
    states = whole.states
    followings = [s.next for s in states if s.next is not None]
    if any(isinstance(streamer.env[v], Stream) for v in followings):
        return {s for s in states if s.next is not None and isinstance(streamer.env[s.next], Stream)}
    firsts, finals = [v for v, _ in streamer.carried], [v for _, v in streamer.carried]
    last = {v: v.node.body.outputs[v.index] for v in finals if v.node is not None}
    values = {v: drawn.standard_normal(v.shape) for v in last.values()}  # one for carries that are the same
    ended = {v: values[last[v]] for v in finals}
    rows = [pair for v in finals for pair in _stacked(v, ended[v], drawn)]
    before = {s.value: drawn.standard_normal(s.value.shape) for s in states}
    after = _computed(whole, before | ended | dict(rows), followings)
    if after is None:
        return set(states)
    written = dict(zip((s.value for s in states), after, strict=True))
    started, restarted = _computed(whole, before, firsts), _computed(whole, written, firsts)
    assert started is not None
    assert restarted is not None
    lost: set[State] = set()
    for first, final, value in zip(firsts, finals, restarted, strict=True):
        if not np.array_equal(value, ended[final]):
            kind = streamer.env[first]
            lost |= {s for s in states if isinstance(kind, Begin) and s.name in kind.states}
    covered = np.concatenate([a.reshape(-1) for a in started] or [np.zeros(0)])
    for state in states:
        apart = ~np.isin(before[state.value], covered)
        if apart.all() or not np.array_equal(written[state.value][apart], before[state.value][apart]):
            lost.add(state)
    return lost


def _stacked(final: Value, ended: Array, drawn: np.random.Generator) -> Iterator[tuple[Value, Array]]:
    """Stacked results of a loop that hold a carry after every iteration: the last row is what the loop ends with."""
    node = final.node
    assert node is not None
    carries, outputs = node.attrs["carries"], node.body.outputs
    for i, axis in enumerate(node.attrs["out_axes"], carries):
        if outputs[i] is outputs[final.index]:
            rows = drawn.standard_normal(node.results[i].shape)
            np.moveaxis(rows, axis, 0)[-1] = ended
            yield node.results[i], rows


def _computed(whole: Graph, known: Mapping[Value, Array], wanted: Sequence[Value]) -> list[Array] | None:
    """The wanted values from known ones alone; None if they need more."""
    graph = Graph("part")
    env = {value: graph.add_input(value.type) for value in known}
    for node in whole.nodes:
        if node.results[0] not in env and all(v in env for v in node.operands):
            env.update(
                zip(node.results, copy_node(graph, node, [env[v] for v in node.operands]), strict=True)
            )
    if any(value not in env for value in wanted):
        return None
    for value in wanted:
        graph.add_output(env[value])
    return evaluate(eliminate_dead_code(graph), list(known.values()))
