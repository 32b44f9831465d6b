"""Both walks of the clock on random programs, the figures of single instructions, the trace, and the refusals."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from programs_for_timing import LATENCY, Drawn, both, image, machine, op, programs, simulated, transfer

from ltc_compiler import isa
from ltc_compiler.bytecode import Image
from ltc_compiler.bytecode.cost import beats, busy, latency, slots_walked
from ltc_compiler.clock import Clock, Record
from ltc_compiler.errors import InputError, LtcError, ProgramError
from ltc_compiler.oracle import clock
from ltc_compiler.oracle.beats import Beat
from ltc_compiler.oracle.clock import estimate

ONE = machine()


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(drawn=programs())
def test_the_estimate_equals_the_simulator(drawn: Drawn) -> None:
    program = drawn.image()
    contiguous = both(program)
    spaced = both(program, contiguous.total)
    assert spaced.last_in >= contiguous.total
    assert (
        contiguous.total <= spaced.total <= 2 * contiguous.total
    )  # nothing is late by more than the input is
    assert spaced.busy == contiguous.busy


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(drawn=programs(), inferences=st.integers(2, 4))
def test_inferences_in_a_row_take_the_same_cycles_in_both_walks(drawn: Drawn, inferences: int) -> None:
    program = drawn.image()
    one, some = (simulated(program, inferences=n) for n in (1, inferences))
    assert some == estimate(program, inferences=inferences)
    assert some.instructions == inferences * one.instructions
    assert some.total >= one.total
    assert some.busy == tuple(tuple(inferences * cycles for cycles in units) for units in one.busy)


def test_inferences_in_a_row_are_a_loop_without_its_cost() -> None:
    """A program written out n times takes as long as n inferences of it."""
    code = [
        op("input", dst=20),
        op("add", dst=30, a=20, b=30),
        op("sigmoid", dst=31, a=30),
        op("output", src=31),
    ]
    once, thrice = (image(ONE, code * n, inputs=[1], outputs=[1]) for n in (1, 3))
    assert replace(simulated(once, inferences=3), instructions=0) == replace(
        simulated(thrice), instructions=0
    )


class Ports(clock._Walk):
    """A walk that also notes, of each cycle, the rows that a core reads and the results that land from a unit."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.read: Counter[tuple[int, int]] = Counter()
        self.landed: Counter[tuple[int, str, int]] = Counter()

    def _start(self, place: tuple[int, str], beat: Beat, earliest: int, until_written: int) -> int:
        start = super()._start(place, beat, earliest, until_written)
        self.read[place[0], start] += len(beat.reads)
        self.landed[(*place, start + until_written)] += bool(beat.writes)
        return start


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(drawn=programs())
def test_no_cycle_needs_more_ports_than_there_are(drawn: Drawn) -> None:
    program = drawn.image()
    walk = Ports(program, {0: 0})
    for instr, counters in clock._executed(program.code):
        walk.execute(instr, counters)
    assert max(walk.read.values()) <= drawn.config.read_ports
    assert max(walk.landed.values()) == 1


@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
@given(drawn=programs())
def test_busy_of_single_instructions_adds_up(drawn: Drawn) -> None:
    """What the scheduler reads of an instruction is what the walk counts, iteration by iteration."""
    program = drawn.image()
    iterations = [1]
    expected = [dict.fromkeys(isa.UNITS, 0) for _ in program.cores]
    for instr in program.code:
        if instr.name == "loop":
            iterations.append(iterations[-1] * instr.number("count"))
        elif instr.name == "end":
            iterations.pop()
        else:
            slots = None
            if instr.name == "synapse":
                core = program.cores[instr.core]
                slots = sum(slots_walked(core, instr.number("slots"), instr.number("targets")))
            cycles = busy(instr, program.config, slots)
            expected[instr.core][isa.BY_NAME[instr.name].unit] += cycles * iterations[-1]
    assert tuple(tuple(units.values()) for units in expected) == both(program).busy


def test_beats_wants_the_slots_of_a_synapse() -> None:
    synapse = op("synapse", num=100, den=110, v=0, v_rows=2)
    assert beats(synapse, ONE, 5) == 7
    with pytest.raises(ValueError, match="slots"):
        beats(synapse, ONE)
    with pytest.raises(ValueError, match="slots"):
        beats(op("add", dst=100, a=0, b=1), ONE, 5)


# ---- single instructions ----


_CLASSES = {
    "move": 4,
    "splat": 9,
    "add": 6,
    "sub": 6,
    "mul": 5,
    "div": 20,
    "sqrt": 19,
    "floor": 6,
    "round": 6,
    "fmod": 45 + 8,  # as the fp32 sequences of the activation unit, whatever the format of the result
} | dict.fromkeys(("min", "max", "gt", "ge", "lt", "le", "eq", "ne", "select", "neg", "abs", "relu"), 3)
_ELEMENTWISE = [i for i in isa.INSTRUCTIONS if i.format.pattern == "elementwise" and i.name != "state_write"]


@pytest.mark.parametrize("precision", isa.PRECISIONS)
@pytest.mark.parametrize("row", _ELEMENTWISE, ids=lambda row: row.name)
def test_latency_classes(row: isa.Instruction, precision: str) -> None:
    expected = _CLASSES.get(row.name, 7)
    if row.unit == "activation" and precision == "fp32":
        # a sequence holds its unit for 9 cycles a pass, which come on top but for one
        passes = {"gelu": 2, "erf": 2, "sin": 2, "cos": 2, "gelu_tanh": 3}.get(row.name, 1)
        expected = {"reciprocal": 20, "rsqrt": 35}.get(row.name, 45 + 9 * passes - 1)
    instr = op(row.name, **{a.field: 100 if a.write else 0 for a in row.format.accesses}, precision=precision)
    assert both(image(ONE, [instr])).total == latency(instr, ONE) == expected


def test_an_update_reads_its_sums_last() -> None:
    three = op("ltc_update", dst=100, v=0, num=10, den=20, leak=30, conductance=40, cm=50, h=60,
               **{f"{n}_step": 1 for n in ("dst", "v", "num", "den")}, n=3)  # fmt: skip
    walk = both(image(ONE, [three]))
    assert walk.total == 3 * 3 - 1 + LATENCY.update
    assert walk.busy[0][isa.UNITS.index("vector")] == busy(three, ONE) == 9
    late = both(image(ONE, [op("move", dst=60, a=1), three]))  # h is wanted at once
    assert late.total == LATENCY.move + walk.total
    hidden = both(image(ONE, [op("move", dst=10, a=1), three]))  # num two cycles later
    assert hidden.total == LATENCY.move - 2 + walk.total


# ---- the trace ----


def traced(
    program: Image, arrival: int = 0, limit: int = 10000
) -> list[tuple[int, int, int, int, int, str, int]]:
    """(index, core, issue, start, finish, stall, lost) of every executed instruction."""
    records = Clock.of(program).trace(0, arrival, limit)
    assert len(records) <= limit
    return [(r.index, r.core, r.issue, r.start, r.finish, r.stall, r.lost) for r in records]


def test_trace_names_what_an_instruction_waited_for() -> None:
    code = [
        op("input", dst=20),
        op("add", dst=30, a=20, b=0, n_inner=3),
        op("relu", dst=40, a=50),
        op("move", dst=20, a=51),
        op("matmul", dst=60, x=0, bias=10, k=17 * 8),
        op("output", src=30),
    ]
    program = image(machine(accumulate=9), code, inputs=[1], outputs=[1])
    assert traced(program, arrival=5) == [
        (0, 0, 0, 5, 13, "host", 5),
        (1, 0, 1, 13, 21, "operand", 12),  # beats 13, 14, 15
        (2, 0, 16, 19, 22, "unit", 14),  # could have issued at 2; at 16 to 18 its write port is the add's
        (3, 0, 17, 17, 21, "none", 0),
        (4, 0, 18, 18, 36 + 28, "accumulator", 2),  # 16 beats, then 18 + 18 in place of 34
        (5, 0, 19, 19, 29, "none", 0),
    ]
    assert traced(program, arrival=5, limit=2) == traced(program, arrival=5)[:2]
    assert traced(program, limit=0) == []


def test_trace_of_links_overwrites_and_loops() -> None:
    code = [op("loop", count=2), *transfer(1), op("end")]
    config = machine(cores=2, link_fifo_rows=1)
    assert traced(image(config, code)) == [
        (0, 0, 0, 0, 1, "none", 0),
        (0, 1, 0, 0, 1, "none", 0),
        (1, 0, 1, 1, 13, "none", 0),
        (2, 1, 1, 13, 17, "link", 12),
        (3, 0, 2, 2, 3, "none", 0),
        (3, 1, 2, 2, 3, "none", 0),
        (1, 0, 3, 14, 26, "link", 11),
        (2, 1, 14, 26, 30, "link", 12),  # its unit was free at 14, and it could have issued at 3
        (3, 0, 4, 4, 5, "none", 0),
        (3, 1, 15, 15, 16, "none", 0),
    ]
    overwrite = image(ONE, [op("div", dst=100, a=0, b=1), op("move", dst=100, a=2)])
    assert traced(overwrite)[1] == (1, 0, 1, 17, 21, "overwrite", 16)


def _outputs(program: Image, trace: list[Record]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = defaultdict(list)
    for record in trace:
        if program.code[record.index].name == "output":
            found[record.core].append(record.finish)
    return found


def _outputs_of_the_reference(program: Image) -> dict[int, list[int]]:
    walk = clock._Walk(program, {0: 0})
    last: dict[int, list[int]] = defaultdict(list)  # by core: the number of the last row of every output
    for instr, counters in clock._executed(program.code):
        walk.execute(instr, counters)
        if instr.name == "output":
            last[instr.core].append(walk._outside.host._put[instr.core] - 1)
    walk.end_inference(program.models[0])
    return {core: [walk._outside.host._left[core][n] for n in rows] for core, rows in last.items()}


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(drawn=programs())
def test_the_trace_agrees_with_the_reference_clock(drawn: Drawn) -> None:
    """Iterations, busy cycles and when the last row of an output is out, instruction by instruction."""
    program = drawn.image()
    trace = Clock.of(program).trace(0, 0, 1 << 20)
    assert _outputs(program, trace) == _outputs_of_the_reference(program)
    records = iter(trace)
    busy_cycles = [dict.fromkeys(isa.UNITS, 0) for _ in program.cores]
    for instr, counters in clock._executed(program.code):
        control = instr.core == isa.ALL_CORES
        for _ in program.cores if control else [instr]:
            record = next(records)
            assert program.code[record.index] is instr
            assert record.iterations == tuple(counters)
            assert record.issue <= record.begin <= record.start
            assert record.start + record.busy <= record.end <= record.finish
            busy_cycles[record.core][instr.row_of_table.unit] += record.busy
    assert next(records, None) is None
    assert tuple(tuple(units.values()) for units in busy_cycles) == both(program).busy


def test_trace_says_when_units_were_held_and_in_which_iteration() -> None:
    code = [
        op("loop", count=2),
        op("add", dst=20, n_inner=3),
        op("loop", count=2),
        op("tanh", dst=40, precision="fp32"),
        op("end"),
        op("end"),
        op("move", dst=60, a=40),
    ]
    config = machine(fp32_beats=3)
    inner = [((i, j), name) for i in range(2) for j in range(2) for name in ("tanh", "end")]
    expected = []
    for i in range(2):
        expected += [((i,), "add"), ((i,), "loop"), *(s for s in inner if s[0][0] == i), ((i,), "end")]
    found = Clock.of(image(config, code)).trace(0, 0, 100)
    assert [(r.iterations, code[r.index].name) for r in found] == [((), "loop"), *expected, ((), "move")]
    adds = [(r.issue, r.begin, r.start, r.end, r.busy) for r in found if code[r.index].name == "add"]
    assert adds == [(1, 1, 1, 4, 3), (9, 9, 9, 12, 3)]  # the ends issue at 7 and 8, behind the second tanh
    first, second, *_ = (r for r in found if code[r.index].name == "tanh")
    assert (first.issue, first.begin, first.start, first.end, first.busy) == (3, 3, 3, 6, 3)
    # the queue holds one instruction: the second issues when the unit is free
    assert (second.issue, second.begin, second.start, second.end, second.busy) == (6, 6, 6, 9, 3)


# ---- refusals ----


def refusals(kind: type[LtcError], match: str, *walks: Callable[[], object]) -> list[LtcError]:
    """Each walk must refuse, in the same words."""
    caught = []
    for walk in walks:
        with pytest.raises(kind, match=match) as error:
            walk()
        caught.append(error.value)
    assert len({(e.what, e.remedy) for e in caught}) == 1
    return caught


MOVE = op("move", dst=100, a=0)


def test_a_model_that_is_not_there_is_refused() -> None:
    program = image(ONE, [MOVE])
    caught = refusals(
        InputError, "no model 1", lambda: estimate(program, 1), lambda: simulated(program, model_index=1)
    )
    assert [e.where for e in caught] == ["model_index"] * 2


def test_an_arrival_out_of_range_is_refused() -> None:
    program = image(ONE, [MOVE])
    late = 1 << 62
    refusals(InputError, "arrival is 4", lambda: estimate(program, 0, late), lambda: simulated(program, late))
    refusals(InputError, "arrival is -1", lambda: estimate(program, 0, -1))
    assert both(program, late - 1).total == 4


def test_a_run_of_too_many_instructions_is_refused_before_it_starts() -> None:
    # 2**16 times 2**15 iterations of four instructions (the end is one) are 2**33, and the outer loop's come on top
    inner = [op("loop", count=1 << 15), MOVE, MOVE, MOVE, op("end")]
    program = image(ONE, [op("loop", count=1 << 16), *inner, op("end")])
    refusals(
        ProgramError,
        f"{2**33 + 2 * 2**16 + 1} instructions and {3 * 2**31} beats, more than {2**33}",
        lambda: estimate(program),
        lambda: simulated(program),
        lambda: traced(program),
    )


def test_a_run_of_too_many_beats_is_refused_before_it_starts() -> None:
    grid = {"n_outer": 1 << 16, "n_inner": 1 << 15, "dst_inner": 0, "a_inner": 0}
    program = image(ONE, [op("loop", count=5), op("move", dst=100, a=0, **grid), op("end")])
    refusals(ProgramError, f"{5 * 2**31} beats", lambda: estimate(program), lambda: simulated(program))
