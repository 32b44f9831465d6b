"""When output rows leave: as they come, the lower core first, out of stores of a size. By hand, in both clocks.

Latencies: div 20, move 4, io_out 10, and 3 more from a core that is not the first.
"""

from __future__ import annotations

import pytest
from programs_for_timing import both, image, machine, op, simulated

from ltc_compiler.bytecode import Image
from ltc_compiler.clock import Clock, Record
from ltc_compiler.oracle.clock import estimate

FAR = machine(cores=2)


def trace_of(program: Image) -> list[Record]:
    return Clock.of(program).trace(0, 0, 100)


def finishes(program: Image) -> list[int]:
    return [t.finish for t in trace_of(program) if program.code[t.index].name == "output"]


def test_output_rows_leave_as_they_come_the_lower_core_first() -> None:
    # core 0 has rows moved at 4, 5 and 6, there at 14, 15 and 16; core 1 has its there at 13, 14 and 15
    late = [op("move", dst=30, n_inner=3), op("output", src=30, rows=3)]
    early = op("output", core=1, src=0, rows=3, port=1)
    for code, expected in (([*late, early], [16, 18]), ([early, *late], [18, 16])):
        program = image(FAR, code, outputs=[3, 3])
        assert both(program).last_out == 18
        assert finishes(program) == expected  # core 1 at 13; core 0 at 14, 15, 16; core 1 at 17, 18


def test_output_rows_do_not_wait_for_what_the_program_puts_out_before_them() -> None:
    code = [op("div", dst=30), op("output", src=30), op("output", core=1, src=0, rows=3, port=1)]
    program = image(FAR, code, outputs=[1, 3])
    assert both(program).last_out == 20 + 10
    assert finishes(program) == [30, 15]


def test_a_trace_of_few_instructions_knows_what_leaves_behind_them() -> None:
    code = [op("output", core=1, src=0, rows=3, port=1), op("move", dst=30), op("output", src=30)]
    whole = trace_of(image(FAR, code, outputs=[1, 3]))  # there at 13, 14, 15, and at 14
    assert [t.finish for t in whole] == [16, 4, 14]
    assert Clock.of(image(FAR, code, outputs=[1, 3])).trace(0, 0, 1) == whole[:1]


@pytest.mark.parametrize(("places", "expected"), [(2, [11, 31, 51]), (4, [11, 13, 31]), (6, [11, 13, 15])])
def test_a_full_output_store_holds_its_core_back(places: int, expected: list[int]) -> None:
    # a place is free 10 cycles after its row has left, as long as a row is on its way
    program = image(machine(output_rows=places), [op("output", src=0, rows=2)], outputs=[2])
    for n, last_out in enumerate(expected, start=1):
        report = simulated(program, inferences=n)
        assert report.last_out == last_out
        assert report == estimate(program, inferences=n)


def test_rows_of_several_inferences_share_the_port() -> None:
    # core 0 has a row there in every cycle from 10 on, core 1 from 13 on
    program = image(FAR, [op("output", core=c, src=0, port=c) for c in (0, 1)], outputs=[1, 1])
    for n, last_out in ((1, 13), (2, 14), (4, 17), (10, 29)):
        report = simulated(program, inferences=n)
        assert report.last_out == last_out
        assert report == estimate(program, inferences=n)
