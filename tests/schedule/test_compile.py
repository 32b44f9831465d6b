"""The compiler on random graphs: every machine gives the same bits, and those are the graph's meaning.

A graph is compiled for machines of several block sizes and core counts. The simulator must equal the oracle, every
machine must equal the first, the two cycle counts must agree, and the plain fp32 machine must be close to NumPy in
fp64. Special values (subnormals, infinities, NaN) go through the bit-accurate machines as well.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from both_machines import Arrays, run_both, same
from generators import random_graph, random_inputs
from hypothesis import given, settings
from hypothesis import strategies as st

from ltc_compiler.config import Config
from ltc_compiler.errors import AllocationError
from ltc_compiler.ir.graph import Graph, Role, Type
from ltc_compiler.ir.ops import add, add_many
from ltc_compiler.ir.run import evaluate
from ltc_compiler.oracle import clock
from ltc_compiler.program import Program
from ltc_compiler.schedule.memory import live_ranges
from ltc_compiler.schedule.rows.virtual import Buffer, Ref, Schedule
from ltc_compiler.settle import compile_model

# Room for every random graph: how much fits is not what these tests ask.
MACHINES = tuple(
    replace(getattr(Config, name)(), tensor_rows=1 << 16)
    for name in ("tiny_c1b8", "tiny_c2b8", "small_c2b16", "v80_c6b32", "ia_840f_c3b64")
)
SPECIAL = np.array(
    [0.0, -0.0, 1e-40, -1e-45, 1.2e-38, np.inf, -np.inf, np.nan, 3e38, -3e38, 1e-20, 1.0], np.float32
)

# Against fp64: measured over 600 random graphs, 2,173 outputs: median 3e-8, largest 3.3e-6 relative to 1 + |y|. A graph
# chains up to a dozen ops whose condition is not controlled, so the bound leaves a factor of 30.
FP32_TOLERANCE = 1e-4


def sprinkle(rng: np.random.Generator, x: Any) -> Any:
    """A fifth of the elements replaced by special values."""
    return np.where(rng.random(x.shape) < 0.2, rng.choice(SPECIAL, x.shape), x).astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.booleans())
def test_every_machine_gives_the_same_bits(seed: int, optimize: bool) -> None:
    rng = np.random.default_rng(seed)
    graph = random_graph(rng)
    inputs = [x.astype(np.float32) for x in random_inputs(rng, graph)]
    special = [
        x if v.role is Role.ELAPSED_TIME else sprinkle(rng, x)
        for v, x in zip(graph.inputs, inputs, strict=True)
    ]
    reference: tuple[Arrays, Arrays, Arrays] | None = None
    for config in MACHINES:
        program = compile_model(graph, config, optimize=optimize)
        found = (
            run_both(program, inputs, True),
            run_both(program, special, True),
            run_both(program, inputs, False),
        )
        reference = reference or found
        assert all(same(f, r) for f, r in zip(found, reference, strict=True)), f"{config.name} differs"
        estimate = clock.estimate(program.image).latency
        assert program.cycle_count_per_inference(spaced=False) == estimate
    assert reference is not None
    for y, exact in zip(reference[2], evaluate(graph, [x.astype(np.float64) for x in inputs]), strict=True):
        ok = np.isfinite(exact) & (np.abs(exact) < 1e6)
        assert np.all(np.abs(y - exact)[ok] <= FP32_TOLERANCE * (1 + np.abs(exact[ok])))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32))
def test_compiling_twice_gives_the_same_file(seed: int) -> None:
    graph = random_graph(np.random.default_rng(seed))
    first, second = (compile_model(graph, Config.small_c2b16()).save_bytes() for _ in range(2))
    assert first == second
    loaded = Program.load_bytes(first)
    assert loaded.save_bytes() == first


def linear_graph(k: int, m: int, rng: np.random.Generator) -> Graph:
    graph = Graph()
    x = graph.add_input(Type((1, k)))
    weight, bias = graph.constant(rng.standard_normal((m, k))), graph.constant(rng.standard_normal(m))
    graph.add_output(add(graph, "linear", x, weight, bias))
    return graph


def test_a_large_product_is_spread_over_the_cores() -> None:
    rng = np.random.default_rng(0)
    program = compile_model(linear_graph(1024, 1024, rng), Config.v80_c6b32())
    cores = {i.core for i in program.image.code if i.name == "matmul"}
    assert cores == set(range(6))
    assert program.cycle_count_per_inference() < 1024 * 1024 / 32**2 / 2, "less than half of one core's beats"


def test_a_small_product_stays_on_one_core() -> None:
    program = compile_model(linear_graph(32, 32, np.random.default_rng(0)), Config.v80_c6b32())
    assert {i.core for i in program.image.code} == {0}


@pytest.mark.parametrize(
    ("k", "m", "store"), [(1024, 1024, "weight blocks of core 0"), (70000, 8, "tensor rows of core 0")]
)
def test_what_does_not_fit_says_which_store(k: int, m: int, store: str) -> None:
    graph = linear_graph(k, m, np.random.default_rng(0))
    config = Config.tiny_c1b8()
    with pytest.raises(AllocationError, match=store) as error:
        compile_model(graph, config)
    assert error.value.needed > error.value.available > 0
    assert error.value.remedy
    assert config.name in error.value.where


def test_shared_weights_are_stored_once() -> None:
    rng = np.random.default_rng(0)
    graph = Graph()
    x = graph.add_input(Type((1, 8)))
    weight, bias = rng.standard_normal((8, 8)), np.zeros(8)
    y = x
    for _ in range(3):
        y = add(graph, "tanh", add(graph, "linear", y, graph.constant(weight), graph.constant(bias)))
    graph.add_output(y)
    assert len(compile_model(graph, Config.tiny_c1b8()).image.cores[0].weights) == 1


def loop_graph(swap: bool) -> Graph:
    """Two carries; with `swap` each iteration exchanges them, so that neither may be written before both are read."""
    body = Graph("body")
    a, b = body.add_input(Type((9,)), "a"), body.add_input(Type((9,)), "b")
    body.add_output(b if swap else add(body, "add", a, b))
    body.add_output(add(body, "mul", a, body.constant(0.5)) if swap else a)
    graph = Graph()
    inits = [graph.add_input(Type((9,)), name) for name in "ab"]
    attrs = {"body": body, "carries": 2, "scanned": 0, "trip_count": 5, "in_axes": (), "out_axes": ()}
    for value in add_many(graph, "scan", inits, attrs):
        graph.add_output(value)
    return graph


@pytest.mark.parametrize("swap", [False, True])
def test_carries_are_read_before_they_are_replaced(swap: bool) -> None:
    graph = loop_graph(swap)
    x = [np.arange(9, dtype=np.float32), np.arange(9, dtype=np.float32)[::-1].copy()]
    program = compile_model(graph, Config.tiny_c1b8())
    expected = evaluate(graph, [v.astype(np.float64) for v in x])
    for found, exact in zip(run_both(program, x, True), expected, strict=True):
        np.testing.assert_array_equal(found, exact)


def test_a_buffer_read_in_a_loop_lives_to_its_end() -> None:
    early, late = Buffer(1, 0), Buffer(1, 0)
    schedule = Schedule()
    schedule.emit("move", 0, dst=Ref(early), a=Ref(early))
    schedule.begin_loop(3)
    schedule.emit("move", 0, dst=Ref(late), a=Ref(early))
    schedule.emit("move", 0, dst=Ref(late), a=Ref(late))
    schedule.end_loop()
    lives = {life.buffer: (life.first, life.last) for life in live_ranges(schedule)}
    assert lives == {early: (0, 4), late: (2, 3)}
