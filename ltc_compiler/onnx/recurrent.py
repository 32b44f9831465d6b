"""Converters of LSTM, GRU and RNN: each direction is one scan over time, the equations those of the ONNX operators.

Shapes are (time, batch, features) and, with layout 1, (batch, time, features).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ltc_compiler.frontend import activations
from ltc_compiler.frontend.compose import Composer, Refused
from ltc_compiler.ir.graph import Array, Graph, Value
from ltc_compiler.onnx.call import Call, Results
from ltc_compiler.onnx.registry import converts

Function = Callable[[Composer, Value], Value]


class Activation(NamedTuple):
    """An activation: the defaults of its parameters (None: it has none, NaN: no default), and what it computes."""

    alpha: float | None
    beta: float | None
    compute: Callable[[Composer, Value, float, float], Value]

    def bound(self, alpha: float, beta: float) -> Function:
        return lambda c, x: self.compute(c, x, alpha, beta)


def _elu(c: Composer, x: Value, alpha: float, beta: float) -> Value:
    low = c.add("mul", c.add("sub", c.add("exp", c.add("min", x, 0.0)), 1.0), alpha)
    return c.add("select", c.add("gt", x, 0.0), x, low)


ACTIVATIONS: dict[str, Activation] = {
    "Relu": Activation(None, None, lambda c, x, a, b: c.add("relu", x)),
    "Tanh": Activation(None, None, lambda c, x, a, b: c.add("tanh", x)),
    "Sigmoid": Activation(None, None, lambda c, x, a, b: c.add("sigmoid", x)),
    "Softplus": Activation(None, None, lambda c, x, a, b: c.add("softplus", x)),
    "Softsign": Activation(None, None, lambda c, x, a, b: activations.softsign(c, x)),
    "Affine": Activation(math.nan, math.nan, lambda c, x, a, b: c.add("add", c.add("mul", x, a), b)),
    "LeakyRelu": Activation(
        0.01, None, lambda c, x, a, b: c.add("select", c.add("lt", x, 0.0), c.add("mul", x, a), x)
    ),
    "ThresholdedRelu": Activation(
        math.nan, None, lambda c, x, a, b: c.add("select", c.add("gt", x, a), x, 0.0)
    ),
    "ScaledTanh": Activation(
        math.nan, math.nan, lambda c, x, a, b: c.add("mul", c.add("tanh", c.add("mul", x, b)), a)
    ),
    "HardSigmoid": Activation(0.2, 0.5, activations.hard_sigmoid),
    "Elu": Activation(1.0, None, _elu),
}
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
    functions: list[Function]
    coupled: bool  # LSTM: the forget gate is one minus the input gate
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
    sums = c.add("add", c.linear(x, cell.w), c.linear(h, cell.r, cell.wb + cell.rb))
    i, o, forget, new = _parts(c, sums, cell.hidden)
    if cell.peepholes is not None:
        pi, po, pf = np.split(cell.peepholes, 3)
        i, forget = (c.add("add", s, c.add("mul", memory, p)) for s, p in ((i, pi), (forget, pf)))
    gate = f(c, i)
    keep = c.add("sub", 1.0, gate) if cell.coupled else f(c, forget)
    memory = c.add("add", c.add("mul", keep, memory), c.add("mul", gate, g(c, new)))
    if cell.peepholes is not None:
        o = c.add("add", o, c.add("mul", memory, po))
    return [c.add("mul", f(c, o), out(c, memory)), memory]


def _gru(c: Composer, cell: Cell, x: Value, states: list[Value]) -> list[Value]:
    h, n = states[0], cell.hidden
    f, g = cell.functions
    zi, ri, ni = _parts(c, c.linear(x, cell.w, cell.wb), n)
    if cell.reset_after:
        zh, rh, nh = _parts(c, c.linear(h, cell.r, cell.rb), n)
        reset = f(c, c.add("add", ri, rh))
        new = c.add("add", ni, c.add("mul", reset, nh))
    else:
        zh, rh = _parts(c, c.linear(h, cell.r[: 2 * n], cell.rb[: 2 * n]), n)
        reset = f(c, c.add("add", ri, rh))
        new = c.add("add", ni, c.linear(c.add("mul", reset, h), cell.r[2 * n :], cell.rb[2 * n :]))
    z, new = f(c, c.add("add", zi, zh)), g(c, new)
    return [c.add("add", new, c.add("mul", z, c.add("sub", h, new)))]


def _rnn(c: Composer, cell: Cell, x: Value, states: list[Value]) -> list[Value]:
    sums = c.add("add", c.linear(x, cell.w), c.linear(states[0], cell.r, cell.wb + cell.rb))
    return [cell.functions[0](c, sums)]


STEPS: dict[str, Step] = {"LSTM": _lstm, "GRU": _gru, "RNN": _rnn}


@converts("LSTM", "GRU", "RNN", limits="sequence_lens other than the whole sequence; computed weights")
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
    functions = _functions(call, count)
    each = len(functions) // count
    cells = []
    for d in range(count):
        wb, rb = np.split(bias[d], 2)
        peephole = peepholes[d] if peepholes[d].any() else None
        after = bool(call.attr("linear_before_reset", 0))
        coupled = bool(call.attr("input_forget", 0))
        cells.append(Cell(w[d], r[d], wb, rb, peephole, functions[d * each : (d + 1) * each], coupled, after))
    return cells


def _functions(call: Call, directions: int) -> list[Function]:
    """The activations of all directions; those with parameters take them from the lists in order."""
    names = [str(n) for n in call.attr("activations", DEFAULTS[call.op] * directions)]
    known = {name.lower(): name for name in ACTIVATIONS}
    if any(n.lower() not in known for n in names) or len(names) != len(DEFAULTS[call.op]) * directions:
        raise Refused(f"activations {names}", f"{', '.join(ACTIVATIONS)}")
    rows = [ACTIVATIONS[known[n.lower()]] for n in names]
    alphas, betas = (iter(call.attr(f"activation_{name}", ())) for name in ("alpha", "beta"))
    clip = call.attr("clip")
    functions = []
    for k, row in enumerate(rows):
        alpha = 0.0 if row.alpha is None else float(next(alphas, row.alpha))
        beta = 0.0 if row.beta is None else float(next(betas, row.beta))
        if math.isnan(alpha + beta):  # runtimes disagree about what these have then
            raise Refused(f"{names[k]} without activation_alpha or activation_beta", "give the parameters")
        functions.append(_clipped(row.bound(alpha, beta), clip))
    return functions


def _clipped(function: Function, bound: float | None) -> Function:
    """The function of what is cut to [-bound, bound], as the standard has it of every activation's input."""
    if not bound:
        return function
    return lambda c, x: function(c, c.add("min", c.add("max", x, -bound), bound))


def _start(call: Call, which: int, direction: int, shape: tuple[int, int]) -> Value:
    """The initial state of one direction, zero if it is not given."""
    if not call.has(5 + which):
        return call.c.full(shape, 0.0)
    value = call.value(5 + which)
    axis = 1 if call.attr("layout", 0) else 0
    return call.c.reshape(call.c.slice(value, axis, direction, direction + 1), shape)


def _layer(
    c: Composer, step: Step, cell: Cell, x: Value, starts: list[Value], name: str
) -> tuple[Value, ...]:
    """The final states, and the first of them at every step, (time, batch, hidden)."""
    inner = c.inside(Graph(name))
    states = [inner.graph.add_input(s.type, n) for s, n in zip(starts, ("h", "c"), strict=False)]
    now = inner.graph.add_input(type(x.type)(x.shape[1:]), "x")
    new = step(inner, cell, now, states)
    for value in (*new, new[0]):
        inner.graph.add_output(value)
    return c.scan(inner.graph, [*starts, x], len(starts), x.shape[0], (0,), (0,))
