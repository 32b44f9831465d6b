"""Loops with iterations unrolled: the same bits, and no slower."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from generators import random_graph, random_inputs

from ltc_compiler import Config
from ltc_compiler.ir.graph import Graph, Type
from ltc_compiler.ir.ops import add, add_many
from ltc_compiler.ir.run import evaluate
from ltc_compiler.ir.verify import verify
from ltc_compiler.settle import compile_model
from ltc_compiler.transforms.unroll import GROUP, MAX_ITERATIONS, MAX_NODES, may_unroll, unroll


def solve(iterations: int, stacked: bool = False) -> Graph:
    """y' = y + table[t] * (x - y), `iterations` times, from 1/2: folding gains nothing from the first iteration."""
    body = Graph("body")
    y, step, x = (
        body.add_input(Type((1, 20)), "y"),
        body.add_input(Type(()), "dt"),
        body.add_input(Type((1, 20)), "x"),
    )
    new = add(body, "add", y, add(body, "mul", step, add(body, "sub", x, y)))
    body.add_output(new)
    graph = Graph()
    given = graph.add_input(Type((1, 20)))
    table = graph.constant(np.linspace(0.1, 0.4, iterations))
    out_axes: tuple[int, ...] = ()
    if stacked:
        body.add_output(new)
        out_axes = (0,)
    attrs: dict[str, Any] = {
        "body": body,
        "carries": 1,
        "scanned": 1,
        "trip_count": iterations,
        "in_axes": (0,),
        "out_axes": out_axes,
    }
    for value in add_many(graph, "scan", [graph.constant(np.full((1, 20), 0.5)), table, given], attrs):
        graph.add_output(value)
    return graph


def test_a_short_solve_is_written_out_with_the_same_bits() -> None:
    graph = solve(5)
    flat = unroll(graph)
    verify(flat)
    assert [n.op for n in flat.walk()].count("mul") == 5
    x = np.random.default_rng(0).standard_normal((1, 20))
    np.testing.assert_array_equal(evaluate(flat, [x])[0], evaluate(graph, [x])[0])
    loop, written = (compile_model(g, Config.tiny_c1b8(), optimize=False) for g in (graph, flat))
    assert any(i.name == "loop" for i in loop.image.code)
    assert not any(i.name == "loop" for i in written.image.code)
    given = x.astype(np.float32)
    assert loop.to_vm().run(given).tobytes() == written.to_vm().run(given).tobytes()
    best = compile_model(graph, Config.tiny_c1b8())
    counts = [p.cycle_count_per_inference() for p in (best, loop, written)]
    assert counts[0] <= min(counts[1:]) / 0.98


def leaky(iterations: int, axis: int) -> Graph:
    """h' = h + (x[t] * w - h) / 4 along an axis of x (2, 3, 20); h and the gate x[t] * w are stacked at other axes."""
    body = Graph("body")
    h, x, w = (body.add_input(Type((2, 20)), n) for n in "hxw")
    gate = add(body, "mul", x, w)
    new = add(body, "add", h, add(body, "mul", add(body, "sub", gate, h), body.constant(np.float64(0.25))))
    for value in (new, new, gate):
        body.add_output(value)
    graph = Graph()
    shape = [2, 20]
    shape.insert(axis, iterations)
    given, scale = graph.add_input(Type(tuple(shape))), graph.add_input(Type((2, 20)))
    attrs: dict[str, Any] = {
        "body": body, "carries": 1, "scanned": 1, "trip_count": iterations, "in_axes": (axis,), "out_axes": (1, 2),
    }  # fmt: skip
    for value in add_many(graph, "scan", [graph.constant(np.zeros((2, 20))), given, scale], attrs):
        graph.add_output(value)
    return graph


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("iterations", [1, 5, MAX_ITERATIONS, MAX_ITERATIONS + 1, 3 * GROUP, 3 * GROUP + 5])
def test_a_loop_along_a_sequence_keeps_its_bits(iterations: int, axis: int) -> None:
    graph = leaky(iterations, axis)
    flat = unroll(graph)
    verify(flat)
    rng = np.random.default_rng(iterations)
    x = [rng.standard_normal(v.shape).astype(np.float32) for v in graph.inputs]
    for found, expected in zip(evaluate(flat, x), evaluate(graph, x), strict=True):
        np.testing.assert_array_equal(found, expected)
    counts = [n.attrs["trip_count"] for n in flat.nodes if n.op == "scan"]
    assert counts == ([] if iterations <= MAX_ITERATIONS else [iterations // GROUP])
    loop, written = (
        compile_model(g, Config.tiny_c2b8(), optimize=False).to_vm().run(*x) for g in (graph, flat)
    )
    assert [y.tobytes() for y in loop] == [y.tobytes() for y in written]


def test_iterations_overlap() -> None:
    """What an iteration returns besides its state is computed while the next iteration's state is."""
    body = Graph("body")
    h, x = (body.add_input(Type((32,)), n) for n in "hx")
    new = add(body, "add", add(body, "mul", h, body.constant(np.float64(0.5))), x)
    body.add_output(new)
    body.add_output(add(body, "tanh", add(body, "div", x, add(body, "exp", new))))
    graph = Graph()
    given, start = graph.add_input(Type((4 * MAX_ITERATIONS, 32))), graph.constant(np.zeros(32))
    attrs: dict[str, Any] = {
        "body": body, "carries": 1, "scanned": 1, "trip_count": 4 * MAX_ITERATIONS, "in_axes": (0,), "out_axes": (0,),
    }  # fmt: skip
    graph.add_output(add_many(graph, "scan", [start, given], attrs)[1])
    loop = compile_model(graph, Config.v80_c6b32(), quick=True).cycle_count_per_inference()
    assert compile_model(graph, Config.v80_c6b32()).cycle_count_per_inference() < 0.5 * loop


def test_a_large_body_stays_a_loop() -> None:
    graph = solve(40)
    body = next(n for n in graph.nodes if n.op == "scan").body
    value = body.outputs[0]
    for _ in range(MAX_NODES):
        value = add(body, "add", value, value)
    body.outputs[0] = value
    assert not may_unroll(graph)
    assert [n.op for n in unroll(graph).nodes] == [n.op for n in graph.nodes]


@pytest.mark.parametrize("seed", range(40))
def test_random_graphs_keep_their_meaning(seed: int) -> None:
    rng = np.random.default_rng(seed)
    graph = random_graph(rng)
    flat = unroll(graph)
    verify(flat)
    inputs = random_inputs(rng, graph)
    for found, expected in zip(evaluate(flat, inputs), evaluate(graph, inputs), strict=True):
        np.testing.assert_array_equal(found, expected)
