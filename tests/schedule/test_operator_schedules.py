"""What docs/machine.md says of the fp32 sequences of rule 10: which operators of a lane they need, and how long."""

from __future__ import annotations

import pytest
from operator_schedules import CYCLES, Traced, counts, longest_chain, schedule, sequence_of

from ltc_compiler import Config, isa
from ltc_compiler.numerics.activations import ACTIVATIONS

OPERATORS = {"add": 2, "multiply": 2, "divide": 1}  # of a lane, in the activation unit
CONFIG = Config.v80_c6b32()
READ_AND_FINISH = 2
SEQUENCES = [name for name in ACTIVATIONS if isa.BY_NAME[name].passes]


@pytest.mark.parametrize("name", SEQUENCES)
def test_a_sequence_fits_the_operators_in_its_passes_and_no_fewer(name: str) -> None:
    row, sequence = isa.BY_NAME[name], sequence_of(name)
    interval = row.passes * CONFIG.fp32_beats
    found = schedule(sequence, OPERATORS, interval)
    assert found is not None
    latency = getattr(CONFIG.latency, row.latency_fp32)
    assert found + READ_AND_FINISH <= latency + interval - 1  # which is what the clocks count
    assert row.passes == 1 or schedule(sequence, OPERATORS, interval - CONFIG.fp32_beats) is None


def test_the_longest_chain_is_that_of_softplus() -> None:
    chains = {name: longest_chain(sequence_of(name)) for name in SEQUENCES}
    assert max(chains, key=chains.__getitem__) == "softplus"
    assert CONFIG.latency.activation_fp32 == chains["softplus"] + READ_AND_FINISH + 2  # two of margin


@pytest.mark.parametrize(
    ("name", "operations"), [("reciprocal", {"divide": 1}), ("rsqrt", {"root": 1, "divide": 1})]
)
def test_what_holds_its_unit_for_a_cycle_is_a_pipeline_of_one_operator_each(
    name: str, operations: dict[str, int]
) -> None:
    found = counts(sequence_of(name))
    assert {kind: n for kind, n in found.items() if CYCLES[kind]} == operations
    assert isa.BY_NAME[name].passes == 0


def test_fp32_synapses_wait_for_their_sigmoid() -> None:
    margin = CONFIG.latency.activation_fp32 - READ_AND_FINISH - longest_chain(sequence_of("softplus"))
    by_table = 3  # the cycles of a bf16 sigmoid in the latency of synapses
    by_sequence = longest_chain(sequence_of("sigmoid")) + margin
    assert CONFIG.latency.synapse_fp32 == CONFIG.latency.synapse - by_table + by_sequence


def test_the_scheduler_keeps_operands_before_results_and_operators_apart() -> None:
    x = Traced("wires")
    squares = [Traced("multiply", x, x) for _ in range(4)]
    sums = [Traced("add", squares[0], squares[1])]
    sums += [Traced("add", sums[0], squares[2])]
    sums += [Traced("add", sums[1], squares[3])]
    sequence = [x, *squares, *sums]
    assert longest_chain(sequence) == 2 + 3
    assert schedule(sequence, {"add": 1, "multiply": 4}, 4) == 2 + 3
    assert schedule(sequence, {"add": 1, "multiply": 1}, 4) == 3 + 2 + 1  # the last square begins at 3
    assert schedule(sequence, {"add": 1, "multiply": 1}, 3) is None  # four products in three cycles
