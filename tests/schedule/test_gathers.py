"""Moves between lanes: entries that repeat are stored once, and every element still goes where it belongs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from nnir_cases import graph

from ltc_compiler.config import Config
from ltc_compiler.ir.graph import Graph
from ltc_compiler.ir.ops import add
from ltc_compiler.program import Program
from ltc_compiler.settle import compile_model

TINY = replace(Config.tiny_c1b8(), tensor_rows=1 << 14, gather_entries=1 << 14, instruction_slots=1 << 12)


def moved(g: Graph, config: Config, x: np.ndarray) -> np.ndarray:
    """What the simulator returns for a graph that only moves elements; the reference machine returns the same."""
    program = compile_model(g, config)
    found = program.to_vm().run(x)
    np.testing.assert_array_equal(found, program.to_oracle().run(x))
    return np.asarray(found)


def entries(g: Graph, config: Config) -> int:
    return int(compile_model(g, config).image.cores[0].entries.src.size)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_every_permutation_moves_every_element(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(st.sampled_from([1, 2, 3, 8, 9, 17]), min_size=2, max_size=4)))
    assume(np.prod(shape) <= 3000)  # what fits
    dims = tuple(data.draw(st.permutations(range(len(shape)))))
    g, (x,) = graph(shape)
    g.add_output(add(g, "permute", x, dims=dims))
    value = np.arange(1, np.prod(shape) + 1, dtype=np.float32).reshape(shape)
    np.testing.assert_array_equal(moved(g, TINY, value), value.transpose(dims))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 150), st.lists(st.integers(1, 21), min_size=2, max_size=4), st.integers(0, 5))
def test_parts_are_joined_and_cut_at_any_lane(rows: int, widths: list[int], start: int) -> None:
    """A join in the lanes of many vectors, and a slice that starts between two blocks."""
    g, xs = graph(*((rows, w) for w in widths))
    joined = add(g, "concat", *xs, axis=1)
    start = min(start, sum(widths) - 1)
    g.add_output(add(g, "slice", joined, axis=1, start=start, stop=sum(widths), step=1))
    rng = np.random.default_rng(rows)
    values = [rng.normal(size=x.shape).astype(np.float32) for x in xs]
    program = compile_model(g, TINY)
    found = program.to_vm().run(*values)
    np.testing.assert_array_equal(found, program.to_oracle().run(*values))
    np.testing.assert_array_equal(found, np.concatenate(values, 1)[:, start:])


def test_a_transposition_takes_two_cycles_a_row_and_no_more_code_for_a_longer_sequence() -> None:
    def turned(steps: int) -> Program:
        g, (x,) = graph((3, 24, steps))
        g.add_output(add(g, "permute", x, dims=(0, 2, 1)))
        return compile_model(g, TINY)

    short, long = turned(64), turned(640)
    assert len(short.image.code) == len(long.image.code) < 30
    assert long.image.cores[0].entries.src.size == 0
    tiles = 3 * 3 * (576 // 8)  # of 8 rows read and 8 written
    more = long.cycle_count_per_inference() - short.cycle_count_per_inference()
    assert more == pytest.approx(tiles * 16, rel=0.25)  # what more there is to put out is beside that


def test_entries_of_a_join_do_not_grow_with_the_sequence() -> None:
    def joined(steps: int) -> int:
        g, xs = graph((steps, 5), (steps, 6))
        g.add_output(add(g, "concat", *xs, axis=1))
        return entries(g, TINY)

    assert joined(2000) == joined(1000) < 1100
