"""Small graphs by hand, and the checks that several NNIR tests share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ltc_compiler.ir.graph import Array, Graph, Source, Type, Value
from ltc_compiler.ir.ops import add, add_many
from ltc_compiler.ir.run import evaluate, initial_states

HERE = Source("net.cell", "model.py", 12, "y = self.f(x)")


def graph(*shapes: tuple[int, ...]) -> tuple[Graph, list[Value]]:
    """A graph with inputs x0, x1, ... of these shapes."""
    made = Graph("main")
    return made, [made.add_input(Type(s)) for s in shapes]


def body(*shapes: tuple[int, ...]) -> tuple[Graph, list[Value]]:
    """As `graph`, for the body of a scan."""
    made, values = graph(*shapes)
    made.name = "body"
    return made, values


def scan(
    g: Graph, inner: Graph, operands: Sequence[Value], carries: int, count: int,
    in_axes: tuple[int, ...] = (), out_axes: tuple[int, ...] = (),
) -> tuple[Value, ...]:  # fmt: skip
    """A scan over `inner`."""
    attrs: dict[str, Any] = {"body": inner, "carries": carries, "scanned": len(in_axes), "trip_count": count,
                             "in_axes": in_axes, "out_axes": out_axes}  # fmt: skip
    return add_many(g, "scan", operands, attrs, HERE)


def leaky(g: Graph, x: Value, width: int, axis: int = 0) -> tuple[Value, ...]:
    """h = tanh(0.5 h + x), scanned along `axis` of x: the final carry and every h, stacked on axis 0."""
    shape = tuple(d for i, d in enumerate(x.shape) if i != axis)
    inner, (h, at) = body(shape, shape)
    new = add(inner, "tanh", add(inner, "add", add(inner, "mul", h, inner.constant(0.5)), at), source=HERE)
    inner.add_output(new)
    inner.add_output(new)
    start = g.constant(np.full(shape, 0.25), "h0")
    assert shape[-1] == width
    return scan(g, inner, [start, x], 1, x.shape[axis], (axis,), (0,))


def ops_of(g: Graph) -> list[str]:
    """Names of all nodes but constants, bodies included."""
    return [n.op for n in g.walk() if n.op != "constant"]


def inputs_for(g: Graph, seed: int = 0) -> list[Array]:
    rng = np.random.default_rng(seed)
    return [rng.uniform(-2, 2, v.shape) for v in g.inputs]


def assert_same(found: Sequence[Array], expected: Sequence[Array], message: str = "") -> None:
    """Equal shapes, and values equal but for the order of sums in fp64."""
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape, message
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-11, err_msg=message)


def run_steps(step: Graph, inputs: Sequence[Array], end: bool = False) -> list[list[Array]]:
    """The outputs of every step of a streamed graph, given whole sequences; with those behind the `end`, in which
    no input is read.
    """
    dims = step.input_streaming_dims
    assert dims is not None
    count = next(x.shape[d] for x, d in zip(inputs, dims, strict=True) if d is not None)
    states = initial_states(step)
    found = []
    for t in range(count + max((0, *(step.output_tails or ()))) * end):
        if t >= count and step.end_marker:
            states[step.end_marker] = np.array(t - count + 1.0)
        given = zip(inputs, dims, strict=True)
        at = [
            x if d is None else np.take(x, t, d) if t < count else np.take(x, 0, d) * np.nan for x, d in given
        ]
        found.append(evaluate(step, at, states))
    return found


def assert_streams(whole: Graph, step: Graph, inputs: Sequence[Array]) -> None:
    """The streaming law: the steps, and those behind the end, give the whole."""
    expected = evaluate(whole, inputs)
    steps = run_steps(step, inputs, end=True)
    dims, late, tails = step.output_streaming_dims, step.output_latencies, step.output_tails
    assert dims is not None
    assert late is not None
    assert tails is not None
    count = len(steps) - max(0, *tails)
    for i, dim in enumerate(dims):
        if dim is None:
            assert_same([steps[count - 1][i]], [expected[i]], f"output {i}")
        else:
            found = [s[i] for s in steps[late[i] : count + tails[i]]]
            assert_same([np.stack(found, dim)], [expected[i]], f"output {i}")
