"""What is known of a stream before its first step: constants that stand in front of a sequence, and what follows from
them.

Padding in front is no look-ahead: its elements, and everything computed from them alone, are what the delay lines start
with. A machine would compute those values with its own arithmetic, and the whole sequence does, so folding them in fp64
would change bits. They become a graph of their own, the prologue, which has the same operations on the same operands as
a step has; whoever makes a program runs it on the machine, once. Constants that it starts from are its states: nothing
folds them. An element that stands there many times is computed once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ltc_compiler.ir.graph import Array, Graph, Node, State, Value, copy_node
from ltc_compiler.ir.ops import MOVES, add_many
from ltc_compiler.ir.run import evaluate, initial_states
from ltc_compiler.transforms.cleanup import cleanup
from ltc_compiler.transforms.fold import evaluate_node


@dataclass
class Prologue:
    """Builds the prologue of one step graph. Its values are those of steps: without the streamed axis."""

    graph: Graph = field(default_factory=lambda: Graph("prologue"))
    _constants: dict[tuple[tuple[int, ...], bytes], Value] = field(default_factory=dict)
    _arrays: dict[Value, Array] = field(default_factory=dict)
    _copies: dict[Value, Value | None] = field(default_factory=dict)
    _made: dict[tuple[object, ...], tuple[Value, ...]] = field(default_factory=dict)

    def known(self, array: Array) -> Value:
        """A constant of the sequence; equal ones are one value."""
        array = np.array(array, dtype=np.float64)
        key = (array.shape, array.tobytes())
        if key not in self._constants:
            state = self.graph.add_state(array, f"known_{len(self._constants)}")
            state.next = self._constants[key] = state.value
            self._arrays[state.value] = array
        return self._constants[key]

    def array(self, value: Value) -> Array | None:
        """The elements of a value that is not computed; None for one that is."""
        return self._arrays.get(value)

    def same(self, value: Value) -> Value | None:
        """The copy of a step value that is the same in every step and depends on no input; None for another."""
        if value not in self._copies:
            self._copies[value] = self._copy(value)
        return self._copies[value]

    def _copy(self, value: Value) -> Value | None:
        if value.node is None:
            return None
        operands = [self.same(v) for v in value.node.operands]
        if any(v is None for v in operands):
            return None
        return copy_node(self.graph, value.node, [v for v in operands if v is not None])[value.index]

    def compute(self, node: Node, operands: Sequence[Value], attrs: dict[str, Any]) -> tuple[Value, ...]:
        """The results of `node`, with some attributes changed, on values of the prologue."""
        key = (node, *operands)
        if key not in self._made:
            self._made[key] = self._compute(node, operands, {**node.attrs, **attrs})
        return self._made[key]

    def _compute(self, node: Node, operands: Sequence[Value], attrs: dict[str, Any]) -> tuple[Value, ...]:
        arrays = [self._arrays[v] for v in operands if v in self._arrays]
        if node.op in MOVES and len(arrays) == len(operands):
            moved = Node(node.op, (), attrs, ())
            return tuple(map(self.known, evaluate_node(moved, arrays)))
        results = add_many(self.graph, node.op, operands, attrs, node.source)
        self.graph.nodes[-1].precision = node.precision
        return results

    def settle(self, states: Sequence[tuple[State, Value]]) -> Graph | None:
        """Give states their initial values: of what is computed in fp64, with the name of the output that says it.

        Returns the prologue; None where nothing is computed.
        """
        for state, value in states:
            if value in self._arrays:
                state.initial = self._arrays[value].copy()
        computed = [(state, value) for state, value in states if value not in self._arrays]
        if not computed:
            return None
        names = {value: f"begin_{i}" for i, value in enumerate(dict.fromkeys(v for _, v in computed))}
        for value, name in names.items():
            self.graph.add_output(value, name)
        prologue = cleanup(self.graph)
        found = dict(zip(names.values(), evaluate(prologue, [], initial_states(prologue)), strict=True))
        for state, value in computed:
            state.initial, state.begins = found[names[value]].astype(np.float64), names[value]
        return prologue
