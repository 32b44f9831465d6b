"""The kinds of values in a stream, and what every streaming rule uses.

A value of the whole graph is of one of five kinds:

- `Static`: the same in every step.
- `Stream`: has the streamed axis, which its value in the step graph lacks. Its element i is computed in step i + off.
- `Current`: depends on the sequence and has no such axis, as the last step or a final carry does. In the step graph it
  is what the whole graph gives for the sequence up to this step.
- `First`: depends on the first step alone, and is kept from then on.
- `Begin`: depends on a state that the whole graph has already (state.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ltc_compiler.errors import StreamingError
from ltc_compiler.ir.graph import Graph, Node, Value, copy_node
from ltc_compiler.ir.ops import LAYOUT, MOVES, OPS, add_many
from ltc_compiler.ir.verify import describe
from ltc_compiler.transforms.fold import uniform
from ltc_compiler.transforms.repeated import slice_along
from ltc_compiler.transforms.streaming.delays import Memory


@dataclass(frozen=True)
class Static:
    value: Value


@dataclass(frozen=True)
class Current:
    value: Value


@dataclass(frozen=True)
class First:
    """Depends on the first step of the sequence and on no other: known from that step on, and kept."""

    value: Value


@dataclass(frozen=True)
class Begin:
    """Depends on states of the whole graph as they were before the sequence. A step has them as they are now, which is
    what a carry that starts from them needs; nothing else may read them."""

    value: Value
    states: frozenset[str]

    @property
    def names(self) -> str:
        return "the state " + ", ".join(map(repr, sorted(self.states)))


@dataclass(frozen=True)
class Stream:
    """`value` has no streamed axis; the whole had `length` elements on `axis`. history: the indices below -off, which
    are known before the first step, as values of the prologue.
    """

    value: Value
    axis: int
    off: int
    length: int
    history: tuple[Value, ...] = ()

    @property
    def whole(self) -> tuple[int, ...]:
        return (*self.value.shape[: self.axis], self.length, *self.value.shape[self.axis :])


Kind = Static | Current | First | Begin | Stream
Rule = Callable[["Streamer", Node, Sequence[Kind]], list[Kind]]


def refusal(node: Node | None, rule: str, remedy: str) -> StreamingError:
    """A StreamingError at the user's place."""
    if node is None:
        return StreamingError(rule, where="outputs", remedy=remedy)
    return StreamingError(f"{describe(node)}: {rule}", where=str(node.source), remedy=remedy)


def longer(s: Streamer, steps: int) -> str:
    """The remedy where the example is too short to tell."""
    return f"record the model with an example of {steps} steps or more: this one has {s.steps}"


@dataclass
class Streamer:
    """Rebuilds one graph, or one body, step by step. memory: None in a body, where nothing can be remembered."""

    graph: Graph
    steps: int
    memory: Memory | None
    rules: dict[str, Rule]
    planned: dict[Node, int] | None = None  # offsets below 0 (deadlines.py); None: as soon as possible
    strict: bool = True  # False: only to find out what streams; the graph that comes out is not to be used

    def __post_init__(self) -> None:
        self.env: dict[Value, Kind] = {}
        self.used: set[Value] = set()
        self.carried: list[
            tuple[Value, Value]
        ] = []  # first and final value of carries that start from a state

    def run(self, whole: Graph) -> None:
        """Append the step form of every node of `whole`."""
        self.used = {v for n in whole.nodes for v in n.operands} | set(whole.outputs)
        self.used |= {s.next for s in whole.states if s.next is not None}
        for node in whole.nodes:
            kinds = [self.env[v] for v in node.operands]
            if not any(isinstance(k, Stream) for k in kinds):
                results = copy_node(self.graph, node, [k.value for k in kinds])
                kind: type[Static | Current | First] = Static
                for found in (First, Current):
                    kind = found if any(isinstance(k, found) for k in kinds) else kind
                if self.steps == 2 and kind is Current and any(isinstance(k, First) for k in kinds):
                    raise refusal(node, "joins the first step of the example with its second and last one: this may"
                                  " be a loop over the steps", longer(self, 4))  # fmt: skip
                begun = [k.states for k in kinds if isinstance(k, Begin)]
                states = frozenset[str]().union(*begun)
                for old, new in zip(node.results, results, strict=True):
                    self.env[old] = Begin(new, states) if states else kind(new)
                continue
            self._check_begin(node, kinds)
            self._check_last(node, kinds)
            begin = len(self.graph.nodes)
            made = self.rules[OPS[node.op].streaming](self, node, kinds)
            self.graph.inherit_cores(node, begin)
            self.env.update(zip(node.results, made, strict=True))

    def _check_last(self, node: Node, kinds: Sequence[Kind]) -> None:
        """Nothing that streams is joined with what its last step gives."""
        last = [v for v, k in zip(node.operands, kinds, strict=True) if isinstance(k, Current)]
        if not last:
            return
        if not all(map(self._is_cut, last)):
            raise refusal(node, "joins what is computed from the last step of a sequence with the sequence itself",
                          "use the value of each step instead; in a loop over time let every iteration do the"
                          " same")  # fmt: skip
        if any(isinstance(k, Stream) and node.op == "concat" and k.axis == node.attrs["axis"] for k in kinds):
            remedy = "pad with a constant: padding_mode='zeros', or F.pad(x, (left, right), value=0.0)"
            raise refusal(node, "repeats the last step of a sequence at its end, or before it", remedy)
        raise refusal(node, "joins the last step of a sequence with the sequence itself, which is not causal",
                      "use the value of each step instead of the last one")  # fmt: skip

    def _is_cut(self, value: Value) -> bool:
        """Whether elements of the last step stand in a value of the whole graph as they are."""
        kind, node = self.env[value], value.node
        if isinstance(kind, Stream):
            return True
        moves = node is not None and node.op in LAYOUT
        return isinstance(kind, Static) or (
            moves and node is not None and all(map(self._is_cut, node.operands))
        )

    def _check_begin(self, node: Node, kinds: Sequence[Kind]) -> None:
        """Of what streams, a loop alone takes a state of the whole graph: to start from it."""
        starts = node.attrs["carries"] if node.op == "scan" else 0
        found = next((k for k in kinds[starts:] if isinstance(k, Begin)), None)
        if found is not None:
            raise refusal(node, f"reads {found.names} as before the sequence, in every step of it",
                          "start a loop over time from it, and keep in it what the loop ends with;"
                          " or let every sequence start anew (module_state='reset')")  # fmt: skip

    # ---- shared by the rules

    def emit(self, node: Node, operands: Sequence[Value], **attrs: Any) -> tuple[Value, ...]:
        """The op of `node` on step values, with some attributes changed."""
        results = add_many(self.graph, node.op, operands, {**node.attrs, **attrs}, node.source)
        self.graph.nodes[-1].precision = node.precision
        for new, old in zip(results, node.results, strict=True):
            new.name = old.name
        return results

    def delay(self, kind: Stream, off: int, node: Node | None) -> Value:
        """The value of `kind`, held back until its index i is there at step i + off."""
        count = off - kind.off
        if count == 0:
            return kind.value
        if self.memory is None:
            raise refusal(node, "operands of different steps meet inside a scan that runs within each step",
                          "take the slices along the streamed axis before the scan")  # fmt: skip
        initial: list[Value | None] = []
        for j in range(1, count + 1):
            index = -j - kind.off
            initial.append(kind.history[index] if 0 <= index < len(kind.history) else None)
        return self.memory.delayed(kind.value, initial, "" if node is None else node.source.module)

    def ready(self, kinds: Sequence[Kind], node: Node) -> tuple[int, int]:
        """The earliest step offset, from 0 on, at which all streams are there, and their common length."""
        streams = [k for k in kinds if isinstance(k, Stream)]
        lengths = {k.length for k in streams}
        if len(lengths) > 1:
            raise refusal(
                node, f"joins streams of {sorted(lengths)} elements", "make the sequences equally long"
            )
        return max(0, *(k.off for k in streams)), lengths.pop()

    def apply(
        self, node: Node, operands: Sequence[Stream | Value], axes: int | Sequence[int | None], **attrs: Any
    ) -> list[Kind]:
        """The op of `node` on streams, brought to one offset, and on values that are the same in every step.

        axes: where the results stream, one for all or one (None: it does not) for each. What is known of the operands
        before the first step makes the results' history; a value that depends on an input is not known there.
        """
        off, length = self.ready([k for k in operands if isinstance(k, Stream)], node)
        soonest = max(k.off for k in operands if isinstance(k, Stream))
        if self.planned is not None and (node.op not in MOVES or len(operands) > 1):
            soonest = max(soonest, self.planned.get(node, 0))
        known = self._known(operands, soonest) if soonest < 0 else None
        off = off if known is None else soonest
        values = [self.delay(k, off, node) if isinstance(k, Stream) else k for k in operands]
        made = self.emit(node, values, **attrs)
        histories: list[tuple[Value, ...]] = [()] * len(made)
        if known is not None and self.memory is not None:
            once = {step: self.memory.prologue.compute(node, step, attrs) for step in dict.fromkeys(known)}
            histories = list(zip(*(once[step] for step in known), strict=True))
        along = [axes] * len(made) if isinstance(axes, int) else list(axes)
        results: list[Kind] = []
        for value, axis, history in zip(made, along, histories, strict=True):
            results.append(Static(value) if axis is None else Stream(value, axis, off, length, history))
        return results

    def _known(self, operands: Sequence[Stream | Value], off: int) -> list[tuple[Value, ...]] | None:
        """The operands of each of the first -off steps, in the prologue; None where one is not known."""
        if self.memory is None:
            return None
        columns: list[Sequence[Value]] = []
        for operand in operands:
            if isinstance(operand, Stream):
                columns.append(operand.history[:-off])
                continue
            same = self.memory.prologue.same(operand)
            if same is None:
                return None
            columns.append([same] * -off)
        return list(zip(*columns, strict=True))

    def along(self, value: Value, axis: int, node: Node) -> Stream | Value:
        """A static value with an axis taken off; a constant that varies along it streams, as a table."""
        array = value.constant()
        if axis < 0 or array is None or self.memory is None or uniform(array, axis):
            return self.without_axis(value, axis, node)
        return Stream(self.memory.table(array, axis, node.source), axis, 0, array.shape[axis])

    def without_axis(self, value: Value, axis: int, node: Node) -> Value:
        """A static value with an axis taken off, along which it must not vary. A negative axis is not there at all."""
        if axis < 0:
            return value
        if not self.strict:
            return self.graph.constant(np.zeros(value.shape[:axis] + value.shape[axis + 1 :]))
        same = slice_along(self.graph, value, axis)
        if same is not None:
            return same
        what = "a constant" if value.is_constant else "an operand that does not stream"
        raise refusal(node, f"{what} of shape {value.shape} varies along the streamed axis {axis}",
                      "make it the same for every step, or pass it as an input that streams")  # fmt: skip

    def current(self, kind: Stream, node: Node) -> Value:
        """The last index of a stream, as of this step: delayed where the stream ends before the sequence."""
        missing = self.steps - kind.length - kind.off
        if missing < 0:
            raise refusal(node, "the last element comes after the end of the sequence (it depends on right padding)",
                          "pad on the left, or take an earlier element")  # fmt: skip
        return self.delay(kind, kind.off + missing, node)
