"""Loop: one scan where its iterations are alike, else one iteration after the other, as long as the end is a constant.

Inside of a body that is to become a scan the iteration number is an `Iteration`: what it selects of an outer tensor is
scanned, as a float it is a scanned constant, and whatever else reads it ends the attempt.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ltc_compiler.errors import GraphError
from ltc_compiler.frontend.compose import Composer, Refused
from ltc_compiler.ir.graph import Graph, Type, Value
from ltc_compiler.ir.ops import ShapeError
from ltc_compiler.onnx.call import Call, Growing, Results, Tensor, TensorList, as_value, is_whole, stacked
from ltc_compiler.onnx.scope import Scope, Walker

DATA = Refused("a loop whose end depends on the data", "a constant number of steps and Where for the rest")
COUNTED = (
    "Gather",
    "Cast",
    "Identity",
    "Unsqueeze",
    "Squeeze",
)  # what a body may do with its iteration number


class Iteration(Refused):
    """The number of the iteration in the body of a scan, in the shape () or (1,): no value, for it is whole."""

    def __init__(self, loop: Body, shape: tuple[int, ...] = ()) -> None:
        super().__init__("it computes with the iteration number of a loop")
        self.loop = loop
        self.shape = shape


class Body:
    """The body of a Loop as that of a scan: its graph, and what each of the graph's inputs is outside."""

    def __init__(self, walker: Walker, scope: Scope, call: Call, steps: int) -> None:
        self.steps = steps
        self.graph = Graph(call.attr("body").name or "loop")
        self.scope = scope.child(call.c.inside(self.graph), boundary=True)
        self._number: Value | None = None
        self.scanned: list[
            tuple[Value, Tensor, int]
        ] = []  # with the axis of the outer tensor that it goes over

    def row(self, x: Tensor, axis: int, shape: Sequence[int]) -> Value | None:
        """x[i] along an axis, i being the iteration number of a shape; None if x is no tensor of the outside."""
        outer = self.scope.captured.get(x) if isinstance(x, Value) else x
        if outer is None or outer.shape[axis] < self.steps:
            return None
        row = self.graph.add_input(Type((*x.shape[:axis], *x.shape[axis + 1 :])), "row")
        self.scanned.append((row, outer, axis))
        return self.scope.c.reshape(row, (*x.shape[:axis], *shape, *x.shape[axis + 1 :]))

    def number(self, shape: Sequence[int]) -> Value:
        """The iteration number as a float."""
        if self._number is None:
            self._number = self.graph.add_input(Type(()), "iteration")
            self.scanned.append((self._number, np.arange(self.steps), 0))
        return self.scope.c.reshape(self._number, shape)

    def scan(
        self, c: Composer, carries: Sequence[tuple[Value, Value]], outputs: Sequence[Value]
    ) -> tuple[Value, ...]:
        """Write the scan; carries: each as an input of the body and its value at the start."""
        for value in outputs:
            self.graph.add_output(value)
        read = {v for node in self.graph.nodes for v in node.operands} | set(outputs)
        captured = [(inner, outer) for inner, outer in self.scope.captured.items() if inner in read]
        inputs = (
            [inner for inner, _ in carries],
            [row for row, _, _ in self.scanned],
            [inner for inner, _ in captured],
        )
        self.graph.inputs[:] = [value for group in inputs for value in group]
        for i, value in enumerate(self.graph.inputs):
            value.index = i
        rows = [c.slice(as_value(c, outer), axis, 0, self.steps) for _, outer, axis in self.scanned]
        operands = [*(start for _, start in carries), *rows, *(outer for _, outer in captured)]
        axes = [axis for _, _, axis in self.scanned]
        return c.scan(
            self.graph, operands, len(carries), self.steps, axes, [0] * (len(outputs) - len(carries))
        )


def counted(node: Any, inputs: Sequence[Any], attributes: dict[str, Any], c: Composer) -> Value | Iteration:
    """The result of a node that reads an iteration number; raises the Iteration where it cannot be had in a scan."""
    number = next(t for t in inputs if isinstance(t, Iteration))
    if c.graph is not number.loop.graph:  # a loop within the loop
        raise number
    others = [t for t in inputs if t is not number]
    if node.op_type == "Gather" and inputs[1] is number and isinstance(inputs[0], (Value, np.ndarray)):
        rank = inputs[0].ndim if isinstance(inputs[0], np.ndarray) else len(inputs[0].shape)
        row = number.loop.row(inputs[0], int(attributes.get("axis", 0)) % max(rank, 1), number.shape)
        if row is not None:
            return row
    if node.op_type == "Cast":
        whole = attributes.get("to") in (6, 7, 12, 13)  # int32, int64, uint32, uint64
        return number if whole else number.loop.number(number.shape)
    if node.op_type == "Identity":
        return number
    if node.op_type == "Unsqueeze" and number.shape == ():
        return Iteration(number.loop, (1,))
    if node.op_type == "Squeeze" and not [t for t in others if not isinstance(t, np.ndarray)]:
        return Iteration(number.loop)
    raise number


def loop(walker: Walker, scope: Scope, call: Call) -> Results:
    steps = int(call.array(0, "the trip count").reshape(())) if call.has(0) else None
    on = not call.has(1) or bool(call.array(1, "the condition").reshape(()))
    if not on or (steps is not None and steps < 1):
        return _never(call)
    reason = "it has no trip count"
    if steps is not None:
        found = _rolled(walker, scope, call, steps)
        if not isinstance(found, str):
            return found
        reason = found
    body = call.attr("body")
    if steps is not None and steps * max(len(body.node), 1) > walker.nodes_left:
        raise Refused(f"it becomes no scan, as {reason}, and {steps} iterations are too many to write out",
                      "Scan over the time axis")  # fmt: skip
    return _written_out(walker, scope, call, steps)


def _never(call: Call) -> Results:
    carries = list(call.inputs[2:])
    if call.results > len(carries):
        raise Refused("a loop that never runs, and stacks nothing", "leave it out")
    return carries


def _rolled(walker: Walker, scope: Scope, call: Call, steps: int) -> Results | str:
    """The results of a scan, or why the loop is none; an attempt leaves nothing behind."""
    before = len(walker.entries)
    try:
        return _scan(walker, scope, call, steps, before)
    except (Refused, GraphError, ShapeError) as error:
        reason = error.what if isinstance(error, GraphError) else str(error)
    if len(walker.entries) > before:
        reason = walker.entries[before].reason
    del walker.entries[before:]
    return reason


def _scan(walker: Walker, scope: Scope, call: Call, steps: int, before: int) -> Results:
    body, starts = Body(walker, scope, call, steps), list(call.inputs[2:])
    if any(is_whole(s, walker.wholes) for s in starts if not isinstance(s, TensorList)):
        raise Refused("it carries a whole number")
    proto, c = call.attr("body"), body.scope.c
    names = [i.name for i in proto.input[2:]]
    states = [Growing() if isinstance(s, TensorList) else body.graph.add_input(Type(s.shape), n)
              for s, n in zip(starts, names, strict=True) if s is not None]  # fmt: skip
    walker.subgraph(proto, body.scope, [Iteration(body), np.asarray(True), *states])
    if len(walker.entries) > before:
        raise Refused(walker.entries[before].reason)
    condition, *results = (body.scope.read(o.name) for o in proto.output)
    if isinstance(condition, Value) or not bool(np.all(condition)):
        raise DATA
    carries, outputs = [], []
    for state, start, result in zip(states, starts, results, strict=False):
        if isinstance(state, Value) and start is not None:
            carries.append((state, as_value(call.c, start)))
            outputs.append(as_value(c, result))
            if outputs[-1].shape != state.shape:
                raise Refused(f"a carry of shape {state.shape} becomes one of {outputs[-1].shape}")
    collected = [_collected(start, result) for start, result in zip(starts, results, strict=False)]
    stacks = [*(row for row in collected if row is not None), *results[len(starts) :]]
    found = body.scan(call.c, carries, [*outputs, *(as_value(c, row) for row in stacks)])
    finals, rows = iter(found[: len(carries)]), iter(found[len(carries) :])
    return [*(next(finals) if row is None else TensorList(rows=next(rows)) for row in collected), *rows]


def _collected(start: Any, result: Any) -> Tensor | None:
    """What an iteration appends to a sequence that is empty at the start; None for a carry that is a tensor."""
    if not isinstance(start, TensorList):
        return None
    if len(start) or not isinstance(result, Growing) or len(result.appended) != 1:
        raise Refused("it does other things with a sequence than to append to an empty one")
    return result.appended[0]


def _written_out(walker: Walker, scope: Scope, call: Call, steps: int | None) -> Results:
    body = call.attr("body")
    carries = [call.tensor(i) for i in range(2, len(call.inputs))]
    rows: list[list[Tensor]] = [[] for _ in body.output[1 + len(carries) :]]
    before, done, on = len(walker.entries), 0, True
    while on and (steps is None or done < steps):
        walker.visit(call.c.source)
        inner = scope.child(call.c)
        walker.subgraph(body, inner, [np.asarray(done, np.int64), np.asarray(True), *carries])
        if len(walker.entries) > before:
            raise Refused("")  # reported where it arose, once and not for each iteration
        condition, *results = (inner.read(o.name) for o in body.output)
        if isinstance(condition, Value):
            raise DATA
        on = bool(np.all(condition))
        carries = results[: len(carries)]
        for row, result in zip(rows, results[len(carries) :], strict=True):
            row.append(result)
        done += 1
    return [*carries, *(stacked(call.c, row) for row in rows)]
