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


def run_steps(step: Graph, inputs: Sequence[Array]) -> list[list[Array]]:
    """The outputs of every step of a streamed graph, given whole sequences."""
    dims = step.input_streaming_dims
    assert dims is not None
    count = next(x.shape[d] for x, d in zip(inputs, dims, strict=True) if d is not None)
    states = initial_states(step)
    return [
        evaluate(
            step, [x if d is None else np.take(x, t, d) for x, d in zip(inputs, dims, strict=True)], states
        )
        for t in range(count)
    ]


def assert_streams(whole: Graph, step: Graph, inputs: Sequence[Array], partial: bool = False) -> None:
    """The streaming law: the steps give the whole. partial: outputs may need steps after the sequence's end."""
    expected = evaluate(whole, inputs)
    steps = run_steps(step, inputs)
    assert step.output_streaming_dims is not None
    assert step.output_latencies is not None
    for i, (dim, late) in enumerate(zip(step.output_streaming_dims, step.output_latencies, strict=True)):
        if dim is None:
            assert_same([steps[-1][i]], [expected[i]], f"output {i}")
            continue
        found = np.stack([s[i] for s in steps[late:]], dim)
        count = min(found.shape[dim], expected[i].shape[dim])
        assert partial or count == expected[i].shape[dim], f"output {i} is there for {count} steps"
        assert count > 0
        assert_same(
            [np.take(found, range(count), dim)], [np.take(expected[i], range(count), dim)], f"output {i}"
        )
