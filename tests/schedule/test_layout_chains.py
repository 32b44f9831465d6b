"""Random chains of layout operations, sums and maxima against NumPy: what moves data moves it to where it belongs.

The values are small integers, whose sums are exact in fp32, so that nothing but the right element passes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from ltc_compiler import Config
from ltc_compiler.ir.graph import Graph, Type, Value
from ltc_compiler.ir.ops import add
from ltc_compiler.ir.run import evaluate
from ltc_compiler.nnir import NNIR

SIZES = (1, 1, 2, 3, 8, 9, 16)
MOST = 600  # elements before an operation that makes more of them
LARGEST = 8192  # elements of the input
MACHINES = [
    replace(config, tensor_rows=1 << 16, gather_entries=1 << 16, instruction_slots=1 << 16)
    for config in (Config.tiny_c1b8(), Config.tiny_c2b8(), Config.small_c2b16(), Config.v80_c6b32())
]
Rng = np.random.Generator


def permute(g: Graph, v: Value, rng: Rng) -> Value:
    return add(g, "permute", v, dims=tuple(int(i) for i in rng.permutation(v.type.rank)))


def unsqueeze(g: Graph, v: Value, rng: Rng) -> Value:
    at = int(rng.integers(0, v.type.rank + 1))
    return v if v.type.rank == 5 else add(g, "reshape", v, shape=(*v.shape[:at], 1, *v.shape[at:]))


def regroup(g: Graph, v: Value, rng: Rng) -> Value:
    size = v.type.size
    rows = int(rng.choice([n for n in range(1, size + 1) if size % n == 0]))
    return add(g, "reshape", v, shape=(rows, size // rows))


def cut(g: Graph, v: Value, rng: Rng) -> Value:
    axis = int(rng.integers(0, v.type.rank))
    start = int(rng.integers(0, v.shape[axis]))
    stop = int(rng.integers(start + 1, v.shape[axis] + 1))
    return add(g, "slice", v, axis=axis, start=start, stop=stop, step=int(rng.integers(1, 4)))


def repeat(g: Graph, v: Value, rng: Rng) -> Value:
    ones = [i for i, n in enumerate(v.shape) if n == 1]
    if not ones or v.type.size > MOST:
        return v
    axis = int(rng.choice(ones))
    wide = (*v.shape[:axis], int(rng.choice((2, 5, 9))), *v.shape[axis + 1 :])
    return add(g, "broadcast", v, shape=wide)


def join(g: Graph, v: Value, rng: Rng) -> Value:
    axis = int(rng.integers(0, v.type.rank))
    return v if v.type.size > MOST else add(g, "concat", v, v, axis=axis)


def double(g: Graph, v: Value, rng: Rng) -> Value:
    return add(g, "add", v, v)


def reduce(g: Graph, v: Value, rng: Rng) -> Value:
    op = "sum" if rng.random() < 0.5 else "amax"
    return add(g, op, v, axis=int(rng.integers(0, v.type.rank)), keepdims=bool(rng.random() < 0.5))


LINKS: tuple[Callable[[Graph, Value, Rng], Value], ...] = (
    permute, permute, unsqueeze, regroup, cut, repeat, join, double, reduce,
)  # fmt: skip


def chain(rng: Rng) -> Graph:
    graph = Graph("chain")
    shape = tuple(int(n) for n in rng.choice(SIZES, int(rng.integers(1, 5))))
    while math.prod(shape) > LARGEST:  # a row of its own for every element must fit
        shape = shape[1:]
    value = graph.add_input(Type(shape), "x")
    for _ in range(int(rng.integers(2, 7))):
        if value.type.rank:
            value = LINKS[int(rng.integers(len(LINKS)))](graph, value, rng)
    graph.add_output(value)
    return graph


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.booleans())
def test_chains_move_every_element_to_its_place(seed: int, bit_accurate: bool) -> None:
    rng = np.random.default_rng(seed)
    graph = chain(rng)
    x = rng.integers(-9, 10, graph.inputs[0].shape).astype(np.float32)
    (expected,) = evaluate(graph, [x.astype(np.float64)])
    machine = MACHINES[int(rng.integers(len(MACHINES)))]
    event(machine.name)
    found = NNIR(graph).to_program(machine, optimize=bool(rng.random() < 0.5)).to_vm(bit_accurate).run(x)
    assert found.shape == expected.shape
    np.testing.assert_array_equal(found, expected, f"on {machine.name}\n{NNIR(graph).text()}")


@pytest.mark.parametrize("seed", range(12))
def test_the_reference_machine_agrees(seed: int) -> None:
    graph = chain(np.random.default_rng(seed))
    x = np.random.default_rng(seed).integers(-9, 10, graph.inputs[0].shape).astype(np.float32)
    program = NNIR(graph).to_program(MACHINES[seed % len(MACHINES)])
    assert program.to_vm().run(x).tobytes() == program.to_oracle().run(x).tobytes()
