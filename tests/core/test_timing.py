"""The rules of the clock, each on a tiny program with its arithmetic beside it.

Every count is that of the simulator and of the compiler's estimate. Latencies: add 6, mul 5, div 20, sqrt 19,
compare 3, move 4, gather 9, activation 7 (fp32: 45, rsqrt 35), accumulate 4, matrix 28, reduce 30, synapse 31 (fp32:
61), link 12, io_in 8, io_out 10, issue 1; a beat of fp32 operands takes 9 cycles; there are 6 read ports.
"""

from __future__ import annotations

from typing import Any

import pytest
from programs_for_timing import both, image, machine, op, transfer

from ltc_compiler import isa
from ltc_compiler.bytecode import Image, Instr, Row
from ltc_compiler.bytecode.cost import latency
from ltc_compiler.clock import Clock, Record
from ltc_compiler.config import Config
from ltc_compiler.oracle.clock import CycleReport

ONE = machine()


def total(*code: Instr, config: Config = ONE, **stores: Any) -> int:
    return both(image(config, code, **stores)).total


def unit_busy(report: CycleReport, unit: str, core: int = 0) -> int:
    return report.busy[core][isa.UNITS.index(unit)]


def out(*code: Instr, row: int, config: Config = ONE) -> int:
    """When the data of `row` is out, after `code`: 10 after it is ready, if that is no sooner than its turn."""
    program = image(config, [*code, op("output", src=row)], outputs=[1])
    return both(program).last_out


# ---- issue, units, rows ----


def test_beats_of_an_instruction_follow_each_other_a_cycle_apart() -> None:
    report = both(image(ONE, [op("add", dst=100, a=0, b=10, n_outer=1, n_inner=3)]))
    assert report.total == 2 + 6  # beats at 0, 1, 2
    assert (report.instructions, unit_busy(report, "vector"), sum(report.busy[0])) == (1, 3, 3)
    assert report.last_in == 0
    assert report.last_out == report.latency == 8  # without an output the total stands for it


def test_a_row_is_read_when_it_is_ready() -> None:
    add = op("add", dst=100, a=0, b=1)
    assert total(add, op("relu", dst=101, a=100)) == 6 + 3
    assert total(add, op("relu", dst=101, a=102)) == 6  # another row: nothing to wait for


def test_an_instruction_waits_for_the_last_beat_of_its_unit() -> None:
    # beats 0 to 4, then the vector unit is free at 5; the move unit is free all along, but issues after it, at 6
    code = [op("add", dst=100, a=0, b=10, n_inner=5), op("sub", dst=110, a=0), op("move", dst=111, a=0)]
    assert total(*code[:2]) == 5 + 6
    assert total(*code[:2], op("div", dst=120, a=0, b=0)) == 6 + 20
    assert total(*code) == max(5 + 6, 6 + 4)
    assert total(*code, op("sigmoid", dst=130, a=0)) == 7 + 45 + 8


def test_issue_takes_its_cycles() -> None:
    config = machine(issue=3)
    code = [op("move", dst=100, a=0), op("relu", dst=101, a=0), op("sigmoid", dst=102, a=0, precision=1)]
    assert total(*code, config=config) == 6 + 7  # issued at 0, 3, 6
    code += [op("row_sum", dst=103, src=0)]
    assert total(*code, config=config) == 9 + 30


def test_a_row_is_overwritten_after_its_last_read() -> None:
    # add at 0; mul reads rows 100 and 1 at 6; the move issues at 2, but starts behind that, at 7: ready at 11
    code = [op("add", dst=100, a=0, b=2), op("mul", dst=101, a=100, b=1), op("move", dst=1, a=3)]
    assert out(*code, row=1) == 11 + 10


def test_the_last_read_is_the_latest_not_the_most_recent() -> None:
    # the mul reads row 1 at 20, then the tanh reads it at 2: the move starts at 21, and its row is ready at 25
    code = [op("div", dst=100, a=0, b=2), op("mul", dst=101, a=100, b=1)]
    code += [op("tanh", dst=102, a=1, precision="bf16"), op("move", dst=1, a=3)]
    assert out(*code, row=1) == 25 + 10


def test_rows_between_those_that_are_still_to_be_touched_wait_too() -> None:
    # the add's beats start at 0, 1, 2: rows 110 to 120 are still to be written until 1, row 120 alone until 2
    add = op("add", dst=100, dst_inner=10, a=0, a_inner=20, b=0, b_inner=0, n_inner=3)
    assert total(add, op("move", dst=125, a=200)) == max(2 + 6, 1 + 4)  # issued at 1: nothing to wait for
    for apart, start in ((105, 1), (115, 2), (119, 2)):
        assert total(add, op("move", dst=apart, a=200), op("sigmoid", dst=300, a=apart)) == start + 4 + 45 + 8
        assert total(add, op("move", dst=250, a=apart), op("sigmoid", dst=300, a=250)) == start + 4 + 45 + 8
    # its operand rows are 0, 20 and 40: a write between them waits as well, a read of them does not
    assert total(add, op("move", dst=30, a=200), op("sigmoid", dst=300, a=30)) == 2 + 4 + 45 + 8
    assert total(add, op("move", dst=250, a=30), op("sigmoid", dst=300, a=250)) == 1 + 4 + 45 + 8


def test_a_row_that_comes_again_is_still_to_be_touched() -> None:
    # rows 3, 2, 1 are read at 0, 1, 2, then 3, 2, 1 again at 3, 4, 5: row 3 is written from 4 on, row 2 from 5 on
    add = op("add", dst=100, dst_outer=3, a=3, a_inner=-1, b=50, b_inner=0, n_outer=2, n_inner=3)
    for row, start in ((3, 4), (2, 5), (1, 6)):
        assert total(add, op("move", dst=row, a=200), op("sigmoid", dst=300, a=row)) == start + 4 + 45 + 8


def test_a_row_is_overwritten_after_its_last_write() -> None:
    # div ready at 20; the move starts at 17 to land at 21
    assert total(op("div", dst=100, a=0, b=1), op("move", dst=100, a=2)) == 21


def test_a_beat_waits_for_the_beat_before_it_in_its_own_instruction() -> None:
    assert total(op("add", dst=100, dst_inner=0, a=100, a_inner=0, b=0, n_inner=3)) == 3 * 6
    assert total(op("add", dst=101, a=100, b=0, n_inner=3)) == 3 * 6  # each reads what the last one wrote


def test_elementwise_order_and_steps() -> None:
    # rows 20, 21, 22 (outer 0), 30, 31, 32 (outer 1) are ready at 6 to 11; reading them backwards waits for row 32
    fill = op("add", dst=20, dst_outer=10, a=0, b=0, n_outer=2, n_inner=3)
    back = op("move", dst=100, dst_outer=3, a=32, a_outer=-10, a_inner=-1, n_outer=2, n_inner=3)
    ahead = op("move", dst=100, dst_outer=3, a=20, a_outer=10, n_outer=2, n_inner=3)
    assert total(fill, ahead) == 6 + 5 + 4
    assert total(fill, back) == 11 + 5 + 4


# ---- ports ----


def test_the_oldest_instruction_goes_first_to_the_read_ports() -> None:
    # the select reads three rows at 0; the move issues at 1 beside the second beat, of four reads in all
    select = op("select", dst=100, a=0, b=10, c=20, n_inner=4)
    move = op("move", dst=110, a=30)
    assert total(select, move, config=machine(read_ports=4)) == 3 + 3
    assert out(select, move, row=110, config=machine(read_ports=4)) == 1 + 4 + 10
    # with three ports there is none for it until the beats at 0 to 3 are over
    assert out(select, move, row=110, config=machine(read_ports=3)) == 4 + 4 + 10
    # an older instruction that starts later finds its port: the move at 20. The select has no beat at 20 therefore, and
    # none at 17, since it would land with the div: 2 to 16, 18 and 19, 21 to 33
    far = op("select", dst=100, a=200, b=240, c=280, n_inner=30)
    late = image(machine(read_ports=3), [op("div", dst=30, a=0, b=1), op("move", dst=150, a=30), far])
    assert both(late).total == 33 + 3
    delays = [(r.issue, r.start, r.finish, r.stall, r.lost) for r in trace_of(late)[1:]]
    assert delays == [(1, 20, 24, "operand", 19), (2, 2, 36, "port", 2)]


@pytest.mark.parametrize("issue", [1, 1000])
def test_ports_are_remembered_as_long_as_they_matter(issue: int) -> None:
    """Thousands of cycles of an older instruction, and beats of the younger one that start before its next issue."""
    older = op("select", dst=100, a=0, b=0, c=0, dst_inner=0, a_inner=0, b_inner=0, c_inner=0, n_inner=3000)
    younger = op("move", dst=101, a=1, dst_inner=0, a_inner=0, n_inner=2)
    # the one's beats are 1 apart; the other gets its first port when they are over
    assert out(older, younger, row=101, config=machine(read_ports=3, issue=issue)) == 3001 + 4 + 10
    spread = op("move", dst=101, a=1, dst_inner=0, a_inner=0, n_inner=3000)
    assert total(older, spread, config=machine(read_ports=4, issue=issue)) == issue + 2999 + 4


def test_a_beat_takes_its_read_ports_at_once() -> None:
    # the move takes a port at 1 and 2; the select, at the head of its queue from 2 on, does not start with two of three
    code = [
        op("div", dst=100, a=0, b=1),
        op("move", dst=110, a=0, n_inner=2),
        op("select", dst=120, a=0, b=1, c=2),
    ]
    assert out(*code, row=120, config=machine(read_ports=3)) == 3 + 3 + 10
    assert out(*code, row=120, config=machine(read_ports=4)) == 2 + 3 + 10


def test_results_of_a_unit_land_one_a_cycle() -> None:
    # the add lands at 6; at 3 the relu would land at 6 too
    wait = [op("move", dst=110, a=0), op("move", dst=111, a=0)]
    code = [op("add", dst=100, a=0, b=1), *wait, op("relu", dst=101, a=0)]
    assert out(*code, row=101) == 4 + 3 + 10
    assert out(*code[:2], code[3], row=101) == 2 + 3 + 10  # at 2 it lands at 5
    # another unit has a port of its own: both land at 6
    assert out(op("add", dst=100, a=0, b=1), wait[0], op("move", dst=112, a=0), row=112) == 2 + 4 + 10


# ---- loops ----


def test_loop_and_end_take_an_issue_each_the_end_in_every_iteration() -> None:
    body = [op("loop", count=3), op("add", dst=Row(100, 1, 1), a=0, b=1), op("end")]
    report = both(image(ONE, body))
    assert report.total == 5 + 6  # loop 0; add 1, end 2; add 3, end 4; add 5, end 6
    assert report.instructions == 1 + 3 + 3
    assert total(*body, config=machine(issue=2)) == 10 + 6


def test_loops_cost_every_core() -> None:
    # core 1 has nothing in the loop, and still issues its loop and two ends before the add
    code = [op("loop", count=2), op("move", 0, dst=100, a=0), op("end"), op("add", 1, dst=100, a=0, b=1)]
    assert total(*code, config=machine(cores=2)) == 3 + 6


def test_counters_of_nested_loops_reach_their_rows() -> None:
    def nest(dst: Row, a: Row) -> list[Instr]:
        add = op("add", dst=dst, a=a, b=1)
        return [op("loop", count=2), op("loop", count=2), add, op("end"), op("end")]

    # rows 100, 100 | 110, 110: loop 0, loop 1, add 2, end 3, add 4, end 5, end 6, loop 7, add 8, end 9, add 10
    outer = nest(Row(100, 10, 1), Row(200, 5, 2))
    assert both(image(ONE, outer)).instructions == 1 + 2 + 4 + 4 + 2
    assert out(*outer, row=110) == 16 + 10
    assert out(*outer, row=120) == 13 + 10  # never written; the output issues after the last ends, 11 and 12
    # rows 100, 101 | 100, 101, and 101 reads 100: adds at 2, 8; the unit is free at 9: 9, 15
    assert total(*nest(Row(100, 1, 2), Row(99, 1, 2))) == 15 + 6


# ---- reductions ----


def test_row_reduce_writes_with_the_last_row_of_a_group() -> None:
    groups = op("row_sum", dst=100, dst_step=2, src=0, src_step=3, groups=2, k=17)  # 3 rows of 8
    assert total(groups) == 5 + 30
    assert out(groups, row=100) == 2 + 30 + 10
    assert out(op("row_max", dst=100, dst_step=2, src=0, src_step=3, groups=2, k=16), row=100) == 1 + 30 + 10
    assert out(groups, row=102) == 5 + 30 + 10


def test_row_reduce_reads_in_order() -> None:
    up = op("add", dst=20, a=0, b=1, n_inner=3)
    down = op("add", dst=22, dst_inner=-1, a=0, b=1, n_inner=3)
    reduce = op("row_sum", dst=100, src=20, k=24)
    assert total(up, reduce) == 6 + 2 + 30  # rows ready at 6, 7, 8 and read then
    assert total(down, reduce) == 8 + 2 + 30


def test_column_reduce_goes_over_k_within_each_row() -> None:
    fill = op("add", dst=20, a=0, b=1, n_inner=6)  # rows 20 to 25, ready at 6 to 11
    reduce = op("column_sum", dst=100, src=20, k_step=2, k=3, n_inner=2)
    # rows 20, 22, 24 at 6, 8, 10; then 21, 23, 25 at 11, 12, 13
    assert out(fill, reduce, row=100) == 10 + 30 + 10
    assert total(fill, reduce) == 13 + 30


@pytest.mark.parametrize("block_size", [4, 8, 16, 32, 64, 128])
def test_a_row_reduction_waits_for_its_accumulators(block_size: int) -> None:
    """A row of B lanes adds twice to each of B/2 accumulators, which come back after 128/B rows."""
    rows, period = 64, 128 // block_size
    reduce = op("row_sum", dst=100, src=0, k=rows * block_size)
    for cycles in (1, 2, 5):
        apart = max(period, 2 * cycles)  # between the rows of one phase
        last = (rows - 1) // period * apart + (rows - 1) % period
        config = machine(block_size=block_size, accumulate_reduce=cycles)
        assert total(reduce, config=config) == last + 30
    # one cycle an addition hides behind the other rows, but for a block of 128 lanes, which takes two
    assert total(reduce, config=machine(block_size=block_size)) == (2 if block_size == 128 else 1) * 63 + 30


@pytest.mark.parametrize("block_size", [8, 128])
def test_a_column_reduction_adds_two_in_a_row_to_an_accumulator(block_size: int) -> None:
    reduce = op("column_sum", dst=100, src=0, k_step=1, k=8)
    assert total(reduce, config=machine(block_size=block_size)) == 7 + 30
    # pairs at (0, 3), (4, 7), (8, 11), (12, 15)
    assert total(reduce, config=machine(block_size=block_size, accumulate_reduce=3)) == 15 + 30


# ---- products of computed rows ----


def test_a_product_reads_a_lane_of_one_row_and_a_row() -> None:
    fill = op("add", dst=20, a=0, b=1, n_inner=6)  # rows 20 to 25, ready at 6 to 11
    two = {"n_i": 2, "dst_i": 1, "addend": 90, "addend_i": 1}
    product = op("product", dst=100, a=10, lane_j=3, a_lanes=9, b=20, b_j=1, n_j=3, **two)
    assert out(fill, product, row=100) == 8 + 40 + 10  # B at 6, 7, 8; then all again
    assert total(fill, product) == 11 + 40
    carried = op("product", dst=100, a=23, lane_i=1, lane_j=3, a_lanes=11, b=0, n_j=4, **two)
    # lanes 0, 3, 6 of row 23 and lane 9, which is in row 24: from 9 on; then 1, 4, 7 and 10
    assert out(fill, carried, row=100) == 9 + 3 + 40 + 10
    late = op("product", dst=100, a=10, lane_j=3, a_lanes=9, b=0, n_j=3, **{**two, "addend": 24})
    assert total(fill, late) == 10 + 3 + 40  # the addend of the first, row 24, is there at 10


def test_a_dot_writes_a_row_when_its_lanes_are_full() -> None:
    # 2 rows of 8 lanes each, of the result and of what is summed
    dot = op("dot", dst=100, a=0, b=10, b_j=2, addend=90, n_j=9, k=9, n_i=2, dst_i=2, a_i=2)
    assert out(dot, row=100) == 2 * 8 - 1 + 40 + 10
    assert out(dot, row=101) == 2 * 9 - 1 + 40 + 10
    assert out(dot, row=102) == 2 * 17 - 1 + 40 + 10
    assert total(dot) == 2 * 18 - 1 + 40


@pytest.mark.parametrize("block_size", [8, 128])
def test_products_wait_for_their_accumulators_as_sums_do(block_size: int) -> None:
    config = machine(block_size=block_size, accumulate_reduce=3)
    product = op("product", dst=100, a=0, b=1, n_j=8)
    assert total(product, config=config) == 15 + 40  # as a column
    rows, period = 64, 128 // block_size
    dot = op("dot", dst=200, a=0, b=64, k=rows * block_size)
    apart = max(period, 6)
    assert total(dot, config=config) == (rows - 1) // period * apart + (rows - 1) % period + 40


# ---- the matrix unit ----

B64 = machine(
    block_size=64, accumulators=2
)  # an accumulator comes back after 2 input rows; 2 adds of 4 cycles


def test_matmul_one_block() -> None:
    assert total(op("matmul", dst=100, x=0, bias=10)) == 28


def test_matmul_waits_for_its_accumulators() -> None:
    # input rows at 0, 1, max(2, 0 + 8), max(9, 1 + 8)
    assert total(op("matmul", dst=100, x=0, bias=10, k=4 * 64), config=B64) == 9 + 28
    assert total(op("matmul", dst=100, x=0, bias=10, k=2 * 64), config=B64) == 1 + 28
    assert (
        total(op("matmul", dst=100, x=0, bias=10, k=17 * 8)) == 16 + 28
    )  # 16 rows of 8 lanes apart: no stall
    slow = machine(accumulate=9)
    assert total(op("matmul", dst=100, x=0, bias=10, k=17 * 8), config=slow) == 18 + 28


def test_matmul_interleaves_groups_of_row_tiles() -> None:
    # row tiles 0 and 1: (0, 1), (2, 3), (8, 9), (10, 11); then block 2 alone: 12, 13, 20, 21
    code = op("matmul", dst=100, x=0, bias=10, k=4 * 64, m_rows=3)
    assert out(code, row=100, config=B64) == 10 + 28 + 10
    assert out(code, row=101, config=B64) == 11 + 28 + 10
    assert total(code, config=B64) == 21 + 28
    # with three accumulators: (0, 1, 2), (3, 4, 5), (8, 9, 10), (11, 12, 13)
    assert total(code, config=machine(block_size=64, accumulators=3)) == 13 + 28


def test_matmul_batch() -> None:
    code = op("matmul", dst=100, dst_step=2, x=0, x_step=4, bias=10, k=2 * 64, m_rows=2, batch=3)
    report = both(image(B64, [code]))
    assert (report.total, unit_busy(report, "matrix")) == (11 + 28, 12)
    assert out(code, row=102, config=B64) == 6 + 28 + 10  # vector 1: beats 4 to 7, row tile 0 ends at 6


def test_matmul_reads_its_bias_with_the_last_input_row() -> None:
    late = op("div", dst=10, a=0, b=0)  # the bias is ready at 20
    code = op("matmul", dst=100, x=1, bias=10, k=3 * 8)
    assert total(late, code) == 20 + 28
    assert (
        total(late, code, op("matmul", dst=101, x=1, bias=11)) == 21 + 28
    )  # the first beats did not wait: 1, 2, 20
    # each row tile has a bias row of its own: block 0 at 1, block 1 at 20
    assert out(op("div", dst=11, a=0, b=0), op("matmul", dst=100, x=1, bias=10, m_rows=2), row=100) == 29 + 10
    assert total(op("div", dst=11, a=0, b=0), op("matmul", dst=100, x=1, bias=10, m_rows=2)) == 20 + 28
    # an x that is late delays from its row on
    assert total(op("div", dst=2, a=0, b=0), code) == 21 + 28


def test_matmul_steps_from_tap_to_tap() -> None:
    taps = op("matmul", dst=100, x=0, taps=3, tap_step=5, bias=10, k=9)  # rows 0, 1, 5, 6, 10, 11
    assert total(taps) == 5 + 28
    assert unit_busy(both(image(ONE, [taps])), "matrix") == 6
    # the fourth beat reads row 6, which is ready at 20; the fifth row 10, and no beat row 2
    assert total(op("div", dst=6, a=0, b=0), taps) == 20 + 2 + 28
    assert total(op("div", dst=10, a=0, b=0), taps) == 20 + 1 + 28
    assert total(op("div", dst=2, a=0, b=0), taps) == 1 + 5 + 28
    # accumulators come round with the beats, whatever tap they belong to
    assert total(op("matmul", dst=100, x=0, taps=4, tap_step=9, bias=10, k=64), config=B64) == 9 + 28


def test_matmul_fp32_takes_several_cycles_a_beat() -> None:
    two = op("matmul_fp32", dst=100, x=0, bias=10, k=2 * 8)
    report = both(image(ONE, [two]))
    assert report.total == 9 + (9 - 1) + 28
    assert unit_busy(report, "matrix") == 18
    assert latency(two, ONE) == 8 + 28
    assert total(two, op("matmul", dst=101, x=0, bias=10)) == max(45, 18 + 28)
    assert (
        total(op("matmul", dst=101, x=0, bias=10, precision=0)) == 28
    )  # the precision is that of the result
    # written at s + 8 + 28 strictly after the div's 50
    assert total(op("div", dst=100, a=0, b=0), two, config=machine(div=50)) == max(45, 51)


# ---- synapses and gathers ----


def test_synapse() -> None:
    # v at 0, 1; slots 2, 3 (the first target's last) and 4
    code = op("synapse", num=100, den=110, v=0, v_rows=2, targets=2, precision="bf16")
    report = both(image(ONE, [code], last=[0, 1, 1]))
    assert (report.total, unit_busy(report, "synapse")) == (4 + 31, 5)
    for row, ready in ((100, 34), (110, 34), (101, 35), (111, 35)):
        read = [code, op("output", src=row)]
        assert both(image(ONE, read, last=[0, 1, 1], outputs=[1])).last_out == ready + 10
    second = op("synapse", num=100, den=110, v=0, v_rows=2, slots=2, precision="bf16")
    assert total(second, last=[0, 1, 1]) == 2 + 31


def test_synapse_fp32() -> None:
    # v at 0, 1; slots at 2, 11, 20, each for 9 cycles
    code = op("synapse", num=100, den=110, v=0, v_rows=2, targets=2, precision="fp32")
    report = both(image(ONE, [code], last=[0, 1, 1]))
    assert (report.total, unit_busy(report, "synapse")) == (20 + 8 + 61, 2 + 27)
    assert total(code, code, last=[0, 1, 1]) == 29 + 20 + 8 + 61


def test_gather() -> None:
    fill = op("add", dst=20, a=0, b=1, n_inner=4)  # rows 20 to 23, ready at 6 to 9
    code = op("gather", dst=100, dst_rows=2, src=20, src_rows=4, entries=1, count=2)
    # entries 1, 2 read rows 23 and 20 and write rows 101 and 100
    stores: list[tuple[int, int]] = [(1, 0), (3, 1), (0, 0)]
    assert total(fill, code, entries=stores) == 10 + 9
    program = [fill, code, op("output", src=101)]
    assert both(image(ONE, program, entries=stores, outputs=[1])).last_out == 9 + 9 + 10


def test_transpose_reads_all_rows_before_it_writes_one() -> None:
    turn = op("transpose", dst=100, dst_step=1, dst_rows=3, src=20, src_step=2, src_rows=5)
    report = both(image(ONE, [turn]))
    assert (report.total, unit_busy(report, "move")) == (7 + 9, 8)  # reads at 0 to 4, writes at 5 to 7
    assert total(op("div", dst=28, a=0, b=0), turn) == 20 + 3 + 9  # the last row read is ready at 20
    assert total(op("neg", dst=21, a=0), turn) == 1 + 7 + 9  # row 21 is not read
    assert both(image(ONE, [turn, op("output", src=101)], outputs=[1])).last_out == 6 + 9 + 10


# ---- links and the host ----


def test_a_row_takes_its_time_through_a_link() -> None:
    assert total(*transfer(2), config=machine(cores=2)) == 1 + 12 + 4  # sent at 0, 1; received at 12, 13


def test_a_full_fifo_holds_the_sender() -> None:
    config = machine(cores=2, link_fifo_rows=2)
    # sent 0, 1; received 12, 13; their places can be filled at 13 and 14; received 25, 26
    assert total(*transfer(2), *transfer(2), config=config) == 26 + 4
    # three places: the third row goes at 2, the fourth at 13; received 14, 25
    assert total(*transfer(2), *transfer(2), config=machine(cores=2, link_fifo_rows=3)) == 25 + 4


def test_a_multicast_waits_for_every_fifo() -> None:
    config = machine(cores=3, link_fifo_rows=1)
    delay = [op("div", 2, dst=100, a=0, b=0)]  # core 2 receives into a row that is ready at 20: pops at 17
    code = [*delay, *transfer(1, 0, (1, 2)), *transfer(1, 0, (1,))]
    assert both(image(config, code)).total == 25 + 4  # core 1: pops at 12, sent at 13, received at 25
    assert total(*delay, *transfer(1, 0, (1, 2)), *transfer(1, 0, (1, 2)), config=config) == 18 + 12 + 4


def test_links_of_different_pairs_do_not_meet() -> None:
    # core 0 sends at 0 and, after its receive has issued at 1, at 2; core 1 sends at 1: received at 12, 14 and 13
    code = [*transfer(1, 0, (1,)), *transfer(1, 1, (0,)), *transfer(1, 0, (2,))]
    assert total(*code, config=machine(cores=3, link_fifo_rows=1)) == 14 + 4


def test_input_and_output() -> None:
    code = [op("input", dst=20, rows=2), op("add", dst=30, a=20, b=21), op("output", src=30)]
    program = image(ONE, code, inputs=[2], outputs=[1])
    near = both(program)
    # rows in at 0, 1 and ready at 8, 9; add at 9; out at 15
    assert (near.last_in, near.last_out, near.total, near.latency) == (1, 25, 25, 24)
    far = both(program, arrival=100)
    assert (far.last_in, far.last_out, far.latency) == (101, 125, 24)


def test_work_on_state_alone_hides_before_the_input() -> None:
    state_only = [op("div", dst=40, a=0, b=1), op("div", dst=41, a=40, b=1)]  # ready at 40
    code = [*state_only, op("input", dst=20), op("add", dst=30, a=20, b=41), op("output", src=30)]
    program = image(ONE, code, inputs=[1], outputs=[1])
    contiguous = both(program)
    assert contiguous.last_in == 2 + 0  # issued after the two divs: the second issues at 1
    assert contiguous.offered == 0  # a machine that is late to take the row pays for it
    assert contiguous.latency == 40 + 6 + 10
    spaced = both(program, contiguous.total)
    assert spaced.latency == 8 + 6 + 10


def trace_of(program: Image) -> list[Record]:
    """Every executed instruction."""
    return Clock.of(program).trace(0, 0, 10000)


@pytest.mark.parametrize(("depth", "moved"), [(1, 10 + 1), (2, 1 + 1), (8, 1 + 1)])
def test_a_unit_queues_what_is_issued_to_it(depth: int, moved: int) -> None:
    # the first add holds the vector unit in 0..9. The second issues at 10, or at 1 if the queue has a place for it;
    # the move issues one later, to a unit that is free.
    code = [op("add", dst=20, n_inner=10), op("add", dst=30, n_inner=10), op("move", dst=50)]
    report = both(image(machine(issue_queue=depth), code))
    trace = trace_of(image(machine(issue_queue=depth), code))
    assert [t.start for t in trace] == [
        0,
        10,
        moved,
    ]  # the second add starts when the first has left either way
    assert report.total == 10 + 9 + 6


def test_a_full_queue_holds_the_issue_back() -> None:
    # depth 2: the third add issues when the first has left, at 10, and the move after it
    code = [*(op("add", dst=20 + 10 * i, n_inner=10) for i in range(3)), op("move", dst=60)]
    trace = trace_of(image(machine(issue_queue=2), code))
    assert [t.issue for t in trace] == [0, 1, 10, 11]
