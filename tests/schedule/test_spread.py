"""Rows in bands, products lent to other cores, work in gaps: the same bits on every spread, and fewer cycles."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from generators import random_graph, random_inputs
from programs_for_timing import simulated

from ltc_compiler import AllocationError, Config
from ltc_compiler.bytecode.cost import row_tiles_in_flight
from ltc_compiler.ir.graph import Graph, Type, Value
from ltc_compiler.ir.ops import add
from ltc_compiler.nnir import NNIR
from ltc_compiler.oracle.clock import estimate
from ltc_compiler.program import Program
from ltc_compiler.schedule.order import order
from ltc_compiler.schedule.order.order import Order
from ltc_compiler.schedule.search import BEST_ORDERS, Job, Search
from ltc_compiler.schedule.spread.partition import Spread, cut_points, spread_rows
from ltc_compiler.schedule.spread.share import Division, shared_products
from ltc_compiler.transforms.pipeline import run_pipeline

THREE = replace(Config.small_c2b16(), cores=3, tensor_rows=1 << 16, gather_entries=1 << 16)
SPREADS = [Spread(*how) for how in product((1, 2, 3), (0, 1, 2), (False, True))] + [Spread(rotate=True)]


def cells(layers: int, width: int) -> Graph:
    """A stack of recurrent layers with two gates, one step: h' = tanh(a) * sigmoid(b) of products of x and of h."""
    rng = np.random.default_rng(0)
    graph = Graph("cells")
    x = graph.add_input(Type((1, width)))

    def linear(v: Value, bias: float) -> Value:
        weight = graph.constant(rng.standard_normal((2 * width, width)) / width)
        return add(graph, "linear", v, weight, graph.constant(bias * rng.standard_normal(2 * width)))

    for i in range(layers):
        state = graph.add_state(rng.standard_normal((1, width)) / 4, f"h{i}")
        gates = add(graph, "add", linear(x, 0.0), linear(state.value, 0.125))
        a, b = (
            add(graph, "slice", gates, axis=1, start=first, stop=first + width, step=1)
            for first in (0, width)
        )
        x = add(graph, "mul", add(graph, "tanh", a), add(graph, "sigmoid", b))
        state.next = x
    graph.add_output(x)
    return graph


def program(graph: Graph, spread: Spread, how: Order = Order.STATE_FIRST, config: Config = THREE) -> Program:
    job = Job("model", run_pipeline(graph), tuple(range(config.cores)))
    return Program(Search(config, (how,)).first_that_fits([job], [spread]).image)


def bits(result: Any) -> list[bytes]:
    return [np.asarray(r).tobytes() for r in (result if isinstance(result, tuple) else (result,))]


def outputs(program: Program, inputs: list[Any], times: int = 3) -> list[bytes]:
    """What some runs return, which is the same on both machines."""
    vm, oracle = program.to_vm(), program.to_oracle()
    found: list[bytes] = []
    for _ in range(times):
        results = [bits(machine(*inputs)) for machine in (vm.run, oracle.run)]
        assert results[0] == results[1]
        found += results[0]
    return found


@pytest.mark.parametrize("how", BEST_ORDERS)
def test_every_spread_has_the_same_bits_and_clock(how: Order) -> None:
    graph = cells(2, 150)
    given = [np.random.default_rng(1).standard_normal((1, 150)).astype(np.float32)]
    expected = outputs(program(graph, Spread(1)), given)
    for spread in SPREADS:
        made = program(graph, spread, how)
        assert simulated(made.image) == estimate(made.image)
        assert outputs(made, given) == expected, spread


@pytest.mark.parametrize("seed", range(24))
def test_random_graphs_have_the_same_bits_on_every_spread(seed: int) -> None:
    rng = np.random.default_rng(seed)
    whole = NNIR(random_graph(rng, streamable=True))
    graph = whole.streaming_transform(0)[0].graph
    given = [x[0].astype(np.float32) for x in random_inputs(rng, whole.graph)]
    expected = outputs(program(graph, Spread(1)), given)
    for spread in (Spread(2, 1), Spread(3, 1, lending=True), Spread(1, 0, lending=True), Spread(rotate=True)):
        assert outputs(program(graph, spread), given) == expected, spread


@pytest.mark.parametrize(
    ("rows", "cores", "grain"), [(7, 3, 1), (24, 6, 2), (3, 6, 1), (40, 6, 4), (5, 2, 0)]
)
def test_bands_hold_every_row_once_in_order(rows: int, cores: int, grain: int) -> None:
    cut = 8, 8 + 32 * rows - 5
    bands = spread_rows([cut], 32, range(cores), grain)
    chunks = [chunk for band in bands for own in band.values() for chunk in own]
    assert [row for _, start, stop in chunks for row in range(start, stop)] == list(range(rows))
    assert all(of == cut for of, _, _ in chunks)
    height = grain or rows
    assert max(stop - start for _, start, stop in chunks) <= height
    assert len(bands) == -(-rows // (height * cores if grain else rows))
    load = [sum(stop - start for b in bands for _, start, stop in b.get(c, ())) for c in range(cores)]
    assert max(load) - min(load) <= 1


def test_lent_products_level_the_cores() -> None:
    graph = run_pipeline(cells(2, 256))
    places = Division(cut_points(graph), (0,), 0, (0, 1, 2))
    makers = shared_products(graph, THREE, places)
    assert len(makers) == 2
    width = THREE.block_rows(256)
    fixed = 2 * 2 * width * width  # core 0 computes all that waits for the input
    total = 2 * fixed
    load = {c: width * sum(len(of[c]) for of in makers.values() if c in of) for c in (0, 1, 2)}
    load[0] += fixed
    assert sum(load.values()) == total
    assert load[0] == fixed  # which is more than its share already
    assert abs(load[1] - load[2]) <= row_tiles_in_flight(THREE) * width
    alone, lent = (program(cells(2, 256), Spread(1, 0, lending)) for lending in (False, True))
    assert lent.cycle_count_per_inference(spaced=True) <= alone.cycle_count_per_inference(spaced=True)
    saved = alone.cycle_count_per_inference(spaced=False) - lent.cycle_count_per_inference(spaced=False)
    assert saved > 0.4 * fixed


def test_products_of_the_state_fill_the_gaps(monkeypatch: pytest.MonkeyPatch) -> None:
    """With nothing postponed they all stand before the input, where they cost a busy machine their whole time."""
    graph, spread = cells(6, 128), Spread(2, 1)
    filled = program(graph, spread)
    monkeypatch.setattr(order, "postpone", lambda *_: None)
    before = program(graph, spread)
    spaced, busy = (
        [p.cycle_count_per_inference(spaced=mode) for p in (filled, before)] for mode in (True, False)
    )
    assert spaced[0] <= spaced[1] * 1.04  # a gap is where the sorter expects it, give or take a few cycles
    work = 6 * 2 * 8 * 8 / 2  # beats of the state's products on each core
    assert busy[1] - busy[0] > work / 3
    given = [np.random.default_rng(1).standard_normal((1, 128)).astype(np.float32)]
    assert outputs(filled, given) == outputs(before, given)


def test_a_model_that_fills_the_weight_stores_fits() -> None:
    """Four rows on three cores, three times: the cores take turns at the row that is left over."""
    rng = np.random.default_rng(0)
    graph = Graph("full")
    value = graph.add_input(Type((1, 64)))
    for _ in range(3):
        weight = graph.constant(rng.standard_normal((64, 64)) / 8)
        value = add(graph, "relu", add(graph, "linear", value, weight, graph.constant(np.zeros(64))))
    graph.add_output(value)
    assert THREE.block_rows(64) == 4
    config = replace(THREE, weight_blocks=3 * 4 * 4 // 3)
    given = [rng.standard_normal((1, 64)).astype(np.float32)]
    expected = outputs(NNIR(graph).to_program(THREE), given)
    for quick in (False, True):
        assert outputs(NNIR(graph).to_program(config, quick_compile=quick), given) == expected
    with pytest.raises(AllocationError, match="weight blocks of core 0: 16 needed, 15 available"):
        NNIR(graph).to_program(replace(config, weight_blocks=15))
