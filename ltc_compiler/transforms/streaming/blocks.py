"""Blocks: a graph of one step becomes a graph of N steps, with the same states and the bits of N single steps.

There is one set of streaming rules: they make the graph of one step, and this pass repeats it. What depends on no state
is computed for all steps at once, with an axis of steps in front (rowwise.py), so that a convolution is one product
over the block. A state that holds what something else was a step ago is read out of the block, behind the states before
it: delay lines are windows (lines.py). States that depend on themselves, with what lies on the way round, are a loop of
N iterations, but for counts and tables, whose values of N steps are known at once. States keep their names, shapes and
initial values: what a block leaves is what N steps leave.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ltc_compiler.errors import StreamingError
from ltc_compiler.ir.graph import Graph, Node, Source, State, Type, Value, empty_copy
from ltc_compiler.ir.ops import add
from ltc_compiler.transforms.scans import Captured, Carry, Scan, Scanned, Stacked
from ltc_compiler.transforms.streaming.components import Unit, components
from ltc_compiler.transforms.streaming.lines import DelayLines, joined, rows_of
from ltc_compiler.transforms.streaming.rowwise import Kind, Rows, Rowwise, Same

MAX_BLOCK = 1 << 16


def check_block(block: object, where: str) -> None:
    """Raises StreamingError for what is no number of steps."""
    if type(block) is not int or not 1 <= block <= MAX_BLOCK:
        raise StreamingError(f"block is {block!r}", where=where,
                             remedy=f"give the steps of one run, a whole number from 1 to {MAX_BLOCK}")  # fmt: skip


def blocked(step: Graph, block: int) -> Graph:
    """`block` steps of a step graph as one graph: inputs and outputs have their axis of steps again, of that length.

    Where an output lost none, it has the steps on axis 0. Raises StreamingError where a stream has a fixed number of
    steps that blocks do not divide.
    """
    limit = step.step_limit
    if limit % block:
        too_long = f"the block of {block} steps is longer than the stream, which has {limit}"
        what = too_long if block > limit else f"a block of {block} steps does not divide a stream of {limit}"
        raise StreamingError(f"{what}: its tables hold values for no more", where=step.name,
                             remedy=f"give a block that divides {limit}, record a longer example, or start the tables"
                             " again where they end: streaming_transform(axis, tables='wrap')")  # fmt: skip
    if block == 1:
        return step
    return _Blocks(step, block).run()


@dataclass
class _Blocks:
    """Builds the graph of `block` steps of `step`."""

    step: Graph
    block: int

    def __post_init__(self) -> None:
        self.graph = empty_copy(self.step)
        self.graph.block = self.block
        self.rowwise = Rowwise(self.graph, self.block)
        self.env: dict[Value, Kind] = {}
        self.now = {s.value: self.graph.copy_state(s) for s in self.step.states}  # before the block
        self.after: dict[Value, Value] = {}  # behind it
        self.readers = _readers(self.step)
        self.lines = DelayLines(self.rowwise, self.now, self.kind, self.readers)

    def run(self) -> Graph:
        dims = self.step.input_streaming_dims
        assert dims is not None
        for value, dim in zip(self.step.inputs, dims, strict=True):
            self.env[value] = self._input(value, dim)
        units = list(components(self.step))
        for unit in (found[0] for found in units if len(found) == 1):
            if isinstance(unit, State) and unit.next is not unit.value:
                self.lines.add(unit)
        for found in units:
            self._component(found)
        for value, name, dim in zip(
            self.step.outputs, self.step.output_names, self.step.output_streaming_dims or (), strict=True
        ):
            self.graph.add_output(_moved(self.graph, self.rows(value), 0, dim or 0), name)
        for state, made in zip(self.step.states, self.graph.states, strict=True):
            made.next = self.after[state.value] if state.value in self.after else self.lines.after(state)
        return self.graph

    def _input(self, value: Value, dim: int | None) -> Kind:
        if dim is None:
            return Same(self.graph.add_input(value.type, value.name, value.role))
        shape = (*value.shape[:dim], self.block, *value.shape[dim:])
        made = self.graph.add_input(Type(shape, value.type.precision), value.name, value.role)
        return Rows(_moved(self.graph, made, dim, 0))

    def rows(self, value: Value) -> Value:
        """A value of the step graph in every step of the block."""
        return self.rowwise.rows(self.kind(value))

    def kind(self, value: Value) -> Kind:
        if value not in self.env:  # a state that holds what something else was
            self.env[value] = Rows(self.lines.rows(value))
        return self.env[value]

    def _component(self, units: Sequence[Unit]) -> None:
        unit = units[0]
        if len(units) == 1 and isinstance(unit, Node):
            made = self.rowwise.run(unit, [self.kind(v) for v in unit.operands])
            self.env.update(zip(unit.results, made, strict=True))
        elif len(units) == 1 and isinstance(unit, State):
            if unit.next is unit.value:
                self._constant(unit)
        elif not (self._count(units) or self._table(units)):
            self._loop(units)

    # ---- states whose values are known at once

    def _constant(self, state: State) -> None:
        """A state that stays as it is, but for the steps since the end of a stream, which whoever runs it sets."""
        value = self.after[state.value] = self.now[state.value]
        if state.name != self.step.end_marker:
            self.env[state.value] = Same(value)
            return
        numbers = add(self.graph, "add", value, self.graph.constant(np.arange(self.block)))
        ended = add(self.graph, "gt", value, self.graph.constant(0.0))
        self.env[state.value] = Rows(add(self.graph, "select", ended, numbers, self.graph.constant(0.0)))

    def _count(self, units: Sequence[Unit]) -> bool:
        """The count of steps: min(count + 1, limit)."""
        state = _only_state(units)
        least = None if state is None or state.next is None else state.next.node
        if state is None or least is None or least.op != "min" or state.value.shape or len(units) != 3:
            return False
        following, limit = least.operands
        if following.node is None or following.node.op != "add" or limit.constant() is None:
            return False
        first, one = following.node.operands
        inner = {*least.results, *following.node.results}
        if first is not state.value or one.constant() != 1.0 or self._read(inner, units):
            return False
        value = self.now[state.value]
        most = self.graph.constant(limit.constant())
        numbers = add(self.graph, "add", value, self.graph.constant(np.arange(self.block)))
        self.env[state.value] = Rows(add(self.graph, "min", numbers, most))
        end = add(self.graph, "add", value, self.graph.constant(float(self.block)))
        self.after[state.value] = add(self.graph, "min", end, most)
        return True

    def _table(self, units: Sequence[Unit]) -> bool:
        """A table that every step rotates by one row, and reads the first row of."""
        state = _only_state(units)
        turned = None if state is None or state.next is None else state.next.node
        if state is None or turned is None or turned.op != "concat" or len(units) != 4:
            return False
        count = state.value.shape[0]
        rest, head = (v.node for v in turned.operands) if len(turned.operands) == 2 else (None, None)
        if (
            not (_is_slice(rest, state, 1, count) and _is_slice(head, state, 0, 1))
            or turned.attrs["axis"] != 0
        ):
            return False
        assert rest is not None
        assert head is not None
        if self._read({state.value, *rest.results, *turned.results}, units):
            return False
        value, g = self.now[state.value], self.graph
        more = self.block % count
        first = joined(g, [*[value] * (self.block // count), *rows_of(g, value, 0, more)])
        self.env[head.results[0]] = Rows(
            add(g, "reshape", first, shape=(self.block, *head.results[0].shape), source=head.source)
        )
        self.after[state.value] = joined(g, [*rows_of(g, value, more, count), *rows_of(g, value, 0, more)])
        return True

    def _read(self, values: Iterable[Value], units: Collection[Unit]) -> bool:
        """Whether anything but `units` reads one of these values."""
        return any(reader not in units for value in values for reader in self.readers.get(value, ()))

    # ---- states that depend on themselves

    def _loop(self, units: Sequence[Unit]) -> None:
        """A scan over the steps: its carries are the states, and what else varies is scanned."""
        states = [u for u in units if isinstance(u, State)]
        nodes = [u for u in units if isinstance(u, Node)]
        own = dict.fromkeys([s.value for s in states] + [v for n in nodes for v in n.results])
        outside = dict.fromkeys(v for n in nodes for v in n.operands if v not in own)
        scan = Scan(Graph("steps", nodes=nodes), self.block, _source(nodes))
        constants = {}
        for state in states:
            assert state.next is not None
            result = Value(state.value.type, state.name)
            scan.carries.append(Carry(self.now[state.value], state.value, state.next, result))
        for value in outside:
            kind = self.kind(value)
            if isinstance(kind, Rows):
                scan.scanned.append(Scanned(kind.value, value, 0))
            elif kind.value.constant() is not None:
                constants[value] = kind.value
            else:
                scan.captured.append(Captured(kind.value, value))
        inside = set(units)
        stacked = {v: Value(v.type, v.name) for v in own if self._read([v], inside)}
        scan.stacked += [Stacked(v, 0, result) for v, result in stacked.items()]
        made = scan.build(self.graph, constants)
        self.graph.inherit_cores(nodes[0], len(self.graph.nodes) - 1)
        for state, carry in zip(states, scan.carries, strict=True):
            assert carry.result is not None
            self.after[state.value] = made[carry.result]
        self.env.update((v, Rows(made[result])) for v, result in stacked.items())


def _readers(step: Graph) -> dict[Value, list[Unit | None]]:
    """What reads each value: nodes, states that it is the next value of, and None for the outputs."""
    readers: dict[Value, list[Unit | None]] = {}
    for node in step.nodes:
        for value in node.operands:
            readers.setdefault(value, []).append(node)
    for state in step.states:
        if state.next is not None:
            readers.setdefault(state.next, []).append(state)
    for value in step.outputs:
        readers.setdefault(value, []).append(None)
    return readers


def _only_state(units: Sequence[Unit]) -> State | None:
    states = [u for u in units if isinstance(u, State)]
    return states[0] if len(states) == 1 else None


def _is_slice(node: Node | None, state: State, start: int, stop: int) -> bool:
    """Whether these rows of a state are what a node takes."""
    return (
        node is not None
        and node.op == "slice"
        and node.operands[0] is state.value
        and (node.attrs["axis"], node.attrs["start"], node.attrs["stop"], node.attrs["step"])
        == (0, start, stop, 1)
    )


def _source(nodes: Sequence[Node]) -> Source:
    """The user's line of the first node that has one."""
    return next((n.source for n in nodes if n.source.line), nodes[0].source)


def _moved(graph: Graph, value: Value, axis: int, to: int) -> Value:
    dims = list(range(value.type.rank))
    dims.insert(to, dims.pop(axis))
    return value if axis == to else add(graph, "permute", value, dims=tuple(dims))
