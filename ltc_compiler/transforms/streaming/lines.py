"""Delay lines under blocks: what a state that holds an earlier value of something else is in every step of a block.

Stage j of a line holds in step i what its source was in step i - j: the first j values are what the stages j to 1 hold
before the block, those behind them are the block's own. A line of which most stages are read is laid out once, from its
last stage to the end of the block, and its windows are slices of that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ltc_compiler.ir.graph import Graph, Node, State, Value
from ltc_compiler.ir.ops import add
from ltc_compiler.transforms.streaming.rowwise import Kind, Rowwise, Same


@dataclass
class DelayLines:
    """The delay lines of a step graph. now: what a state holds before the block. kind: a source in the block."""

    rowwise: Rowwise
    now: Mapping[Value, Value]
    kind: Callable[[Value], Kind]
    readers: Mapping[Value, Sequence[Node | State | None]]
    _stages: dict[Value, State] = field(default_factory=dict)
    _laid: dict[Value, Value] = field(default_factory=dict)

    def add(self, state: State) -> None:
        """Another stage: all are there before the first is read."""
        self._stages[state.value] = state

    def rows(self, value: Value) -> Value:
        """The stage with this value, in every step of the block."""
        graph, steps = self.rowwise.graph, self.rowwise.steps
        whole = self._line(self._end(value))
        stages, source = whole[:-1], whole[-1]
        later = stages.index(value)
        read = sum(any(not isinstance(r, State) for r in self.readers.get(v, ())) for v in stages)
        if read * steps > len(stages) + steps:
            if stages[0] not in self._laid:
                self._laid[stages[0]] = self._joined(stages, source, steps)
            return rows_of(graph, self._laid[stages[0]], later, later + steps)[0]
        kept = stages[later : later + steps]
        return self._joined(kept, source, steps - len(kept))

    def after(self, state: State) -> Value:
        """What a stage holds behind the block."""
        graph, steps = self.rowwise.graph, self.rowwise.steps
        line = self._line(state.value, steps)
        if len(line) > steps and line[-1] in self._stages:
            return self.now[line[-1]]
        kind = self.kind(line[-1])
        if isinstance(kind, Same):
            return kind.value
        last = rows_of(graph, kind.value, steps + 1 - len(line), steps + 2 - len(line))[0]
        return add(graph, "reshape", last, shape=state.value.shape)

    def _line(self, value: Value, most: int = 1 << 62) -> list[Value]:
        """A stage, those between it and the source of its line, and the source; at most so many behind the stage."""
        line = [value]
        while line[-1] in self._stages and len(line) <= most:
            before = self._stages[line[-1]].next
            assert before is not None
            line.append(before)
        return line

    def _end(self, value: Value) -> Value:
        """The last stage of a line, where the line does not fork behind the stage; else as far as it does not."""
        while True:
            further = [s.value for s in self.readers.get(value, ()) if isinstance(s, State)]
            if len(further) != 1 or further[0] not in self._stages:
                return value
            value = further[0]

    def _joined(self, stages: Sequence[Value], source: Value, steps: int) -> Value:
        """What stages hold before the block, and the first `steps` values of their source."""
        graph = self.rowwise.graph
        parts = [add(graph, "reshape", self.now[v], shape=(1, *v.shape)) for v in stages]
        if steps:
            parts += rows_of(graph, self.rowwise.rows(self.kind(source)), 0, steps)
        return joined(graph, parts)


def joined(graph: Graph, parts: Sequence[Value]) -> Value:
    """Rows behind rows."""
    return parts[0] if len(parts) == 1 else add(graph, "concat", *parts, axis=0)


def rows_of(graph: Graph, value: Value, start: int, stop: int) -> list[Value]:
    """Some rows of a value, in a list; none where there are none."""
    if (start, stop) == (0, value.shape[0]):
        return [value]
    return [add(graph, "slice", value, axis=0, start=start, stop=stop, step=1)] if stop > start else []
