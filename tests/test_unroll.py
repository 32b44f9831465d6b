"""Short solves, written out: the same bits, and no slower."""

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
from ltc_compiler.schedule.compile import compile_graph
from ltc_compiler.transforms.unroll import has_short_solves, unroll_solves


def solve(turns: int, stacked: bool = False) -> Graph:
    """y' = y + table[t] * (x - y), `turns` times, from 1/2: folding has nothing to gain from the first turn."""
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
    table = graph.constant(np.linspace(0.1, 0.4, turns))
    out_axes: tuple[int, ...] = ()
    if stacked:
        body.add_output(new)
        out_axes = (0,)
    attrs: dict[str, Any] = {
        "body": body,
        "carries": 1,
        "scanned": 1,
        "trip_count": turns,
        "in_axes": (0,),
        "out_axes": out_axes,
    }
    for value in add_many(graph, "scan", [graph.constant(np.full((1, 20), 0.5)), table, given], attrs):
        graph.add_output(value)
    return graph


def test_a_short_solve_is_written_out_with_the_same_bits() -> None:
    graph = solve(5)
    flat = unroll_solves(graph)
    verify(flat)
    assert [n.op for n in flat.walk()].count("mul") == 5
    x = np.random.default_rng(0).standard_normal((1, 20))
    np.testing.assert_array_equal(evaluate(flat, [x])[0], evaluate(graph, [x])[0])
    loop, written = (compile_graph(g, Config.tiny_c1b8(), optimize=False) for g in (graph, flat))
    assert any(i.name == "loop" for i in loop.image.code)
    assert not any(i.name == "loop" for i in written.image.code)
    given = x.astype(np.float32)
    assert loop.to_vm().run(given).tobytes() == written.to_vm().run(given).tobytes()
    best = compile_graph(graph, Config.tiny_c1b8())
    counts = [p.cycle_count_per_inference() for p in (best, loop, written)]
    assert counts[0] <= min(counts[1:]) / 0.98


@pytest.mark.parametrize("graph", [solve(17), solve(5, stacked=True)], ids=["long", "stacked"])
def test_other_scans_stay(graph: Graph) -> None:
    assert not has_short_solves(graph)
    assert [n.op for n in unroll_solves(graph).nodes] == [n.op for n in graph.nodes]


@pytest.mark.parametrize("seed", range(40))
def test_random_graphs_keep_their_meaning(seed: int) -> None:
    rng = np.random.default_rng(seed)
    graph = random_graph(rng)
    flat = unroll_solves(graph)
    verify(flat)
    inputs = random_inputs(rng, graph)
    for found, expected in zip(evaluate(flat, inputs), evaluate(graph, inputs), strict=True):
        np.testing.assert_array_equal(found, expected)
