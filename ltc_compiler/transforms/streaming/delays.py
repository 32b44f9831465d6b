"""What a streamed graph remembers from step to step: delay lines and the count of steps.

A delay line is a chain of states. Stage j holds the value of j steps ago; before that many steps have run it holds an
initial value, known where the user padded the sequence there and of no consequence elsewhere. Delays of one value
share a chain, unless their initial values differ: the taps of a causal convolution are one chain.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ltc_compiler.ir.graph import Array, Graph, Source, State, Value
from ltc_compiler.ir.ops import add
from ltc_compiler.transforms.streaming.prologue import Prologue


@dataclass
class _Stage:
    state: State
    known: Value | None  # what it starts with, in the prologue


@dataclass
class Memory:
    """The states of `graph` that are no carries, and what is known before its first step."""

    graph: Graph
    prologue: Prologue = field(default_factory=Prologue)
    marker: State | None = None  # set by whoever runs the graph, in the steps after the end of a stream
    _taken: dict[str, int] = field(default_factory=dict)  # names, and the last number behind each
    _chains: dict[Value, list[list[_Stage]]] = field(default_factory=dict)
    _tables: dict[tuple[tuple[int, ...], bytes], Value] = field(default_factory=dict)
    _count: State | None = None
    _limit: int = 0
    _after: dict[int, Value] = field(default_factory=dict)

    def add_state(self, initial: Array, name: str) -> State:
        """A state with a name of its own, made from `name`."""
        if not self._taken:
            self._taken = {s.name: 0 for s in self.graph.states}
        unique = name
        while unique in self._taken:
            self._taken[name] += 1
            unique = f"{name}_{self._taken[name]}"
        self._taken[unique] = 0
        return self.graph.add_state(np.asarray(initial, dtype=np.float64), unique)

    def delayed(self, value: Value, initial: list[Value | None], module: str = "") -> Value:
        """`value` of len(initial) steps ago, for an operation of `module`; initial[j - 1] is what stage j starts with,
        a value of the prologue, or None if it does not matter.
        """
        chains = self._chains.setdefault(value, [])
        chain = next((c for c in chains if _agree(c, initial)), None)
        if chain is None:
            chain = []
            chains.append(chain)
        for j, content in enumerate(initial):
            if j == len(chain):
                name = f"{module or value.name or 'value'}.delay{j + 1}"
                state = self.add_state(np.zeros(value.shape), name)
                state.next = chain[-1].state.value if chain else value
                chain.append(_Stage(state, None))
            chain[j].known = content or chain[j].known
        return chain[len(initial) - 1].state.value

    def count(self, steps: int) -> State:
        """The state that counts the steps that have run, up to `steps` at least."""
        if self._count is None:
            self._count = self.add_state(np.zeros(()), "step")
        self._limit = max(self._limit, steps)
        return self._count

    def after(self, steps: int, source: Source) -> Value:
        """A scalar: 1 once `steps` steps have run, 0 before."""
        count = self.count(steps)
        if steps not in self._after:
            limit = self.graph.constant(float(steps), source=source)
            self._after[steps] = add(self.graph, "ge", count.value, limit, source=source)
        return self._after[steps]

    def ended(self, steps: int, source: Source) -> Value:
        """A scalar: 1 where more than `steps` steps have run since the end of the stream."""
        if self.marker is None:
            self.marker = self.add_state(np.zeros(()), "past_end")
            self.marker.next = self.marker.value
        limit = self.graph.constant(float(steps), source=source)
        return add(self.graph, "gt", self.marker.value, limit, source=source)

    def first(self, value: Value, source: Source) -> Value:
        """What `value` was in the first step."""
        state = self.add_state(np.zeros(value.shape), f"{source.module or value.name or 'value'}.first")
        state.next = add(self.graph, "select", self.after(1, source), state.value, value, source=source)
        return state.next

    def table(self, array: Array, axis: int, source: Source) -> Value:
        """The row of this step, of as many as `axis` has: a ring that every step rotates by one row."""
        rows = np.moveaxis(array, axis, 0)
        key = (rows.shape, rows.tobytes())
        if key not in self._tables:
            graph, steps = self.graph, len(rows)
            ring = self.add_state(rows, "table")
            head = add(graph, "slice", ring.value, axis=0, start=0, stop=1, step=1, source=source)
            rest = add(graph, "slice", ring.value, axis=0, start=1, stop=steps, step=1, source=source)
            ring.next = add(graph, "concat", rest, head, axis=0, source=source)
            self._tables[key] = add(graph, "reshape", head, shape=rows.shape[1:], source=source)
        return self._tables[key]

    @property
    def has_tables(self) -> bool:
        return bool(self._tables)

    def finish(self) -> None:
        """Let the count of steps run, up to the largest number that anything asks for; fill the delay lines."""
        stages = [stage for chains in self._chains.values() for chain in chains for stage in chain]
        self.graph.prologue = self.prologue.settle(
            [(s.state, s.known) for s in stages if s.known is not None]
        )
        if self._count is None:
            return
        following = add(self.graph, "add", self._count.value, self.graph.constant(1.0))
        self._count.next = add(self.graph, "min", following, self.graph.constant(float(self._limit)))


def _agree(chain: list[_Stage], initial: list[Value | None]) -> bool:
    return all(
        content is None or stage.known in (None, content)
        for stage, content in zip(chain, initial, strict=False)
    )
