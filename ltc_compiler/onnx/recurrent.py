"""Converters of LSTM, GRU and RNN: each direction is one scan over time, the equations those of the ONNX operators.

Shapes are (time, batch, features) and, with layout 1, (batch, time, features).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..ir.compose import Composer, Refused
from ..ir.graph import Array, Graph, Value
from .call import Call, Results, numbers
from .registry import converts

ACTIVATIONS = {"Sigmoid": "sigmoid", "Tanh": "tanh", "Relu": "relu"}
DEFAULTS = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


@dataclass(frozen=True)
class Cell:
    """One direction's parameters: w (gates, inputs), r (gates, hidden), their biases, peepholes, activations."""

    w: Array
    r: Array
    wb: Array
    rb: Array
    peepholes: Array | None
    functions: list[str]
    reset_after: bool  # GRU: the reset gate multiplies the recurrent product and not the state

    @property
    def hidden(self) -> int:
        return self.r.shape[1]


Step = Callable[[Composer, Cell, Value, list[Value]], list[Value]]


def _parts(c: Composer, x: Value, hidden: int) -> list[Value]:
    """The gates, which stand side by side on the last axis."""
    return [c.slice(x, -1, k, k + hidden) for k in range(0, x.shape[-1], hidden)]


def _lstm(c: Composer, cell: Cell, x: Value, states: list[Value]) -> list[Value]:
    h, memory = states
    f, g, out = cell.functions
    sums = c.add("add", c.linear(x, cell.w, cell.wb + cell.rb), c.linear(h, cell.r))
    i, o, forget, new = _parts(c, sums, cell.hidden)
    if cell.peepholes is not None:
        pi, po, pf = np.split(cell.peepholes, 3)
        i, forget = (c.add("add", s, c.add("mul", memory, p)) for s, p in ((i, pi), (forget, pf)))
    kept = c.add("mul", c.add(f, forget), memory)
    memory = c.add("add", kept, c.add("mul", c.add(f, i), c.add(g, new)))
    if cell.peepholes is not None:
        o = c.add("add", o, c.add("mul", memory, po))
    return [c.add("mul", c.add(f, o), c.add(out, memory)), memory]


def _gru(c: Composer, cell: Cell, x: Value, states: list[Value]) -> list[Value]:
    h, n = states[0], cell.hidden
    f, g = cell.functions
    zi, ri, ni = _parts(c, c.linear(x, cell.w, cell.wb), n)
    if cell.reset_after:
        zh, rh, nh = _parts(c, c.linear(h, cell.r, cell.rb), n)
        reset = c.add(f, c.add("add", ri, rh))
        new = c.add("add", ni, c.add("mul", reset, nh))
    else:
        zh, rh = _parts(c, c.linear(h, cell.r[: 2 * n], cell.rb[: 2 * n]), n)
        reset = c.add(f, c.add("add", ri, rh))
        new = c.add("add", ni, c.linear(c.add("mul", reset, h), cell.r[2 * n :], cell.rb[2 * n :]))
    z, new = c.add(f, c.add("add", zi, zh)), c.add(g, new)
    return [c.add("add", new, c.add("mul", z, c.add("sub", h, new)))]


def _rnn(c: Composer, cell: Cell, x: Value, states: list[Value]) -> list[Value]:
    sums = c.add("add", c.linear(x, cell.w, cell.wb + cell.rb), c.linear(states[0], cell.r))
    return [c.add(cell.functions[0], sums)]


STEPS: dict[str, Step] = {"LSTM": _lstm, "GRU": _gru, "RNN": _rnn}


@converts(
    "LSTM", "GRU", "RNN", limits="sequence_lens other than the whole sequence; clip, input_forget; activations other "
    "than Sigmoid, Tanh and Relu; computed weights"
)  # fmt: skip
def recurrent(call: Call) -> Results:
    c, batch_first = call.c, bool(call.attr("layout", 0))
    x = c.permute(call.x, (1, 0, 2)) if batch_first else call.x
    if len(x.shape) != 3:
        raise Refused(f"X has shape {x.shape}, expected (time, batch, features)")
    if call.has(4) and (call.array(4, "sequence_lens") != x.shape[0]).any():
        raise Refused("sequence_lens shorter than the sequence", "whole sequences, one length at a time")
    cells = _cells(call)
    outputs, finals = [], []
    for d, cell in enumerate(cells):
        backward = call.attr("direction", "forward") == "reverse" or d == 1
        starts = [_start(call, k, d, (x.shape[1], cell.hidden)) for k in range(2 if call.op == "LSTM" else 1)]
        sequence = c.flip(x, 0) if backward else x
        *final, output = _layer(c, STEPS[call.op], cell, sequence, starts, call.op.lower())
        outputs.append(c.flip(output, 0) if backward else output)
        finals.append(final)
    if batch_first:  # (batch, time, directions, hidden) and (batch, directions, hidden)
        stacked = c.concat([c.unsqueeze(c.permute(y, (1, 0, 2)), 2) for y in outputs], 2)
    else:  # (time, directions, batch, hidden) and (directions, batch, hidden)
        stacked = c.concat([c.unsqueeze(y, 1) for y in outputs], 1)
    at = 1 if batch_first else 0
    last = [c.concat([c.unsqueeze(s, at) for s in column], at) for column in zip(*finals, strict=True)]
    return [stacked, *last]


def _cells(call: Call) -> list[Cell]:
    """The parameters of every direction. Refuses what the equations here do not have."""
    direction = call.attr("direction", "forward")
    count = 2 if direction == "bidirectional" else 1
    if call.attr("clip") is not None or call.attr("input_forget", 0):
        raise Refused("clip or input_forget", "leave them out")
    names = [str(n) for n in call.attr("activations", DEFAULTS[call.op] * count)]
    if any(n not in ACTIVATIONS for n in names) or len(names) != len(DEFAULTS[call.op]) * count:
        raise Refused(f"activations {names}", f"{', '.join(ACTIVATIONS)}")
    w, r = call.weight(1, "W", 3), call.weight(2, "R", 3)
    hidden, gates = r.shape[2], GATES[call.op]
    bias = call.weight(3, "B", 2) if call.has(3) else np.zeros((count, 2 * gates * hidden))
    peepholes = call.weight(7, "P", 2) if call.op == "LSTM" and call.has(7) else np.zeros((count, 3 * hidden))
    for name, array, width in (
        ("W", w, (gates * hidden, call.x.shape[-1])),
        ("R", r, (gates * hidden, hidden)),
        ("B", bias, (2 * gates * hidden,)),
        ("P", peepholes, (3 * hidden,)),
    ):
        if array.shape != (count, *width):
            raise Refused(f"{name} has shape {array.shape}, expected {(count, *width)}")
    functions = [ACTIVATIONS[n] for n in names]
    each = len(functions) // count
    cells = []
    for d in range(count):
        wb, rb = np.split(bias[d], 2)
        peephole = peepholes[d] if peepholes[d].any() else None
        after = bool(call.attr("linear_before_reset", 0))
        cells.append(Cell(w[d], r[d], wb, rb, peephole, functions[d * each : (d + 1) * each], after))
    return cells


def _start(call: Call, which: int, direction: int, shape: tuple[int, int]) -> Value:
    """The initial state of one direction, zero if it is not given."""
    if not call.has(5 + which):
        return call.c.full(shape, 0.0)
    given = call.tensor(5 + which)
    value = given if isinstance(given, Value) else call.c.value(numbers(given))
    axis = 1 if call.attr("layout", 0) else 0
    return call.c.reshape(call.c.slice(value, axis, direction, direction + 1), shape)


def _layer(
    c: Composer, step: Step, cell: Cell, x: Value, starts: list[Value], name: str
) -> tuple[Value, ...]:
    """The final states, and the first of them at every step, (time, batch, hidden)."""
    inner = Composer(Graph(name), c.source)
    states = [inner.graph.add_input(s.type, n) for s, n in zip(starts, ("h", "c"), strict=False)]
    now = inner.graph.add_input(type(x.type)(x.shape[1:]), "x")
    new = step(inner, cell, now, states)
    for value in (*new, new[0]):
        inner.graph.add_output(value)
    return c.scan(inner.graph, [*starts, x], len(starts), x.shape[0], (0,), (0,))
